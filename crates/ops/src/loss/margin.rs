//! Losses with a margin: `hinge_loss`, `hinge_embedding_loss`, `margin_ranking_loss`, `soft_margin_loss`.

use super::{Reduction, check_same};
use crate::activation::logsigmoid;
use crate::autocast::in_f32;
use tapegrad_tape::shape::broadcast_for;
use tapegrad_tape::{Var, where_};

/// `max(0, 1 - target * input)` for targets 1 and -1: the loss of a linear support vector machine.
///
/// # Panics
/// If the shapes differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![0.5f32, 2.0], &[2]), Var::from_vec(vec![1f32, -1.0], &[2]));
/// assert_eq!(tapegrad_ops::hinge_loss_with(&x, &t, tapegrad_ops::Reduction::None).to_vec::<f32>(), [0.5, 3.0]);
/// ```
#[track_caller]
pub fn hinge_loss(input: &Var, target: &Var) -> Var {
    hinge_loss_with(input, target, Reduction::Mean)
}

/// [`hinge_loss`] with another reduction.
///
/// # Panics
/// Same as [`hinge_loss`].
#[track_caller]
pub fn hinge_loss_with(input: &Var, target: &Var, reduction: Reduction) -> Var {
    check_same("hinge_loss", input, target);
    reduction.apply((1.0 - input * target).clamp_min(0))
}

/// The input where the target is 1, and `max(0, margin - input)` where it is -1
/// (`torch.nn.functional.hinge_embedding_loss`). The margin is 1.
///
/// # Panics
/// If the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![0.5f32, 0.25], &[2]), Var::from_vec(vec![1f32, -1.0], &[2]));
/// assert_eq!(tapegrad_ops::hinge_embedding_loss_with(&x, &t, 1.0, tapegrad_ops::Reduction::None).to_vec::<f32>(), [0.5, 0.75]);
/// ```
#[track_caller]
pub fn hinge_embedding_loss(input: &Var, target: &Var) -> Var {
    hinge_embedding_loss_with(input, target, 1.0, Reduction::Mean)
}

/// [`hinge_embedding_loss`] with another margin or reduction.
///
/// # Panics
/// Same as [`hinge_embedding_loss`].
#[track_caller]
pub fn hinge_embedding_loss_with(input: &Var, target: &Var, margin: f64, reduction: Reduction) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    broadcast_for("hinge_embedding_loss", input.shape(), target.shape());
    let near = where_(&target.ne(-1), input, 0.0);
    let far = where_(&target.ne(1), (margin - input).clamp_min(0), 0.0);
    reduction.apply(near + far)
}

/// `max(0, margin - target * (input1 - input2))`: a target of 1 or -1 says which of two should be larger
/// (`torch.nn.functional.margin_ranking_loss`). The margin is 0.
///
/// # Panics
/// If the tensors have different numbers of dimensions, or the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::Var;
/// let (a, b) = (Var::from_vec(vec![1f32, 2.0], &[2]), Var::from_vec(vec![3f32, 0.0], &[2]));
/// let t = Var::from_vec(vec![1f32, 1.0], &[2]);
/// assert_eq!(tapegrad_ops::margin_ranking_loss_with(&a, &b, &t, 0.5, tapegrad_ops::Reduction::None).to_vec::<f32>(), [2.5, 0.0]);
/// ```
#[track_caller]
pub fn margin_ranking_loss(input1: &Var, input2: &Var, target: &Var) -> Var {
    margin_ranking_loss_with(input1, input2, target, 0.0, Reduction::Mean)
}

/// [`margin_ranking_loss`] with a margin, or another reduction.
///
/// # Panics
/// Same as [`margin_ranking_loss`].
#[track_caller]
pub fn margin_ranking_loss_with(
    input1: &Var,
    input2: &Var,
    target: &Var,
    margin: f64,
    reduction: Reduction,
) -> Var {
    let (input1, input2, target) = (in_f32(input1), in_f32(input2), in_f32(target));
    let (input1, input2, target) = (&*input1, &*input2, &*target);
    let same = [input2, target].iter().all(|v| v.ndim() == input1.ndim() || v.ndim() == 0);
    assert!(
        same,
        "margin_ranking_loss: all input tensors should have the same number of dimensions, but got sizes: input1 {:?}, input2 {:?}, target {:?}",
        input1.shape(),
        input2.shape(),
        target.shape()
    );
    let inputs = broadcast_for("margin_ranking_loss", input1.shape(), input2.shape());
    broadcast_for("margin_ranking_loss", &inputs, target.shape());
    reduction.apply((margin - target * (input1 - input2)).clamp_min(0))
}

/// `log(1 + e^(-target * input))` for targets 1 and -1: logistic loss (`torch.nn.functional.soft_margin_loss`).
///
/// # Panics
/// If the shapes differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let loss = tapegrad_ops::soft_margin_loss_with(&Var::from(0.0), &Var::from(1.0), tapegrad_ops::Reduction::Mean);
/// assert!((loss.item() - 2f64.ln()).abs() < 1e-6);
/// ```
#[track_caller]
pub fn soft_margin_loss(input: &Var, target: &Var) -> Var {
    soft_margin_loss_with(input, target, Reduction::Mean)
}

/// [`soft_margin_loss`] with another reduction.
///
/// # Panics
/// Same as [`soft_margin_loss`].
#[track_caller]
pub fn soft_margin_loss_with(input: &Var, target: &Var, reduction: Reduction) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    // Checked here to report this loss and not the product.
    check_same("soft_margin_loss", input, target);
    reduction.apply(-logsigmoid(&(input * target)))
}
