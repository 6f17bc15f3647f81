//! SSE, AVX2 and AVX-512.

use super::{Kernel, Vector, four_lanes, instructions};
use std::arch::x86_64::*;

/// Sixteen lanes: one of 32 registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// Eight lanes: one of 16 registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// Four lanes, which every x86-64 machine has: one of 16 registers.
#[derive(Clone, Copy)]
pub(crate) struct Sse(__m128);

/// Whether the CPU supports everything that [`with_avx512!`](crate::with_avx512) enables.
#[inline(always)]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("f16c")
        && has_avx2()
}

/// Whether the CPU supports everything that [`with_avx2!`](crate::with_avx2) enables.
#[inline(always)]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether the CPU has tiles of BF16, and the system lets this process use them, which it has to ask for.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn has_amx() -> bool {
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    // SAFETY: the call takes two numbers and only changes what this process may use.
    features & (BF16 | TILE) == BF16 | TILE
        && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) } == 0
}

crate::with_avx512! {
    #[inline(never)]
    fn call_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }
}

crate::with_avx2! {
    #[inline(never)]
    fn call_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }
}

// SAFETY: `call` enables the instructions that the methods use.
unsafe impl Vector for Avx512 {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller promises AVX-512.
        unsafe { call_avx512(kernel) }
    }

    instructions!(_mm512_set1_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps _mm512_fmadd_ps _mm512_fnmadd_ps
        _mm512_loadu_ps _mm512_storeu_ps);

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: as in splat. The instruction returns its second operand if one is NaN.
        Self(unsafe { _mm512_max_ps(b.0, self.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as in splat. The instruction returns its second operand if one is NaN.
        Self(unsafe { _mm512_min_ps(b.0, self.0) })
    }
    #[inline(always)]
    fn by_sign(self, negative: Self, positive: Self) -> Self {
        // SAFETY: as in splat.
        unsafe {
            let sign = _mm512_movepi32_mask(_mm512_castps_si512(self.0));
            Self(_mm512_mask_blend_ps(sign, positive.0, negative.0))
        }
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: as in splat.
        Self(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }

    #[inline(always)]
    fn mask(n: usize) -> __mmask16 {
        ((1u32 << n) - 1) as __mmask16
    }
    #[inline(always)]
    unsafe fn load_masked(p: *const f32, mask: __mmask16) -> Self {
        // SAFETY: the mask keeps the read to what the caller promises.
        Self(unsafe { _mm512_maskz_loadu_ps(mask, p) })
    }
    #[inline(always)]
    unsafe fn store_masked(self, p: *mut f32, mask: __mmask16) {
        // SAFETY: the mask keeps the write to what the caller promises.
        unsafe { _mm512_mask_storeu_ps(p, mask, self.0) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: AVX-512 is enabled.
        let halves = unsafe {
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            _mm256_add_ps(_mm512_castps512_ps256(self.0), high)
        };
        Avx2(halves).sum()
    }
}

/// The eight lanes from `8 - n` on are a mask of the first `n`.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

// SAFETY: `call` enables the instructions that the methods use.
unsafe impl Vector for Avx2 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    type Mask = __m256i;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller promises AVX2 and FMA.
        unsafe { call_avx2(kernel) }
    }

    instructions!(_mm256_set1_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps _mm256_fmadd_ps _mm256_fnmadd_ps
        _mm256_loadu_ps _mm256_storeu_ps);

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: as in splat. The instruction returns its second operand if one is NaN.
        Self(unsafe { _mm256_max_ps(b.0, self.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as in splat. The instruction returns its second operand if one is NaN.
        Self(unsafe { _mm256_min_ps(b.0, self.0) })
    }
    #[inline(always)]
    fn by_sign(self, negative: Self, positive: Self) -> Self {
        // SAFETY: as in splat.
        Self(unsafe { _mm256_blendv_ps(positive.0, negative.0, self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: as in splat. Half of the exponent at a time stays in range.
        unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            let half = _mm256_srai_epi32::<1>(n);
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let rest = _mm256_add_epi32(_mm256_sub_epi32(n, half), bias);
            let high = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(rest));
            Self(_mm256_mul_ps(_mm256_mul_ps(self.0, low), high))
        }
    }

    #[inline(always)]
    fn mask(n: usize) -> __m256i {
        debug_assert!(n <= 8);
        // SAFETY: n is at most 8, so the load ends inside the table.
        unsafe { _mm256_loadu_si256(MASKS.as_ptr().wrapping_add(8 - n).cast()) }
    }
    #[inline(always)]
    unsafe fn load_masked(p: *const f32, mask: __m256i) -> Self {
        // SAFETY: the mask keeps the read to what the caller promises.
        Self(unsafe { _mm256_maskload_ps(p, mask) })
    }
    #[inline(always)]
    unsafe fn store_masked(self, p: *mut f32, mask: __m256i) {
        // SAFETY: the mask keeps the write to what the caller promises.
        unsafe { _mm256_maskstore_ps(p, mask, self.0) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: AVX2 is enabled.
        unsafe {
            let fours = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let pairs = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
            _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
        }
    }
}

/// `a * b + c` in two roundings.
#[inline(always)]
unsafe fn mul_add(a: __m128, b: __m128, c: __m128) -> __m128 {
    // SAFETY: every x86-64 CPU has SSE.
    unsafe { _mm_add_ps(_mm_mul_ps(a, b), c) }
}

/// `c - a * b` in two roundings.
#[inline(always)]
unsafe fn neg_mul_add(a: __m128, b: __m128, c: __m128) -> __m128 {
    // SAFETY: every x86-64 CPU has SSE.
    unsafe { _mm_sub_ps(c, _mm_mul_ps(a, b)) }
}

// SAFETY: needs nothing beyond SSE, which every x86-64 CPU has.
unsafe impl Vector for Sse {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 6;

    #[inline(never)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }

    instructions!(_mm_set1_ps _mm_add_ps _mm_sub_ps _mm_mul_ps _mm_div_ps mul_add neg_mul_add _mm_loadu_ps _mm_storeu_ps);
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: as in splat. The instruction returns its second operand if one is NaN.
        Self(unsafe { _mm_max_ps(b.0, self.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as in splat. The instruction returns its second operand if one is NaN.
        Self(unsafe { _mm_min_ps(b.0, self.0) })
    }
    #[inline(always)]
    fn by_sign(self, negative: Self, positive: Self) -> Self {
        // SAFETY: as in splat.
        unsafe {
            let sign = _mm_castsi128_ps(_mm_srai_epi32::<31>(_mm_castps_si128(self.0)));
            Self(_mm_or_ps(_mm_and_ps(sign, negative.0), _mm_andnot_ps(sign, positive.0)))
        }
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: as in splat. Half of the exponent at a time stays in range.
        unsafe {
            let n = _mm_cvtps_epi32(n.0);
            let half = _mm_srai_epi32::<1>(n);
            let bias = _mm_set1_epi32(127);
            let low = _mm_castsi128_ps(_mm_slli_epi32::<23>(_mm_add_epi32(half, bias)));
            let rest = _mm_add_epi32(_mm_sub_epi32(n, half), bias);
            let high = _mm_castsi128_ps(_mm_slli_epi32::<23>(rest));
            Self(_mm_mul_ps(_mm_mul_ps(self.0, low), high))
        }
    }
    four_lanes!();
}

/// See [`super::prefetch`].
#[inline(always)]
pub(crate) fn prefetch(p: *const f32) {
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
}

/// See [`super::prefetch_write`].
#[inline(always)]
pub(crate) fn prefetch_write(p: *const f32) {
    // SAFETY: a prefetch changes nothing and never faults. (The intrinsic asks for reading only, without a
    // feature that cannot be enabled.)
    unsafe { std::arch::asm!("prefetchw [{}]", in(reg) p, options(nostack, readonly, preserves_flags)) }
}
