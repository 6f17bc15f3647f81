//! `cross_entropy`.

use super::Reduction;
use super::nll_loss::ClassTargets;
use crate::autocast::{in_f32, through_f32};
use crate::kernels::softmax::softmax_and_logs;
use crate::options::setters;
use crate::softmax::log_softmax;
use tapegrad_tape::{DType, Float, Tensor, Var, dispatch, is_grad_enabled, note_saved, record, where_};

/// The arguments of [`cross_entropy`] besides its tensors, with PyTorch's defaults.
#[derive(Clone, Debug)]
pub struct CrossEntropyOptions {
    /// A factor for each class, `[C]`.
    pub weight: Option<Var>,
    /// Targets of this class are ignored.
    pub ignore_index: i64,
    /// How the losses are reduced.
    pub reduction: Reduction,
    /// The fraction of the target that is spread evenly over all classes (Szegedy et al. 2016).
    pub label_smoothing: f64,
}

impl CrossEntropyOptions {
    setters! { ignore_index: i64, reduction: Reduction, label_smoothing: f64; weight: Var }
}

impl Default for CrossEntropyOptions {
    fn default() -> Self {
        CrossEntropyOptions {
            weight: None,
            ignore_index: -100,
            reduction: Reduction::Mean,
            label_smoothing: 0.0,
        }
    }
}

/// The cross-entropy of `softmax(input)` (`torch.nn.functional.cross_entropy`).
///
/// Input `[N, C]`, `[N, C, d1, ...]` or `[C]`; the target holds class indices (`[N]`, `[N, d1, ...]` or a single
/// number), or a probability for each class in the input's shape.
///
/// # Panics
/// If the shapes do not fit, a target is not a class, or the smoothing is not between 0 and 1.
///
/// ```
/// use tapegrad_tape::{DType, Tensor, Var};
/// let logits = Var::from(Tensor::zeros_with(&[2, 10], DType::F64));
/// let loss = tapegrad_ops::cross_entropy(&logits, &Var::from_vec(vec![3i64, 7], &[2]));
/// assert!((loss.item() - 10f64.ln()).abs() < 1e-12);
/// ```
#[track_caller]
pub fn cross_entropy(input: &Var, target: &Var) -> Var {
    cross_entropy_with(input, target, Default::default())
}

/// [`cross_entropy`] with options.
///
/// # Panics
/// Same as [`cross_entropy`].
#[track_caller]
pub fn cross_entropy_with(input: &Var, target: &Var, options: CrossEntropyOptions) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    through_f32([&input, &target], |[input, target]| by_target(input, target, options))
}

/// By the form of the target.
#[track_caller]
fn by_target(input: &Var, target: &Var, options: CrossEntropyOptions) -> Var {
    let smoothing = options.label_smoothing;
    assert!(
        (0.0..=1.0).contains(&smoothing),
        "cross_entropy: label_smoothing must be between 0.0 and 1.0, got {smoothing}"
    );
    assert!(
        (1..).contains(&input.ndim()) && matches!(input.dtype(), DType::F32 | DType::F64),
        "cross_entropy: expected floating-point logits with a class dimension, got {} of shape {:?}",
        input.dtype(),
        input.shape()
    );
    if target.dtype().is_float() {
        return from_probabilities(input, target, &options);
    }
    let plain = options.weight.is_none() && smoothing == 0.0 && options.reduction != Reduction::None;
    if plain && input.ndim() == 2 {
        let targets = class_numbers(
            "cross_entropy",
            [input.shape()[0], input.shape()[1]],
            target,
            options.ignore_index,
        );
        return fused(input, targets, options.ignore_index, options.reduction);
    }
    composed(input, target, &options)
}

/// In differentiable operations, for every form of class targets.
#[track_caller]
fn composed(input: &Var, target: &Var, options: &CrossEntropyOptions) -> Var {
    let class_dim = if input.ndim() == 1 { 0 } else { 1 };
    let classes = input.shape()[class_dim];
    let smoothing = options.label_smoothing;
    let picked =
        ClassTargets::new("cross_entropy", input, target, options.weight.as_ref(), options.ignore_index);
    let log_p = log_softmax(input, class_dim);
    let hard = picked.losses(&log_p);
    if smoothing == 0.0 {
        return picked.reduce(hard, options.reduction);
    }
    let spread = match &options.weight {
        Some(w) => &log_p * &along_classes(w, input.ndim(), class_dim),
        None => log_p,
    };
    let spread = where_(&picked.counts, -spread.sum(class_dim), 0.0);
    picked.reduce(hard * (1.0 - smoothing) + spread * (smoothing / classes as f64), options.reduction)
}

