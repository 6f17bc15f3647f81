//! Special functions of `f32` that vectorize: straight-line arithmetic without calls or branches, accurate to a few units
//! in the last place. Polynomials of many terms, from Chebyshev series computed in 30 digits, are summed in `f64`; those of
//! [`erfinv`], [`ndtri`] and [`ndtr`], with the least relative error for ten coefficients, in `f32`: long sums in
//! `f64` took four times as long.

use crate::kernels::math::{exp, exp_sum, ln, ln_1p, ln_normal};
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::f64::consts::PI;

/// A polynomial at `t`, written out, so that loops over it vectorize.
macro_rules! polynomial {
    ($t:ident; $c:expr) => { $c };
    ($t:ident; $c:expr, $($rest:expr),+ $(,)?) => { $c + $t * polynomial!($t; $($rest),+) };
}

/// The first or the second of two polynomials at `t`, by pairs of coefficients, for half the arithmetic.
macro_rules! blended {
    ($first:ident, $t:ident; $a:expr, $b:expr) => { choose($first, $a, $b) };
    ($first:ident, $t:ident; $a:expr, $b:expr; $($rest:tt)+) => {
        choose($first, $a, $b) + $t * blended!($first, $t; $($rest)+)
    };
}

/// One of two values, both of which are computed: a branch would keep loops from vectorizing.
#[inline(always)]
fn choose(first: bool, a: f32, b: f32) -> f32 {
    let mask = 0u32.wrapping_sub(first.into());
    f32::from_bits((a.to_bits() & mask) | (b.to_bits() & !mask))
}

/// `e^(x^2 / scale)`, where the square is not rounded before it is exponentiated.
#[inline(always)]
fn exp_square(x: f32, scale: f32) -> f32 {
    // 12 bits, whose square is exact.
    let high = f32::from_bits(x.to_bits() & (!0 << 12));
    exp(high * high / scale) * exp((x - high) * (x + high) / scale)
}

/// `e^(x^2) erfc(x)` for `x` from 0 on.
#[inline(always)]
fn erfcx_positive(x: f32) -> f32 {
    // The quotient of two infinities would be NaN.
    let z = f64::from(if x > 1e30 { 1e30 } else { x });
    let y = (erfcx_series((z - 4.0) / (z + 4.0)) / (1.0 + 2.0 * z)) as f32;
    if x == f32::INFINITY { 0.0 } else { y }
}

/// `e^(x^2) erfc(x)`
#[inline(always)]
pub(crate) fn erfcx(x: f32) -> f32 {
    let size = x.abs();
    let y = erfcx_positive(size);
    // Far below zero `e^(x^2)` overflows; its parts must not be infinite.
    let square = exp_square(if size > 12.0 { 12.0 } else { size }, 1.0);
    if x < 0.0 { 2.0 * square - y } else { y }
}

