//! `cov`, `corrcoef`.

use crate::matmul::matmul;
use crate::options::setters;
use tapegrad_tape::{DType, Var};

/// The options of [`cov`].
#[derive(Clone, Debug)]
pub struct CovOptions {
    /// What is subtracted from the number of observations: 1 by default.
    pub correction: i64,
    /// How often each observation occurs: integers.
    pub fweights: Option<Var>,
    /// How important each observation is.
    pub aweights: Option<Var>,
}

impl CovOptions {
    setters! { correction: i64; fweights: Var, aweights: Var }
}

impl Default for CovOptions {
    fn default() -> CovOptions {
        CovOptions { correction: 1, fweights: None, aweights: None }
    }
}

/// The covariances of variables, one a row, from observations, one a column (`torch.cov`). One variable alone may be a
/// vector; its variance has no dimensions. Has infinities or NaN, as in PyTorch, where there are not more observations
/// than the correction.
///
/// # Panics
/// If there are more than two dimensions, the input is boolean, or weights are of another type or size, or negative.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![0f64, 1.0, 2.0, 2.0, 1.0, 0.0], &[2, 3]);
/// assert_eq!(tapegrad_ops::cov(&x).to_vec::<f64>(), [1.0, -1.0, -1.0, 1.0]);
/// ```
#[track_caller]
pub fn cov(x: &Var) -> Var {
    cov_with(x, Default::default())
}

/// [`cov`] with options.
///
/// # Panics
/// Same as [`cov`].
#[track_caller]
pub fn cov_with(x: &Var, options: CovOptions) -> Var {
    assert!(
        x.ndim() <= 2,
        "cov: expected input to have two or fewer dimensions but got shape {:?}",
        x.shape()
    );
    assert!(x.dtype() != DType::Bool, "cov: bool dtype is not supported for input");
    let rows = if x.ndim() < 2 { x.reshape((1, x.numel())) } else { x.clone() };
    let n = rows.shape()[1];
    let weights = weights(n, &options);
    let rows = rows.to_float();
    // The steps and their order are PyTorch's, so that weights of F32 are rounded alike.
    let (mean, count) = match &weights {
        None => (rows.mean_keepdim(1), Var::from(n as i64)),
        Some(w) => {
            let total = w.sum(());
            assert!(n == 0 || total.item() != 0.0, "cov: weights sum to zero, can't be normalized");
            (rows.mul(w).sum(1).div(&total).unsqueeze(1), total)
        }
    };
    // With both kinds of weights, or importance alone, the correction is weighted as well.
    let correction = options.correction;
    let freedom = match (&weights, &options.aweights) {
        (Some(w), Some(a)) if correction != 0 => &count - w.mul(a).sum(()).mul(correction).div(&count),
        _ => &count - correction,
    };
    let freedom = if freedom.item() <= 0.0 { Var::from(0i64) } else { freedom };
    let centered = rows.sub(mean);
    let weighted = weights.map_or_else(|| centered.clone(), |w| centered.mul(w));
    let dtype = rows.dtype();
    let y = matmul(&centered.cast(dtype), &weighted.cast(dtype).transpose(0, 1)).div(freedom);
    if y.numel() == 1 { y.reshape(()) } else { y }
}

/// The weights of the observations, checked.
#[track_caller]
fn weights(n: usize, options: &CovOptions) -> Option<Var> {
    let check = |name: &str, w: &Var, whole: bool| {
        assert!(
            w.ndim() <= 1,
            "cov: expected {name} to have one or fewer dimensions but got shape {:?}",
            w.shape()
        );
        let fits = if whole { matches!(w.dtype(), DType::I64 | DType::U8) } else { w.dtype().is_float() };
        assert!(
            fits,
            "cov: expected {name} to have {} dtype, but got {}",
            if whole { "integral" } else { "floating point" },
            w.dtype()
        );
        assert!(
            w.numel() == n,
            "cov: expected {name} to have the same numel as there are observations in the input but got {} != {n}",
            w.numel()
        );
        assert!(w.to_vec::<f64>().iter().all(|&x| x >= 0.0 || x.is_nan()), "cov: {name} cannot be negative");
    };
    let (f, a) = (&options.fweights, &options.aweights);
    f.iter().for_each(|w| check("fweights", w, true));
    a.iter().for_each(|w| check("aweights", w, false));
    match (f, a) {
        (Some(f), Some(a)) => Some(a.mul(f)),
        (f, a) => f.clone().or(a.clone()),
    }
}

/// The correlation coefficients of variables, one a row, from observations, one a column (`torch.corrcoef`).
///
/// # Panics
/// If there are more than two dimensions.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![0f64, 1.0, 2.0, 4.0, 2.0, 0.0], &[2, 3]);
/// let y = tapegrad_ops::corrcoef(&x).to_vec::<f64>();
/// assert!((y[0] - 1.0).abs() < 1e-12 && (y[1] + 1.0).abs() < 1e-12);
/// ```
#[track_caller]
pub fn corrcoef(x: &Var) -> Var {
    assert!(
        x.ndim() <= 2,
        "corrcoef: expected input to have two or fewer dimensions but got shape {:?}",
        x.shape()
    );
    let c = cov(x);
    if c.ndim() == 0 {
        // One, unless the variance is zero or not finite.
        let again = c.clone();
        return c / again;
    }
    let deviation = c.diagonal().sqrt();
    (c / deviation.unsqueeze(1) / deviation.unsqueeze(0)).clamp(-1, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use tapegrad_tape::Tensor;

    #[test]
    fn weights_are_repetitions() {
        let x = parameter(&[2, 3], 1);
        let repeated = x.index_select(1, &Var::from_vec(vec![0i64, 0, 1, 2, 2, 2], &[6]));
        let options =
            CovOptions { fweights: Some(Var::from_vec(vec![2i64, 1, 3], &[3])), ..Default::default() };
        assert_close(&cov_with(&x, options), &cov(&repeated), 1e-12);
    }

    /// With two observations these gradients would be zero without rounding: the bits are PyTorch's.
    #[test]
    fn weights_of_another_type_are_rounded_alike() {
        let x = Var::parameter(Tensor::from_vec(vec![0.03878271257007082, -3.3105206357295502], &[1, 2]));
        let w = Var::parameter(Tensor::from_vec(vec![0.447_707_9_f32, 0.823_337_14], &[2]));
        let y = cov_with(&x, CovOptions { aweights: Some(w.clone()), ..Default::default() });
        (y * -0.04301812750734747).backward();
        assert_eq!(w.grad().unwrap().to_vec::<f32>(), [1.7881393e-7, 5.9604645e-8]);
    }

    #[test]
    fn gradients() {
        check_gradients(|v| cov(&v[0]), &[parameter(&[2, 3], 1)]);
        check_gradients(|v| corrcoef(&v[0]), &[parameter(&[2, 4], 1)]);
        let weighted = |v: &[Var]| {
            let fweights = Some(Var::from_vec(vec![2i64, 1, 3], &[3]));
            cov_with(&v[0], CovOptions { fweights, aweights: Some(v[1].square() + 0.1), correction: 1 })
        };
        check_gradients(weighted, &[parameter(&[2, 3], 1), parameter(&[3], 2)]);
    }
}
