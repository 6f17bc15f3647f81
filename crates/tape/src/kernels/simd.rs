//! Which vector instructions a kernel may use, decided once when the program runs.
//!
//! A kernel is written once, as an ordinary generic function, and compiled three times by
//! [`multiversion!`](crate::multiversion): for AVX-512, for AVX2 with FMA, and for the build's own
//! baseline. The environment variable `TAPEGRAD_SIMD=avx512|avx2|portable` lowers the choice.

use std::sync::OnceLock;

/// The instruction sets that kernels are compiled for, from the narrowest up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimdLevel {
    /// The baseline of the build: runs anywhere.
    Portable,
    /// AVX2 and FMA: 8 lanes of `f32`.
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL: 16 lanes of `f32`.
    Avx512,
}

/// The instruction set in use: the best that the machine has, or the lower one that `TAPEGRAD_SIMD` names.
///
/// # Panics
/// If `TAPEGRAD_SIMD` is set to an unknown word, or to an instruction set that this machine lacks.
pub fn simd_level() -> SimdLevel {
    static LEVEL: OnceLock<SimdLevel> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let best = detect();
        let wanted = match std::env::var("TAPEGRAD_SIMD").as_deref() {
            Err(_) | Ok("") => best,
            Ok("portable") => SimdLevel::Portable,
            Ok("avx2") => SimdLevel::Avx2,
            Ok("avx512") => SimdLevel::Avx512,
            Ok(other) => panic!("TAPEGRAD_SIMD is {other:?}; it can be avx512, avx2 or portable"),
        };
        assert!(wanted <= best, "TAPEGRAD_SIMD asks for {wanted:?}, but this machine has only {best:?}");
        wanted
    })
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn detect() -> SimdLevel {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => SimdLevel::Avx512,
        (true, false) => SimdLevel::Avx2,
        _ => SimdLevel::Portable,
    }
}

// Miri knows no vector instructions: it checks the portable form.
#[cfg(any(not(target_arch = "x86_64"), miri))]
fn detect() -> SimdLevel {
    SimdLevel::Portable
}

/// Compiles a function for each [`SimdLevel`] and calls the one that fits the machine.
///
/// The body must be a plain function with named parameters; everything it calls should be inlined
/// (`#[inline(always)]`), since what is not inlined is compiled for the baseline only.
///
/// A kernel that is generic over the type of its elements begins with `vectors of T;`: then only the types of
/// neural networks get the three versions, and the others the baseline's, which halves what there is to compile.
///
/// ```
/// tape::multiversion! {
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
        $crate::multiversion! { @if (<$element as $crate::Element>::VECTORISED) $($function)* }
    };
    (@if ($vectorised:expr) $(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident : $bound:path),* $(,)?>)?
        ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $(where $($closure:ident : [$($fn_bound:tt)+]),* $(,)?)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$($($generic: $bound,)*)? $($($closure: $($fn_bound)+,)*)?>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$($($generic: $bound,)*)? $($($closure: $($fn_bound)+,)*)?>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512<$($($generic: $bound,)*)? $($($closure: $($fn_bound)+,)*)?>($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2<$($($generic: $bound,)*)? $($($closure: $($fn_bound)+,)*)?>($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            // A branch on a constant: what it rules out is not compiled.
            if $vectorised {
                match $crate::kernels::simd::simd_level() {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: simd_level() answers Avx512 only where these features were detected.
                    $crate::kernels::simd::SimdLevel::Avx512 => unsafe { avx512($($arg),*) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: simd_level() answers Avx2 only where these features were detected.
                    $crate::kernels::simd::SimdLevel::Avx2 => unsafe { avx2($($arg),*) },
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