/// The standard normal distribution function, within 4 units in the last place.
#[inline(always)]
pub(crate) fn ndtr(x: f32) -> f32 {
    let size = x.abs();
    // What lies beyond is zero.
    let size = if size > 14.6 { 14.6 } else { size };
    // 12 bits, whose square is exact.
    let high = f32::from_bits(size.to_bits() & (!0 << 12));
    let density = exp_sum(-0.5 * high * high, -0.5 * (size - high) * (size + high));
    let q = 1.0 / (size + 3.5);
    let tail = tail_series(q - 0.170_481_45) * q * density;
    // Exact in the middle.
    let tail = choose(x == 0.0, 0.5, tail);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// The logarithm of the standard normal distribution function.
#[inline(always)]
pub(crate) fn log_ndtr(x: f32) -> f32 {
    let below = ln(0.5 * erfcx_positive(x.abs() * FRAC_1_SQRT_2)) - 0.5 * x * x;
    if x < 0.0 { if x == f32::NEG_INFINITY { x } else { below } } else { ln_1p(-ndtr(-x)) }
}

/// `erfinv(y) / y`, from `-ln(1 - y^2)` up to 16.8, the logarithm for the largest `y` below 1 (the variable is that of Giles
/// 2012, "Approximating the erfinv function").
#[inline(always)]
fn erfinv_ratio(w: f32) -> f32 {
    let near = w < 5.0;
    let t = choose(near, w - 2.5, w.sqrt() - 3.0);
    blended!(near, t;
        1.501_409_4, 2.832_977; 0.246_640_28, 1.001_674_9; -0.004_177_387, 0.009_445_192;
        -0.001_252_741_9, -0.007_636_955_5; 0.000_218_344_44, 0.005_687_809; -4.963_347e-6, -0.003_598_987_6;
        -3.462_704_6e-6, 0.001_482_853_7; 4.661_704e-7, -5.376_322_2e-5; 2.323_263_5e-8, -0.000_307_746_96;
        -8.791_038e-9, 0.000_113_639_69)
}

/// [`erfinv_ratio`] from 16 to 104.
#[inline(always)]
fn erfinv_ratio_far(w: f32) -> f32 {
    let t = w.sqrt() - 6.0;
    polynomial!(t; 5.859_912, 1.009_605_2, -0.000_472_522_28, -4.313_125e-5, 2.129_778_5e-5, -5.199_148e-6,
        1.170_781e-6, -2.562_243_3e-7, 3.887_908e-8, -2.585_607e-9)
}

/// The inverse of the error function, within 3 units in the last place.
#[inline(always)]
pub(crate) fn erfinv(y: f32) -> f32 {
    inverse_ends(y * erfinv_ratio(-ln_normal((1.0 - y) * (1.0 + y))), y)
}

/// The inverse of the standard normal distribution function, within 4 units in the last place.
#[inline(always)]
pub(crate) fn ndtri(p: f32) -> f32 {
    let y = 2.0 * p - 1.0;
    // Not by `y`, so that small numbers keep their digits.
    let w = -ln(4.0 * p * (1.0 - p));
    let ratio = choose(w < 16.4, erfinv_ratio(w), erfinv_ratio_far(w));
    let inside = SQRT_2 * y * ratio;
    let inner = if p > 0.0 && p < 1.0 { 0.0 } else { f32::NAN };
    inverse_ends(inside, if p == 0.0 || p == 1.0 { y } else { inner })
}

/// An inverse at the ends -1 and 1 of its domain, and beyond them.
#[inline(always)]
fn inverse_ends(inside: f32, y: f32) -> f32 {
    let x = if y.abs() == 1.0 { f32::INFINITY.copysign(y) } else { inside };
    if y.abs() <= 1.0 { x } else { f32::NAN }
}

/// The derivative of digamma: terms of its series, the rest by the formula of Euler and Maclaurin, and below zero by
/// reflection. Within 4 units in the last place, but for numbers below zero that are near integers.
#[inline(always)]
pub(crate) fn trigamma(x: f32) -> f32 {
    let below = x < 0.0;
    let q = if below { 1.0 - x } else { x };
    let mut head = 0.0;
    for k in 0..6u8 {
        let inverse = 1.0 / (q + f32::from(k));
        head += inverse * inverse;
    }
    let z = 1.0 / (q + 6.0);
    let w = z * z;
    let tail = z + w * (0.5 + z * (1.0 / 6.0 - w * (1.0 / 30.0 - w * (1.0 / 42.0))));
    let sum = head + tail;
    // (pi / sin(pi x))^2, in which a pole is the square of a rounded multiple of pi, as in PyTorch.
    let [sine, _] = sin_cos_pi(x);
    let wide = f64::from(x);
    let rounded = f64::from(std::f32::consts::PI * x);
    let sine = if wide == wide.floor() { rounded - PI * wide } else { sine };
    let cosecant = (PI / sine) as f32;
    if below { cosecant * cosecant - sum } else { sum }
}

/// The natural logarithm of a number from 1 on.
#[inline(always)]
fn ln_wide(x: f64) -> f64 {
    const CUT: u64 = std::f64::consts::FRAC_1_SQRT_2.to_bits();
    let bits = x.to_bits().wrapping_sub(CUT);
    let e = f64::from((bits >> 52) as i32);
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff).wrapping_add(CUT));
    // The series of the inverse hyperbolic tangent.
    let s = (m - 1.0) / (m + 1.0);
    let w = s * s;
    let rest = polynomial!(w; 2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0, 2.0 / 13.0, 2.0 / 15.0,
        2.0 / 17.0, 2.0 / 19.0);
    e * std::f64::consts::LN_2 + (2.0 * s + s * w * rest)
}

