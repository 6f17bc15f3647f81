//! `poisson_nll_loss`.

use super::Reduction;
use crate::autocast::in_f32;
use crate::options::setters;
use tapegrad_tape::shape::broadcast_for;
use tapegrad_tape::{Var, where_};

/// The options of [`poisson_nll_loss`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoissonNllOptions {
    /// Whether the input is the logarithm of the rate.
    pub log_input: bool,
    /// Whether Stirling's approximation of `log(target!)` is added, for targets above 1.
    pub full: bool,
    /// Added to a rate before its logarithm.
    pub eps: f64,
    /// How the losses of single elements are reduced.
    pub reduction: Reduction,
}

impl PoissonNllOptions {
    setters! { log_input: bool, full: bool, eps: f64, reduction: Reduction }
}

impl Default for PoissonNllOptions {
    fn default() -> PoissonNllOptions {
        PoissonNllOptions { log_input: true, full: false, eps: 1e-8, reduction: Reduction::Mean }
    }
}

/// The negative log-likelihood of counts under Poisson distributions: `exp(input) - target * input`, or without
/// `log_input` `input - target * log(input + eps)` (`torch.nn.functional.poisson_nll_loss`). The shapes broadcast.
///
/// # Panics
/// If the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from(0.0), Var::from(3.0));
/// assert_eq!(tapegrad_ops::poisson_nll_loss(&x, &t).item(), 1.0);
/// ```
#[track_caller]
pub fn poisson_nll_loss(input: &Var, target: &Var) -> Var {
    poisson_nll_loss_with(input, target, Default::default())
}

/// [`poisson_nll_loss`] with options.
///
/// # Panics
/// Same as [`poisson_nll_loss`].
#[track_caller]
pub fn poisson_nll_loss_with(input: &Var, target: &Var, options: PoissonNllOptions) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    broadcast_for("poisson_nll_loss", input.shape(), target.shape());
    let losses = if options.log_input {
        input.exp() - target * input
    } else {
        input - target * (input + options.eps).log()
    };
    let losses = if options.full {
        // A target of 1 or less counts as 1, whose logarithm is harmless.
        let large = target.gt(1.0);
        let t = where_(&large, target, 1.0);
        let stirling = &t * t.log() - &t + (&t * (2.0 * std::f64::consts::PI)).log() * 0.5;
        losses + where_(&large, stirling, 0.0)
    } else {
        losses
    };
    options.reduction.apply(losses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives_with_every_option() {
        for i in 0..4 {
            let options = PoissonNllOptions::new().log_input(i & 1 > 0).full(i & 2 > 0);
            check_gradients(
                |v| poisson_nll_loss_with(&(v[0].square() + 0.2), &(&v[1] * 2.0 + 1.5), options),
                &[parameter(&[2, 3], 1), parameter(&[2, 3], 2)],
            );
        }
    }

    #[test]
    #[should_panic(
        expected = "poisson_nll_loss: the size of tensor a (3) must match the size of tensor b (2)"
    )]
    fn shapes_that_do_not_broadcast() {
        poisson_nll_loss(&parameter(&[2, 3], 1), &parameter(&[2], 1));
    }
}