/// A weight `[C]` in a shape that broadcasts along the class dimension.
fn along_classes(weight: &Var, ndim: usize, class_dim: usize) -> Var {
    let mut shape = vec![1isize; ndim];
    shape[class_dim] = -1;
    weight.reshape(&shape)
}

#[track_caller]
fn from_probabilities(input: &Var, target: &Var, options: &CrossEntropyOptions) -> Var {
    assert!(
        input.shape() == target.shape(),
        "cross_entropy: expected a probability for each class, in shape {:?}, got {:?}",
        input.shape(),
        target.shape()
    );
    let class_dim = if input.ndim() == 1 { 0 } else { 1 };
    let classes = input.shape()[class_dim];
    let target = match options.label_smoothing {
        0.0 => target.clone(),
        s => target * (1.0 - s) + s / classes as f64,
    };
    let mut terms = log_softmax(input, class_dim) * target;
    if let Some(w) = &options.weight {
        assert!(
            w.shape() == [classes],
            "cross_entropy: expected a weight of shape [{classes}], got {:?}",
            w.shape()
        );
        terms = terms * along_classes(w, input.ndim(), class_dim);
    }
    let losses = -terms.sum(class_dim);
    options.reduction.apply(losses)
}

/// The class numbers `[N]` of an input `[N, C]`, checked.
#[track_caller]
pub(super) fn class_numbers(op: &str, [n, classes]: [usize; 2], target: &Var, ignore_index: i64) -> Vec<i64> {
    assert!(
        target.shape() == [n],
        "{op}: expected a target of shape [{n}] for an input of shape [{n}, {classes}], got {:?}",
        target.shape()
    );
    let targets = target.to_vec::<i64>();
    if let Some(bad) = targets.iter().find(|&&t| t != ignore_index && (t < 0 || t >= classes as i64)) {
        panic!("{op}: target {bad} is out of bounds for {classes} classes");
    }
    targets
}

/// For class numbers of an input `[N, C]`: one pass forward, one backward, the probabilities saved between.
#[track_caller]
fn fused(input: &Var, targets: Vec<i64>, ignore_index: i64, reduction: Reduction) -> Var {
    let logits = input.tensor().contiguous();
    let count = targets.iter().filter(|&&t| t != ignore_index).count();
    let scale = if reduction == Reduction::Mean { 1.0 / count as f64 } else { 1.0 };
    let mut p = Tensor::uninit(input.shape(), input.dtype());
    let loss = dispatch!(float: input.dtype(), "cross_entropy", T => {
        probabilities::<T>(logits.as_slice().expect("contiguous"), &targets, ignore_index, input.shape()[1], p.data_mut())
    });
    // A mean without targets is 0 / 0, as in PyTorch.
    let value = Tensor::full_with((), loss * scale, input.dtype());
    note_saved(p.bytes());
    let saved = input.saved();
    record("cross_entropy", [input], value, move |c| {
        if is_grad_enabled() {
            let n = targets.len();
            let target = Var::from_vec(targets.clone(), &[n]);
            let options = CrossEntropyOptions::new().ignore_index(ignore_index).reduction(reduction);
            return [Some(c.grad() * composed_gradient(&saved, &target, &options))];
        }
        let g = c.grad().item() * scale;
        let mut dx = Tensor::uninit(p.shape(), p.dtype());
        dispatch!(float: p.dtype(), "cross_entropy", T => {
            gradient::<T>(p.as_slice().expect("contiguous"), &targets, ignore_index, p.shape()[1], T::c(g), dx.data_mut());
        });
        [Some(Var::from(dx))]
    })
}

/// The gradient for the logits as a differentiable function of them: `softmax - one_hot`, scaled.
pub(super) fn composed_gradient(input: &Var, target: &Var, options: &CrossEntropyOptions) -> Var {
    let picked = ClassTargets::new("cross_entropy", input, target, None, options.ignore_index);
    let scale = match options.reduction {
        // If all targets are ignored, the gradient is zero.
        Reduction::Mean => where_(&picked.counts, &picked.weights / picked.weights.sum_all(), 0.0),
        _ => picked.weights.clone(),
    };
    let classes = Var::from(Tensor::arange(0, input.shape()[1] as i64));
    let hot = target.unsqueeze(1).eq(&classes).cast(input.dtype());
    let gradient = (crate::softmax::softmax(input, 1) - hot) * scale.unsqueeze(1);
    // Ignored elements may be infinite.
    where_(&picked.counts.unsqueeze(1), gradient, 0.0)
}

