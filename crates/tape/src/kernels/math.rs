//! Functions of `f32` that vectorize: straight-line arithmetic without calls or branches.
//!
//! The standard library's versions are calls, one element at a time; these are inlined into the loops of a kernel and
//! run in all its lanes. They are accurate to about two units in the last place, and correct at infinities, NaN, zeros
//! and subnormal numbers. `f64`, the type for checks, uses the standard functions.

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts; the high one has few bits, so that its product with a small integer is exact.
pub(super) const LN2_HIGH: f32 = 0.693_359_4;
pub(super) const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding and subtracting 1.5 * 2^23 rounds to an integer, which is then in the lowest bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// The nearest integer to a number below 2^22, as a float and as an integer.
#[inline(always)]
fn nearest(x: f32) -> (f32, i32) {
    let shifted = x + ROUND;
    (shifted - ROUND, (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// `2^n` for `-126 <= n <= 127`.
#[inline(always)]
pub(super) fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `e^r - 1` for `|r| <= 0.35`: the Taylor series, whose next term is below 2^-27 of the sum.
#[inline(always)]
fn exp_series(r: f32) -> f32 {
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    p * (r * r) + r
}

/// Keeps a number in a range; NaN stays.
#[inline(always)]
pub(super) fn bounded(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// `2^n (1 + s)` where `2^n` alone may be out of range.
#[inline(always)]
pub(super) fn scaled(s: f32, n: i32) -> f32 {
    let half = n >> 1;
    (1.0 + s) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `e^x`
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_sum(bounded(x, -105.0, 89.0), 0.0)
}

/// `e^(x + low)` for `x` in [-105, 89], where `low` is below 0.05: what a rounded `x` has lost.
#[inline(always)]
pub fn exp_sum(x: f32, low: f32) -> f32 {
    let (n, i) = nearest(x * LOG2_E);
    scaled(exp_series(((x - n * LN2_HIGH) - n * LN2_LOW) + low), i)
}

/// `2^x`
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let x = bounded(x, -151.0, 128.5);
    let (n, i) = nearest(x);
    scaled(exp_series((x - n) * std::f32::consts::LN_2), i)
}

/// `e^x - 1`
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let bounded = bounded(x, -20.0, 89.0);
    let (n, i) = nearest(bounded * LOG2_E);
    let s = exp_series((bounded - n * LN2_HIGH) - n * LN2_LOW);
    // 2^128 is out of range, so the sum is made at half its size.
    let half = power_of_two(i.wrapping_sub(1));
    let y = 2.0 * (half * s + (half - 0.5));
    // Keeps the sign of zero.
    if x == 0.0 { x } else { y }
}

/// The logarithm of a normal positive number: [`ln`] without the cases at the ends.
#[inline(always)]
pub fn ln_normal(x: f32) -> f32 {
    let (e, ln) = split_normal(x);
    e * LN2_HIGH + (ln + e * LN2_LOW)
}

/// Like [`split_normal`], for subnormal numbers, too.
#[inline(always)]
fn split_logarithm(x: f32) -> (f32, f32) {
    let tiny = x < f32::MIN_POSITIVE;
    let (e, ln) = split_normal(if tiny { x * 33_554_432.0 } else { x });
    (if tiny { e - 25.0 } else { e }, ln)
}

/// `e` and `m - 1` with `x = m 2^e` and `m` in `[sqrt(1/2), sqrt(2))`, for normal positive numbers.
#[inline(always)]
pub(super) fn exponent_and_fraction(normal: f32) -> (f32, f32) {
    // Moves the cut between two exponents to sqrt(1/2).
    let bits = normal.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(std::f32::consts::FRAC_1_SQRT_2.to_bits()));
    (((bits as i32) >> 23) as f32, m - 1.0)
}

/// `e` and the natural logarithm of `m`, of [`exponent_and_fraction`].
#[inline(always)]
fn split_normal(normal: f32) -> (f32, f32) {
    let (e, f) = exponent_and_fraction(normal);
    // With f = m - 1: f - f^2/2 + f^3 p, where the large terms are exact, and the polynomial has the least error.
    let p = 0.067_466_01;
    let p = p * f - 0.116_756_41;
    let p = p * f + 0.118_881_725;
    let p = p * f - 0.124_055_915;
    let p = p * f + 0.142_195_5;
    let p = p * f - 0.166_679_97;
    let p = p * f + 0.200_021_2;
    let p = p * f - 0.250_000_1;
    let p = p * f + 0.333_333_13;
    let square = f * f;
    let ln = f - (0.5 * square - square * f * p);
    (e, ln)
}

/// The logarithm's values at zero, below it, at infinity and NaN.
#[inline(always)]
fn logarithm_ends(x: f32, y: f32) -> f32 {
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// The natural logarithm.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let (e, ln) = split_logarithm(x);
    logarithm_ends(x, e * LN2_HIGH + (ln + e * LN2_LOW))
}

/// The base-2 logarithm; exact for powers of two.
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    let (e, ln) = split_logarithm(x);
    // log2(e) in two parts, the larger of which is one.
    logarithm_ends(x, e + (ln + ln * (std::f64::consts::LOG2_E - 1.0) as f32))
}

