//! Functions of one operand.

use super::select::where_;
use super::table::on_integers;
use crate::dtype::DType;
use crate::kernels::{fused, trigonometric as rows, vector_math};
use crate::var::Var;

/// 2 / sqrt(pi), the slope of the error function at zero.
const ERF_SLOPE: f64 = std::f64::consts::FRAC_2_SQRT_PI;

crate::pointwise! {
    mod exponential: simd;

    /// `e^x` (`torch.exp`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).exp().item(), 1.0);
    /// ```
    method exp(x) = x.exp(), f32 |out, x, _| _ = vector_math::exponentials(out, x, 0.0); output(y, g) fused g * y; rule g * y; on -2.0, 2.0;

    /// `e^x - 1`, accurate near zero (`torch.expm1`).
    ///
    /// ```
    /// assert!((tapegrad_tape::Var::from(1e-12).expm1().item() - 1e-12).abs() < 1e-18);
    /// ```
    method expm1(x) = x.exp_m1(); output(y, g) fused g * (y + T::ONE); rule g * (y + 1.0); on -2.0, 2.0;

    /// `2^x` (`torch.exp2`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(3.0).exp2().item(), 8.0);
    /// ```
    method exp2(x) = x.exp2(); output(y, g) fused g * y * T::c(std::f64::consts::LN_2);
        rule g * y * std::f64::consts::LN_2; on -2.0, 2.0;

    /// The natural logarithm (`torch.log`); NaN below zero.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(1.0).log().item(), 0.0);
    /// ```
    method log(x) = x.ln(), f32 |out, x, _| fused::log_rows(out, x); input(x, g) fused g / x; rule g / x; on 0.2, 4.0;

    /// `ln(1 + x)`, accurate near zero (`torch.log1p`).
    ///
    /// ```
    /// assert!((tapegrad_tape::Var::from(1e-12).log1p().item() - 1e-12).abs() < 1e-18);
    /// ```
    method log1p(x) = x.ln_1p(), f32 |out, x, _| fused::log1p_rows(out, x);
        input(x, g) fused g / (x + T::ONE); rule g / (x + 1.0); on -0.8, 4.0;

    /// The base-2 logarithm (`torch.log2`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(8.0).log2().item(), 3.0);
    /// ```
    method log2(x) = x.log2(); input(x, g) fused g / (x * T::c(std::f64::consts::LN_2));
        rule g / (x * std::f64::consts::LN_2); on 0.2, 4.0;

    /// The base-10 logarithm (`torch.log10`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(100.0).log10().item(), 2.0);
    /// ```
    method log10(x) = x.log10(); input(x, g) fused g / (x * T::c(std::f64::consts::LN_10));
        rule g / (x * std::f64::consts::LN_10); on 0.2, 4.0;

    /// The square root (`torch.sqrt`); NaN below zero.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(9.0).sqrt().item(), 3.0);
    /// ```
    method sqrt(x) = x.sqrt(); output(y, g) fused g / (y + y); rule g / (y * 2.0); on 0.2, 4.0;

    /// `1 / sqrt(x)` (`torch.rsqrt`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(4.0).rsqrt().item(), 0.5);
    /// ```
    method rsqrt(x) = T::ONE / x.sqrt(); output(y, g) fused T::c(-0.5) * g * (y * y * y);
        rule -0.5 * g * (y * y * y); on 0.2, 4.0;

    /// `1 / x` (`torch.reciprocal`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(4.0).reciprocal().item(), 0.25);
    /// ```
    method reciprocal(x) = T::ONE / x; output(y, g) fused -g * (y * y); rule -g * (y * y); on 0.2, 4.0;

    /// The hyperbolic tangent (`torch.tanh`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).tanh().item(), 0.0);
    /// ```
    method tanh(x) = x.tanh(); output(y, g) fused g * (T::ONE - y * y); rule g * (1.0 - y * y); on -2.0, 2.0;

    /// `1 / (1 + e^-x)` (`torch.sigmoid`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).sigmoid().item(), 0.5);
    /// ```
    method sigmoid(x) = T::ONE / (T::ONE + (-x).exp()), f32 |out, x, _| fused::sigmoid_rows(out, x);
        output(y, g) fused g * ((T::ONE - y) * y);
        rule g * ((1.0 - y) * y); on -4.0, 4.0;

    /// The error function (`torch.erf`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).erf().item(), 0.0);
    /// ```
    method erf(x) = x.erf(), f32 |out, x, _| fused::erf_rows(out, x);
        input(x, g) fused g * (T::c(ERF_SLOPE) * (-(x * x)).exp());
        rule g * ((-(x * x)).exp() * ERF_SLOPE); on -2.0, 2.0;

    hidden neg(x) = -x; output(y, g) fused -g; rule -g; on -2.0, 2.0;

    // NaN stays, at zero the gradient is zero.
    hidden abs(x) = x.abs();
        input(x, g) fused if x > T::ZERO { g } else if x < T::ZERO { -g } else { g * T::ZERO };
        rule g * x.sign(); on 0.1, 2.0;

    hidden square(x) = x * x; input(x, g) fused g * (x + x); rule g * (x * 2.0); on -2.0, 2.0;

    // Without eps the function is undefined outside of [0, 1]; with it, operands are clamped to [eps, 1 - eps].
    hidden logit(x) = (x / (T::ONE - x)).ln();
        input(x, g) fused if x < T::ZERO || x > T::ONE { T::NAN } else { g / (x * (T::ONE - x)) };
        rule where_(&x.lt(0.0).logical_or(&x.gt(1.0)), f64::NAN, g / (x * (1.0 - x))); on 0.1, 0.9;
    hidden logit_clamped(x, eps) = {
            let high = T::ONE - eps;
            let z = if x < eps { eps } else if x > high { high } else { x };
            (z / (T::ONE - z)).ln()
        };
        input(x, g) fused if x < eps || x > T::ONE - eps { T::ZERO } else { g / (x * (T::ONE - x)) };
        rule where_(&x.lt(eps).logical_or(&x.gt(1.0 - eps)), 0.0, g / (x * (1.0 - x))); on 0.05, 0.95, 0.15;
}

