//! `mse_loss`, `l1_loss`, `smooth_l1_loss`, `huber_loss`: functions of the difference of two tensors.

use super::{Reduction, difference};
use tapegrad_tape::{Var, where_};

/// The square of the difference (`torch.nn.functional.mse_loss`), for a target of the input's shape. PyTorch broadcasts
/// another one with a warning; here, use [`Var::expand`] explicitly.
///
/// # Panics
/// If the shapes differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![1f32, 3.0], &[2]), Var::from_vec(vec![0f32, 0.0], &[2]));
/// assert_eq!(tapegrad_ops::mse_loss_with(&x, &t, tapegrad_ops::Reduction::Mean).item(), 5.0);
/// ```
#[track_caller]
pub fn mse_loss(input: &Var, target: &Var) -> Var {
    mse_loss_with(input, target, Reduction::Mean)
}

/// [`mse_loss`] with another reduction.
///
/// # Panics
/// Same as [`mse_loss`].
#[track_caller]
pub fn mse_loss_with(input: &Var, target: &Var, reduction: Reduction) -> Var {
    reduction.apply(difference("mse_loss", input, target).square())
}

/// The absolute value of the difference (`torch.nn.functional.l1_loss`), for a target of the
/// input's shape.
///
/// # Panics
/// If the shapes differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![1f32, -3.0], &[2]), Var::from_vec(vec![0f32, 0.0], &[2]));
/// assert_eq!(tapegrad_ops::l1_loss_with(&x, &t, tapegrad_ops::Reduction::Mean).item(), 2.0);
/// ```
#[track_caller]
pub fn l1_loss(input: &Var, target: &Var) -> Var {
    l1_loss_with(input, target, Reduction::Mean)
}

/// [`l1_loss`] with another reduction.
///
/// # Panics
/// Same as [`l1_loss`].
#[track_caller]
pub fn l1_loss_with(input: &Var, target: &Var, reduction: Reduction) -> Var {
    reduction.apply(difference("l1_loss", input, target).abs())
}

/// Half the square of the difference over `beta` where it is below `beta`, else the absolute value less half of
/// `beta` (`torch.nn.functional.smooth_l1_loss`; Girshick 2015, "Fast R-CNN"). `beta` is 1.
///
/// # Panics
/// If `beta` is negative or the shapes differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![0.5f32, 2.0], &[2]), Var::from_vec(vec![0f32, 0.0], &[2]));
/// assert_eq!(tapegrad_ops::smooth_l1_loss_with(&x, &t, 1.0, tapegrad_ops::Reduction::None).to_vec::<f32>(), [0.125, 1.5]);
/// ```
#[track_caller]
pub fn smooth_l1_loss(input: &Var, target: &Var) -> Var {
    smooth_l1_loss_with(input, target, 1.0, Reduction::Mean)
}

/// [`smooth_l1_loss`] with another `beta` or reduction.
///
/// # Panics
/// Same as [`smooth_l1_loss`].
#[track_caller]
pub fn smooth_l1_loss_with(input: &Var, target: &Var, beta: f64, reduction: Reduction) -> Var {
    assert!(beta >= 0.0, "smooth_l1_loss: does not support negative values for beta, got {beta}");
    if beta == 0.0 {
        return l1_loss_with(input, target, reduction);
    }
    let d = difference("smooth_l1_loss", input, target);
    let size = d.abs();
    let small = size.lt(beta);
    // The square of an infinity would have a NaN gradient; here it is zero.
    let square = where_(&small, d, 0.0).square();
    reduction.apply(where_(&small, square * (0.5 / beta), size - 0.5 * beta))
}

/// Half the square of the difference where it is at most `delta`, else linear with slope `delta`
/// (`torch.nn.functional.huber_loss`; Huber 1964). `delta` is 1.
///
/// # Panics
/// If `delta` is not positive or the shapes differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![0.5f32, 3.0], &[2]), Var::from_vec(vec![0f32, 0.0], &[2]));
/// assert_eq!(tapegrad_ops::huber_loss_with(&x, &t, 2.0, tapegrad_ops::Reduction::None).to_vec::<f32>(), [0.125, 4.0]);
/// ```
#[track_caller]
pub fn huber_loss(input: &Var, target: &Var) -> Var {
    huber_loss_with(input, target, 1.0, Reduction::Mean)
}

/// [`huber_loss`] with another `delta` or reduction.
///
/// # Panics
/// Same as [`huber_loss`].
#[track_caller]
pub fn huber_loss_with(input: &Var, target: &Var, delta: f64, reduction: Reduction) -> Var {
    assert!(delta > 0.0, "huber_loss: does not support non-positive values for delta, got {delta}");
    let d = difference("huber_loss", input, target);
    let size = d.abs();
    let small = size.le(delta);
    // As in `smooth_l1_loss`.
    let square = where_(&small, d, 0.0).square();
    reduction.apply(where_(&small, square * 0.5, (size - 0.5 * delta) * delta))
}
