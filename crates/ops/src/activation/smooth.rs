//! Smooth activations.

use crate::kernels::activation::{self as kernels, Gelu, GeluTanh, Mish, Silu, gradients, values};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, SQRT_2};
use tapegrad_tape::{Var, where_};

/// sqrt(2 / pi)
const TANH_SCALE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
const TANH_CUBIC: f64 = 0.044715;
/// 1 / sqrt(2 pi)
const DENSITY: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0;
/// With this factor `x sigmoid(factor x)` approximates GELU.
const QUICK: f64 = 1.702;

tapegrad_tape::pointwise! {
    mod table: simd;

    hidden gelu(x) = T::c(0.5) * x * (T::ONE + (x * T::c(FRAC_1_SQRT_2)).erf()), f32 values::<Gelu>, gradients::<Gelu>;
        input(x, g) fused g * (T::c(0.5) * (T::ONE + (x * T::c(FRAC_1_SQRT_2)).erf())
            + x * (T::c(-0.5) * x * x).exp() * T::c(DENSITY));
        rule g * (((x * (1.0 / SQRT_2)).erf() + 1.0) * 0.5 + x * (x * x * -0.5).exp() * DENSITY); on -3.0, 3.0;

    hidden gelu_tanh(x) = T::c(0.5) * x * (T::ONE + (T::c(TANH_SCALE) * (x + T::c(TANH_CUBIC) * x * x * x)).tanh()),
        f32 values::<GeluTanh>, gradients::<GeluTanh>;
        input(x, g) fused {
            let t = (T::c(TANH_SCALE) * (x + T::c(TANH_CUBIC) * x * x * x)).tanh();
            let slope = T::c(TANH_SCALE) * (T::ONE + T::c(3.0 * TANH_CUBIC) * x * x);
            g * T::c(0.5) * (T::ONE + t + x * (T::ONE - t * t) * slope)
        };
        rule {
            let t = ((x + x * x * x * TANH_CUBIC) * TANH_SCALE).tanh();
            let slope = (x * x * (3.0 * TANH_CUBIC) + 1.0) * TANH_SCALE;
            g * 0.5 * (1.0 + &t + x * (1.0 - &t * &t) * slope)
        }; on -3.0, 3.0;

    hidden gelu_sigmoid(x) = x / (T::ONE + (T::c(-QUICK) * x).exp());
        input(x, g) fused {
            let s = T::ONE / (T::ONE + (T::c(-QUICK) * x).exp());
            g * (s * (T::ONE + T::c(QUICK) * x * (T::ONE - s)))
        };
        rule {
            let s = (x * QUICK).sigmoid();
            g * (&s * (x * QUICK * (1.0 - &s) + 1.0))
        }; on -3.0, 3.0;

    hidden silu(x) = x / (T::ONE + (-x).exp()), f32 values::<Silu>, gradients::<Silu>;
        input(x, g) fused {
            let s = T::ONE / (T::ONE + (-x).exp());
            g * (s * (T::ONE + x * (T::ONE - s)))
        };
        rule {
            let s = x.sigmoid();
            g * (&s * (x * (1.0 - &s) + 1.0))
        }; on -3.0, 3.0;

    hidden mish(x) = x * (x.maximum(T::ZERO) + (-x.abs()).exp().ln_1p()).tanh(), f32 values::<Mish>, gradients::<Mish>;
        input(x, g) fused {
            let t = (x.maximum(T::ZERO) + (-x.abs()).exp().ln_1p()).tanh();
            let s = T::ONE / (T::ONE + (-x).exp());
            g * (t + x * s * (T::ONE - t * t))
        };
        rule {
            let t = super::softplus(x).tanh();
            g * (&t + x * x.sigmoid() * (1.0 - &t * &t))
        }; on -3.0, 3.0;

    hidden softplus(x, beta, threshold) = if x * beta > threshold { x } else { (x * beta).exp().ln_1p() / beta },
        f32 kernels::softplus;
        input(x, g) fused if x * beta > threshold { g } else { g / (T::ONE + (-(x * beta)).exp()) };
        rule where_(&(x * beta).gt(threshold), g, g * (x * beta).sigmoid()); on -2.0, 2.0, 1.5, 2.0;

    /// `x / (1 + |x|)` (`torch.nn.functional.softsign`).
    ///
    /// ```
    /// assert_eq!(tapegrad_ops::softsign(&tapegrad_tape::Var::from(1.0)).item(), 0.5);
    /// ```
    // At infinity the gradient is NaN, as by the quotient rule that PyTorch applies.
    function softsign(x) = x / (T::ONE + x.abs());
        input(x, g) fused {
            let d = T::ONE + x.abs();
            if x.is_infinite() { T::NAN } else { g / (d * d) }
        };
        rule where_(&x.isinf(), f64::NAN, g / (x.abs() + 1.0).square()); on -2.0, 2.0;

    /// The logarithm of the sigmoid, without overflow (`torch.nn.functional.logsigmoid`).
    ///
    /// ```
    /// assert_eq!(tapegrad_ops::logsigmoid(&tapegrad_tape::Var::from(-1000.0)).item(), -1000.0);
    /// ```
    function logsigmoid(x) = x.minimum(T::ZERO) - (-x.abs()).exp().ln_1p();
        input(x, g) fused g / (T::ONE + x.exp());
        rule g * (-x).sigmoid(); on -3.0, 3.0;
}

