//! Rounding, signs, and other piecewise constant functions: their gradient is zero.

use super::table::on_integers;
use crate::dtype::{DType, Scalar};
use crate::int_list::Int;
use crate::kernels::strided;
use crate::var::Var;

crate::pointwise! {
    mod steps: simd;
    hidden floor(x) = x.floor(); output(y, g) fused T::ZERO; rule g.zeros_like(); on 0.1, 0.9;
    hidden ceil(x) = x.ceil(); output(y, g) fused T::ZERO; rule g.zeros_like(); on 0.1, 0.9;
    hidden trunc(x) = x.trunc(); output(y, g) fused T::ZERO; rule g.zeros_like(); on 0.1, 0.9;
    hidden round(x) = x.round_even(); output(y, g) fused T::ZERO; rule g.zeros_like(); on 0.6, 1.4;
    // A power of ten below one is not exact, so its inverse divides.
    hidden round_decimals(x, ten, inverse) = if ten > T::ONE { (x * ten).round_even() / ten }
            else { (x / inverse).round_even() * inverse };
        output(y, g) fused T::ZERO; rule g.zeros_like(); on 0.61, 0.69, 10.0, 0.1;
    hidden sign(x) = if x > T::ZERO { T::ONE } else if x < T::ZERO { -T::ONE } else { T::ZERO };
        output(y, g) fused T::ZERO; rule g.zeros_like(); on 0.1, 0.9;
    hidden frac(x) = x - x.trunc(); output(y, g) fused g; rule g.clone(); on 0.1, 0.9;
}

