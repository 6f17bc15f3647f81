//! Functions of one sample over batches, and the gradients of each sample (`torch.func.vmap`, per-sample gradients).

use crate::backward::grads_by_sample;
use crate::movement::stack;
use crate::tensor::Tensor;
use crate::var::Var;

/// A function of one sample applied to each entry along the first dimension of `inputs`; the results are stacked
/// (`torch.func.vmap` with `in_dims = 0`, `out_dims = 0`). What is the same for all samples is captured.
///
/// The function is called for each sample: right for every function, and as fast as the loop that it replaces. Its results are
/// differentiable, and it may itself differentiate. [`per_sample_grads`] is faster for the gradients of a model.
///
/// # Panics
/// If there is no input, the inputs have no first dimension or different ones, there is no sample, or the results differ in
/// shape.
///
/// ```
/// use tapegrad_tape::{Var, value_and_grad, vmap};
/// let (x, y) = (Var::from_vec(vec![1f64, 2.0, 3.0, 4.0], &[2, 2]), Var::from_vec(vec![1f64, 10.0], &[2]));
/// let dot = vmap(|s| (&s[0] * &s[1]).sum_all(), &[x.clone(), y]);
/// assert_eq!(dot.to_vec::<f64>(), [3.0, 70.0]);
/// // The gradient of each sample's loss for weights that all samples share.
/// let w = Var::from_vec(vec![1f64, -1.0], &[2]);
/// let loss = |w: &Var, x: &Var| (w * x).sum_all().square();
/// let each = vmap(|s| value_and_grad(|w| loss(&w[0], &s[0]), std::slice::from_ref(&w)).1.remove(0), &[x]);
/// assert_eq!(each.to_vec::<f64>(), [-2.0, -4.0, -6.0, -8.0]);
/// ```
#[track_caller]
pub fn vmap(f: impl Fn(&[Var]) -> Var, inputs: &[Var]) -> Var {
    vmap_many(|x| vec![f(x)], inputs).remove(0)
}

/// [`vmap`] of a function with several results.
///
/// ```
/// use tapegrad_tape::{Var, vmap_many};
/// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0], &[2, 2]);
/// let both = vmap_many(|x| vec![x[0].sum_all(), &x[0] * 2.0], &[x]);
/// assert_eq!((both[0].shape(), both[1].shape()), (&[2][..], &[2, 2][..]));
/// ```
///
/// # Panics
/// Same as [`vmap`], or if the number of results differs.
#[track_caller]
pub fn vmap_many(f: impl Fn(&[Var]) -> Vec<Var>, inputs: &[Var]) -> Vec<Var> {
    let shapes = || inputs.iter().map(Var::shape).collect::<Vec<_>>();
    let n = inputs.first().and_then(|x| x.shape().first().copied()).unwrap_or(0);
    assert!(
        n > 0,
        "vmap: expected samples along the first dimension of every input, got shapes {:?}",
        shapes()
    );
    assert!(
        inputs.iter().all(|x| x.shape().first() == Some(&n)),
        "vmap: the first dimension of every input is that of the samples, but the shapes are {:?}",
        shapes()
    );
    let sample = |i: usize| f(&inputs.iter().map(|x| x.select(0, i)).collect::<Vec<_>>());
    let all: Vec<Vec<Var>> = (0..n).map(sample).collect();
    for (i, one) in all.iter().enumerate() {
        let (count, expected) = (one.len(), all[0].len());
        assert_eq!(count, expected, "vmap: sample {i} has {count} results, sample 0 has {expected}");
    }
    let along = |k: usize| {
        let list: Vec<&Var> = all.iter().map(|one| &one[k]).collect();
        stack(&list, 0)
    };
    (0..all[0].len()).map(along).collect()
}

/// The gradients of each sample's loss for parameters: `losses[i]` depends on sample `i` only, and the gradient of a parameter
/// has the samples along a new first dimension (the per-sample gradients of `torch.func.vmap(grad(..))`, by the method of
/// `torch.nn.utils.call_for_per_sample_grads`).
///
/// One forward pass over the batch and one backward pass: the gradients are told apart where a parameter is used. The losses
/// may be computed by any operations in which samples along the first dimension do not mix; batch normalization in training
/// mode mixes them. Of those that take a parameter, `linear`, convolutions, `embedding`, `layer_norm`, `rms_norm`,
/// `group_norm`, `instance_norm` and operations on single elements have rules for single samples; others are refused by
/// name, and then [`vmap`] of [`value_and_grad`](crate::value_and_grad) is the way.
///
/// The graph is kept, so that `losses` can be differentiated again. The gradients have no graph.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, per_sample_grads};
/// let w = Var::parameter(Tensor::from_vec(vec![1f64, -1.0], &[2]));
/// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0], &[2, 2]);
/// let losses = (&w * &x).sum(1).square();
/// assert_eq!(per_sample_grads(&losses, &[&w])[0].to_vec::<f64>(), [-2.0, -4.0, -6.0, -8.0]);
/// ```
///
/// # Panics
/// If the losses are not a vector that requires a gradient, a parameter is not a leaf that requires one, or an operation that
/// takes a parameter has no rule for single samples.
#[track_caller]
pub fn per_sample_grads(losses: &Var, parameters: &[&Var]) -> Vec<Var> {
    assert_eq!(
        losses.ndim(),
        1,
        "per_sample_grads: expected a vector of losses, got shape {:?}",
        losses.shape()
    );
    for (i, p) in parameters.iter().enumerate() {
        assert!(
            p.is_leaf() && p.in_graph(),
            "per_sample_grads: parameter {i} of shape {:?} is not a leaf that requires a gradient",
            p.shape()
        );
    }
    let zeros = |p: &Var| Tensor::zeros_with(&[losses.shape(), p.shape()].concat(), p.dtype()).into();
    let found = grads_by_sample(losses, parameters);
    found.into_iter().zip(parameters).map(|(g, p)| g.unwrap_or_else(|| zeros(p))).collect()
}