/// How [`gelu`] computes the distribution function of the normal distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approximate {
    /// Exactly, by the error function (PyTorch's `"none"`).
    #[default]
    None,
    /// By a hyperbolic tangent (PyTorch's `"tanh"`), as GPT-2 does.
    Tanh,
    /// By a logistic function, `x * sigmoid(1.702 x)`: the cheapest; not in PyTorch.
    Sigmoid,
}

/// `x` times the probability that a normal number is below `x` (`torch.nn.functional.gelu`).
///
/// ```
/// use tapegrad_ops::Approximate;
/// let x = tapegrad_tape::Var::from(1.0);
/// let exact = tapegrad_ops::gelu(&x).item();
/// assert!((exact - 0.8413447).abs() < 1e-6);
/// assert!((exact - tapegrad_ops::gelu_with(&x, Approximate::Tanh).item()).abs() < 1e-3);
/// ```
#[track_caller]
pub fn gelu(x: &Var) -> Var {
    gelu_with(x, Approximate::None)
}

/// [`gelu`] by an approximation.
///
/// # Panics
/// Same as [`gelu`].
#[track_caller]
pub fn gelu_with(x: &Var, approximate: Approximate) -> Var {
    let row = match approximate {
        Approximate::None => &table::gelu,
        Approximate::Tanh => &table::gelu_tanh,
        Approximate::Sigmoid => &table::gelu_sigmoid,
    };
    row.apply(x, [0.0; 4])
}

/// `ln(1 + e^(beta x)) / beta`, and `x` itself where `beta x` is above the threshold
/// (`torch.nn.functional.softplus`); beta is 1, the threshold 20.
///
/// ```
/// assert_eq!(tapegrad_ops::softplus(&tapegrad_tape::Var::from(30.0)).item(), 30.0);
/// ```
#[track_caller]
pub fn softplus(x: &Var) -> Var {
    softplus_with(x, 1.0, 20.0)
}

/// [`softplus`] with another `beta` or threshold.
#[track_caller]
pub fn softplus_with(x: &Var, beta: f64, threshold: f64) -> Var {
    table::softplus.apply(x, [beta, threshold, 0.0, 0.0])
}

/// `x * sigmoid(x)`, also called swish (`torch.nn.functional.silu`).
///
/// ```
/// assert_eq!(tapegrad_ops::silu(&tapegrad_tape::Var::from(0.0)).item(), 0.0);
/// ```
#[track_caller]
pub fn silu(x: &Var) -> Var {
    table::silu.apply(x, [0.0; 4])
}

/// `x * tanh(softplus(x))` (`torch.nn.functional.mish`).
///
/// ```
/// assert_eq!(tapegrad_ops::mish(&tapegrad_tape::Var::from(0.0)).item(), 0.0);
/// ```
#[track_caller]
pub fn mish(x: &Var) -> Var {
    table::mish.apply(x, [0.0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::Tensor;

    /// Values and slopes in F32 against those in F64, from where they vanish to where the argument is large.
    #[test]
    fn vectors_are_as_accurate_as_scalars() {
        let n = 40_003;
        let x: Vec<f32> =
            (0..n).map(|i| (i as f32 / n as f32 - 0.5) * 200.0).map(|x| x * x.abs() / 100.0).collect();
        let g: Vec<f32> = (0..n).map(|i| 1.0 + (i % 7) as f32).collect();
        for row in [&table::gelu, &table::gelu_tanh, &table::silu, &table::mish] {
            let (x64, g64): (Vec<f64>, Vec<f64>) =
                x.iter().zip(&g).map(|(&x, &g)| (f64::from(x), f64::from(g))).unzip();
            let (mut y, mut y64) = ([vec![0.0f32; n], vec![0.0; n]], [vec![0.0f64; n], vec![0.0; n]]);
            (row.f32.value)(&mut y[0], &x, &[0.0; 4]);
            (row.f64.value)(&mut y64[0], &x64, &[0.0; 4]);
            (row.f32.gradient)(&mut y[1], &x, &g, &[0.0; 4]);
            (row.f64.gradient)(&mut y64[1], &x64, &g64, &[0.0; 4]);
            // Slopes have zeros, near which only the absolute error is small.
            for (least, y, y64) in [(1e-9, &y[0], &y64[0]), (1e-6, &y[1], &y64[1])] {
                for (i, (y, want)) in y.iter().zip(y64).enumerate() {
                    let error = (f64::from(*y) - want).abs();
                    assert!(
                        error <= 1.3e-6 * want.abs() + least,
                        "{}({}) = {y}, should be {want}",
                        row.name,
                        x[i]
                    );
                }
            }
            row.check(&Tensor::from_vec((0..31).map(|i| f64::from(i) / 30.0).collect(), &[31]));
        }
        for x in [1e3f32, 1e18, 3e38, -1e3, -1e18, -3e38] {
            for row in [&table::gelu, &table::gelu_tanh, &table::silu, &table::mish] {
                let mut slope = [f32::NAN; 1];
                (row.f32.gradient)(&mut slope, &[x], &[3.0], &[0.0; 4]);
                let error = slope[0] - if x > 0.0 { 3.0 } else { 0.0 };
                assert!(error.abs() < 1e-6, "the slope of {} at {x} is {}", row.name, slope[0]);
            }
        }
        for x in [f32::INFINITY, f32::NAN, -200.0] {
            let mut y = [0.0f32; 1];
            for row in [&table::gelu, &table::gelu_tanh, &table::silu, &table::mish] {
                (row.f32.value)(&mut y, &[x], &[0.0; 4]);
                assert!(y[0] == x.max(0.0) || (x.is_nan() && y[0].is_nan()), "{}({x}) = {}", row.name, y[0]);
            }
        }
    }
}
