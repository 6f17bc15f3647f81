//! Functions of `f32` with fused multiply-adds: those of [`math`](super::math) that loops spend their time in, for half of
//! its instructions. A function takes the constant `F`: whether the instructions are there, since a multiply-add without
//! them is a call. [`fused!`](crate::fused) passes it.

use super::math::{LN2_HIGH, LN2_LOW, ROUND, bounded, exponent_and_fraction, power_of_two, scaled};

/// Compiles a function for each instruction set, like [`multiversion!`](crate::multiversion), with a constant that is true
/// in those that have fused multiply-adds.
#[doc(hidden)]
#[macro_export]
macro_rules! fused {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<const $fused:ident>($($arg:ident : $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body<const $fused: bool>($($arg: $ty),*) $body
            $crate::with_avx512! {
                fn avx512($($arg: $ty),*) {
                    body::<true>($($arg),*)
                }
            }
            $crate::with_avx2! {
                fn avx2($($arg: $ty),*) {
                    body::<true>($($arg),*)
                }
            }
            match $crate::kernels::arch::instruction_set() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the CPU supports the instruction set in use.
                $crate::kernels::arch::InstructionSet::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::kernels::arch::InstructionSet::Avx2 => unsafe { avx2($($arg),*) },
                _ => body::<{ cfg!(target_arch = "aarch64") }>($($arg),*),
            }
        }
    };
}

/// `a * b + c`, with one rounding if `F`.
#[inline(always)]
fn mul_add<const F: bool>(a: f32, b: f32, c: f32) -> f32 {
    if F { a.mul_add(b, c) } else { a * b + c }
}

/// A polynomial, by its coefficients from the highest on.
macro_rules! polynomial {
    ($fused:ident, $t:expr; $first:expr $(, $c:expr)*) => {{
        let p = $first;
        $(let p = mul_add::<$fused>(p, $t, $c);)*
        p
    }};
}

/// `n` and `s` with `e^x = 2^n (1 + s)`, for `x` below 2^20 in magnitude.
#[inline(always)]
fn exp_parts<const F: bool>(x: f32) -> (i32, f32) {
    let shifted = mul_add::<F>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<F>(n, -LN2_LOW, mul_add::<F>(n, -LN2_HIGH, x));
    // The polynomial of degree 6 with the least relative error, 3e-9, for |r| <= ln 2 / 2.
    let p = polynomial!(F, r; 1.381_458e-3, 8.368_726e-3, 4.166_839e-2, 1.666_652_1e-1, 0.499_999_94);
    ((shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32), mul_add::<F>(p, r * r, r))
}

/// `e^x`
#[inline(always)]
pub fn exp<const F: bool>(x: f32) -> f32 {
    let (n, s) = exp_parts::<F>(bounded(x, -105.0, 89.0));
    scaled(s, n)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid<const F: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<F>(-x))
}

/// `e` and `ln(m)` with `x = m 2^e` and `m` in `[sqrt(1/2), sqrt(2))`, for normal positive numbers.
#[inline(always)]
fn ln_parts<const F: bool>(x: f32) -> (f32, f32) {
    let (e, f) = exponent_and_fraction(x);
    // f - f^2/2 + f^3 p.
    let p = polynomial!(F, f; 0.067_466_01, -0.116_756_41, 0.118_881_725, -0.124_055_915, 0.142_195_5, -0.166_679_97,
        0.200_021_2, -0.250_000_1, 0.333_333_13);
    (e, mul_add::<F>(f * f, mul_add::<F>(f, p, -0.5), f))
}

/// The natural logarithm.
#[inline(always)]
pub fn ln<const F: bool>(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let (e, ln) = ln_parts::<F>(if tiny { x * 33_554_432.0 } else { x });
    let e = if tiny { e - 25.0 } else { e };
    let y = mul_add::<F>(e, LN2_HIGH, mul_add::<F>(e, LN2_LOW, ln));
    // NaN stays.
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 { f32::NAN } else { y }
}

/// `ln(1 + x)`
#[inline(always)]
pub fn ln_1p<const F: bool>(x: f32) -> f32 {
    let u = 1.0 + x;
    // What the sum has rounded away.
    let lost = if x < 1.0 { x - (u - 1.0) } else { 1.0 - (u - x) };
    let (e, ln) = ln_parts::<F>(u);
    let y = mul_add::<F>(e, LN2_HIGH, mul_add::<F>(e, LN2_LOW, ln + lost / u));
    // Keeps the sign of zero.
    let y = if u == 1.0 { x } else { y };
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x == -1.0 { f32::NEG_INFINITY } else { y };
    if x < -1.0 { f32::NAN } else { y }
}

/// `ln(1 + e^x)`, of which numbers above 88 are too much.
#[inline(always)]
pub fn softplus<const F: bool>(x: f32) -> f32 {
    ln_1p::<F>(exp::<F>(x))
}

/// `ln(1 + e^x)` for `x` from minus infinity to zero.
#[inline(always)]
pub fn softplus_below<const F: bool>(x: f32) -> f32 {
    let (n, s) = exp_parts::<F>(if x < -87.0 { -87.0 } else { x });
    let t = (1.0 + s) * power_of_two(n);
    let u = 1.0 + t;
    let lost = t - (u - 1.0);
    let (e, ln) = ln_parts::<F>(u);
    let y = mul_add::<F>(e, std::f32::consts::LN_2, ln + lost / u);
    // What remains may be subnormal.
    if x < -87.0 { exp::<F>(x) } else { y }
}

