//! `multilabel_margin_loss`, `multilabel_soft_margin_loss`.

use super::{Reduction, check_same};
use crate::activation::logsigmoid;
use crate::autocast::in_f32;
use tapegrad_tape::{DType, Tensor, Var, where_};

/// `max(0, 1 - (input[y] - input[j]))` over all pairs of a class `y` of the sample and a class `j` that is none of its,
/// summed and divided by the number of classes (`torch.nn.functional.multilabel_margin_loss`).
///
/// Input `[N, C]` or `[C]`; the target has the same shape and holds the numbers of a sample's classes, then a -1.
///
/// # Panics
/// If the shapes do not fit, or a target is not a class.
///
/// ```
/// use tapegrad_ops::{Reduction, multilabel_margin_loss};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![0.1f64, 0.2, 0.4, 0.8], &[4]);
/// let classes = Var::from_vec(vec![3i64, 0, -1, 1], &[4]);
/// assert!((multilabel_margin_loss(&x, &classes).item() - 0.85).abs() < 1e-12);
/// ```
#[track_caller]
pub fn multilabel_margin_loss(input: &Var, target: &Var) -> Var {
    multilabel_margin_loss_with(input, target, Reduction::Mean)
}

/// [`multilabel_margin_loss`] with another reduction.
///
/// # Panics
/// Same as [`multilabel_margin_loss`].
#[track_caller]
pub fn multilabel_margin_loss_with(input: &Var, target: &Var, reduction: Reduction) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    let op = "multilabel_margin_loss";
    let shape = input.shape();
    let classes = shape.last().copied().unwrap_or(1);
    assert!(
        shape.len() <= 2 && classes > 0,
        "{op}: expected non-empty vector or matrix with optional 0-dim batch size, but got: {shape:?}"
    );
    let fits = target.shape() == shape || (shape.len() < 2 && target.ndim() < 2 && target.numel() == classes);
    assert!(fits, "{op}: inconsistent target size: {:?} for input of size: {shape:?}", target.shape());
    assert!(
        target.dtype() == DType::I64,
        "{op}: expected class numbers (int64) as target, got {}",
        target.dtype()
    );
    let list = target.to_vec::<i64>();
    if let Some(bad) = list.iter().find(|&&t| t < -1 || t >= classes as i64) {
        panic!("{op}: target {bad} is out of range for {classes} classes");
    }
    let n = input.numel() / classes;
    // The classes of each sample, up to the first -1.
    let (mut valid, mut other) = (vec![false; list.len()], vec![true; list.len()]);
    for row in 0..n {
        let start = row * classes;
        for i in (start..start + classes).take_while(|&i| list[i] >= 0) {
            valid[i] = true;
            other[start + list[i] as usize] = false;
        }
    }
    let mask = |list: Vec<bool>, shape: [usize; 3]| Var::from(Tensor::from_vec(list, &shape));
    let counts = mask(valid, [n, classes, 1]).logical_and(&mask(other, [n, 1, classes]));
    let x = input.reshape((n, classes));
    let chosen = x.gather(1, &target.reshape((n, classes)).clamp_min(0));
    let violation = (1.0 - chosen.unsqueeze(2) + x.unsqueeze(1)).clamp_min(0);
    let losses = where_(&counts, violation, 0.0).sum([1, 2]) / classes as f64;
    reduction.apply(if shape.len() < 2 { losses.reshape(()) } else { losses })
}

/// The binary cross-entropy of each class with targets of 0 and 1, averaged over the classes
/// (`torch.nn.functional.multilabel_soft_margin_loss`). Input and target are `[..., C]`.
///
/// # Panics
/// If the shapes differ, have no dimension, or the weight does not broadcast.
///
/// ```
/// use tapegrad_ops::{Reduction, multilabel_soft_margin_loss};
/// use tapegrad_tape::Var;
/// let (x, t) = (Var::from_vec(vec![0f64, 0.0], &[2]), Var::from_vec(vec![1f64, 0.0], &[2]));
/// let loss = multilabel_soft_margin_loss(&x, &t);
/// assert!((loss.item() - 2f64.ln()).abs() < 1e-12);
/// ```
#[track_caller]
pub fn multilabel_soft_margin_loss(input: &Var, target: &Var) -> Var {
    multilabel_soft_margin_loss_with(input, target, None, Reduction::Mean)
}

/// [`multilabel_soft_margin_loss`] with a weight, or another reduction.
///
/// # Panics
/// Same as [`multilabel_soft_margin_loss`].
#[track_caller]
pub fn multilabel_soft_margin_loss_with<'a>(
    input: &Var,
    target: &Var,
    weight: impl Into<Option<&'a Var>>,
    reduction: Reduction,
) -> Var {
    let weight = weight.into();
    let op = "multilabel_soft_margin_loss";
    check_same(op, input, target);
    assert!(input.ndim() > 0, "{op}: expected an input [..., C], but got one without dimensions");
    let losses = -(target * logsigmoid(input) + (1 - target) * logsigmoid(&-input));
    let losses = match weight {
        Some(w) => {
            tapegrad_tape::shape::broadcast_for(op, losses.shape(), w.shape());
            losses * w
        }
        None => losses,
    };
    reduction.apply(losses.mean(-1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives() {
        let classes = Var::from_vec(vec![2i64, 0, -1, 1, -1, 0, 3, 3, 1, 2, 3, 0], &[3, 4]);
        let t = Var::from_vec(vec![1f64, 0.0, 1.0, 0.5, 0.0, 1.0], &[2, 3]);
        for r in [Reduction::None, Reduction::Mean, Reduction::Sum] {
            check_gradients(|v| multilabel_margin_loss_with(&v[0], &classes, r), &[parameter(&[3, 4], 1)]);
            check_gradients(
                |v| multilabel_soft_margin_loss_with(&v[0], &t, None, r),
                &[parameter(&[2, 3], 1)],
            );
            let w = Var::from_vec(vec![1f64, 2.0, 0.5], &[3]);
            check_gradients(
                |v| multilabel_soft_margin_loss_with(&v[0], &t, Some(&w), r),
                &[parameter(&[2, 3], 1)],
            );
        }
    }

    /// The values are PyTorch's.
    #[test]
    fn a_class_that_is_listed_twice_counts_twice() {
        let x = Var::from_vec(vec![0.1f64, 0.2, 0.4, 0.8], &[1, 4]);
        let loss = |list: [i64; 4]| {
            multilabel_margin_loss_with(&x, &Var::from_vec(list.to_vec(), &[1, 4]), Reduction::Sum).item()
        };
        assert!((loss([3, 3, -1, 0]) - 2.0 * loss([3, -1, 0, 0])).abs() < 1e-12);
        assert_eq!(loss([-1, 0, 1, 2]), 0.0);
    }

    #[test]
    #[should_panic(expected = "multilabel_margin_loss: target 4 is out of range for 4 classes")]
    fn a_target_that_is_no_class() {
        let classes = Var::from_vec(vec![4i64, -1, -1, -1], &[4]);
        multilabel_margin_loss(&parameter(&[4], 1), &classes);
    }
}