crate::pointwise! {
    mod trigonometric: scalar;

    /// The sine (`torch.sin`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).sin().item(), 0.0);
    /// ```
    method sin(x) = x.sin(), f32 |out, x, _| rows::sin(out, x), |out, x, g, _| {
        rows::cos(out, x);
        out.iter_mut().zip(g).for_each(|(o, g)| *o *= g);
    }; input(x, g) fused g * x.cos(); rule g * x.cos(); on -3.0, 3.0;

    /// The cosine (`torch.cos`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).cos().item(), 1.0);
    /// ```
    method cos(x) = x.cos(), f32 |out, x, _| rows::cos(out, x), |out, x, g, _| {
        rows::sin(out, x);
        out.iter_mut().zip(g).for_each(|(o, g)| *o *= -g);
    }; input(x, g) fused -(g * x.sin()); rule -(g * x.sin()); on -3.0, 3.0;

    /// The tangent (`torch.tan`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).tan().item(), 0.0);
    /// ```
    method tan(x) = x.tan(); output(y, g) fused g * (T::ONE + y * y); rule g * (1.0 + y * y); on -1.2, 1.2;

    /// The hyperbolic sine (`torch.sinh`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).sinh().item(), 0.0);
    /// ```
    method sinh(x) = x.sinh(); input(x, g) fused g * x.cosh(); rule g * x.cosh(); on -2.0, 2.0;

    /// The hyperbolic cosine (`torch.cosh`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).cosh().item(), 1.0);
    /// ```
    method cosh(x) = x.cosh(); input(x, g) fused g * x.sinh(); rule g * x.sinh(); on -2.0, 2.0;

    /// The arc sine (`torch.asin`); NaN outside of `[-1, 1]`.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).asin().item(), 0.0);
    /// ```
    method asin(x) = x.asin(); input(x, g) fused g / (T::ONE - x * x).sqrt();
        rule g * (1.0 - x * x).rsqrt(); on -0.9, 0.9;

    /// The arc cosine (`torch.acos`); NaN outside of `[-1, 1]`.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(1.0).acos().item(), 0.0);
    /// ```
    method acos(x) = x.acos(); input(x, g) fused -g / (T::ONE - x * x).sqrt();
        rule -g * (1.0 - x * x).rsqrt(); on -0.9, 0.9;

    /// The arc tangent (`torch.atan`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).atan().item(), 0.0);
    /// ```
    method atan(x) = x.atan(); input(x, g) fused g / (x * x + T::ONE); rule g / (x * x + 1.0); on -2.0, 2.0;

    /// The inverse hyperbolic sine (`torch.asinh`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).asinh().item(), 0.0);
    /// ```
    method asinh(x) = x.asinh(); input(x, g) fused g / (x * x + T::ONE).sqrt();
        rule g * (x * x + 1.0).rsqrt(); on -2.0, 2.0;

    /// The inverse hyperbolic cosine (`torch.acosh`); NaN below one.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(1.0).acosh().item(), 0.0);
    /// ```
    method acosh(x) = x.acosh(); input(x, g) fused g / (x * x - T::ONE).sqrt();
        rule g * (x * x - 1.0).rsqrt(); on 1.3, 4.0;

    /// The inverse hyperbolic tangent (`torch.atanh`); NaN outside of `[-1, 1]`.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).atanh().item(), 0.0);
    /// ```
    method atanh(x) = x.atanh(); input(x, g) fused g / (T::ONE - x * x); rule g / (1.0 - x * x); on -0.9, 0.9;

    /// `1 - erf(x)`, accurate where erf is near one (`torch.erfc`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).erfc().item(), 1.0);
    /// ```
    method erfc(x) = x.erfc(); input(x, g) fused g * (T::c(-ERF_SLOPE) * (-(x * x)).exp());
        rule g * ((-(x * x)).exp() * -ERF_SLOPE); on -2.0, 2.0;
}

