//! `cosine_embedding_loss`.

use super::Reduction;
use crate::autocast::in_f32;
use tapegrad_tape::shape::broadcast_for;
use tapegrad_tape::{Var, where_};

/// `1 - cos(input1, input2)` where the target is 1, `max(0, cos - margin)` where it is -1
/// (`torch.nn.functional.cosine_embedding_loss`). Inputs `[N, D]` with a target `[N]`, or `[D]` with a number.
///
/// # Panics
/// If the shapes do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f64, 0.0], &[1, 2]);
/// let b = Var::from_vec(vec![0f64, 2.0], &[1, 2]);
/// let loss = tapegrad_ops::cosine_embedding_loss(&a, &b, &Var::from_vec(vec![1f64], &[1]));
/// assert_eq!(loss.item(), 1.0);
/// ```
#[track_caller]
pub fn cosine_embedding_loss(input1: &Var, input2: &Var, target: &Var) -> Var {
    cosine_embedding_loss_with(input1, input2, target, 0.0, Reduction::Mean)
}

/// [`cosine_embedding_loss`] with a margin, or another reduction.
///
/// # Panics
/// Same as [`cosine_embedding_loss`].
#[track_caller]
pub fn cosine_embedding_loss_with(
    input1: &Var,
    input2: &Var,
    target: &Var,
    margin: f64,
    reduction: Reduction,
) -> Var {
    let (input1, input2) = (in_f32(input1), in_f32(input2));
    let (input1, input2) = (&*input1, &*input2);
    let fits = (target.ndim() == 1 && input1.ndim() == 2 && input2.ndim() == 2)
        || (target.ndim() == 0 && input1.ndim() == 1 && input2.ndim() == 1);
    assert!(
        fits,
        "cosine_embedding_loss: expects inputs [N, D] with a target [N], or [D] with a target without dimensions, got {:?}, {:?} and {:?}",
        input1.shape(),
        input2.shape(),
        target.shape()
    );
    broadcast_for("cosine_embedding_loss", input1.shape(), input2.shape());
    const EPS: f64 = 1e-12;
    let sum = |v: Var| v.sum(-1);
    let squares = (sum(input1.square()) + EPS) * (sum(input2.square()) + EPS);
    let cos = sum(input1 * input2) / squares.sqrt();
    let near = where_(&target.eq(1), 1.0 - &cos, 0.0);
    let far = where_(&target.eq(-1), (&cos - margin).clamp_min(0), 0.0);
    reduction.apply(near + far)
}