macro_rules! step_methods {
    ($($(#[$meta:meta])* $name:ident on integers $f:expr;)*) => {
        impl Var {$(
            $(#[$meta])*
            #[track_caller]
            pub fn $name(&self) -> Var {
                on_integers(self, $f).unwrap_or_else(|| steps::$name.apply(self, [0.0; 4]))
            }
        )*}
    };
}

step_methods! {
    /// The largest integer not above the element (`torch.floor`). Its gradient is zero; integers are returned as they
    /// are.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-1.5).floor().item(), -2.0);
    /// ```
    floor on integers |x| x;

    /// The smallest integer not below the element (`torch.ceil`). Its gradient is zero; integers are returned as they
    /// are.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-1.5).ceil().item(), -1.0);
    /// ```
    ceil on integers |x| x;

    /// The integer part (`torch.trunc`). Its gradient is zero; integers are returned as they are.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-1.5).trunc().item(), -1.0);
    /// ```
    trunc on integers |x| x;

    /// The nearest integer, halves to even (`torch.round`). Its gradient is zero; integers are returned as they are.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(2.5).round().item(), 2.0);
    /// ```
    round on integers |x| x;

    /// -1, 0 or 1 by the sign (`torch.sign`), 0 for NaN. Its gradient is zero; integers stay integers.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-7.5).sign().item(), -1.0);
    /// ```
    sign on integers |x| x.signum();
}

impl Var {
    /// The part after the point, with the sign of the element (`torch.frac`).
    ///
    /// # Panics
    /// If the elements are not floating point.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-1.5).frac().item(), -0.5);
    /// ```
    #[track_caller]
    pub fn frac(&self) -> Var {
        assert!(
            self.dtype().is_float(),
            "frac: the elements have to be floating point, not {}",
            self.dtype()
        );
        steps::frac.apply(self, [0.0; 4])
    }

    /// The same as [`Var::sign`] (`torch.sgn`, which differs for complex numbers only).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-7.5).sgn().item(), -1.0);
    /// ```
    #[track_caller]
    pub fn sgn(&self) -> Var {
        self.sign()
    }

    /// The same variable (`torch.positive`). Also Python's `+x`.
    ///
    /// # Panics
    /// For booleans.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-2).positive().item(), -2.0);
    /// ```
    #[track_caller]
    pub fn positive(&self) -> Var {
        assert!(self.dtype() != DType::Bool, "positive: not defined for bool");
        self.clone()
    }

    /// Angles in degrees as radians (`torch.deg2rad`). Integers are computed as F32.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(180.0).deg2rad().item(), std::f32::consts::PI as f64);
    /// ```
    #[track_caller]
    pub fn deg2rad(&self) -> Var {
        self.to_float().mul(std::f64::consts::PI / 180.0)
    }

    /// Angles in radians as degrees (`torch.rad2deg`). Integers are computed as F32.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(0.0).rad2deg().item(), 0.0);
    /// ```
    #[track_caller]
    pub fn rad2deg(&self) -> Var {
        self.to_float().mul(180.0 / std::f64::consts::PI)
    }

    /// True where the sign is negative, be it that of a zero (`torch.signbit`); without gradient.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-0.0).signbit().to_vec::<bool>(), [true]);
    /// ```
    pub fn signbit(&self) -> Var {
        let t = self.tensor();
        Var::from(match t.dtype() {
            DType::F64 => strided::map(&t, |x: f64| x.is_sign_negative()),
            DType::F32 => strided::map(&t, |x: f32| x.is_sign_negative()),
            DType::F16 | DType::BF16 => strided::map(&t.cast(DType::F32), |x: f32| x.is_sign_negative()),
            _ => strided::map(&t.cast(DType::I64), |x: i64| x < 0),
        })
    }

    /// Rounds to a number of decimal places, which may be negative (`torch.round` with `decimals`). Its
    /// gradient is zero.
    ///
    /// # Panics
    /// For integers, unless `decimals` is zero.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(12345.0).round_decimals(-2).item(), 12300.0);
    /// ```
    #[track_caller]
    pub fn round_decimals(&self, decimals: impl Int) -> Var {
        let decimals = decimals.to_i64().clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        if decimals == 0 {
            return self.round();
        }
        assert!(
            self.dtype().is_float(),
            "round: {} is an integer type; decimals = {decimals} takes floating point",
            self.dtype()
        );
        steps::round_decimals
            .apply(self, [10f64.powi(decimals), 10f64.powi(decimals.saturating_neg()), 0.0, 0.0])
    }

    /// Replaces NaN and the infinities by numbers (`torch.nan_to_num`): 0 unless given, and the largest and smallest
    /// finite numbers of the type. Replaced elements get no gradient.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![f32::NAN, f32::INFINITY, 1.0], &[3]);
    /// assert_eq!(x.nan_to_num_with(None, 9.0, None).to_vec::<f32>(), [0.0, 9.0, 1.0]);
    /// ```
    #[track_caller]
    pub fn nan_to_num(&self) -> Var {
        self.nan_to_num_with(None, None, None)
    }

    /// [`Var::nan_to_num`] with other numbers.
    #[track_caller]
    pub fn nan_to_num_with(
        &self,
        nan: impl Into<Option<f64>>,
        posinf: impl Into<Option<f64>>,
        neginf: impl Into<Option<f64>>,
    ) -> Var {
        if !self.dtype().is_float() {
            return self.clone();
        }
        let (low, high) = finite_range(self.dtype());
        replacement::nan_to_num.apply(
            self,
            [nan.into().unwrap_or(0.0), posinf.into().unwrap_or(high), neginf.into().unwrap_or(low), 0.0],
        )
    }

    /// Zeros of the same shape and type, as a constant (`torch.zeros_like`).
    pub fn zeros_like(&self) -> Var {
        Var::from(crate::Tensor::zeros_with(self.shape(), self.dtype()))
    }

    /// Ones of the same shape and type, as a constant (`torch.ones_like`).
    pub fn ones_like(&self) -> Var {
        Var::from(crate::Tensor::ones_with(self.shape(), self.dtype()))
    }

    /// A constant filled with a value, of the same shape and type (`torch.full_like`).
    pub fn full_like(&self, value: impl Into<Scalar>) -> Var {
        Var::from(crate::Tensor::full_with(self.shape(), value, self.dtype()))
    }
}

crate::pointwise! {
    mod replacement: simd;
    hidden nan_to_num(x, nan, posinf, neginf) = if x.is_nan() { nan } else if x == T::INFINITY { posinf }
            else if x == -T::INFINITY { neginf } else { x };
        input(x, g) fused if x.is_finite() { g } else { T::ZERO };
        rule g.where_(&x.isfinite(), 0.0); on -2.0, 2.0;
}

/// The smallest and the largest finite number of a floating-point type.
fn finite_range(dtype: DType) -> (f64, f64) {
    let high = match dtype {
        DType::F16 => half::f16::MAX.to_f64(),
        DType::BF16 => half::bf16::MAX.to_f64(),
        DType::F64 => f64::MAX,
        _ => f64::from(f32::MAX),
    };
    (-high, high)
}

macro_rules! classifications {
    ($($(#[$meta:meta])* $name:ident(|$x:ident| $f:expr) else $of_integers:literal;)*) => {
        impl Var {$(
            $(#[$meta])*
            pub fn $name(&self) -> Var {
                let t = self.tensor();
                Var::from(match t.dtype() {
                    DType::F64 => strided::map(&t, |$x: f64| $f),
                    DType::F32 => strided::map(&t, |$x: f32| $f),
                    DType::F16 | DType::BF16 => return self.detach().cast(DType::F32).$name(),
                    _ => crate::Tensor::full_with(t.shape(), $of_integers, DType::Bool),
                })
            }
        )*}
    };
}

classifications! {
    /// True where an element is not a number (`torch.isnan`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(f64::NAN).isnan().to_vec::<bool>(), [true]);
    /// ```
    isnan(|x| x.is_nan()) else false;

    /// True where an element is plus or minus infinity (`torch.isinf`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(f64::INFINITY).isinf().to_vec::<bool>(), [true]);
    /// ```
    isinf(|x| x.is_infinite()) else false;

    /// True where an element is neither infinite nor NaN (`torch.isfinite`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(1).isfinite().to_vec::<bool>(), [true]);
    /// ```
    isfinite(|x| x.is_finite()) else true;
}