/// The logarithmic derivative of the gamma function: six steps of its recurrence, in one quotient, then Stirling's series,
/// and below zero by reflection. In `f64`, so that digits are left next to the positive root; next to the others the error is
/// absolute.
#[inline(always)]
pub(crate) fn digamma(x: f32) -> f32 {
    let wide = f64::from(x);
    let below = x < 0.0;
    let q = if below { 1.0 - wide } else { wide };
    // The product q (q + 1) ... (q + 5), and its derivative.
    let [a, b, c] = [q * (q + 1.0), (q + 2.0) * (q + 3.0), (q + 4.0) * (q + 5.0)];
    let [da, db, dc] = [q + q + 1.0, q + q + 5.0, q + q + 9.0];
    let head = ((da * b + a * db) * c + a * b * dc) / (a * b * c);
    let z = q + 6.0;
    let inverse = 1.0 / z;
    let w = inverse * inverse;
    let series = polynomial!(w; 1.0 / 12.0, -1.0 / 120.0, 1.0 / 252.0, -1.0 / 240.0, 1.0 / 132.0, -691.0 / 32760.0,
        1.0 / 12.0);
    let above = (ln_wide(z) - 0.5 * inverse - w * series) - head;
    let [sine, cosine] = sin_cos_pi(x);
    let y = if below { above - PI * cosine / sine } else { above };
    let y = if below & (x == x.floor()) { f64::NAN } else { y };
    let y = if wide == f64::INFINITY { wide } else { y };
    (if wide == 0.0 { f64::INFINITY.copysign(-wide) } else { y }) as f32
}

/// The logarithm of the absolute value of the gamma function, by polynomials that have its zeros at 1 and 2 as factors, by
/// Stirling's series from 6.6 on, and below zero by reflection. Within 4 units in the last place for positive numbers; near
/// zeros below zero the error is absolute.
#[inline(always)]
pub(crate) fn lgamma(x: f32) -> f32 {
    let below = x < 0.0;
    let q = if below { 1.0 - x } else { x };
    let small = q < 1.0;
    let z = if small { q + 1.0 } else { q };
    let near = z < 2.4;
    let t = choose(near, z - 1.7, z - 4.5);
    let inner = blended!(near, t;
        0.456_227_15, 0.981_494_55; -0.124_081_11, 0.162_950_84; 0.047_513_977, -0.015_434_408;
        -0.020_918_252, 0.002_069_171_3; 0.009_943_411, -0.000_324_146_53; -0.004_938_061, 5.582_991_4e-5;
        0.002_359_968_6, -8.945_04e-6; -0.001_201_845_1, 1.411_419_7e-6; 0.001_008_763_3, -5.537_492e-7;
        -0.000_564_431_1, 1.335_395_9e-7);
    // The sum of one and a small number is rounded; these differences are not.
    let [from_one, from_two] = if small { [q, q - 1.0] } else { [q - 1.0, q - 2.0] };
    let inner = inner * from_two * choose(near, from_one, 1.0);
    let inverse = 1.0 / z;
    let w = inverse * inverse;
    let rest = inverse * (1.0 / 12.0 - w * (1.0 / 360.0 - w * (1.0 / 1260.0)));
    let outer = (z - 0.5) * (ln(z) - 1.0) + (0.418_938_53 + rest);
    let above = choose(z < 6.6, inner, outer);
    let [sine, _] = sin_cos_pi(x);
    let argument = choose(below, (sine.abs() / PI) as f32, choose(small, q, 1.0));
    let log = ln(argument);
    let y = if below { -log - above } else { (above - log) + 0.0 };
    let pole = (x <= 0.0) & (x == x.floor());
    if pole { f32::INFINITY } else { y }
}

