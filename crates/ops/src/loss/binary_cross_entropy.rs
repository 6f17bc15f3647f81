//! `binary_cross_entropy`, `binary_cross_entropy_with_logits`.

use super::Reduction;
use crate::activation::logsigmoid;
use crate::autocast::{in_f32, through_f32};
use crate::kernels::activation as kernels;
use crate::options::setters;
use tapegrad_tape::{DType, Float, Var, dispatch, is_grad_enabled, kernels::strided, multiversion, record};

/// `-(t log x + (1 - t) log(1 - x))` for probabilities `x` (`torch.nn.functional.binary_cross_entropy`). The
/// logarithms are cut off at -100. A weight broadcasts to the losses.
///
/// # Panics
/// If the shapes differ, or an input is not between 0 and 1.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![0.5f64], &[1]), Var::from_vec(vec![1f64], &[1]));
/// assert_eq!(tapegrad_ops::binary_cross_entropy(&x, &t).item(), 2f64.ln());
/// ```
#[track_caller]
pub fn binary_cross_entropy(input: &Var, target: &Var) -> Var {
    binary_cross_entropy_with(input, target, None, Reduction::Mean)
}

/// [`binary_cross_entropy`] with a weight, or another reduction.
///
/// # Panics
/// Same as [`binary_cross_entropy`].
#[track_caller]
pub fn binary_cross_entropy_with<'a>(
    input: &Var,
    target: &Var,
    weight: impl Into<Option<&'a Var>>,
    reduction: Reduction,
) -> Var {
    let (input, target, weight) = (in_f32(input), in_f32(target), weight.into());
    through_f32([&input, &target], |[input, target]| of_probabilities(input, target, weight, reduction))
}

#[track_caller]
fn of_probabilities(input: &Var, target: &Var, weight: Option<&Var>, reduction: Reduction) -> Var {
    assert!(
        input.shape() == target.shape(),
        "binary_cross_entropy: a target of shape {:?} for an input of shape {:?}; they have to be the same",
        target.shape(),
        input.shape()
    );
    let x = input.tensor();
    let inside = x.to_vec::<f64>().iter().all(|v| (0.0..=1.0).contains(v));
    assert!(
        inside,
        "binary_cross_entropy: all elements of the input should be between 0 and 1; apply sigmoid, or use binary_cross_entropy_with_logits"
    );
    let target = target.cast(input.dtype());
    let value = dispatch!(float: input.dtype(), "binary_cross_entropy", T => {
        strided::zip::<T, T, T>(input.shape(), &x, &target.tensor(), |x, t| {
            let log = |v: T| Float::maximum(v, -100.0);
            (t - 1.0) * log(Float::ln_1p(-x)) - t * log(Float::ln(x))
        })
    });
    let (xs, ts) = (input.saved(), target.saved());
    let losses = record("binary_cross_entropy", [input, &target], value, move |c| {
        let dx = c.wants(0).then(|| c.grad() * (&xs - &ts) / ((1.0 - &xs) * &xs).clamp_min(1e-12));
        let dt =
            c.wants(1).then(|| c.grad() * ((-&xs).log1p().clamp_min(-100.0) - xs.log().clamp_min(-100.0)));
        [dx, dt]
    });
    reduction.apply(weighted(losses, weight))
}

fn weighted(losses: Var, weight: Option<&Var>) -> Var {
    match weight {
        Some(w) => losses * w,
        None => losses,
    }
}

/// The arguments of [`binary_cross_entropy_with_logits`] besides its tensors.
#[derive(Clone, Debug, Default)]
pub struct BceWithLogitsOptions {
    /// A factor for each loss; broadcasts.
    pub weight: Option<Var>,
    /// A factor for the loss of positive targets; broadcasts.
    pub pos_weight: Option<Var>,
    /// How the losses are reduced.
    pub reduction: Reduction,
}

impl BceWithLogitsOptions {
    setters! { reduction: Reduction; weight: Var, pos_weight: Var }
}

