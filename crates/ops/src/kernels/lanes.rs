//! Vectors of `f32`: a kernel is written once over [`Lanes`] and compiled for each instruction set.
//!
//! A kernel is a struct that implements [`Kernel`]; [`run_at`] calls it with the vector type of a
//! [`SimdLevel`], inside a function that has the instruction set enabled. All that a kernel calls must be
//! `#[inline(always)]`, or go through [`Lanes::call`] again, which is a real call that keeps the instruction set.

use tape::kernels::simd::SimdLevel;

/// Code that runs on vectors of any width.
pub(crate) trait Kernel {
    /// What the kernel returns.
    type Output;

    /// Does the work with vectors of type `L`. Implementations are `#[inline(always)]`.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Runs a kernel with the vectors of an instruction set, which the machine must have.
#[inline]
pub(crate) fn run_at<K: Kernel>(level: SimdLevel, kernel: K) -> K::Output {
    match level {
        // SAFETY: a level above Portable comes from simd_level() or was found at most as high as it.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 => unsafe { <x86::Avx512 as Lanes>::call(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => unsafe { <x86::Avx2 as Lanes>::call(kernel) },
        // SAFETY: portable vectors need nothing of the machine.
        _ => unsafe { <Portable as Lanes>::call(kernel) },
    }
}

/// Lanes of the widest vector, and floats in a cache line: kernels leave room for whole vectors of any set.
pub(crate) const LANES: usize = 16;

/// A vector of `N` lanes of `f32`.
///
/// # Safety
/// Values of a vector type are made and used only inside [`Lanes::call`] of that type: its arithmetic is safe
/// to call because the machine is known there to have the instructions.
pub(crate) unsafe trait Lanes: Copy {
    /// Number of lanes; divides 16.
    const N: usize;
    /// Rows of the largest register tile of products, two vectors wide, that fits the registers.
    const ROWS: usize;

    /// Calls a kernel inside a function compiled for this instruction set.
    ///
    /// # Safety
    /// The machine must have the instruction set.
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output;

    /// All lanes equal.
    fn splat(x: f32) -> Self;
    /// `self + b`.
    fn add(self, b: Self) -> Self;
    /// `self - b`.
    fn sub(self, b: Self) -> Self;
    /// `self * b`.
    fn mul(self, b: Self) -> Self;
    /// `self * b + c`, with one rounding where the machine can.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `c - self * b`, with one rounding where the machine can.
    fn neg_mul_add(self, b: Self, c: Self) -> Self;

    /// Reads `N` values.
    ///
    /// # Safety
    /// `p` points to `N` readable values.
    unsafe fn load(p: *const f32) -> Self;
    /// Writes `N` values.
    ///
    /// # Safety
    /// `p` points to `N` writable values.
    unsafe fn store(self, p: *mut f32);

    /// Reads `n <= N` values; the other lanes are zero.
    ///
    /// # Safety
    /// `p` points to `n` readable values.
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        let mut lanes = [0.0f32; 16];
        // SAFETY: the caller promises n values, and n <= N <= 16.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load(lanes.as_ptr())
        }
    }

    /// Writes the first `n <= N` lanes.
    ///
    /// # Safety
    /// `p` points to `n` writable values.
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        let mut lanes = [0.0f32; 16];
        // SAFETY: the caller promises room for n values, and n <= N <= 16.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
}

/// Repeats a block for each index below a constant of at most 2, 9 or 13, written out: the compiler does not always
/// unroll such loops by itself, and then keeps in memory what belongs in registers.
macro_rules! unroll {
    ($i:ident of 2 < $n:expr, $body:block) => { unroll!(@ $i, $n, $body, 0 1) };
    ($i:ident of 9 < $n:expr, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8) };
    ($i:ident of 13 < $n:expr, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12) };
    (@ $i:ident, $n:expr, $body:block, $($index:literal)*) => {
        $({
            let $i: usize = $index;
            if $i < $n $body
        })*
    };
}
pub(crate) use unroll;

/// Asks for a cache line that will be read soon. Any address will do.
#[inline(always)]
pub(crate) fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for a cache line that will be written soon. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_write(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing and never faults. (The intrinsic asks for reading only, without a
    // feature that cannot be enabled.)
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) p, options(nostack, readonly, preserves_flags))
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// An array of four lanes, written out: `array::from_fn` is a call where the compiler has one look only.
macro_rules! lanes {
    ($i:ident => $lane:expr) => {
        [
            {
                let $i = 0usize;
                $lane
            },
            {
                let $i = 1usize;
                $lane
            },
            {
                let $i = 2usize;
                $lane
            },
            {
                let $i = 3usize;
                $lane
            },
        ]
    };
}
pub(crate) use lanes;

#[cfg(not(target_arch = "x86_64"))]
use Plain as Portable;
/// Four lanes: one register of the baseline instruction set.
#[cfg(target_arch = "x86_64")]
use x86::Sse as Portable;

/// Four lanes in plain Rust.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plain([f32; 4]);

// SAFETY: needs nothing of the machine.
#[cfg(any(test, not(target_arch = "x86_64")))]
unsafe impl Lanes for Plain {
    const N: usize = 4;
    const ROWS: usize = 6;

