//! Functions that are the identity above zero: ReLU and its relatives.

use tapegrad_tape::{Var, where_};

/// SELU's constants, which preserve mean and variance (Klambauer et al., 2017).
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

tapegrad_tape::pointwise! {
    mod table: simd;

    hidden relu(x) = if x <= T::ZERO { T::ZERO } else { x };
        output(y, g) fused if y <= T::ZERO { T::ZERO } else { g };
        rule where_(&y.le(0.0), 0.0, g); on -2.0, 2.0;

    hidden leaky_relu(x, slope) = if x > T::ZERO { x } else { x * slope };
        input(x, g) fused if x > T::ZERO { g } else { g * slope };
        rule where_(&x.gt(0.0), g, g * slope); on -2.0, 2.0, 0.1;

    hidden elu(x, alpha) = if x <= T::ZERO { alpha * x.exp_m1() } else { x };
        input(x, g) fused if x <= T::ZERO { g * (alpha * x.exp()) } else { g };
        rule where_(&x.le(0.0), g * (x.clamp_max(0.0).exp() * alpha), g); on -2.0, 2.0, 1.3;

    hidden celu(x, alpha) = if x <= T::ZERO { alpha * (x / alpha).exp_m1() } else { x };
        input(x, g) fused if x <= T::ZERO { g * (x / alpha).exp() } else { g };
        rule where_(&x.le(0.0), g * (x.clamp_max(0.0) / alpha).exp(), g); on -2.0, 2.0, 1.3;

    /// ELU with the two constants that keep mean and variance from layer to layer (`torch.nn.functional.selu`).
    ///
    /// ```
    /// assert_eq!(tapegrad_ops::selu(&tapegrad_tape::Var::from(0.0)).item(), 0.0);
    /// ```
    function selu(x) = if x <= T::ZERO { T::c(SELU_SCALE * SELU_ALPHA) * x.exp_m1() } else { T::c(SELU_SCALE) * x };
        input(x, g) fused if x <= T::ZERO { g * (T::c(SELU_SCALE * SELU_ALPHA) * x.exp()) } else { g * T::c(SELU_SCALE) };
        rule where_(&x.le(0.0), g * (x.clamp_max(0.0).exp() * (SELU_SCALE * SELU_ALPHA)), g * SELU_SCALE); on -2.0, 2.0;
}

/// `x` above zero, a hundredth of it below (`torch.nn.functional.leaky_relu`).
///
/// ```
/// assert_eq!(tapegrad_ops::leaky_relu(&tapegrad_tape::Var::from(-200.0)).item(), -2.0);
/// ```
#[track_caller]
pub fn leaky_relu(x: &Var) -> Var {
    leaky_relu_with(x, 0.01)
}

/// [`leaky_relu`] with another slope below zero.
#[track_caller]
pub fn leaky_relu_with(x: &Var, negative_slope: f64) -> Var {
    table::leaky_relu.apply(x, [negative_slope, 0.0, 0.0, 0.0])
}

/// `x` above zero, `alpha * (e^x - 1)` below (`torch.nn.functional.elu`); alpha is 1.
///
/// ```
/// let x = tapegrad_tape::Var::from(f64::NEG_INFINITY);
/// assert_eq!(tapegrad_ops::elu(&x).item(), -1.0);
/// assert_eq!(tapegrad_ops::elu_with(&x, 2.0).item(), -2.0);
/// ```
#[track_caller]
pub fn elu(x: &Var) -> Var {
    elu_with(x, 1.0)
}

/// [`elu`] with another `alpha`.
#[track_caller]
pub fn elu_with(x: &Var, alpha: f64) -> Var {
    table::elu.apply(x, [alpha, 0.0, 0.0, 0.0])
}

/// `x` above zero, `alpha * (e^(x / alpha) - 1)` below, which is smooth at zero for any alpha
/// (`torch.nn.functional.celu`); alpha is 1.
///
/// # Panics
/// If `alpha` is zero, by which it divides.
///
/// ```
/// assert_eq!(tapegrad_ops::celu(&tapegrad_tape::Var::from(2.0)).item(), 2.0);
/// ```
#[track_caller]
pub fn celu(x: &Var) -> Var {
    celu_with(x, 1.0)
}

/// [`celu`] with another `alpha`.
///
/// # Panics
/// Same as [`celu`].
#[track_caller]
pub fn celu_with(x: &Var, alpha: f64) -> Var {
    assert!(alpha != 0.0, "celu: alpha is 0, by which it divides; 1 is usual");
    table::celu.apply(x, [alpha, 0.0, 0.0, 0.0])
}

/// The larger of `x` and zero (`torch.nn.functional.relu`). NaN stays; the gradient at zero is zero.
///
/// Only the result is saved for the backward pass, and the next layer usually saves it anyway. See also [`relu_`].
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![-1f32, 2.0], &[2]);
/// assert_eq!(tapegrad_ops::relu(&x).to_vec::<f32>(), [0.0, 2.0]);
/// ```
#[track_caller]
pub fn relu(x: &Var) -> Var {
    if !x.dtype().is_float() {
        return x.clamp_min(0);
    }
    table::relu.apply(x, [0.0; 4])
}

/// [`relu`] of an operand that is no longer needed, in its memory if it is not shared (`torch.nn.functional.relu_`).
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![-1f32, 2.0], &[2]);
/// assert_eq!(tapegrad_ops::relu_(&x * 3.0).to_vec::<f32>(), [0.0, 6.0]);
/// ```
#[track_caller]
pub fn relu_(x: Var) -> Var {
    if !x.dtype().is_float() {
        return x.clamp_min(0);
    }
    table::relu.apply_owned(x, [0.0; 4])
}

#[cfg(test)]
mod tests {
    #[test]
    #[should_panic(expected = "celu: alpha is 0")]
    fn celu_does_not_divide_by_zero() {
        super::celu_with(&tapegrad_tape::Var::from(-1.0), 0.0);
    }
}
