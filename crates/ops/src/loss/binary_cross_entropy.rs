//! `binary_cross_entropy`, `binary_cross_entropy_with_logits`.

use super::{Reduction, log_sigmoid};
use crate::autocast::in_f32;
use crate::options::setters;
use tapegrad_tape::{Float, Var, dispatch, kernels::strided, record};

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
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    let weight = weight.into();
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
    let log = log_sigmoid(input);
    let log = match &options.pos_weight {
        Some(p) => log * ((p - 1.0) * target + 1.0),
        None => log,
    };
    options.reduction.apply(weighted((1.0 - target) * input - log, options.weight.as_ref()))
}
