//! Initializers (`torch.nn.init`). They change a parameter's values in place and draw from the thread's
//! default generator: [`tapegrad_tape::manual_seed`] makes them repeatable.

mod draws;

use tapegrad_tape::{Float, Generator, Tensor, Var, with_default_generator};

pub(crate) use draws::{Draws, default_bound, uniform_parameter};

/// Whether to preserve the variance of the forward or of the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanMode {
    /// Preserves the variance in the forward pass.
    FanIn,
    /// Preserves the variance in the backward pass.
    FanOut,
}

/// The nonlinearity that follows a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nonlinearity {
    /// None.
    Linear,
    /// The logistic function.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// The rectifier.
    ReLU,
    /// The rectifier with this slope below zero.
    LeakyReLU(f64),
    /// The self-normalizing unit.
    SELU,
}

/// The recommended gain for a nonlinearity (`torch.nn.init.calculate_gain`).
///
/// ```
/// use tapegrad_nn::init::{Nonlinearity, calculate_gain};
/// assert_eq!(calculate_gain(Nonlinearity::ReLU), 2f64.sqrt());
/// ```
pub fn calculate_gain(nonlinearity: Nonlinearity) -> f64 {
    match nonlinearity {
        Nonlinearity::Linear | Nonlinearity::Sigmoid => 1.0,
        Nonlinearity::Tanh => 5.0 / 3.0,
        Nonlinearity::ReLU => 2f64.sqrt(),
        Nonlinearity::LeakyReLU(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
        Nonlinearity::SELU => 0.75,
    }
}

/// The connections into and out of a unit of a weight `[out, in, ...]`.
///
/// # Panics
/// If the weight has fewer than two dimensions.
#[track_caller]
pub fn calculate_fan_in_and_fan_out(shape: &[usize]) -> (usize, usize) {
    assert!(shape.len() >= 2, "fan in and fan out: need at least two dimensions, got shape {shape:?}");
    let field = shape[2..].iter().fold(1, |field: usize, &n| field.saturating_mul(n));
    (shape[1].saturating_mul(field), shape[0].saturating_mul(field))
}

#[track_caller]
fn fill(v: &Var, make: impl FnOnce(&mut Generator, &[usize]) -> Tensor) {
    let t = with_default_generator(|g| make(g, v.shape()));
    v.set_value(t.cast(v.dtype()));
}

/// Uniform between `a` and `b` (`torch.nn.init.uniform_`).
///
/// ```
/// use tapegrad_tape::{DType, Tensor, Var};
/// let w = Var::parameter(Tensor::zeros_with(&[100], DType::F32));
/// tapegrad_nn::init::uniform_(&w, -0.5, 0.5);
/// assert!(w.to_vec::<f32>().iter().all(|x| (-0.5..0.5).contains(x)));
/// ```
///
/// # Panics
/// If `a` is above `b`, or one of them is not finite.
#[track_caller]
pub fn uniform_(v: &Var, a: f64, b: f64) {
    assert!(
        a <= b && a.is_finite() && b.is_finite(),
        "uniform_: expects a range [a, b) of finite numbers, got a = {a} and b = {b}"
    );
    fill(v, |g, shape| g.uniform(shape, a, b));
}

/// A normal distribution (`torch.nn.init.normal_`).
///
/// # Panics
/// If `std` is negative or not a number.
#[track_caller]
pub fn normal_(v: &Var, mean: f64, std: f64) {
    assert!(std >= 0.0, "normal_: the standard deviation must be at least 0, got std = {std}");
    fill(v, |g, shape| g.normal(shape, mean, std));
}

/// A normal distribution truncated to `[a, b]` (`torch.nn.init.trunc_normal_`).
///
/// # Panics
/// If `a` is not below `b`, or `std` is not above zero.
#[track_caller]
pub fn trunc_normal_(v: &Var, mean: f64, std: f64) {
    trunc_normal_with(v, mean, std, -2.0, 2.0)
}

/// [`trunc_normal_`] with other bounds.
///
/// # Panics
/// Same as [`trunc_normal_`].
#[track_caller]
pub fn trunc_normal_with(v: &Var, mean: f64, std: f64, a: f64, b: f64) {
    assert!(std > 0.0, "trunc_normal_: the standard deviation must be above 0, got std = {std}");
    assert!(a < b, "trunc_normal_: a ({a}) must be below b ({b})");
    let below = |x: f64| (1.0 + Float::erf((x - mean) / (std * 2f64.sqrt()))) / 2.0;
    let (low, high) = (below(a), below(b));
    fill(v, |g, shape| {
        let draw = |_| {
            let x = mean + std * 2f64.sqrt() * erf_inv(2.0 * (low + (high - low) * g.next_f64()) - 1.0);
            x.clamp(a, b)
        };
        Tensor::from_vec((0..tapegrad_tape::shape::numel(shape)).map(draw).collect::<Vec<f64>>(), shape)
    });
}

/// The inverse of the error function: Winitzki's approximation, made exact by Newton's method. Computed by `libm`,
/// like all random numbers: the platforms' functions differ in the last digit.
fn erf_inv(y: f64) -> f64 {
    if y.abs() >= 1.0 {
        return y * f64::INFINITY;
    }
    let a = 0.147;
    let log = libm::log(1.0 - y * y);
    let t = 2.0 / (std::f64::consts::PI * a) + log / 2.0;
    let mut x = y.signum() * ((t * t - log / a).sqrt() - t).sqrt();
    for _ in 0..4 {
        x -= (Float::erf(x) - y) / (2.0 / std::f64::consts::PI.sqrt() * libm::exp(-x * x));
    }
    x
}

/// Every element is `value` (`torch.nn.init.constant_`).
#[track_caller]
pub fn constant_(v: &Var, value: f64) {
    v.set_value(Tensor::full_with(v.shape(), value, v.dtype()));
}

/// Every element is one (`torch.nn.init.ones_`).
#[track_caller]
pub fn ones_(v: &Var) {
    constant_(v, 1.0);
}

/// Every element is zero (`torch.nn.init.zeros_`).
#[track_caller]
pub fn zeros_(v: &Var) {
    constant_(v, 0.0);
}

/// The identity matrix (`torch.nn.init.eye_`).
///
/// # Panics
/// If there are not two dimensions.
#[track_caller]
pub fn eye_(v: &Var) {
    assert_eq!(v.ndim(), 2, "eye_: needs two dimensions, got shape {:?}", v.shape());
    let (rows, columns) = (v.shape()[0], v.shape()[1]);
    let values: Vec<f64> =
        (0..rows * columns).map(|i| f64::from(u8::from(i / columns == i % columns))).collect();
    v.set_value(Tensor::from_vec(values, v.shape()).cast(v.dtype()));
}

/// The identity for a convolution: passes on as many channels as fit, in each group (`torch.nn.init.dirac_`).
///
/// # Panics
/// If there are not three to five dimensions, or the first is not divisible by `groups`.
#[track_caller]
pub fn dirac_(v: &Var) {
    dirac_with(v, 1)
}

/// [`dirac_`] with groups.
///
/// # Panics
/// Same as [`dirac_`].
#[track_caller]
pub fn dirac_with(v: &Var, groups: usize) {
    let shape = v.shape();
    assert!((3..=5).contains(&shape.len()), "dirac_: needs three to five dimensions, got shape {shape:?}");
    assert!(
        groups > 0 && shape[0].is_multiple_of(groups),
        "dirac_: dimension 0 of {shape:?} is not divisible by {groups} groups"
    );
    let strides = tapegrad_tape::shape::contiguous_strides(shape);
    let center: usize = shape[2..].iter().zip(&strides[2..]).map(|(n, s)| n / 2 * s).sum();
    let per_group = shape[0] / groups;
    let mut values = vec![0f64; v.numel()];
    for group in 0..groups {
        for channel in 0..per_group.min(shape[1]) {
            values[(group * per_group + channel) * strides[0] + channel * strides[1] + center] = 1.0;
        }
    }
    v.set_value(Tensor::from_vec(values, shape).cast(v.dtype()));
}

/// Uniform, with the variance `2 gain^2 / (fan_in + fan_out)` (`torch.nn.init.xavier_uniform_`).
///
/// # Panics
/// If there are fewer than two dimensions.
#[track_caller]
pub fn xavier_uniform_(v: &Var) {
    xavier_uniform_with(v, 1.0)
}

/// [`xavier_uniform_`] with a gain.
///
/// # Panics
/// Same as [`xavier_uniform_`].
#[track_caller]
pub fn xavier_uniform_with(v: &Var, gain: f64) {
    let (fan_in, fan_out) = calculate_fan_in_and_fan_out(v.shape());
    let bound = gain * (6.0 / (fan_in + fan_out) as f64).sqrt();
    uniform_(v, -bound, bound);
}

/// Normal, with the variance `2 gain^2 / (fan_in + fan_out)` (`torch.nn.init.xavier_normal_`).
///
/// # Panics
/// If there are fewer than two dimensions.
#[track_caller]
pub fn xavier_normal_(v: &Var) {
    xavier_normal_with(v, 1.0)
}

/// [`xavier_normal_`] with a gain.
///
/// # Panics
/// Same as [`xavier_normal_`].
#[track_caller]
pub fn xavier_normal_with(v: &Var, gain: f64) {
    let (fan_in, fan_out) = calculate_fan_in_and_fan_out(v.shape());
    normal_(v, 0.0, gain * (2.0 / (fan_in + fan_out) as f64).sqrt());
}

#[track_caller]
fn kaiming_std(v: &Var, mode: FanMode, nonlinearity: Nonlinearity) -> f64 {
    let (fan_in, fan_out) = calculate_fan_in_and_fan_out(v.shape());
    let fan = if mode == FanMode::FanIn { fan_in } else { fan_out };
    calculate_gain(nonlinearity) / (fan.max(1) as f64).sqrt()
}

/// Uniform, with the variance `gain^2 / fan` (`torch.nn.init.kaiming_uniform_`).
///
/// # Panics
/// If there are fewer than two dimensions.
///
/// ```
/// use tapegrad_nn::init::{FanMode, Nonlinearity, kaiming_uniform_with};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let w = Var::parameter(Tensor::zeros_with(&[8, 24], DType::F32));
/// kaiming_uniform_with(&w, FanMode::FanIn, Nonlinearity::ReLU);
/// assert!(w.to_vec::<f32>().iter().all(|x| x.abs() <= 0.5));
/// ```
#[track_caller]
pub fn kaiming_uniform_(v: &Var) {
    kaiming_uniform_with(v, FanMode::FanIn, Nonlinearity::LeakyReLU(0.0))
}

/// [`kaiming_uniform_`] with another fan or nonlinearity.
///
/// # Panics
/// Same as [`kaiming_uniform_`].
#[track_caller]
pub fn kaiming_uniform_with(v: &Var, mode: FanMode, nonlinearity: Nonlinearity) {
    let bound = 3f64.sqrt() * kaiming_std(v, mode, nonlinearity);
    uniform_(v, -bound, bound);
}

/// Normal, with the variance `gain^2 / fan` (`torch.nn.init.kaiming_normal_`).
///
/// # Panics
/// If there are fewer than two dimensions.
#[track_caller]
pub fn kaiming_normal_(v: &Var) {
    kaiming_normal_with(v, FanMode::FanIn, Nonlinearity::LeakyReLU(0.0))
}

/// [`kaiming_normal_`] with another fan or nonlinearity.
///
/// # Panics
/// Same as [`kaiming_normal_`].
#[track_caller]
pub fn kaiming_normal_with(v: &Var, mode: FanMode, nonlinearity: Nonlinearity) {
    normal_(v, 0.0, kaiming_std(v, mode, nonlinearity));
}

/// Rows (or columns, if there are fewer of them) that are orthogonal and of length `gain`
/// (`torch.nn.init.orthogonal_`). Dimensions after the first count as one.
///
/// # Panics
/// If there are fewer than two dimensions.
#[track_caller]
pub fn orthogonal_(v: &Var) {
    orthogonal_with(v, 1.0)
}

/// [`orthogonal_`] with a gain.
///
/// # Panics
/// Same as [`orthogonal_`].
#[track_caller]
pub fn orthogonal_with(v: &Var, gain: f64) {
    assert!(v.ndim() >= 2, "orthogonal_: needs at least two dimensions, got shape {:?}", v.shape());
    if v.numel() == 0 {
        return;
    }
    let rows = v.shape()[0];
    let columns = v.numel() / rows;
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    while vectors.len() < count {
        let mut x = with_default_generator(|g| g.normal(&[length], 0.0, 1.0)).to_vec::<f64>();
        // Twice: the first pass leaves rounding errors of the size of what it removes.
        for _ in 0..2 {
            for u in &vectors {
                let along: f64 = x.iter().zip(u).map(|(x, u)| x * u).sum();
                x.iter_mut().zip(u).for_each(|(x, u)| *x -= along * u);
            }
        }
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > 1e-6 {
            vectors.push(x.into_iter().map(|x| x / norm).collect());
        }
    }
    let flat: Vec<f64> = vectors.into_iter().flatten().map(|x| gain * x).collect();
    let t = Tensor::from_vec(flat, &[count, length]);
    let t = if rows <= columns { t } else { t.transpose(0, 1).contiguous() };
    v.set_value(t.reshape(v.shape()).cast(v.dtype()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::DType;

    #[test]
    fn ranges_are_those_of_pytorch() {
        let w = var(&[3]);
        let refused = |f: &dyn Fn(&Var), message: &str| {
            let error = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&w))).unwrap_err();
            let text = error.downcast::<String>().expect("a message");
            assert!(text.contains(message), "{text}");
            assert_eq!(w.to_vec::<f64>(), [0.0; 3]);
        };
        refused(
            &|w| uniform_(w, 5.0, 1.0),
            "uniform_: expects a range [a, b) of finite numbers, got a = 5 and b = 1",
        );
        refused(&|w| uniform_(w, f64::NAN, 1.0), "got a = NaN");
        refused(&|w| uniform_(w, f64::NEG_INFINITY, 1.0), "got a = -inf");
        refused(
            &|w| normal_(w, 0.0, -1.0),
            "normal_: the standard deviation must be at least 0, got std = -1",
        );
        refused(&|w| normal_(w, 0.0, f64::NAN), "got std = NaN");
        refused(&|w| trunc_normal_(w, 0.0, 0.0), "must be above 0, got std = 0");
        refused(&|w| trunc_normal_with(w, 0.0, 1.0, 2.0, -2.0), "must be below b");
        let square = var(&[2, 2]);
        let refused =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| xavier_uniform_with(&square, -1.0)));
        assert!(refused.is_err());
        uniform_(&w, 1.0, 1.0);
        normal_(&w, 1.0, 0.0);
        assert_eq!(w.to_vec::<f64>(), [1.0; 3]);
    }

    fn var(shape: &[usize]) -> Var {
        Var::parameter(Tensor::zeros_with(shape, DType::F64))
    }

    /// The values of a module and the number that is drawn after it.
    fn moments(v: &Var) -> (f64, f64) {
        let x = v.to_vec::<f64>();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64)
    }

    #[test]
    fn variances() {
        let w = var(&[64, 32, 3, 3]);
        for (expected, init) in [
            (
                2.0 / 288.0,
                &(|w: &Var| kaiming_uniform_with(w, FanMode::FanIn, Nonlinearity::ReLU)) as &dyn Fn(&Var),
            ),
            (2.0 / 576.0, &|w: &Var| kaiming_normal_with(w, FanMode::FanOut, Nonlinearity::ReLU)),
            (2.0 / 864.0, &|w: &Var| xavier_uniform_(w)),
            (8.0 / 864.0, &|w: &Var| xavier_normal_with(w, 2.0)),
        ] {
            init(&w);
            let (mean, variance) = moments(&w);
            assert!(mean.abs() < 0.003 && (variance / expected - 1.0).abs() < 0.05, "{variance} {expected}");
        }
    }

    #[test]
    fn a_cut_off_normal() {
        let w = var(&[20000]);
        trunc_normal_(&w, 0.0, 1.0);
        let (mean, variance) = moments(&w);
        // The variance of a standard normal truncated at two: 1 - 4 phi(2) / (Phi(2) - Phi(-2)).
        assert!(mean.abs() < 0.03 && (variance - 0.7737).abs() < 0.03, "{mean} {variance}");
        assert!(w.to_vec::<f64>().iter().all(|x| x.abs() <= 2.0));
        for y in [-0.999, -0.3, 0.0, 0.5, 0.99999] {
            assert!((Float::erf(erf_inv(y)) - y).abs() < 1e-12);
        }
    }

    #[test]
    fn orthogonal_rows_or_columns() {
        for (rows, columns) in [(3, 8), (8, 3), (4, 4)] {
            let w = var(&[rows, columns]);
            orthogonal_with(&w, 2.0);
            let x = w.to_vec::<f64>();
            let count = rows.min(columns);
            let at =
                |i: usize, k: usize| if rows <= columns { x[i * columns + k] } else { x[k * columns + i] };
            for i in 0..count {
                for j in 0..count {
                    let product: f64 = (0..rows.max(columns)).map(|k| at(i, k) * at(j, k)).sum();
                    let expected = if i == j { 4.0 } else { 0.0 };
                    assert!((product - expected).abs() < 1e-9, "{product}");
                }
            }
        }
    }

    #[test]
    fn dirac_and_eye() {
        let w = var(&[4, 2, 3, 3]);
        dirac_with(&w, 2);
        let x = w.to_vec::<f64>();
        assert_eq!(x.iter().sum::<f64>(), 4.0);
        assert!([4, 18 + 9 + 4, 36 + 4, 54 + 9 + 4].iter().all(|&i| x[i] == 1.0));
        let e = var(&[2, 3]);
        eye_(&e);
        assert_eq!(e.to_vec::<f64>(), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    }
}
