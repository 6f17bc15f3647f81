//! `nll_loss`.

use super::Reduction;
use crate::autocast::in_f32;
use crate::options::setters;
use tapegrad_tape::{DType, Var, where_};

/// The arguments of [`nll_loss`] besides its tensors, with PyTorch's defaults.
#[derive(Clone, Debug)]
pub struct NllLossOptions {
    /// A factor for each class, `[C]`.
    pub weight: Option<Var>,
    /// Targets of this class are ignored.
    pub ignore_index: i64,
    /// How the losses are reduced.
    pub reduction: Reduction,
}

impl NllLossOptions {
    setters! { ignore_index: i64, reduction: Reduction; weight: Var }
}

impl Default for NllLossOptions {
    fn default() -> Self {
        NllLossOptions { weight: None, ignore_index: -100, reduction: Reduction::Mean }
    }
}

/// The negative log-likelihood of class numbers (`torch.nn.functional.nll_loss`): `-input[target]` for
/// log-probabilities `[N, C]` and targets `[N]`, `[N, C, d1, ...]` and `[N, d1, ...]`, or `[C]` and a number.
/// The mean is weighted by the classes' weights.
///
/// # Panics
/// If the shapes do not fit, or a target is not a class and not ignored.
///
/// ```
/// use tapegrad_tape::Var;
/// let log_p = Var::from_vec(vec![0.25f64, 0.75], &[1, 2]).log();
/// let loss = tapegrad_ops::nll_loss(&log_p, &Var::from_vec(vec![1i64], &[1]));
/// assert_eq!(loss.item(), -(0.75f64.ln()));
/// ```
#[track_caller]
pub fn nll_loss(input: &Var, target: &Var) -> Var {
    nll_loss_with(input, target, Default::default())
}

/// [`nll_loss`] with options.
///
/// # Panics
/// Same as [`nll_loss`].
#[track_caller]
pub fn nll_loss_with(input: &Var, target: &Var, options: NllLossOptions) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    let picked = ClassTargets::new("nll_loss", input, target, options.weight.as_ref(), options.ignore_index);
    picked.reduce(picked.losses(input), options.reduction)
}

/// The targets of a loss over classes, with their weights.
pub(super) struct ClassTargets {
    class_dim: isize,
    /// Class numbers with the class dimension of size one; 0 where ignored.
    index: Var,
    /// True where the target is not ignored.
    pub(super) counts: Var,
    /// The weight of each target, zero where it is ignored.
    pub(super) weights: Var,
}

impl ClassTargets {
    #[track_caller]
    pub(super) fn new(
        op: &str,
        input: &Var,
        target: &Var,
        weight: Option<&Var>,
        ignore_index: i64,
    ) -> ClassTargets {
        let (shape, n) = (input.shape(), input.ndim());
        assert!(n > 0, "{op}: expected an input with a class dimension, got one without dimensions");
        let class_dim = if n == 1 { 0 } else { 1 };
        let mut expected = shape.to_vec();
        let classes = expected.remove(class_dim);
        assert!(
            target.shape() == expected,
            "{op}: expected a target of shape {expected:?} for an input of shape {shape:?}, got {:?}",
            target.shape()
        );
        assert!(
            !target.dtype().is_float(),
            "{op}: expected class numbers (int64) as target, got {}",
            target.dtype()
        );
        if let Some(w) = weight {
            assert!(
                w.shape() == [classes],
                "{op}: weight tensor should be defined either for all {classes} classes or no classes, got shape {:?}",
                w.shape()
            );
        }
        let target = target.cast(DType::I64);
        if let Some(bad) =
            target.to_vec::<i64>().iter().find(|&&t| t != ignore_index && (t < 0 || t >= classes as i64))
        {
            panic!("{op}: target {bad} is out of bounds for {classes} classes");
        }
        let counts = target.ne(ignore_index);
        let index = where_(&counts, &target, 0);
        let weights = match weight {
            Some(w) => {
                let shape: Vec<isize> = index.shape().iter().map(|&n| n as isize).collect();
                let each = w.index_select(0, &index.reshape(&[-1])).reshape(&shape);
                where_(&counts, each, 0.0)
            }
            None => counts.cast(input.dtype()),
        };
        ClassTargets { class_dim: class_dim as isize, index: index.unsqueeze(class_dim), counts, weights }
    }

    /// The weighted losses of single targets.
    pub(super) fn losses(&self, log_probabilities: &Var) -> Var {
        let at = log_probabilities.gather(self.class_dim, &self.index).squeeze(self.class_dim);
        // Ignored elements may be infinite.
        where_(&self.counts, -at, 0.0) * &self.weights
    }

    /// Reduces weighted losses; the mean is over the weights.
    pub(super) fn reduce(&self, losses: Var, reduction: Reduction) -> Var {
        match reduction {
            Reduction::Mean => losses.sum_all() / self.weights.sum_all(),
            other => other.apply(losses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives() {
        let target = Var::from_vec(vec![2i64, -100, 1, 0], &[2, 2]);
        for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
            let weight = Some(Var::from_vec(vec![1.0f64, 0.5, 2.0], &[3]));
            let options = NllLossOptions { weight, reduction, ..Default::default() };
            check_gradients(|v| nll_loss_with(&v[0], &target, options.clone()), &[parameter(&[2, 3, 2], 4)]);
        }
    }

    #[test]
    fn what_is_ignored_may_be_infinite() {
        let x = Var::from_vec(vec![f64::NEG_INFINITY, 0.0, -1.0, -2.0], &[2, 2]);
        let loss = nll_loss(&x, &Var::from_vec(vec![-100i64, 1], &[2]));
        assert_eq!(loss.item(), 2.0);
    }

    #[test]
    #[should_panic(expected = "nll_loss: target 7 is out of bounds for 3 classes")]
    fn a_target_that_is_no_class() {
        nll_loss(&parameter(&[1, 3], 0), &Var::from_vec(vec![7i64], &[1]));
    }
}