    #[inline(never)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Plain([x; 4])
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Plain(lanes!(i => self.0[i] + b.0[i]))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Plain(lanes!(i => self.0[i] - b.0[i]))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Plain(lanes!(i => self.0[i] * b.0[i]))
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        self.mul(b).add(c)
    }
    #[inline(always)]
    fn neg_mul_add(self, b: Self, c: Self) -> Self {
        c.sub(self.mul(b))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises four readable values.
        Plain(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises four writable values.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Lanes};
    use std::arch::x86_64::*;

    /// Sixteen lanes: one AVX-512 register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    /// Eight lanes: one AVX2 register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    /// Four lanes: SSE, which every x86-64 machine has. Written so that the compiler has one instruction to
    /// look at, not four numbers.
    #[derive(Clone, Copy)]
    pub(crate) struct Sse(__m128);

    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
    #[inline(never)]
    fn with_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline(never)]
    fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    /// The methods that are one instruction each.
    macro_rules! arithmetic {
        ($splat:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident, $fnma:ident, $load:ident, $store:ident) => {
            #[inline(always)]
            fn splat(x: f32) -> Self {
                // SAFETY: used only inside `call`, where the instructions exist.
                Self(unsafe { $splat(x) })
            }
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                // SAFETY: as in splat.
                Self(unsafe { $add(self.0, b.0) })
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                // SAFETY: as in splat.
                Self(unsafe { $sub(self.0, b.0) })
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                // SAFETY: as in splat.
                Self(unsafe { $mul(self.0, b.0) })
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: as in splat.
                Self(unsafe { $fma(self.0, b.0, c.0) })
            }
            #[inline(always)]
            fn neg_mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: as in splat.
                Self(unsafe { $fnma(self.0, b.0, c.0) })
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Self {
                // SAFETY: the caller promises N readable values; no alignment is needed.
                Self(unsafe { $load(p) })
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32) {
                // SAFETY: the caller promises N writable values; no alignment is needed.
                unsafe { $store(p, self.0) }
            }
        };
    }

    /// `a * b + c` in two roundings.
    #[inline(always)]
    unsafe fn mul_then_add(a: __m128, b: __m128, c: __m128) -> __m128 {
        // SAFETY: SSE is there on every x86-64 machine.
        unsafe { _mm_add_ps(_mm_mul_ps(a, b), c) }
    }

    /// `c - a * b` in two roundings.
    #[inline(always)]
    unsafe fn mul_then_sub(a: __m128, b: __m128, c: __m128) -> __m128 {
        // SAFETY: SSE is there on every x86-64 machine.
        unsafe { _mm_sub_ps(c, _mm_mul_ps(a, b)) }
    }

    // SAFETY: needs nothing that an x86-64 machine could lack.
    unsafe impl Lanes for Sse {
        const N: usize = 4;
        const ROWS: usize = 6;

        #[inline(never)]
        unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
            kernel.run::<Self>()
        }

        arithmetic!(
            _mm_set1_ps,
            _mm_add_ps,
            _mm_sub_ps,
            _mm_mul_ps,
            mul_then_add,
            mul_then_sub,
            _mm_loadu_ps,
            _mm_storeu_ps
        );
    }

    // SAFETY: `call` enables the instructions that the methods use.
    unsafe impl Lanes for Avx512 {
        const N: usize = 16;
        const ROWS: usize = 13;

        #[inline(always)]
        unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller promises AVX-512.
            unsafe { with_avx512(kernel) }
        }

        arithmetic!(
            _mm512_set1_ps,
            _mm512_add_ps,
            _mm512_sub_ps,
            _mm512_mul_ps,
            _mm512_fmadd_ps,
            _mm512_fnmadd_ps,
            _mm512_loadu_ps,
            _mm512_storeu_ps
        );

        #[inline(always)]
        unsafe fn load_part(p: *const f32, n: usize) -> Self {
            // SAFETY: the mask keeps the read to the n values that the caller promises.
            Self(unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as __mmask16, p) })
        }

        #[inline(always)]
        unsafe fn store_part(self, p: *mut f32, n: usize) {
            // SAFETY: the mask keeps the write to the n values that the caller promises.
            unsafe { _mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as __mmask16, self.0) }
        }
    }

    // SAFETY: `call` enables the instructions that the methods use.
    unsafe impl Lanes for Avx2 {
        const N: usize = 8;
        const ROWS: usize = 6;

        #[inline(always)]
        unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller promises AVX2 and FMA.
            unsafe { with_avx2(kernel) }
        }

        arithmetic!(
            _mm256_set1_ps,
            _mm256_add_ps,
            _mm256_sub_ps,
            _mm256_mul_ps,
            _mm256_fmadd_ps,
            _mm256_fnmadd_ps,
            _mm256_loadu_ps,
            _mm256_storeu_ps
        );
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Every method on the same numbers, as lanes of four.
    struct Methods;

    impl Kernel for Methods {
        type Output = Vec<[u32; 4]>;

        #[inline(always)]
        fn run<L: Lanes>(self) -> Self::Output {
            let numbers =
                [1.5f32, f32::NAN, -0.1, 3e38, -0.0, 7.0, 1e-40, f32::INFINITY, 0.3, -2.0, 0.7, 11.0];
            // SAFETY: all addresses are inside the array; a vector has four lanes.
            unsafe {
                let p = numbers.as_ptr();
                let (a, b, c) = (L::load(p), L::load(p.add(4)), L::load(p.add(8)));
                let values = [
                    a.add(b),
                    a.sub(c),
                    b.mul(c),
                    a.mul_add(b, c),
                    c.neg_mul_add(c, b),
                    L::splat(2.5),
                    L::load_part(p.add(2), 3),
                ];
                values
                    .map(|v| {
                        let mut out = [f32::MAX; 4];
                        v.store(out.as_mut_ptr());
                        out.map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() })
                    })
                    .to_vec()
            }
        }
    }

    #[test]
    fn plain_lanes_agree_with_those_of_the_machine() {
        assert_eq!(Methods.run::<Plain>(), Methods.run::<Portable>());
    }
}