impl Var {
    /// The negative (`torch.neg`). Also `-&a`. Integers stay integers.
    ///
    /// # Panics
    /// For booleans.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(2).neg().item(), -2.0);
    /// ```
    #[track_caller]
    pub fn neg(&self) -> Var {
        assert!(self.dtype() != DType::Bool, "neg: negation is not defined for bool; use logical_not");
        on_integers(self, i64::wrapping_neg).unwrap_or_else(|| exponential::neg.apply(self, [0.0; 4]))
    }

    /// The absolute value (`torch.abs`); its gradient at zero is zero. Integers stay integers.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-2).abs().item(), 2.0);
    /// ```
    #[track_caller]
    pub fn abs(&self) -> Var {
        on_integers(self, i64::wrapping_abs).unwrap_or_else(|| exponential::abs.apply(self, [0.0; 4]))
    }

    /// `x * x` (`torch.square`). Integers stay integers.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(3).square().item(), 9.0);
    /// ```
    #[track_caller]
    pub fn square(&self) -> Var {
        if self.dtype() == DType::Bool {
            return self.cast(DType::I64);
        }
        on_integers(self, |x| x.wrapping_mul(x)).unwrap_or_else(|| exponential::square.apply(self, [0.0; 4]))
    }

    /// `ln(x / (1 - x))` (`torch.logit`). Operands outside of `[0, 1]` give NaN.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.5).logit().item(), 0.0);
    /// ```
    #[track_caller]
    pub fn logit(&self) -> Var {
        exponential::logit.apply(self, [0.0; 4])
    }

    /// [`Var::logit`] of operands that are clamped to `[eps, 1 - eps]` first.
    #[track_caller]
    pub fn logit_with(&self, eps: f64) -> Var {
        exponential::logit_clamped.apply(self, [eps, 0.0, 0.0, 0.0])
    }
}
