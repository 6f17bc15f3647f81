//! `ctc_loss`.

use super::Reduction;
use crate::autocast::in_f32;
use crate::kernels::ctc::{self, Lattice};
use crate::options::setters;
use std::sync::Arc;
use tapegrad_tape::{DType, IntList, Tensor, Var, record, where_};

/// The options of [`ctc_loss`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtcOptions {
    /// The class that stands for no label.
    pub blank: usize,
    /// How the losses of single sequences are reduced; the mean is that of the losses divided by the target lengths.
    pub reduction: Reduction,
    /// Whether losses that are infinite, since the target does not fit in the input, count as zero.
    pub zero_infinity: bool,
}

impl CtcOptions {
    setters! { blank: usize, reduction: Reduction, zero_infinity: bool }
}

impl Default for CtcOptions {
    fn default() -> CtcOptions {
        CtcOptions { blank: 0, reduction: Reduction::Mean, zero_infinity: false }
    }
}

/// The connectionist temporal classification loss (`torch.nn.functional.ctc_loss`; Graves et al. 2006): the negative
/// logarithm of the probability that a sequence of class probabilities spells its target, with repetitions and blanks.
///
/// `log_probs` is `[T, N, C]` or `[T, C]`, the result of [`log_softmax`](crate::log_softmax): the gradient is that for
/// normalized probabilities, as in PyTorch. `targets` are class numbers `[N, S]`, or all targets one after the other. It
/// has no second derivative.
///
/// # Panics
/// If the shapes or lengths do not fit, or a target is no class; in a backward pass, if its gradient is
/// itself differentiated.
///
/// ```
/// use tapegrad_ops::{ctc_loss, ctc_loss_with, log_softmax};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let log_probs = log_softmax(&Var::from(Tensor::zeros_with(&[2, 1, 2], DType::F64)), 2);
/// let target = Var::from_vec(vec![1i64], &[1, 1]);
/// let loss = ctc_loss(&log_probs, &target, &[2], &[1]);
/// // Three of four paths spell it.
/// assert!((loss.item() + 0.75f64.ln()).abs() < 1e-12);
/// ```
#[track_caller]
pub fn ctc_loss(
    log_probs: &Var,
    targets: &Var,
    input_lengths: impl IntList,
    target_lengths: impl IntList,
) -> Var {
    ctc_loss_with(log_probs, targets, input_lengths, target_lengths, Default::default())
}

/// [`ctc_loss`] with options.
///
/// # Panics
/// Same as [`ctc_loss`].
#[track_caller]
pub fn ctc_loss_with(
    log_probs: &Var,
    targets: &Var,
    input_lengths: impl IntList,
    target_lengths: impl IntList,
    options: CtcOptions,
) -> Var {
    let log_probs = in_f32(log_probs);
    let log_probs = &*log_probs;
    let input_lengths = &input_lengths.to_sizes("ctc_loss");
    let target_lengths = &target_lengths.to_sizes("ctc_loss");
    let single = log_probs.ndim() == 2;
    let wide = if single { log_probs.unsqueeze(1) } else { log_probs.clone() };
    let lattices = lattices(&wide, targets, input_lengths, target_lengths, options.blank);
    let losses = record_losses(&wide, Arc::new(lattices), options.zero_infinity);
    let dtype = losses.dtype();
    match options.reduction {
        Reduction::None if single => losses.reshape(()),
        Reduction::None => losses,
        Reduction::Sum => losses.sum_all(),
        Reduction::Mean => {
            let lengths = target_lengths.iter().map(|&n| n.max(1) as f64).collect();
            losses.div(Var::from(Tensor::from_vec(lengths, &[target_lengths.len()]).cast(dtype))).mean_all()
        }
    }
}

/// The sequences, checked.
#[track_caller]
fn lattices(
    log_probs: &Var,
    targets: &Var,
    input_lengths: &[usize],
    target_lengths: &[usize],
    blank: usize,
) -> Vec<Lattice> {
    let op = "ctc_loss";
    let &[steps, n, classes] = log_probs.shape() else {
        panic!("{op}: expected log_probs [T, N, C] or [T, C], but got shape {:?}", log_probs.shape());
    };
    assert!(
        matches!(log_probs.dtype(), DType::F32 | DType::F64),
        "{op}: expected log_probs of float32 or float64, but got {}",
        log_probs.dtype()
    );
    assert!(
        matches!(targets.dtype(), DType::I64 | DType::U8),
        "{op}: targets must be integers, not {}",
        targets.dtype()
    );
    assert!(blank < classes, "{op}: blank must be in label range, but is {blank} of {classes} classes");
    assert!(
        input_lengths.len() == n && target_lengths.len() == n,
        "{op}: input_lengths and target_lengths must be of size {n}, the batch, but are of {} and {}",
        input_lengths.len(),
        target_lengths.len()
    );
    if let Some(bad) = input_lengths.iter().find(|&&t| t > steps) {
        panic!("{op}: expected input_lengths to have value at most {steps}, but got value {bad}");
    }
    let list = targets.to_vec::<i64>();
    let total = target_lengths.iter().fold(0usize, |sum, &n| sum.saturating_add(n));
    let longest = target_lengths.iter().copied().max().unwrap_or(0);
    let padded = targets.ndim() == 2 && targets.shape()[0] == n && targets.shape()[1] >= longest;
    assert!(
        padded || (targets.ndim() == 1 && list.len() == total),
        "{op}: expected targets [{n}, at least {longest}], or a list of {total}, but got shape {:?}",
        targets.shape()
    );
    let mut start = 0;
    let mut of = |i: usize, len: usize| {
        let from = if padded { i * targets.shape()[1] } else { start };
        start += len;
        let classes_of: Vec<usize> = list[from..from + len]
            .iter()
            .map(|&c| {
                let valid = usize::try_from(c).ok().filter(|&c| c < classes);
                valid.unwrap_or_else(|| panic!("{op}: target {c} is not one of the {classes} classes"))
            })
            .collect();
        Lattice { steps: input_lengths[i], blank, target: classes_of }
    };
    (0..n).map(|i| of(i, target_lengths[i])).collect()
}

