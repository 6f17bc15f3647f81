//! `gaussian_nll_loss`.

use super::Reduction;
use crate::options::setters;
use tapegrad_tape::shape::broadcast_for;
use tapegrad_tape::{Operand, Tensor, Var};

/// The options of [`gaussian_nll_loss`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianNllOptions {
    /// Whether the constant `log(2 pi) / 2` is added.
    pub full: bool,
    /// The smallest variance; the gradient of a smaller one passes.
    pub eps: f64,
    /// How the losses of single elements are reduced.
    pub reduction: Reduction,
}

impl GaussianNllOptions {
    setters! { full: bool, eps: f64, reduction: Reduction }
}

impl Default for GaussianNllOptions {
    fn default() -> GaussianNllOptions {
        GaussianNllOptions { full: false, eps: 1e-6, reduction: Reduction::Mean }
    }
}

/// The negative log-likelihood of targets under normal distributions with the mean `input` and the variance `var`:
/// `(log(var) + (input - target)^2 / var) / 2` (`torch.nn.functional.gaussian_nll_loss`).
///
/// `var` is a number, or has the input's shape, or that shape without its last dimension or with one dimension of size 1.
///
/// # Panics
/// If the shapes do not fit or a variance is negative.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from(1.0), Var::from(3.0));
/// assert_eq!(tapegrad_ops::gaussian_nll_loss(&x, &t, 1.0).item(), 2.0);
/// ```
#[track_caller]
pub fn gaussian_nll_loss(input: &Var, target: &Var, var: impl Into<Operand>) -> Var {
    gaussian_nll_loss_with(input, target, var, Default::default())
}

/// [`gaussian_nll_loss`] with options.
///
/// # Panics
/// Same as [`gaussian_nll_loss`].
#[track_caller]
pub fn gaussian_nll_loss_with(
    input: &Var,
    target: &Var,
    var: impl Into<Operand>,
    options: GaussianNllOptions,
) -> Var {
    let op = "gaussian_nll_loss";
    let var = match var.into() {
        Operand::Var(v) => v,
        Operand::Scalar(s) => Var::from(Tensor::full_with(input.shape(), s, input.dtype())),
    };
    broadcast_for(op, input.shape(), target.shape());
    let (all, v) = (input.shape(), var.shape());
    let lead = &all[..all.len().saturating_sub(1)];
    let var = if v == all {
        var
    } else if v == lead {
        var.unsqueeze(-1)
    } else {
        let mut other = v.iter().zip(all).filter(|(a, b)| a != b);
        let one =
            v.len() == all.len() && other.next().is_some_and(|(&n, _)| n == 1) && other.next().is_none();
        assert!(one, "{op}: var of shape {v:?} is of incorrect size for an input of shape {all:?}");
        var
    };
    if let Some(bad) = var.to_vec::<f64>().iter().find(|&&x| x < 0.0) {
        panic!("{op}: var has negative entry {bad}");
    }
    let var = &var + (var.clamp_min(options.eps) - &var).detach();
    let losses = (var.log() + (input - target).square() / var) * 0.5;
    let constant = 0.5 * (2.0 * std::f64::consts::PI).ln();
    options.reduction.apply(if options.full { losses + constant } else { losses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives_with_every_shape_of_the_variance() {
        for shape in [&[2, 3][..], &[2], &[2, 1], &[1, 3]] {
            for full in [false, true] {
                let options = GaussianNllOptions::new().full(full);
                check_gradients(
                    |v| gaussian_nll_loss_with(&v[0], &v[1], v[2].square() + 0.1, options),
                    &[parameter(&[2, 3], 1), parameter(&[2, 3], 2), parameter(shape, 3)],
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "gaussian_nll_loss: var has negative entry -1")]
    fn a_negative_variance() {
        gaussian_nll_loss(&Var::from(1.0), &Var::from(1.0), -1.0);
    }

    #[test]
    #[should_panic(
        expected = "gaussian_nll_loss: var of shape [3] is of incorrect size for an input of shape [2, 3]"
    )]
    fn a_variance_of_another_shape() {
        gaussian_nll_loss(&parameter(&[2, 3], 1), &parameter(&[2, 3], 2), &parameter(&[3], 3).square());
    }
}
