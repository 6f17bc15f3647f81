//! `nll_loss`.

use super::Reduction;
use crate::autocast::in_f32;
use crate::options::setters;
use tapegrad_tape::{DType, Element, Tensor, Var, dispatch, is_grad_enabled, record, where_};

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
    if let Some(loss) = in_one_pass(input, target, &options) {
        return loss;
    }
    let picked = ClassTargets::new("nll_loss", input, target, options.weight.as_ref(), options.ignore_index);
    picked.reduce(picked.losses(input), options.reduction)
}

/// The mean or the sum over rows of classes without weights. `None` for anything else, and for targets that are no classes.
#[track_caller]
fn in_one_pass(input: &Var, target: &Var, options: &NllLossOptions) -> Option<Var> {
    let (dtype, ignored) = (input.dtype(), options.ignore_index);
    let &[rows, classes] = input.shape() else { return None };
    let fits =
        matches!(dtype, DType::F32 | DType::F64) && target.dtype() == DType::I64 && target.shape() == [rows];
    let mean = options.reduction == Reduction::Mean;
    if !fits || options.weight.is_some() || !(mean || options.reduction == Reduction::Sum) {
        return None;
    }
    let (x, targets) = (input.tensor(), target.tensor());
    let list = targets.as_slice::<i64>()?;
    let (mut sum, mut count) = (0.0, 0);
    dispatch!(float: dtype, "nll_loss", T => {
        for (row, &t) in x.as_slice::<T>()?.chunks_exact(classes.max(1)).zip(list) {
            if t != ignored {
                sum -= Element::to_f64(*row.get(usize::try_from(t).ok()?)?);
                count += 1;
            }
        }
    });
    // Without a class there are no rows above, but there may be targets.
    if classes == 0 && rows > 0 {
        return None;
    }
    let factor = if mean { 1.0 / f64::from(count) } else { 1.0 };
    let value = if mean { sum / f64::from(count) } else { sum };
    let targets = target.saved();
    Some(record("nll_loss", [input], Tensor::full_with((), value, dtype), move |c| {
        // A gradient that is recorded is a constant times the incoming one.
        let recorded = is_grad_enabled();
        let slope = if recorded { -factor } else { -factor * c.grad().item() };
        let mut dx = Tensor::zeros_with([rows, classes], dtype);
        let targets = targets.tensor();
        dispatch!(float: dtype, "nll_loss", T => {
            let list = targets.as_slice::<i64>().expect("contiguous");
            for (row, &t) in dx.data_mut::<T>().chunks_exact_mut(classes.max(1)).zip(list) {
                if t != ignored {
                    row[t as usize] = slope as T;
                }
            }
        });
        let dx = Var::from(dx);
        [Some(if recorded { dx * c.grad() } else { dx })]
    }))
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
    fn one_pass_is_the_same_as_the_general_form() {
        let target = Var::from_vec(vec![2i64, -100, 0, 3], &[4]);
        for reduction in [Reduction::Mean, Reduction::Sum] {
            let options = NllLossOptions { reduction, ..Default::default() };
            let x = parameter(&[4, 5], 3);
            assert!(in_one_pass(&x, &target, &options).is_some());
            check_gradients(|v| nll_loss_with(&v[0], &target, options.clone()), &[x]);
            let [x, y] = [(); 2].map(|()| parameter(&[4, 5], 3));
            let found = nll_loss_with(&x, &target, options.clone()) * 3.0;
            let general = ClassTargets::new("nll_loss", &y, &target, None, -100);
            let expected = general.reduce(general.losses(&y), reduction) * 3.0;
            assert!((found.item() - expected.item()).abs() < 1e-14);
            found.backward();
            expected.backward();
            let [dx, dy] = [x, y].map(|v| v.grad().expect("a gradient").to_vec::<f64>());
            assert!(dx.iter().zip(&dy).all(|(a, b)| (a - b).abs() < 1e-15));
        }
        // Nothing counts: the mean is NaN.
        let nothing = Var::from_vec(vec![-100i64; 4], &[4]);
        assert!(nll_loss(&parameter(&[4, 5], 3), &nothing).item().is_nan());
    }

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