/// The base-10 logarithm.
#[inline(always)]
pub fn log10(x: f32) -> f32 {
    let (e, ln) = split_logarithm(x);
    // log10(2) in two parts, as ln 2 above.
    logarithm_ends(x, e * 0.301_025_4 + (ln * std::f32::consts::LOG10_E + e * 4.605_039e-6))
}

/// `ln(1 + x)`
#[inline(always)]
pub fn ln_1p(x: f32) -> f32 {
    let u = 1.0 + x;
    let rounded = u - 1.0;
    // What the sum has rounded away is put back as a factor: ln(u) x / (u - 1).
    let y = if rounded == 0.0 { x } else { ln(u) * (x / rounded) };
    if x == f32::INFINITY { x } else { y }
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let t = exp_m1(2.0 * bounded(x.abs(), 0.0, 10.0));
    (t / (t + 2.0)).copysign(x)
}

/// The error function.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    super::fused::erf::<false>(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with the `f64` function over many bit patterns; the error counts in units in the last place.
    fn check(name: &str, f: fn(f32) -> f32, exact: fn(f64) -> f64, limit: f64) {
        let specials =
            [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE];
        let spread = (0..400_000u32).map(|i| f32::from_bits(i.wrapping_mul(10_737)));
        let near = (0..200_000).map(|i| (i as f32 - 100_000.0) * 1.1e-3);
        for x in specials.into_iter().chain(spread).chain(near) {
            let (got, want) = (f(x), exact(f64::from(x)));
            if want.is_nan() || got.is_nan() {
                assert!(want.is_nan() && got.is_nan(), "{name}({x:e}) = {got:e}, should be {want:e}");
                continue;
            }
            let rounded = want as f32;
            if rounded.is_infinite() || got.is_infinite() {
                let edge = want.abs() > 0.999_999 * f64::from(f32::MAX);
                assert!(
                    edge && got.is_sign_positive() == (want > 0.0),
                    "{name}({x:e}) = {got:e}, should be {want:e}"
                );
                continue;
            }
            let unit = f64::from(rounded.abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
            let error = (f64::from(got) - want).abs() / unit;
            assert!(error <= limit, "{name}({x:e}) = {got:e}, should be {want:e}: {error:.1} units off");
        }
    }

    #[test]
    fn close_to_the_exact_functions_everywhere() {
        check("exp", exp, f64::exp, 1.5);
        check("exp2", exp2, f64::exp2, 1.5);
        check("exp_m1", exp_m1, f64::exp_m1, 2.5);
        check("ln", ln, f64::ln, 1.5);
        check("log2", log2, f64::log2, 2.5);
        check("log10", log10, f64::log10, 2.5);
        check("ln_1p", ln_1p, f64::ln_1p, 2.5);
        check("tanh", tanh, f64::tanh, 3.0);
        check("erf", erf, libm::erf, 3.0);
    }

    #[test]
    fn powers_of_two_are_exact() {
        for n in -149..=127 {
            let x = f64::exp2(f64::from(n)) as f32;
            assert_eq!((exp2(n as f32), log2(x)), (x, n as f32));
        }
        assert!(
            tanh(-0.0).is_sign_negative() && exp_m1(-0.0).is_sign_negative() && erf(-0.0).is_sign_negative()
        );
    }
}