#[track_caller]
fn record_losses(log_probs: &Var, lattices: Arc<Vec<Lattice>>, zero_infinity: bool) -> Var {
    let (steps, n, classes) = (log_probs.shape()[0], log_probs.shape()[1], log_probs.shape()[2]);
    // In F64, as sums of many small probabilities.
    let p = log_probs.tensor().transpose(0, 1).cast(DType::F64).contiguous();
    let data = p.as_slice::<f64>().expect("contiguous");
    let size = steps * classes;
    let mut values = vec![0.0; n];
    let mut gradient = Tensor::zeros_with(&[n, steps, classes], DType::F64);
    ctc::losses(data, classes, &lattices, &mut values, gradient.make_mut::<f64>(), size);
    let losses = Var::from(Tensor::from_vec(values, &[n]).cast(log_probs.dtype()));
    let infinite = losses.eq(f64::INFINITY);
    let value = if zero_infinity { where_(&infinite, 0.0, &losses) } else { losses };
    let gradient = Var::from(gradient.transpose(0, 1).cast(log_probs.dtype()));
    let gradient =
        if zero_infinity { where_(&infinite.reshape(&[1, -1, 1]), 0.0, gradient) } else { gradient };
    let inputs = log_probs.saved();
    record("ctc_loss", [log_probs], value.into_tensor(), move |c| {
        let g = c.grad().reshape(&[1, -1, 1]);
        // Linear in the incoming gradient; the factor has no derivative.
        let (product, factor) = (gradient.detach().mul(g.detach()).into_tensor(), gradient.clone());
        [Some(record("ctc_loss_backward", [&g, &inputs], product, move |c| {
            assert!(!c.wants(1), "ctc_loss: it has no second derivative, as in PyTorch");
            [c.wants(0).then(|| c.grad() * &factor), None]
        }))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parameter;
    use tapegrad_tape::gradcheck;

    #[test]
    fn gradients_of_normalized_probabilities() {
        let target = Var::from_vec(vec![1i64, 1, 2, 3, 2], &[5]);
        for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
            let options = CtcOptions::new().reduction(reduction);
            let loss =
                |v: &[Var]| ctc_loss_with(&crate::log_softmax(&v[0], 2), &target, &[6, 5], &[3, 2], options);
            gradcheck(loss, &[parameter(&[6, 2, 4], 1)]).unwrap();
        }
    }

    #[test]
    fn a_target_that_does_not_fit() {
        // Two equal classes need a blank between them: three steps.
        let x = parameter(&[2, 1, 3], 1);
        let target = Var::from_vec(vec![1i64, 1], &[1, 2]);
        let loss = |zero_infinity| {
            let options = CtcOptions::new().zero_infinity(zero_infinity);
            ctc_loss_with(&crate::log_softmax(&x, 2), &target, &[2], &[2], options)
        };
        assert_eq!(loss(false).item(), f64::INFINITY);
        let zero = loss(true);
        assert_eq!(zero.item(), 0.0);
        zero.backward();
        assert_eq!(x.grad().unwrap().to_vec::<f64>(), [0.0; 6]);
    }

    #[test]
    fn without_a_batch() {
        let x = crate::log_softmax(&parameter(&[4, 3], 1), 1);
        let options = CtcOptions::new().reduction(Reduction::None);
        let loss = ctc_loss_with(&x, &Var::from_vec(vec![1i64, 2], &[2]), &[4], &[2], options);
        assert_eq!(loss.ndim(), 0);
        let empty = ctc_loss_with(&x, &Var::from_vec(Vec::<i64>::new(), &[0]), &[4], &[0], options);
        assert!((empty.item() + x.narrow(1, 0isize, 1).sum_all().item()).abs() < 1e-12);
    }

    #[test]
    #[should_panic(expected = "ctc_loss: expected input_lengths to have value at most 4, but got value 5")]
    fn an_input_that_is_too_long() {
        let target = Var::from_vec(vec![1i64], &[1, 1]);
        ctc_loss(&parameter(&[4, 1, 3], 1), &target, &[5], &[1]);
    }
}