macro_rules! bessel {
    ($scaled:ident, $plain:ident, $near:ident, $far:ident, $order:literal, |$x:ident, $size:ident, $series:ident| $inner:expr, $outer:expr) => {
        #[doc = concat!("`e^-|x|` times the modified Bessel function of order ", $order, ".")]
        #[inline(always)]
        pub(crate) fn $scaled($x: f32) -> f32 {
            let $size = f64::from($x.abs());
            let bounded = if $size < 8.0 { $size } else { 8.0 };
            let $series = $near(bounded / 4.0 - 1.0);
            let inner = $inner;
            // NaN stays.
            let far = if $size < 8.0 { 8.0 } else { $size };
            let $series = $far(16.0 / far - 1.0) / far.sqrt();
            (if $size < 8.0 { inner } else { $outer }) as f32
        }

        #[doc = concat!("The modified Bessel function of order ", $order, ".")]
        #[inline(always)]
        pub(crate) fn $plain(x: f32) -> f32 {
            let half = exp(0.5 * x.abs());
            let scaled = $scaled(x);
            let y = scaled * half * half;
            if x.abs() == f32::INFINITY { f32::INFINITY.copysign(scaled) } else { y }
        }
    };
}
bessel!(i0e, i0, i0_near, i0_far, "zero", |x, size, series| series, series);
bessel!(
    i1e,
    i1,
    i1_near,
    i1_far,
    "one",
    |x, size, series| f64::from(x) * series,
    series.copysign(f64::from(x))
);

/// The sine and the cosine of `pi x`.
#[inline(always)]
fn sin_cos_pi(x: f32) -> [f64; 2] {
    let wide = f64::from(x);
    let n = wide.round_ties_even();
    let r = wide - n;
    let t = 8.0 * r * r - 1.0;
    let odd = n * 0.5 != (n * 0.5).trunc();
    let sign = if odd { -1.0 } else { 1.0 };
    [sign * r * sin_pi_series(t), sign * cos_pi_series(t)]
}

/// `sin(pi x) / (pi x)`, 1 at zero.
#[inline(always)]
pub(crate) fn sinc(x: f32) -> f32 {
    let [sine, _] = sin_cos_pi(x);
    let y = (sine / (PI * f64::from(x))) as f32;
    if x == 0.0 { 1.0 } else { y }
}

/// The derivative of [`sinc`].
#[inline(always)]
pub(crate) fn sinc_slope(x: f32) -> f32 {
    let wide = f64::from(x);
    let [sine, cosine] = sin_cos_pi(x);
    let z = PI * wide;
    let outer = (cosine - sine / z) / wide;
    // The difference of nearly equal numbers, as a series.
    let w = z * z;
    let series = 1.0 - w / 10.0 * (1.0 - w / 28.0 * (1.0 - w / 54.0 * (1.0 - w / 88.0)));
    (if z.abs() < 0.5 { -PI * z / 3.0 * series } else { outer }) as f32
}

/// `(x + 3.5) e^(x^2 / 2) ndtr(-x)` for `x` in [0, 14.6], in `1 / (x + 3.5)`, less the middle of its range.
#[inline(always)]
fn tail_series(t: f32) -> f32 {
    polynomial!(t; 0.866_434_75, 4.907_145_5, 18.919_933, 43.444_218, 22.834_242, -161.961_27, -250.692_05, 821.936_7,
        1_321.490_2, -4_450.396_5)
}