/// Binary cross-entropy of `sigmoid(input)`, computed without overflow
/// (`torch.nn.functional.binary_cross_entropy_with_logits`).
///
/// # Panics
/// If the shapes differ, or a weight does not broadcast.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![0f64], &[1]), Var::from_vec(vec![1f64], &[1]));
/// assert!((tapegrad_ops::binary_cross_entropy_with_logits(&x, &t).item() - 2f64.ln()).abs() < 1e-12);
/// ```
#[track_caller]
pub fn binary_cross_entropy_with_logits(input: &Var, target: &Var) -> Var {
    binary_cross_entropy_with_logits_with(input, target, Default::default())
}

/// [`binary_cross_entropy_with_logits`] with options.
///
/// # Panics
/// Same as [`binary_cross_entropy_with_logits`].
#[track_caller]
pub fn binary_cross_entropy_with_logits_with(
    input: &Var,
    target: &Var,
    options: BceWithLogitsOptions,
) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    assert!(
        input.shape() == target.shape(),
        "binary_cross_entropy_with_logits: target size {:?} must be the same as input size {:?}",
        target.shape(),
        input.shape()
    );
    let losses = match &options.pos_weight {
        Some(p) => (1.0 - target) * input - logsigmoid(input) * ((p - 1.0) * target + 1.0),
        None => of_logits(input, target),
    };
    options.reduction.apply(weighted(losses, options.weight.as_ref()))
}

/// The losses of single elements without weights, in one pass for the common types, as is the gradient.
fn of_logits(input: &Var, target: &Var) -> Var {
    if input.dtype() != target.dtype() || !matches!(input.dtype(), DType::F32 | DType::F64) {
        return (1.0 - target) * input - logsigmoid(input);
    }
    let grain = strided::GRAIN / 8;
    let (x, t) = (input.tensor(), target.tensor());
    let value = match input.dtype() {
        DType::F32 => strided::zip_rows(input.shape(), &x, &t, grain, &kernels::logit_losses),
        _ => strided::zip_rows(input.shape(), &x, &t, grain, &logit_losses),
    };
    let (x, t) = (input.saved(), target.saved());
    record("binary_cross_entropy_with_logits", [input, target], value, move |c| {
        let g = c.grad();
        let fused = || {
            let (x, t, g) = (x.tensor(), t.tensor(), g.tensor());
            dispatch!(float: x.dtype(), "binary_cross_entropy_with_logits", T => {
                Var::from(strided::zip3_rows::<T, T, T, T>(x.shape(), &x, &t, &g, grain, &logit_gradients))
            })
        };
        let dx = || if is_grad_enabled() { g * (x.sigmoid() - &t) } else { fused() };
        [c.wants(0).then(dx), c.wants(1).then(|| -(g * &x))]
    })
}

/// For F32 there is a kernel.
fn logit_losses(out: &mut [f64], x: &[f64], t: &[f64]) {
    for ((o, &x), &t) in out.iter_mut().zip(x).zip(t) {
        let log = Float::minimum(x, 0.0) - (-x.abs()).exp().ln_1p();
        *o = (1.0 - t) * x - log;
    }
}

multiversion! {
    vectors of T;
    fn logit_gradients<T: Float>(out: &mut [T], x: &[T], t: &[T], g: &[T]) {
        for (((o, &x), &t), &g) in out.iter_mut().zip(x).zip(t).zip(g) {
            *o = g * (T::ONE / (T::ONE + Float::exp(-x)) - t);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, parameter};
    use tapegrad_tape::Tensor;

    #[test]
    fn logits_in_one_pass_as_in_single_operations() {
        for dtype in [DType::F32, DType::F64] {
            let leaf = |t: Tensor| Var::parameter(t.cast(dtype));
            // More than one block, and an order of dimensions that differs.
            let (x, t) = (parameter(&[70, 33], 1), parameter(&[33, 70], 2));
            let (x, t) = (leaf((&x * 20.0).tensor()), leaf(t.tensor()));
            let gradients = |f: &dyn Fn(&Var, &Var) -> Var| {
                let losses = f(&x, &t.transpose(0, 1));
                losses.square().sum_all().backward();
                [losses, x.take_grad().unwrap(), t.take_grad().unwrap()]
            };
            let fused = gradients(&of_logits);
            let composed = gradients(&|x, t| (1.0 - t) * x - logsigmoid(x));
            let tolerance = if dtype == DType::F32 { 1e-5 } else { 1e-12 };
            fused.iter().zip(&composed).for_each(|(a, b)| assert_close(a, b, tolerance));
        }
    }
}
