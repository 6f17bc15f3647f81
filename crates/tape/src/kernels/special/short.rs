//! Special functions of `f32` that vectorize: straight-line arithmetic without calls or branches, accurate to a few units
//! in the last place. Polynomials, from Chebyshev series
//! computed in 30 digits, are summed in `f64`.

use crate::kernels::math::{exp, ln, ln_1p};
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::f64::consts::PI;

/// A polynomial at `t`, written out, so that loops over it vectorize.
macro_rules! polynomial {
    ($t:ident; $c:expr) => { $c };
    ($t:ident; $c:expr, $($rest:expr),+ $(,)?) => { $c + $t * polynomial!($t; $($rest),+) };
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

/// The standard normal distribution function.
#[inline(always)]
pub(crate) fn ndtr(x: f32) -> f32 {
    let size = x.abs();
    let bounded = if size > 20.0 { 20.0 } else { size };
    let tail = 0.5 * erfcx_positive(bounded * FRAC_1_SQRT_2) * exp_square(bounded, -2.0);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// The logarithm of the standard normal distribution function.
#[inline(always)]
pub(crate) fn log_ndtr(x: f32) -> f32 {
    let below = ln(0.5 * erfcx_positive(x.abs() * FRAC_1_SQRT_2)) - 0.5 * x * x;
    if x < 0.0 { if x == f32::NEG_INFINITY { x } else { below } } else { ln_1p(-ndtr(-x)) }
}

/// The inverse of the error function where it is not small, from `1 - y^2`.
#[inline(always)]
fn erfinv_far(rest: f32) -> f32 {
    let s = f64::from(-ln(rest)).sqrt();
    (s * erfinv_far_series((s - 5.43) / 4.77)) as f32
}

/// The inverse of the error function.
#[inline(always)]
pub(crate) fn erfinv(y: f32) -> f32 {
    let wide = f64::from(y);
    let near = wide * erfinv_near(wide * wide / 0.18 - 1.0);
    let size = y.abs();
    let far = erfinv_far((1.0 - size) * (1.0 + size)).copysign(y);
    inverse_ends(choose(size <= 0.6, near as f32, far), y)
}

/// The inverse of the standard normal distribution function.
#[inline(always)]
pub(crate) fn ndtri(p: f32) -> f32 {
    let wide = 2.0 * f64::from(p) - 1.0;
    let y = wide as f32;
    let near = wide * erfinv_near(wide * wide / 0.18 - 1.0);
    // Scaled, so that small numbers keep their digits.
    let far = erfinv_far(4.0 * p * (1.0 - p)).copysign(y);
    let inside = SQRT_2 * choose(y.abs() <= 0.6, near as f32, far);
    let inner = if p > 0.0 && p < 1.0 { 0.0 } else { f32::NAN };
    inverse_ends(inside, if p == 0.0 || p == 1.0 { y } else { inner })
}

/// An inverse at the ends -1 and 1 of its domain, and beyond them.
#[inline(always)]
fn inverse_ends(inside: f32, y: f32) -> f32 {
    let x = if y.abs() == 1.0 { f32::INFINITY.copysign(y) } else { inside };
    if y.abs() <= 1.0 { x } else { f32::NAN }
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

/// `erfinv(y) / y` for `y^2` in [0, 0.36], in `y^2 / 0.18 - 1`.
#[inline(always)]
fn erfinv_near(t: f64) -> f64 {
    polynomial!(t; 0.9327066648350941, 0.05187470263990078, 0.006181854404241922, 0.000914819535983185, 0.00014990304841860217, 2.6118115498265435e-05, 5.106845418089103e-06, 9.647132761406157e-07)
}

/// `erfinv(y) / s` for `s = sqrt(-ln(1 - y^2))` in [0.66, 10.2], in `(s - 5.43) / 4.77`.
#[inline(always)]
fn erfinv_far_series(t: f64) -> f64 {
    polynomial!(t; 0.9731667039891616, 0.03242859972987509, -0.029935122317564327, 0.024069645357056108, -0.01691262872225555, 0.008129076995317586, -0.002745531592677758, 0.01880125984825242, -0.004603225159954294, -0.15001245260379534, 0.10210646549537679, 0.547155084190271, -0.404902345853658, -1.3811532704735836, 1.175997715183714, 1.9939448025555888, -1.9238921705316383, -1.6062963862765287, 1.7125169584493536, 0.6822127598350304, -0.7898682554266757, -0.11994394646468885, 0.14912738241329399)
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
        check("i0e", i0e, wide::i0e, 2.0, between(-20.0, 100.0));
        check("i1e", i1e, wide::i1e, 2.0, between(-20.0, 100.0));
        check("i0", i0, wide::i0, 8.0, between(-20.0, 88.0));
        check("i1", i1, wide::i1, 8.0, between(-20.0, 88.0));
        check("sinc", sinc, wide::sinc, 2.0, between(-5.3, 5.3));
        check("sinc_slope", sinc_slope, wide::sinc_slope, 64.0, between(-3.3, 3.3));
    }
}