/// `(1 + 2x) erfcx(x)` from 0 on, in `(x - 4) / (x + 4)`.
#[inline(always)]
fn erfcx_series(t: f64) -> f64 {
    polynomial!(t; 1.2329951174645082, -0.1396210870396717, 0.01537976635069221, 0.06809618883833345, -0.10104090528098171, 0.09374011149364898, -0.06631923208802594, 0.03714071094590129, -0.016229954322132277, 0.005081980558924884, -0.0007095904074900791, -0.0002483191793902869, 0.00011438317129913504)
}

/// `e^-x I0(x)` on [0, 8], in `x / 4 - 1`.
#[inline(always)]
fn i0_near(t: f64) -> f64 {
    polynomial!(t; 0.20700192113010857, -0.11300433639506777, 0.09451564719798698, -0.08904287536384435, 0.0873428051548701, -0.08497324395929251, 0.0792829727721399, -0.06946328880225135, 0.056727288301881666, -0.043317893014879816, 0.03036063713979472, -0.01885735483615598, 0.011554065598084008, -0.008018236782311292, 0.00416927365812649, -0.0007548949904818016, 0.0004126514603994719, -0.0008519843905445875, 0.0003486284152415698)
}

/// `sqrt(x) e^-x I0(x)` from 8 on, in `16 / x - 1`.
#[inline(always)]
fn i0_far(t: f64) -> f64 {
    polynomial!(t; 0.4021765128154459, 0.0033605557001411706, 0.00013615603206664187, 1.1112148285225725e-05, 1.639134871572742e-06, 3.6266703847907687e-07)
}

/// `e^-x I1(x) / x` on [0, 8], in `x / 4 - 1`.
#[inline(always)]
fn i1_near(t: f64) -> f64 {
    polynomial!(t; 0.0446877102267466, -0.061124339255198515, 0.06805754344630807, -0.06848253319811619, 0.06376889552873898, -0.05528131276199901, 0.04465943707923484, -0.033661282866740416, 0.02376264203564766, -0.015614300990375514, 0.009367400355918506, -0.005427421324892722, 0.0033614203727057907, -0.0016985943146705428, 0.00041144219378713535, -0.00020262658881413414, 0.0003074142170806935, -0.00012368279972890735)
}

/// `sqrt(x) e^-x I1(x)` from 8 on, in `16 / x - 1`.
#[inline(always)]
fn i1_far(t: f64) -> f64 {
    polynomial!(t; 0.389398455224274, -0.009749581370372525, -0.00021916808853475472, -1.500396546611406e-05, -2.009788990293045e-06, -4.210350155015814e-07)
}

/// `sin(pi x) / x` for `x^2` in [0, 1/4], in `8 x^2 - 1`.
#[inline(always)]
fn sin_pi_series(t: f64) -> f64 {
    polynomial!(t; 2.5343242627149434, -0.5697036132808202, 0.03645310463688462, -0.0010927001083357334, 1.8959389722587043e-05)
}

