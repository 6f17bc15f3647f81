//! Special functions of one operand (`torch.special`).

use super::select::where_;
use crate::dtype::{DType, Float};
use crate::kernels::special::{self, short};
use crate::var::Var;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// The square root of 2 pi.
const SQRT_TAU: f64 = 2.506_628_274_631_000_5;

/// A function of `f64` for an element of any type.
#[inline(always)]
fn wide<T: Float>(x: T, f: fn(f64) -> f64) -> T {
    T::from_f64(f(x.to_f64()))
}

/// A function that has a form for `f32`, which vectorizes: called by its name, since a function that is passed as an
/// argument may not be inlined.
macro_rules! either {
    ($x:expr, $short:path, $($wide:tt)+) => {
        if T::DTYPE == DType::F32 {
            T::from_f64($short($x.to_f64() as f32).into())
        } else {
            T::from_f64(($($wide)+)($x.to_f64()))
        }
    };
}

/// The derivative of digamma.
fn trigamma_wide(x: f64) -> f64 {
    special::polygamma(1, x)
}

/// The density of the standard normal distribution.
fn density(x: &Var) -> Var {
    (x.square() * -0.5).exp() * (1.0 / SQRT_TAU)
}

crate::pointwise! {
    mod gamma: scalar;

    hidden polygamma(x, n) = T::from_f64(special::polygamma(n.to_f64() as u32, x.to_f64()));
        input(x, g) fused g * T::from_f64(special::polygamma(n.to_f64() as u32 + 1, x.to_f64()));
        rule g * x.polygamma(n as u32 + 1); on 0.6, 4.0, 2.0;
}

