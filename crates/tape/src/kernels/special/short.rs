//! Special functions of `f32` that vectorize: straight-line arithmetic without calls or branches, accurate to a few units
//! in the last place. Series are summed in `f64`.

use crate::kernels::math::{exp, ln, ln_1p};
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::f64::consts::PI;

/// A Chebyshev series at `t` in [-1, 1], by Clenshaw's recurrence.
#[inline(always)]
fn chebyshev<const N: usize>(coefficients: &[f64; N], t: f64) -> f64 {
    let (mut a, mut b) = (0.0, 0.0);
    for k in (1..N).rev() {
        (a, b) = (coefficients[k] + 2.0 * t * a - b, a);
    }
    coefficients[0] + t * a - b
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
    let y = (chebyshev(&ERFCX, (z - 4.0) / (z + 4.0)) / (1.0 + 2.0 * z)) as f32;
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
    (s * chebyshev(&ERFINV_FAR, (s - 5.43) / 4.77)) as f32
}

/// The inverse of the error function.
#[inline(always)]
pub(crate) fn erfinv(y: f32) -> f32 {
    let wide = f64::from(y);
    let near = wide * chebyshev(&ERFINV_NEAR, wide * wide / 0.18 - 1.0);
    let size = y.abs();
    let far = erfinv_far((1.0 - size) * (1.0 + size)).copysign(y);
    inverse_ends(if size <= 0.6 { near as f32 } else { far }, y)
}

/// The inverse of the standard normal distribution function.
#[inline(always)]
pub(crate) fn ndtri(p: f32) -> f32 {
    let wide = 2.0 * f64::from(p) - 1.0;
    let y = wide as f32;
    let near = wide * chebyshev(&ERFINV_NEAR, wide * wide / 0.18 - 1.0);
    // Scaled, so that small numbers keep their digits.
    let far = erfinv_far(4.0 * p * (1.0 - p)).copysign(y);
    let ends = if p == 0.0 {
        -1.0
    } else if p == 1.0 {
        1.0
    } else {
        0.0
    };
    let inside = SQRT_2 * if y.abs() <= 0.6 { near as f32 } else { far };
    inverse_ends(
        inside,
        if p > 0.0 && p < 1.0 {
            0.0
        } else if ends != 0.0 {
            ends
        } else {
            f32::NAN
        },
    )
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
            let $series = chebyshev(&$near, bounded / 4.0 - 1.0);
            let inner = $inner;
            // NaN stays.
            let far = if $size < 8.0 { 8.0 } else { $size };
            let $series = chebyshev(&$far, 16.0 / far - 1.0) / far.sqrt();
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
bessel!(i0e, i0, I0_NEAR, I0_FAR, "zero", |x, size, series| series, series);
bessel!(
    i1e,
    i1,
    I1_NEAR,
    I1_FAR,
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
    [sign * r * chebyshev(&SIN_PI, t), sign * chebyshev(&COS_PI, t)]
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

/// `erfinv(y) / y` for `y^2` in [0, 0.36].
const ERFINV_NEAR: [f64; 8] = [
    0.9358554015695653,
    0.052577668691647476,
    0.0031682725601199914,
    0.00023718334163273783,
    1.969541456821698e-05,
    1.7378977332194695e-06,
    1.5958891931528447e-07,
    1.507364493969712e-08,
];

/// `erfinv(y) / s` for `s = sqrt(-ln(1 - y^2))` in [0.66, 10.2].
const ERFINV_FAR: [f64; 23] = [
    0.9555824664624316,
    0.04760672098976126,
    -0.017345374582589963,
    0.0033769390668076608,
    0.0010428795329667858,
    -0.0014766454338065726,
    0.0008449059025220825,
    -0.00026877696760037713,
    -1.5123702766283527e-05,
    8.40980464297684e-05,
    -6.0206709371599905e-05,
    2.183949893191686e-05,
    1.3156162256102333e-06,
    -7.91266040438038e-06,
    5.864574601294877e-06,
    -2.0905215974173603e-06,
    -2.7080540104477847e-07,
    9.147632689029614e-07,
    -6.393259818427525e-07,
    2.002984653297955e-07,
    5.785436219490276e-08,
    -1.1438746115177999e-07,
    7.110947724022578e-08,
];

/// `(1 + 2x) erfcx(x)` from 0 on, in `(x - 4) / (x + 4)`.
const ERFCX: [f64; 13] = [
    1.1774832004676086,
    -0.007260796752269379,
    -0.08126512334588605,
    0.060092127965824055,
    -0.028753935613208353,
    0.010595663376386977,
    -0.0031369272375629865,
    0.0007456495316301275,
    -0.00013696952936912923,
    1.7183995373443728e-05,
    -7.157048702981912e-07,
    -2.4249919862332706e-07,
    5.585115786090578e-08,
];

/// `e^-x I0(x)` on [0, 8].
const I0_NEAR: [f64; 19] = [
    0.33839763720473803,
    -0.3046826723431984,
    0.17162090152220877,
    -0.09490109704804764,
    0.04930528423967071,
    -0.02373741480589947,
    0.010546460394594998,
    -0.004324309995050576,
    0.0016394756169413357,
    -0.0005763755745385824,
    0.00018850288509584165,
    -5.754195010082104e-05,
    1.6448448070728896e-05,
    -4.4167383584587505e-06,
    1.1173875391201037e-06,
    -2.670793853940612e-07,
    6.046995022541919e-08,
    -1.300025009986248e-08,
    2.6598237246823866e-09,
];

/// `sqrt(x) e^-x I0(x)` from 8 on, in `16 / x - 1`.
const I0_FAR: [f64; 6] = [
    0.40224520550705606,
    0.0033691164782541395,
    6.88975834691073e-05,
    2.8913705208311428e-06,
    2.0489185894659274e-07,
    2.2666689904942304e-08,
];

/// `e^-x I1(x) / x` on [0, 8].
const I1_NEAR: [f64; 18] = [
    0.12629359322181682,
    -0.17641651835783406,
    0.1026436586898471,
    -0.05294598120809499,
    0.024726449030626516,
    -0.010564084894626197,
    0.004156422944312888,
    -0.0015135724506312532,
    0.0005122859561685758,
    -0.00016176081582589674,
    4.781565107550054e-05,
    -1.3273163656039436e-05,
    3.4702513081376785e-06,
    -8.568720264695455e-07,
    2.0032947535521353e-07,
    -4.445059128796328e-08,
    9.381537386495773e-09,
    -1.8872497517228294e-09,
];

/// `sqrt(x) e^-x I1(x)` from 8 on, in `16 / x - 1`.
const I1_FAR: [f64; 6] = [
    0.3892881175091353,
    -0.009761097491356799,
    -0.00011058893876252389,
    -3.882564808872759e-06,
    -2.512236237866306e-07,
    -2.6314688468848837e-08,
];

/// `sin(pi x) / x` for `x^2` in [0, 1/4].
const SIN_PI: [f64; 5] = [
    2.552557924804532,
    -0.570523138362072,
    0.018236032013303604,
    -0.00027317502708393336,
    2.3699237153233804e-06,
];

/// `cos(pi x)` for `x^2` in [0, 1/4].
const COS_PI: [f64; 6] = [
    0.4720012157682348,
    -0.4994032582704071,
    0.027992079617547617,
    -0.0005966951965488465,
    6.70439486991684e-06,
    -4.653229589731953e-08,
];

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
