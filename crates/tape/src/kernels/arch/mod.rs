//! Vectors, and the instruction sets that kernels are compiled for.
//!
//! A kernel that handles vectors is written once over [`Vector`], as a struct that implements [`Kernel`], and [`run`]
//! calls it with the vectors of an [`InstructionSet`], inside a function that has the instructions enabled. A kernel
//! that leaves the vectors to the compiler is an ordinary function in [`multiversion!`](crate::multiversion). In both,
//! every function called must be `#[inline(always)]`: what is not inlined is compiled for the build's baseline.
//! ([`Vector::call`] is a real call that keeps the instructions enabled.)
//!
//! Each architecture has its own file.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(any(test, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64::Neon as Baseline;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use portable::Portable as Baseline;
#[cfg(target_arch = "x86_64")]
use x86_64::Sse as Baseline;

use std::sync::OnceLock;

/// Instructions that kernels are compiled for. Each is detected separately; none implies another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// The baseline of the build, which runs anywhere: four lanes, those of NEON on arm64 and of SSE on x86-64.
    Portable,
    /// AVX2 and FMA: eight lanes.
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL, FMA and F16C: sixteen lanes.
    Avx512,
}

impl InstructionSet {
    /// All of them, those with the widest vectors first.
    pub const ALL: [InstructionSet; 3] =
        [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Portable];

    /// Whether this machine has the instructions.
    pub fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            // Miri supports few vector instructions, so it checks the portable form.
            _ if cfg!(miri) => false,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => x86_64::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => x86_64::has_avx512(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

/// The instruction set in use: the widest that the CPU supports, or the one that the environment variable
/// `TAPEGRAD_SIMD=amx|avx512|avx2|portable` names.
///
/// # Panics
/// If `TAPEGRAD_SIMD` has an unknown value, or names an instruction set that this CPU lacks.
pub fn instruction_set() -> InstructionSet {
    in_use().0
}

/// Whether products use AMX: the CPU has it beside AVX-512, the system allows it, and `TAPEGRAD_SIMD` is `amx` or not set.
pub fn has_amx() -> bool {
    in_use().1
}

/// The vectors in use, and whether AMX is.
fn in_use() -> (InstructionSet, bool) {
    static IN_USE: OnceLock<(InstructionSet, bool)> = OnceLock::new();
    *IN_USE.get_or_init(|| {
        use InstructionSet::{Avx2, Avx512, Portable};
        let (set, amx) = match std::env::var("TAPEGRAD_SIMD").as_deref() {
            Err(_) | Ok("") => {
                let widest = InstructionSet::ALL.into_iter().find(|set| set.is_available());
                (widest.unwrap_or(Portable), amx_is_available())
            }
            Ok("portable") => (Portable, false),
            Ok("avx2") => (Avx2, false),
            Ok("avx512") => (Avx512, false),
            Ok("amx") => (Avx512, true),
            Ok(other) => panic!("TAPEGRAD_SIMD is {other:?}; it can be amx, avx512, avx2 or portable"),
        };
        assert!(set.is_available(), "TAPEGRAD_SIMD asks for {set:?}, which this machine lacks");
        assert!(!amx || amx_is_available(), "TAPEGRAD_SIMD asks for AMX, which this machine lacks");
        (set, amx)
    })
}

fn amx_is_available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    return x86_64::has_avx512() && x86_64::has_amx();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
    false
}

/// Code that runs on vectors of any width.
pub trait Kernel {
    /// What the kernel returns.
    type Output;

    /// Does the work with vectors of type `V`. Implementations are `#[inline(always)]`.
    fn run<V: Vector>(self) -> Self::Output;
}

/// Runs a kernel with the vectors of [`instruction_set`].
#[inline]
pub fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the CPU supports the instruction set in use.
    unsafe { call(instruction_set(), kernel) }
}

/// Runs a kernel with the vectors of an instruction set.
///
/// # Panics
/// If this machine lacks it.
#[inline]
pub fn run_with<K: Kernel>(set: InstructionSet, kernel: K) -> K::Output {
    assert!(set.is_available(), "this machine lacks {set:?}");
    // SAFETY: the CPU supports the instruction set.
    unsafe { call(set, kernel) }
}

/// # Safety
/// The machine must have the instruction set.
#[inline]
unsafe fn call<K: Kernel>(set: InstructionSet, kernel: K) -> K::Output {
    // SAFETY: by the caller's promise; the baseline needs no detection.
    unsafe {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => x86_64::Avx512::call(kernel),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => x86_64::Avx2::call(kernel),
            _ => Baseline::call(kernel),
        }
    }
}