/// The error function.
#[inline(always)]
pub fn erf<const F: bool>(x: f32) -> f32 {
    let a = x.abs();
    let a = if a > 3.95 { 3.95 } else { a };
    // The polynomial for -ln(erfc(a)) / a with the least relative error in erf(a), 4e-9.
    let q = polynomial!(F, a; -9.256_271e-6, 1.176_413_3e-4, -6.328_370_4e-4, 1.667_027_8e-3, -1.603_963_7e-4,
        -1.915_306_4e-2, 1.027_778_3e-1, 6.366_194e-1, std::f32::consts::FRAC_2_SQRT_PI);
    let (n, s) = exp_parts::<F>(-q * a);
    let power = power_of_two(n);
    (-mul_add::<F>(power, s, power - 1.0)).copysign(x)
}

macro_rules! rows {
    ($($(#[$meta:meta])* $name:ident = $f:ident;)*) => {$(crate::fused! {
        $(#[$meta])*
        pub(crate) fn $name<const F>(out: &mut [f32], x: &[f32]) {
            for (o, &x) in out.iter_mut().zip(x) {
                *o = $f::<F>(x);
            }
        }
    })*};
}
rows! {
    /// `torch.log`
    log_rows = ln;
    /// `torch.log1p`
    log1p_rows = ln_1p;
    /// `torch.erf`
    erf_rows = erf;
    /// `torch.sigmoid`
    sigmoid_rows = sigmoid;
}

crate::fused! {
    /// `torch.logaddexp`
    pub(crate) fn logaddexp<const F>(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
            let high = if a < b || b.is_nan() { b } else { a };
            let y = high + softplus_below::<F>(-(a - b).abs());
            *o = if a == b && a.is_infinite() { a } else { y };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares both forms with the `f64` function over many bit patterns; the error counts in units in the last place.
    fn check(name: &str, forms: [fn(f32) -> f32; 2], exact: fn(f64) -> f64, limit: f64) {
        let specials =
            [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE];
        let spread = (0..400_000u32).map(|i| f32::from_bits(i.wrapping_mul(10_737)));
        let near = (0..200_000).map(|i| (i as f32 - 100_000.0) * 1.1e-4);
        for x in specials.into_iter().chain(spread).chain(near) {
            for f in forms {
                let (got, want) = (f(x), exact(f64::from(x)));
                let rounded = want as f32;
                if got == rounded || (want.is_nan() && got.is_nan()) {
                    continue;
                }
                let edge = rounded.is_infinite() || got.is_infinite();
                let unit = f64::from(rounded.abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
                let error = (f64::from(got) - want).abs() / unit;
                let fits = if edge { want.abs() > 0.999_999 * f64::from(f32::MAX) } else { error <= limit };
                assert!(fits, "{name}({x:e}) = {got:e}, should be {want:e}: {error:.1} units off");
            }
        }
    }

    #[test]
    fn close_to_the_exact_functions_everywhere() {
        check("exp", [exp::<true>, exp::<false>], f64::exp, 1.5);
        // Below this the result is subnormal, or zero.
        let normal = |x: f32| if x < -87.0 { 0.0 } else { sigmoid::<true>(x) };
        let normal_plain = |x: f32| if x < -87.0 { 0.0 } else { sigmoid::<false>(x) };
        check(
            "sigmoid",
            [normal, normal_plain],
            |x| if x < -87.0 { 0.0 } else { 1.0 / (1.0 + (-x).exp()) },
            3.0,
        );
        check("ln", [ln::<true>, ln::<false>], f64::ln, 1.5);
        check("ln_1p", [ln_1p::<true>, ln_1p::<false>], f64::ln_1p, 2.0);
        check("erf", [erf::<true>, erf::<false>], libm::erf, 2.5);
        let below = |x: f32| softplus_below::<true>(-x.abs());
        let below_plain = |x: f32| softplus_below::<false>(-x.abs());
        check("softplus_below", [below, below_plain], |x| (-x.abs()).exp().ln_1p(), 2.5);
        let exact = |x: f64| if x > 88.0 { f64::INFINITY } else { x.exp().ln_1p() };
        let capped = |x: f32| if x > 88.0 { f32::INFINITY } else { softplus::<true>(x) };
        let capped_plain = |x: f32| if x > 88.0 { f32::INFINITY } else { softplus::<false>(x) };
        check("softplus", [capped, capped_plain], exact, 2.5);
        let zeros = [ln_1p::<true>, ln_1p::<false>, erf::<true>, erf::<false>].map(|f| f(-0.0));
        assert!(zeros.iter().all(|y| *y == 0.0 && y.is_sign_negative()));
    }

    #[test]
    fn sums_in_the_logarithm() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let list = [-inf, -200.0, -88.0, -1.5, -0.0, 0.0, 1e-30, 0.3, 2.0, 17.0, 90.0, 1e10, inf, nan];
        for a in list {
            let mut out = [0.0; 14];
            logaddexp(&mut out, &[a; 14], &list);
            for (got, b) in out.into_iter().zip(list) {
                let (x, y) = (f64::from(a), f64::from(b));
                let want =
                    if x == y && x.is_infinite() { x } else { x.max(y) + (-(x - y).abs()).exp().ln_1p() };
                let want = if a.is_nan() || b.is_nan() { f64::NAN } else { want };
                let near =
                    (f64::from(got) - want).abs() <= 2e-7 * want.abs().max(x.abs().max(y.abs()).min(1e3));
                assert!(
                    got == want as f32 || (got.is_nan() && want.is_nan()) || near,
                    "{a}, {b}: {got}, not {want}"
                );
            }
        }
    }
}
