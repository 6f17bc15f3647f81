//! `mse_loss`, `l1_loss`, `smooth_l1_loss`, `huber_loss`: functions of the difference of two tensors.

use super::{Reduction, difference};
use tapegrad_tape::{Var, where_};

// The gradients at infinities and NaN are those of PyTorch.
tapegrad_tape::pointwise! {
    mod table: simd;

    hidden smooth_l1_loss(d, beta, scale) = if d.abs() < beta { d * d * scale } else { d.abs() - T::c(0.5) * beta };
        input(d, g) fused if d <= -beta { -g } else if d >= beta { g } else { g * (d / beta) };
        rule {
            let large = d.abs().ge(beta);
            where_(&large, g * d.sign(), g * (where_(&large, 0.0, d) / beta))
        }; on -2.0, 2.0, 0.7, 0.5 / 0.7;

    hidden huber_loss(d, delta) = if d.abs() <= delta { d * d * T::c(0.5) } else { (d.abs() - T::c(0.5) * delta) * delta };
        input(d, g) fused if d < -delta { -(g * delta) } else if d > delta { g * delta } else { g * d };
        rule {
            let large = d.abs().gt(delta);
            where_(&large, g * d.sign() * delta, g * where_(&large, 0.0, d))
        }; on -2.0, 2.0, 0.7;
}

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
    reduction.apply(table::smooth_l1_loss.apply(&d, [beta, 0.5 / beta, 0.0, 0.0]))
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
    reduction.apply(table::huber_loss.apply(&d, [delta, 0.0, 0.0, 0.0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::Tensor;

    #[test]
    fn both_forms_of_the_gradients_agree() {
        let unit =
            Tensor::from_vec((0..60).map(|i| f64::from(i * 7 % 101) / 101.0 + 0.004).collect(), &[5, 12]);
        table::ALL.iter().for_each(|row| row.check(&unit));
    }

    /// The values are those of PyTorch 2.15.
    #[test]
    fn gradients_at_the_ends() {
        let ends = [f32::NEG_INFINITY, -1.0, 0.0, 1.0, f32::INFINITY, f32::NAN];
        for loss in [smooth_l1_loss_with as fn(&Var, &Var, f64, Reduction) -> Var, huber_loss_with] {
            let x = Var::parameter(Tensor::from_vec(ends.to_vec(), &[6]));
            loss(&x, &x.zeros_like(), 1.0, Reduction::Sum).backward();
            let g = x.grad().unwrap().to_vec::<f32>();
            assert_eq!(g[..5], [-1.0, -1.0, 0.0, 1.0, 1.0]);
            assert!(g[5].is_nan());
        }
    }
}
