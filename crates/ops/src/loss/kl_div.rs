//! `kl_div`.

use super::{Reduction, check_same};
use crate::autocast::in_f32;
use tapegrad_tape::Var;

/// How the pointwise divergences are reduced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KlDivReduction {
    /// They are returned as they are.
    None,
    /// The mean over all elements, PyTorch's default.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Their sum divided by the size of the first dimension: the divergence by its definition.
    BatchMean,
}

/// The Kullback-Leibler divergence `target * (log target - input)` of log-probabilities `input`
/// (`torch.nn.functional.kl_div`); with `log_target` the target holds logarithms too.
///
/// # Panics
/// If the shapes differ.
///
/// ```
/// use tapegrad_ops::KlDivReduction;
/// use tapegrad_tape::Var;
/// let p = Var::from_vec(vec![0.5f64, 0.5], &[1, 2]);
/// let q = Var::from_vec(vec![0.25f64, 0.75], &[1, 2]);
/// let loss = tapegrad_ops::kl_div_with(&q.log(), &p, KlDivReduction::BatchMean, false);
/// assert!((loss.item() - (0.5 * 2f64.ln() + 0.5 * (2.0 / 3f64).ln())).abs() < 1e-12);
/// ```
#[track_caller]
pub fn kl_div(input: &Var, target: &Var) -> Var {
    kl_div_with(input, target, KlDivReduction::Mean, false)
}

/// [`kl_div`] with another reduction, or logarithms as targets.
///
/// # Panics
/// Same as [`kl_div`].
#[track_caller]
pub fn kl_div_with(input: &Var, target: &Var, reduction: KlDivReduction, log_target: bool) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    check_same("kl_div", input, target);
    let losses = match log_target {
        true => target.exp() * (target - input),
        false => target.xlogy(target) - target * input,
    };
    match reduction {
        KlDivReduction::None => losses,
        KlDivReduction::Mean => Reduction::Mean.apply(losses),
        KlDivReduction::Sum => losses.sum_all(),
        KlDivReduction::BatchMean => losses.sum_all() / input.shape().first().copied().unwrap_or(1) as f64,
    }
}
