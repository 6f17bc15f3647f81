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

    instructions!(_mm512_set1_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_fmadd_ps _mm512_fnmadd_ps
        _mm512_loadu_ps _mm512_storeu_ps);

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

    instructions!(_mm256_set1_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_fmadd_ps _mm256_fnmadd_ps
        _mm256_loadu_ps _mm256_storeu_ps);

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

    instructions!(_mm_set1_ps _mm_add_ps _mm_sub_ps _mm_mul_ps mul_add neg_mul_add _mm_loadu_ps _mm_storeu_ps);
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