/// Lanes of the widest vector, and `f32`s in a cache line: kernels leave room for whole vectors of any set.
pub const MAX_LANES: usize = 16;

/// A vector of `f32`.
///
/// # Safety
/// Values of a vector type are made and used only inside [`Vector::call`] of that type: its arithmetic is safe because
/// the CPU is known there to have the instructions.
pub unsafe trait Vector: Copy {
    /// Number of lanes; divides [`MAX_LANES`].
    const LANES: usize;
    /// Rows of the register tile of products, two vectors wide, that fits the registers: 6 or 12.
    const TILE_ROWS: usize;
    /// A mask of the first lanes of a vector.
    type Mask: Copy;

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
    /// `self * b + c`, with one rounding where the hardware can.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `c - self * b`, with one rounding where the hardware can.
    fn neg_mul_add(self, b: Self, c: Self) -> Self;
    /// `self / b`.
    fn div(self, b: Self) -> Self;
    /// The larger one of each lane; NaN in `self` stays.
    fn max(self, b: Self) -> Self;
    /// The smaller one of each lane; NaN in `self` stays.
    fn min(self, b: Self) -> Self;
    /// Lanes of `negative` where this vector's sign is set, else of `positive`.
    fn by_sign(self, negative: Self, positive: Self) -> Self;
    /// `self * 2^n` for integers `n` of at most 250 in magnitude.
    fn scale(self, n: Self) -> Self;
    /// A mask of the first `n` lanes, at most all.
    fn mask(n: usize) -> Self::Mask;

    /// Reads all lanes.
    ///
    /// # Safety
    /// `p` points to [`Vector::LANES`] readable values.
    unsafe fn load(p: *const f32) -> Self;
    /// Writes all lanes.
    ///
    /// # Safety
    /// `p` points to [`Vector::LANES`] writable values.
    unsafe fn store(self, p: *mut f32);
    /// Reads the lanes of the mask; the others are zero.
    ///
    /// # Safety
    /// `p` points to readable values for these lanes.
    unsafe fn load_masked(p: *const f32, mask: Self::Mask) -> Self;
    /// Writes the lanes of the mask.
    ///
    /// # Safety
    /// `p` points to writable values for these lanes.
    unsafe fn store_masked(self, p: *mut f32, mask: Self::Mask);

    /// The lanes, and zeros after them.
    #[inline(always)]
    fn lanes(self) -> [f32; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: a vector has at most so many lanes.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }
    /// The sum of the lanes, in a fixed order for each width.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut x = self.lanes();
        let mut width = Self::LANES / 2;
        while width > 0 {
            for i in 0..width {
                x[i] += x[i + width];
            }
            width /= 2;
        }
        x[0]
    }

    /// Reads `n` values; the other lanes are zero.
    ///
    /// # Safety
    /// `p` points to `n` readable values, at most [`Vector::LANES`].
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        // SAFETY: the mask keeps the read to what the caller promises.
        unsafe { Self::load_masked(p, Self::mask(n)) }
    }
    /// Writes the first `n` lanes.
    ///
    /// # Safety
    /// `p` points to `n` writable values, at most [`Vector::LANES`].
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        // SAFETY: the mask keeps the write to what the caller promises.
        unsafe { self.store_masked(p, Self::mask(n)) }
    }
}