crate::pointwise! {
    mod vectors: simd;

    /// The logarithm of the absolute value of the gamma function (`torch.lgamma`); infinite at its poles.
    ///
    /// ```
    /// assert!((tapegrad_tape::Var::from(5.0).lgamma().item() - 24f64.ln()).abs() < 1e-6);
    /// ```
    method lgamma(x) = either!(x, short::lgamma, libm::lgamma); input(x, g) fused g * either!(x, short::digamma, special::digamma);
        rule g * x.digamma(); on 0.3, 4.0;

    /// The derivative of [`Var::lgamma`] (`torch.digamma`); NaN at negative integers, minus infinity at zero.
    ///
    /// ```
    /// assert!((tapegrad_tape::Var::from(1.0).digamma().item() + 0.5772157).abs() < 1e-6);
    /// ```
    method digamma(x) = either!(x, short::digamma, special::digamma); input(x, g)
        fused g * either!(x, short::trigamma, trigamma_wide); rule g * x.polygamma(1); on 0.3, 4.0;

    hidden trigamma(x) = either!(x, short::trigamma, trigamma_wide);
        input(x, g) fused g * wide(x, |x| special::polygamma(2, x)); rule g * x.polygamma(2); on 0.6, 4.0;

    /// The inverse of the error function on `[-1, 1]` (`torch.erfinv`); NaN outside of it.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).erfinv().item(), 0.0);
    /// ```
    method erfinv(x) = either!(x, short::erfinv, special::erfinv);
        output(y, g) fused g * (T::c(1.0 / FRAC_2_SQRT_PI) * (y * y).exp());
        rule g * (y.square().exp() * (1.0 / FRAC_2_SQRT_PI)); on -0.9, 0.9;

    /// `e^(x^2) erfc(x)`, which does not underflow where `erfc` does (`torch.special.erfcx`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).erfcx().item(), 1.0);
    /// ```
    method erfcx(x) = either!(x, short::erfcx, special::erfcx);
        input(x, g) fused g * (T::c(2.0) * x * either!(x, short::erfcx, special::erfcx) - T::c(FRAC_2_SQRT_PI));
        rule g * (x * x.erfcx() * 2.0 - FRAC_2_SQRT_PI); on -1.0, 2.0;

    /// The modified Bessel function of the first kind of order zero (`torch.special.i0`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).i0().item(), 1.0);
    /// ```
    method i0(x) = either!(x, short::i0, special::i0); input(x, g) fused g * either!(x, short::i1, special::i1); rule g * x.i1(); on -3.0, 3.0;

    /// `e^-|x| I0(x)`: [`Var::i0`], scaled (`torch.special.i0e`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).i0e().item(), 1.0);
    /// ```
    method i0e(x) = either!(x, short::i0e, special::i0e);
        input(x, g) fused g * (either!(x, short::i1e, special::i1e) - sign(x) * either!(x, short::i0e, special::i0e));
        rule g * (x.i1e() - x.sign() * x.i0e()); on 0.3, 3.0;

    /// The modified Bessel function of the first kind of order one (`torch.special.i1`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).i1().item(), 0.0);
    /// ```
    method i1(x) = either!(x, short::i1, special::i1); input(x, g) fused {
            let slope = either!(x, short::i0, special::i0) - either!(x, short::i1, special::i1) / x;
            g * if x == T::ZERO { T::c(0.5) } else { slope }
        };
        rule g * where_(&x.eq(0.0), 0.5, x.i0() - x.i1() / nonzero(x)); on 0.3, 3.0;

    /// `e^-|x| I1(x)`: [`Var::i1`], scaled (`torch.special.i1e`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).i1e().item(), 0.0);
    /// ```
    method i1e(x) = either!(x, short::i1e, special::i1e); input(x, g) fused {
            let (zero, one) = (either!(x, short::i0e, special::i0e), either!(x, short::i1e, special::i1e));
            g * if x == T::ZERO { T::c(0.5) } else { zero - one * (sign(x) + T::ONE / x) }
        };
        rule g * where_(&x.eq(0.0), 0.5, x.i0e() - x.i1e() * (x.sign() + nonzero(x).reciprocal())); on 0.3, 3.0;

    /// The standard normal distribution function (`torch.special.ndtr`), accurate in the lower tail too.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).ndtr().item(), 0.5);
    /// ```
    method ndtr(x) = either!(x, short::ndtr, special::ndtr); input(x, g) fused g * (T::c(1.0 / SQRT_TAU) * (T::c(-0.5) * (x * x)).exp());
        rule g * density(x); on -2.0, 2.0;

    /// The logarithm of [`Var::ndtr`], which does not underflow (`torch.special.log_ndtr`).
    ///
    /// ```
    /// assert!((tapegrad_tape::Var::from(0.0).log_ndtr().item() + 2f64.ln()).abs() < 1e-6);
    /// ```
    method log_ndtr(x) = either!(x, short::log_ndtr, special::log_ndtr);
        input(x, g) fused {
            let slope = either!(x * T::c(-FRAC_1_SQRT_2), short::erfcx, special::erfcx) * T::c(SQRT_TAU / 2.0);
            g / if x == -T::INFINITY { T::NAN } else { slope }
        };
        // As in PyTorch, NaN at minus infinity.
        rule g / where_(&x.eq(f64::NEG_INFINITY), f64::NAN, (x * -FRAC_1_SQRT_2).erfcx() * (SQRT_TAU / 2.0)); on -3.0, 2.0;

    /// The inverse of [`Var::ndtr`] on `[0, 1]` (`torch.special.ndtri`); NaN outside of it.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.5).ndtri().item(), 0.0);
    /// ```
    method ndtri(x) = either!(x, short::ndtri, special::ndtri); output(y, g) fused g * (T::c(SQRT_TAU) * (T::c(0.5) * (y * y)).exp());
        rule g * ((y.square() * 0.5).exp() * SQRT_TAU); on 0.1, 0.9;

    /// `-x ln(x)`, zero at zero and minus infinity below (`torch.special.entr`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).entr().item(), 0.0);
    /// ```
    method entr(x) = if x > T::ZERO { -(x * x.ln()) } else if x == T::ZERO { T::ZERO } else if x.is_nan() { x }
            else { -T::INFINITY };
        input(x, g) fused -(g * (T::ONE + x.ln())); rule -(g * (x.log() + 1.0)); on 0.2, 3.0;

    /// `sin(pi x) / (pi x)`, 1 at zero (`torch.sinc`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).sinc().item(), 1.0);
    /// ```
    method sinc(x) = either!(x, short::sinc, special::sinc); input(x, g) fused g * either!(x, short::sinc_slope, special::sinc_slope);
        rule g * vectors::sinc_slope.apply(x, [0.0; 4]); on -2.0, 2.0;

    // The equation of the spherical Bessel function of order zero gives the second derivative.
    hidden sinc_slope(x) = either!(x, short::sinc_slope, special::sinc_slope); input(x, g) fused {
            let (value, slope) = (either!(x, short::sinc, special::sinc), either!(x, short::sinc_slope, special::sinc_slope));
            g * if x == T::ZERO { T::c(-PI * PI / 3.0) } else { T::c(-PI * PI) * value - T::c(2.0) * slope / x }
        };
        rule g * where_(&x.eq(0.0), -PI * PI / 3.0,
            x.sinc() * (-PI * PI) - vectors::sinc_slope.apply(x, [0.0; 4]) * 2.0 / nonzero(x)); on 0.1, 2.0;
}

/// The operand, and one in place of zero.
fn nonzero(x: &Var) -> Var {
    where_(&x.eq(0.0), 1.0, x)
}

#[inline(always)]
fn sign<T: Float>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        -T::ONE
    } else {
        x
    }
}

impl Var {
    /// The derivative of order `n` of [`Var::digamma`], itself for `n` zero (`torch.polygamma`).
    ///
    /// ```
    /// let pi = std::f64::consts::PI;
    /// assert!((tapegrad_tape::Var::from(1.0).polygamma(1).item() - pi * pi / 6.0).abs() < 1e-6);
    /// ```
    #[track_caller]
    pub fn polygamma(&self, n: u32) -> Var {
        match n {
            0 => self.digamma(),
            1 => vectors::trigamma.apply(self, [0.0; 4]),
            _ => gamma::polygamma.apply(self, [f64::from(n), 0.0, 0.0, 0.0]),
        }
    }
}
