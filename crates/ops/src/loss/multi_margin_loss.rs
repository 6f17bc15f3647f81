//! `multi_margin_loss`.

use super::Reduction;
use crate::autocast::in_f32;
use crate::options::setters;
use tapegrad_tape::{DType, Tensor, Var, where_};

/// The arguments of [`multi_margin_loss`] besides its tensors, with PyTorch's defaults.
#[derive(Clone, Debug)]
pub struct MultiMarginOptions {
    /// The exponent, 1 or 2.
    pub p: u32,
    /// By how much the score of the correct class should exceed the others.
    pub margin: f64,
    /// A factor for each class, `[C]`.
    pub weight: Option<Var>,
    /// How the losses are reduced.
    pub reduction: Reduction,
}

impl MultiMarginOptions {
    setters! { p: u32, margin: f64, reduction: Reduction; weight: Var }
}

impl Default for MultiMarginOptions {
    fn default() -> Self {
        MultiMarginOptions { p: 1, margin: 1.0, weight: None, reduction: Reduction::Mean }
    }
}

/// The loss of a multi-class support vector machine: the mean over all other classes `j` of
/// `max(0, margin - input[y] + input[j])^p` (`torch.nn.functional.multi_margin_loss`; Weston and Watkins 1999).
/// Input `[N, C]` with a target `[N]` of class numbers, or `[C]` with a number.
///
/// # Panics
/// If the shapes do not fit, `p` is neither 1 nor 2, or a target is not a class.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![0.1f64, 0.2, 0.4, 0.8], &[1, 4]);
/// let loss = tapegrad_ops::multi_margin_loss(&x, &Var::from_vec(vec![3i64], &[1]));
/// assert!((loss.item() - 0.325).abs() < 1e-12);
/// ```
#[track_caller]
pub fn multi_margin_loss(input: &Var, target: &Var) -> Var {
    multi_margin_loss_with(input, target, Default::default())
}

/// [`multi_margin_loss`] with options.
///
/// # Panics
/// Same as [`multi_margin_loss`].
#[track_caller]
pub fn multi_margin_loss_with(input: &Var, target: &Var, options: MultiMarginOptions) -> Var {
    let (input, target) = (in_f32(input), in_f32(target));
    let (input, target) = (&*input, &*target);
    let MultiMarginOptions { p, margin, weight, reduction } = options;
    assert!(p == 1 || p == 2, "multi_margin_loss: only p == 1 and p == 2 supported, got {p}");
    let shape = input.shape();
    let (n, classes) = match *shape {
        [] => (1, 1),
        [c] => (1, c),
        [n, c] => (n, c),
        _ => (0, 0),
    };
    assert!(
        classes > 0,
        "multi_margin_loss: expected non-empty vector or matrix with optional 0-dim batch size, but got: {shape:?}"
    );
    assert!(
        target.dtype() == DType::I64,
        "multi_margin_loss: expected class numbers (int64) as target, got {}",
        target.dtype()
    );
    assert!(
        target.ndim() <= 1 && target.numel() == n,
        "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples (batch size): [{n}], got {:?}",
        target.shape()
    );
    if let Some(w) = &weight {
        assert!(w.ndim() <= 1, "multi_margin_loss: weight must be one-dimensional, got {:?}", w.shape());
        assert!(
            w.numel() == classes,
            "multi_margin_loss: inconsistent weight size, expected {classes} but got {:?}",
            w.shape()
        );
    }
    if let Some(bad) = target.to_vec::<i64>().iter().find(|&&t| t < 0 || t >= classes as i64) {
        panic!("multi_margin_loss: target {bad} is out of bounds for {classes} classes");
    }
    let x = input.reshape((n, classes));
    let column = target.reshape((n, 1));
    let violation = (margin - x.gather(1, &column) + &x).clamp_min(0);
    let violation = if p == 2 { violation.square() } else { violation };
    let is_class = column.eq(Var::from(Tensor::arange(0, classes as i64)));
    let mut losses = where_(&is_class, 0.0, violation).sum(1) / classes as f64;
    if let Some(w) = weight {
        losses = losses * w.reshape(&[-1]).index_select(0, &target.reshape(&[-1]));
    }
    let shape: Vec<isize> = target.shape().iter().map(|&n| n as isize).collect();
    reduction.apply(losses.reshape(&shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives() {
        let target = Var::from_vec(vec![2i64, 0, 1], &[3]);
        for p in [1, 2] {
            let options = MultiMarginOptions {
                p,
                weight: Some(Var::from_vec(vec![1.0f64, 0.5, 2.0], &[3])),
                ..Default::default()
            };
            check_gradients(
                |v| multi_margin_loss_with(&v[0], &target, options.clone()),
                &[parameter(&[3, 3], 4)],
            );
        }
    }

    #[test]
    #[should_panic(expected = "multi_margin_loss: target 3 is out of bounds for 3 classes")]
    fn a_target_that_is_no_class() {
        multi_margin_loss(&parameter(&[1, 3], 0), &Var::from_vec(vec![3i64], &[1]));
    }
}