/// The methods of [`Vector`] that are one instruction each.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! instructions {
    ($splat:ident $add:ident $sub:ident $mul:ident $div:ident $fma:ident $fnma:ident $load:ident $store:ident) => {
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
        fn div(self, b: Self) -> Self {
            // SAFETY: as in splat.
            Self(unsafe { $div(self.0, b.0) })
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
            // SAFETY: the caller promises readable values; no alignment is needed.
            Self(unsafe { $load(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller promises writable values; no alignment is needed.
            unsafe { $store(p, self.0) }
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use instructions;

/// The masks of four lanes, which are a count, with their loads and stores.
macro_rules! four_lanes {
    () => {
        type Mask = usize;

        #[inline(always)]
        fn mask(n: usize) -> usize {
            n
        }
        #[inline(always)]
        unsafe fn load_masked(p: *const f32, mask: usize) -> Self {
            if mask == 4 {
                // SAFETY: the caller promises four values.
                return unsafe { Self::load(p) };
            }
            let mut lanes = [0.0f32; 4];
            for i in 0..mask.min(3) {
                // SAFETY: the caller promises these values.
                lanes[i] = unsafe { *p.add(i) };
            }
            // SAFETY: there are four lanes.
            unsafe { Self::load(lanes.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store_masked(self, p: *mut f32, mask: usize) {
            if mask == 4 {
                // SAFETY: the caller promises four values.
                return unsafe { self.store(p) };
            }
            let mut lanes = [0.0f32; 4];
            // SAFETY: there are four lanes, and the caller promises these values.
            unsafe {
                self.store(lanes.as_mut_ptr());
                for i in 0..mask.min(3) {
                    *p.add(i) = lanes[i];
                }
            }
        }
    };
}
use four_lanes;

/// Prefetches a cache line for reading. Any address is allowed.
#[inline(always)]
pub fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    x86_64::prefetch(p);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Prefetches a cache line for writing. Any address is allowed.
#[inline(always)]
pub fn prefetch_write(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    x86_64::prefetch_write(p);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Repeats a block for each index below a constant of at most 2, 10 or 13, unrolled: the compiler does not always unroll
/// such loops, and then keeps in memory what belongs in registers.
#[doc(hidden)]
#[macro_export]
macro_rules! unroll {
    ($i:ident of 2 < $n:expr, $body:block) => { $crate::unroll!(@ $i, $n, $body, 0 1) };
    ($i:ident of 10 < $n:expr, $body:block) => { $crate::unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9) };
    ($i:ident of 13 < $n:expr, $body:block) => { $crate::unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12) };
    (@ $i:ident, $n:expr, $body:block, $($index:literal)*) => {
        $({
            let $i: usize = $index;
            if $i < $n $body
        })*
    };
}

/// Compiles a function for each [`InstructionSet`](crate::kernels::arch::InstructionSet) and calls the one that
/// [`instruction_set`](crate::kernels::arch::instruction_set) names.
///
/// The body must be a plain function with named parameters; everything it calls should be inlined
/// (`#[inline(always)]`), since what is not inlined is compiled for the baseline only.
///
/// A kernel that is generic over the type of its elements begins with `vectors of T;`: then only the types that neural
/// networks compute with are compiled for every instruction set, and the others for the baseline, which halves the code
/// to compile.
///
/// ```
/// tapegrad_tape::multiversion! {
///     /// Adds `b` to `a`, element by element.
///     pub fn add_assign(a: &mut [f32], b: &[f32]) {
///         for (a, b) in a.iter_mut().zip(b) {
///             *a += b;
///         }
///     }
/// }
/// let mut a = [1.0, 2.0];
/// add_assign(&mut a, &[3.0, 4.0]);
/// assert_eq!(a, [4.0, 6.0]);
/// ```
#[macro_export]
macro_rules! multiversion {
    (vectors of $element:ident; $($function:tt)*) => {
        $crate::multiversion! { @if (<$element as $crate::Element>::VECTORIZED) $($function)* }
    };
    (@if ($vectorized:expr) $(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident : $bound:path),* $(,)?>)?
        ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $(where $($closure:ident : [$($fn_bound:tt)+]),* $(,)?)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$($($generic: $bound,)*)? $($($closure: $($fn_bound)+,)*)?>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$($($generic: $bound,)*)? $($($closure: $($fn_bound)+,)*)?>($($arg: $ty),*) $(-> $ret)? $body
            $crate::with_avx512! {
                #[allow(clippy::too_many_arguments)]
                fn avx512<$($($generic: $bound,)*)? $($($closure: $($fn_bound)+,)*)?>($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
            }
            $crate::with_avx2! {
                #[allow(clippy::too_many_arguments)]
                fn avx2<$($($generic: $bound,)*)? $($($closure: $($fn_bound)+,)*)?>($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
            }
            // A branch on a constant: the other side is not compiled.
            if $vectorized {
                match $crate::kernels::arch::instruction_set() {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: the CPU supports the instruction set in use.
                    $crate::kernels::arch::InstructionSet::Avx512 => unsafe { avx512($($arg),*) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: as above.
                    $crate::kernels::arch::InstructionSet::Avx2 => unsafe { avx2($($arg),*) },
                    _ => body($($arg),*),
                }
            } else {
                body($($arg),*)
            }
        }
    };
    ($($function:tt)*) => {
        $crate::multiversion! { @if (true) $($function)* }
    };
}

/// A function with the instructions of `InstructionSet::Avx512` enabled, on the architecture that may have them.
#[doc(hidden)]
#[macro_export]
macro_rules! with_avx512 {
    ($($function:tt)*) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c")]
        $($function)*
    };
}

/// A function with the instructions of `InstructionSet::Avx2` enabled, on the architecture that may have them.
#[doc(hidden)]
#[macro_export]
macro_rules! with_avx2 {
    ($($function:tt)*) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        $($function)*
    };
}

#[cfg(test)]
mod tests;
