//! Vectors of `f32` in three widths, behind one trait.

use crate::kernels::lanes::lanes;

/// A vector of `f32` and the few operations that the register tile needs.
///
/// # Safety
/// Every method may use the instruction set of its type, so it must be inlined into a function that
/// enables that set and runs only where it was detected. Loads and stores need valid addresses, but
/// no alignment.
#[allow(clippy::missing_safety_doc)]
pub(super) trait Lanes {
    type Vec: Copy;
    type Mask: Copy;
    const N: usize;

    unsafe fn zero() -> Self::Vec;
    unsafe fn splat(x: f32) -> Self::Vec;
    /// The first `n` lanes, 1 to `N`.
    unsafe fn mask(n: usize) -> Self::Mask;
    unsafe fn load(p: *const f32) -> Self::Vec;
    /// Lanes outside the mask are zero and are not read.
    unsafe fn load_masked(p: *const f32, mask: Self::Mask) -> Self::Vec;
    unsafe fn store(p: *mut f32, x: Self::Vec);
    unsafe fn store_masked(p: *mut f32, mask: Self::Mask, x: Self::Vec);
    /// `a * b + c`; fused where the machine can.
    unsafe fn fma(a: Self::Vec, b: Self::Vec, c: Self::Vec) -> Self::Vec;
    unsafe fn add(a: Self::Vec, b: Self::Vec) -> Self::Vec;
    unsafe fn mul(a: Self::Vec, b: Self::Vec) -> Self::Vec;
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    pub(in super::super) struct Avx512;

    impl Lanes for Avx512 {
        type Vec = __m512;
        type Mask = __mmask16;
        const N: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn mask(n: usize) -> __mmask16 {
            (u32::MAX >> (32 - n)) as __mmask16
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_masked(p: *const f32, mask: __mmask16) -> __m512 {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_maskz_loadu_ps(mask, p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: __m512) {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_storeu_ps(p, x) }
        }
        #[inline(always)]
        unsafe fn store_masked(p: *mut f32, mask: __mmask16, x: __m512) {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_mask_storeu_ps(p, mask, x) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            // SAFETY: see `Lanes`.
            unsafe { _mm512_mul_ps(a, b) }
        }
    }

    pub(in super::super) struct Avx2;

    /// The eight lanes from `8 - n` on are a mask of the first `n`.
    static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    impl Lanes for Avx2 {
        type Vec = __m256;
        type Mask = __m256i;
        const N: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn mask(n: usize) -> __m256i {
            // SAFETY: n is at most 8, so the load ends inside the table.
            unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_masked(p: *const f32, mask: __m256i) -> __m256 {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_maskload_ps(p, mask) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: __m256) {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_storeu_ps(p, x) }
        }
        #[inline(always)]
        unsafe fn store_masked(p: *mut f32, mask: __m256i, x: __m256) {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_maskstore_ps(p, mask, x) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_mul_ps(a, b) }
        }
    }
}

/// Four lanes in plain Rust: the vector width that every 64-bit machine has.
pub(super) struct Portable;

impl Lanes for Portable {
    type Vec = [f32; 4];
    type Mask = usize;
    const N: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> [f32; 4] {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> usize {
        n
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        // SAFETY: see `Lanes`.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_masked(p: *const f32, mask: usize) -> [f32; 4] {
        if mask == 4 {
            // SAFETY: see `Lanes`.
            return unsafe { Self::load(p) };
        }
        // SAFETY: see `Lanes`.
        lanes!(i => if i < mask { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: [f32; 4]) {
        // SAFETY: see `Lanes`.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn store_masked(p: *mut f32, mask: usize, x: [f32; 4]) {
        if mask == 4 {
            // SAFETY: see `Lanes`.
            return unsafe { Self::store(p, x) };
        }
        for (i, x) in x.into_iter().enumerate().take(mask) {
            // SAFETY: see `Lanes`.
            unsafe { *p.add(i) = x };
        }
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        lanes!(i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes!(i => a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes!(i => a[i] * b[i])
    }
}