/// `cos(pi x)` for `x^2` in [0, 1/4], in `8 x^2 - 1`.
#[inline(always)]
fn cos_pi_series(t: f64) -> f64 {
    polynomial!(t; 0.4440158405455571, -0.49761340534224, 0.0559305240761359, -0.0023858501402774395, 5.363515895933472e-05, -7.445167343571124e-07)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::special as wide;

    /// Compares with the functions in double precision, to some units in the last place.
    fn check(
        name: &str,
        short: fn(f32) -> f32,
        wide: fn(f64) -> f64,
        units: f64,
        points: impl Iterator<Item = f32>,
    ) {
        for x in points {
            let (found, expected) = (f64::from(short(x)), wide(f64::from(x)));
            let rounded = expected as f32;
            if found == f64::from(rounded) || (found.is_nan() && expected.is_nan()) {
                continue;
            }
            let unit = (expected.abs() * f64::from(f32::EPSILON)).max(f64::from(f32::MIN_POSITIVE));
            let off = (found - expected).abs() / unit;
            assert!(off <= units, "{name}({x:e}) is {found:e}, not {expected:e}: off by {off:.1} units");
        }
    }

    fn between(low: f32, high: f32) -> impl Iterator<Item = f32> {
        let ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-30, 1.0, -1.0, 2.0, 0.5];
        (0..=4000).map(move |i| low + (high - low) * (i as f32 / 4000.0)).chain(ends)
    }

    #[test]
    fn the_same_as_in_double_precision() {
        check("erfcx", erfcx, wide::erfcx, 4.0, between(-9.5, 60.0));
        check("ndtr", ndtr, wide::ndtr, 6.0, between(-14.0, 8.0));
        check("log_ndtr", log_ndtr, wide::log_ndtr, 6.0, between(-100.0, 8.0));
        check("erfinv", erfinv, wide::erfinv, 4.0, between(-1.0, 1.0));
        check("ndtri", ndtri, wide::ndtri, 4.0, between(0.0, 1.0).chain((0..40).map(|i| 10f32.powi(-i))));
        check("lgamma", lgamma, libm::lgamma, 4.0, between(0.0, 30.0));
        check("lgamma", lgamma, libm::lgamma, 4.0, between(0.999, 1.001).chain(between(1.999, 2.001)));
        check(
            "digamma",
            digamma,
            wide::digamma,
            1.0,
            between(0.0, 40.0).chain((0..38).map(|i| 10f32.powi(i))),
        );
        check("digamma", digamma, wide::digamma, 1.0, between(1.46, 1.463).chain(between(1e-44, 1e-37)));
        let above = between(0.0, 40.0).filter(|&x| x != -1.0);
        check("trigamma", trigamma, |x| wide::polygamma(1, x), 4.0, above);
        check(
            "trigamma",
            trigamma,
            |x| wide::polygamma(1, x),
            16.0,
            (0..4000).map(|i| -0.0101 - i as f32 * 0.01),
        );
        check("i0e", i0e, wide::i0e, 2.0, between(-20.0, 100.0));
        check("i1e", i1e, wide::i1e, 2.0, between(-20.0, 100.0));
        check("i0", i0, wide::i0, 8.0, between(-20.0, 88.0));
        check("i1", i1, wide::i1, 8.0, between(-20.0, 88.0));
        check("sinc", sinc, wide::sinc, 2.0, between(-5.3, 5.3));
        check("sinc_slope", sinc_slope, wide::sinc_slope, 64.0, between(-3.3, 3.3));
    }

    #[test]
    fn digamma_below_zero() {
        for i in 0..4000 {
            let x = -0.0101 - i as f32 * 0.01;
            let (found, expected) = (f64::from(digamma(x)), wide::digamma(f64::from(x)));
            assert!((found - expected).abs() <= 2e-7 * (1.0 + expected.abs()), "{x}: {found} and {expected}");
        }
        assert_eq!(
            [0.0, -0.0, f32::INFINITY].map(digamma),
            [f32::NEG_INFINITY, f32::INFINITY, f32::INFINITY]
        );
        assert!([-1.0, -40.0, f32::NEG_INFINITY, f32::NAN].map(digamma).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn lgamma_below_zero() {
        for i in 0..4000 {
            let x = -0.0101 - i as f32 * 0.01;
            let (found, expected) = (f64::from(lgamma(x)), libm::lgamma(f64::from(x)));
            assert!((found - expected).abs() <= 2e-6 * (1.0 + expected.abs()), "{x}: {found} and {expected}");
        }
        assert_eq!([-1.0, -0.0, f32::NEG_INFINITY].map(lgamma), [f32::INFINITY; 3]);
        assert_eq!((lgamma(3e38), lgamma(1.0), lgamma(2.0)), (f32::INFINITY, 0.0, 0.0));
    }
}