/// Fills in the softmax of each row; gives the sum of the losses.
fn probabilities<T: Float>(
    logits: &[T],
    targets: &[i64],
    ignore_index: i64,
    classes: usize,
    p: &mut [T],
) -> f64 {
    if classes == 0 {
        return 0.0;
    }
    let mut logs = vec![T::ZERO; targets.len()];
    softmax_and_logs(p, &mut logs, logits, classes);
    let rows = logits.chunks_exact(classes).zip(targets).zip(&logs);
    let counted = rows.filter(|((_, target), _)| **target != ignore_index);
    counted.map(|((x, &target), log)| log.to_f64() - x[target as usize].to_f64()).sum()
}

/// `(p - one_hot) * g` for each row that is not ignored.
fn gradient<T: Float>(p: &[T], targets: &[i64], ignore_index: i64, classes: usize, g: T, dx: &mut [T]) {
    if classes == 0 {
        return;
    }
    for ((dx, p), &t) in dx.chunks_exact_mut(classes).zip(p.chunks_exact(classes)).zip(targets) {
        if t == ignore_index {
            dx.fill(T::ZERO);
            continue;
        }
        for (d, &p) in dx.iter_mut().zip(p) {
            *d = p * g;
        }
        dx[t as usize] = dx[t as usize] - g;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn derivatives() {
        let target = Var::from_vec(vec![2i64, 1, 0, 2], &[2, 2]);
        for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
            for label_smoothing in [0.0, 0.2] {
                let weight = Some(Var::from_vec(vec![1.0f64, 0.5, 2.0], &[3]));
                let options = CrossEntropyOptions { weight, reduction, label_smoothing, ignore_index: 0 };
                check_gradients(
                    |v| cross_entropy_with(&v[0], &target, options.clone()),
                    &[parameter(&[2, 3, 2], 4)],
                );
                let both = [parameter(&[3, 3], 5), parameter(&[3, 3], 6)];
                check_gradients(|v| cross_entropy_with(&v[0], &v[1], options.clone()), &both);
            }
        }
    }

    #[test]
    fn fused_is_composed() {
        let target = Var::from_vec(vec![2i64, 1, 0, 2], &[4]);
        for reduction in [Reduction::Mean, Reduction::Sum] {
            for ignore_index in [-100, 1] {
                let options = CrossEntropyOptions::new().reduction(reduction).ignore_index(ignore_index);
                let (a, b) = (parameter(&[4, 3], 7), parameter(&[4, 3], 7));
                let (x, y) =
                    (cross_entropy_with(&a, &target, options.clone()), composed(&b, &target, &options));
                assert_close(&x, &y, 1e-12);
                (x * 3.0).backward();
                (y * 3.0).backward();
                assert_close(&a.grad().unwrap(), &b.grad().unwrap(), 1e-12);
                check_gradients(
                    |v| cross_entropy_with(&v[0], &target, options.clone()),
                    &[parameter(&[4, 3], 8)],
                );
            }
        }
    }

    /// Ignored rows may hold anything, and all rows may be ignored, in the fused and in the composed rule.
    #[test]
    fn what_is_ignored_has_no_gradient() {
        let x = Var::parameter(Tensor::from_vec(vec![f64::INFINITY, f64::NAN, 1.0, 2.0], &[2, 2]));
        for targets in [[-100i64, -100], [-100, 1]] {
            let target = Var::from_vec(targets.to_vec(), &[2]);
            for create_graph in [false, true] {
                x.zero_grad();
                let loss = cross_entropy(&x, &target);
                loss.backward_with(None, tapegrad_tape::BackwardOptions::new().create_graph(create_graph));
                let g = x.grad().unwrap().to_vec::<f64>();
                assert_eq!(g[..2], [0.0, 0.0]);
                assert_eq!(g[2] != 0.0, targets[1] == 1, "{g:?}");
            }
        }
    }

    #[test]
    fn large_logits() {
        let x = Var::from_vec(vec![1e4f32, 0.0], &[1, 2]);
        assert_eq!(cross_entropy(&x, &Var::from_vec(vec![1i64], &[1])).item(), 1e4);
    }

    #[test]
    #[should_panic(expected = "cross_entropy: target 5 is out of bounds for 3 classes")]
    fn a_target_that_is_no_class() {
        cross_entropy(&parameter(&[1, 3], 0), &Var::from_vec(vec![5i64], &[1]));
    }
}
