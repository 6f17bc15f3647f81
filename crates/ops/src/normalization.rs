//! Shared by the normalizations: checks, and the derivative in differentiable operations.

use tapegrad_tape::{DType, RecordOptions, Tensor, Var, record, record_with};

/// `x` with its mean over `dims` subtracted, if `centered`, and divided by the root of the mean square of that
/// plus `eps`; and the inverse of that root.
#[track_caller]
pub(crate) fn normalized(x: &Var, dims: &[isize], eps: f64, centered: bool) -> (Var, Var) {
    let x = if centered {
        // First shifted near zero, where the mean is accurate. That mean replaces the constant in the gradient.
        let near = x - mean(&x.detach(), dims);
        &near - &mean(&near, dims)
    } else {
        x.clone()
    };
    let rstd = mean(&(&x * &x), dims).add(eps).rsqrt();
    (&x * &rstd, rstd)
}

#[track_caller]
fn mean(x: &Var, dims: &[isize]) -> Var {
    let count: usize = dims.iter().map(|&d| x.size(d)).product();
    x.sum_keepdim(dims) * (1.0 / count as f64)
}

/// The gradients of `normalized(x) * weight`, where `weight` broadcasts to `x`: for `x`, and for the weight before
/// it is summed to the weight's shape.
#[track_caller]
pub(crate) fn gradients(
    x: &Var,
    g: &Var,
    weight: Option<&Var>,
    dims: &[isize],
    eps: f64,
    centered: bool,
) -> (Var, Var) {
    let (unit, rstd) = normalized(x, dims, eps, centered);
    let inner = weight.map_or_else(|| g.clone(), |w| g * w);
    let along = &unit * &mean(&(&inner * &unit), dims);
    let flat = if centered { &inner - &mean(&inner, dims) } else { inner };
    ((flat - along) * rstd, g * &unit)
}

/// Checks that weight and bias, if given, have the expected shape and the input's type.
#[track_caller]
pub(crate) fn check_affine(op: &str, x: &Var, weight: Option<&Var>, bias: Option<&Var>, want: &[usize]) {
    for (name, v) in [("weight", weight), ("bias", bias)] {
        let Some(v) = v else { continue };
        assert!(
            v.shape() == want,
            "{op}: input {:?} needs a {name} of shape {want:?}, but got {:?}",
            x.shape(),
            v.shape()
        );
        check_type(op, name, x, v);
    }
}

#[track_caller]
pub(crate) fn check_type(op: &str, name: &str, x: &Var, v: &Var) {
    assert!(
        v.dtype() == x.dtype() || (is_half(x.dtype()) && v.dtype() == DType::F32),
        "{op}: the input is {}, but {name} is {}",
        x.dtype(),
        v.dtype()
    );
}

/// True for the types that are computed in F32.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Checks that the input has one of the types that are normalized.
#[track_caller]
pub(crate) fn check_float(op: &str, x: &Var) {
    assert!(x.dtype().is_float(), "{op}: not defined for {}; it takes floating-point types", x.dtype());
}

/// Records an operation of an input, perhaps a weight and perhaps a bias. The rule is given the incoming gradient and
/// which of the three gradients are wanted.
#[track_caller]
pub(crate) fn record_affine(
    op: &'static str,
    x: &Var,
    weight: Option<&Var>,
    bias: Option<&Var>,
    value: Tensor,
    rule: impl Fn(&Var, [bool; 3]) -> [Option<Var>; 3] + Send + Sync + 'static,
) -> Var {
    record(op, [Some(x), weight, bias], value, move |c| rule(c.grad(), [0, 1, 2].map(|i| c.wants(i))))
}

/// [`record_affine`] for an operation that normalizes each sample by itself. The rule is told whether to give the
/// gradients of weight and bias for each sample.
#[track_caller]
pub(crate) fn record_by_sample(
    op: &'static str,
    x: &Var,
    weight: Option<&Var>,
    bias: Option<&Var>,
    value: Tensor,
    rule: impl Fn(&Var, [bool; 3], bool) -> [Option<Var>; 3] + Send + Sync + 'static,
) -> Var {
    let options = RecordOptions::new().by_sample(true);
    record_with(op, [Some(x), weight, bias], value, options, move |c| {
        rule(c.grad(), [0, 1, 2].map(|i| c.wants(i)), c.by_sample(1) || c.by_sample(2))
    })
}

/// The normalization of an empty input: its own value, and zero gradients.
#[track_caller]
pub(crate) fn record_empty(op: &'static str, x: &Var, weight: Option<&Var>, bias: Option<&Var>) -> Var {
    let shapes = [Some(x), weight, bias].map(|v| v.map(|v| v.shape().to_vec()));
    let dtype = x.dtype();
    record_affine(op, x, weight, bias, x.tensor(), move |_, _| {
        shapes.each_ref().map(|s| s.as_ref().map(|s| Tensor::zeros_with(s, dtype).into()))
    })
}
