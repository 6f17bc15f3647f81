//! The backward pass that tells the gradients of single samples apart.

use super::{Kind, Numbers, Targets, Walk, reaching, root, run};
use crate::node::Node;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;
use smallvec::SmallVec;
use std::collections::HashSet;
use std::sync::Arc;

/// One for each input of a node.
pub(super) type Flags = SmallVec<[bool; 4]>;

/// The gradients of each element of `losses` for leaves, along a first dimension.
#[track_caller]
pub(crate) fn grads_by_sample(losses: &Var, parameters: &[&Var]) -> Vec<Option<Var>> {
    let ones = Var::from(Tensor::ones_with(losses.shape(), losses.dtype()));
    let roots = vec![root("per_sample_grads", losses, Some(&ones))];
    let ids: HashSet<u64, Numbers> = parameters.iter().filter_map(|p| p.id()).collect();
    let targets = Targets { needed: reaching(&roots, &ids, true), ids, through: true };
    let samples = Some(losses.numel());
    let found = run(roots, Kind { retain: true, create: false, targets: Some(targets), samples });
    parameters.iter().map(|p| found.get(&p.id()?).cloned()).collect()
}

impl Walk {
    /// Of which inputs the gradients of each sample are required; none if empty.
    pub(super) fn by_sample(&self, node: &Node, wants: &[bool]) -> Flags {
        let (Some(_), Some(targets)) = (self.mode.samples, &self.mode.targets) else {
            return Flags::new();
        };
        let is_target =
            |input: &Option<Arc<Node>>| input.as_ref().is_some_and(|i| targets.ids.contains(&i.seq));
        let list: Flags =
            node.inputs.iter().zip(wants).map(|(input, &wants)| wants && is_target(input)).collect();
        if !list.contains(&true) {
            return Flags::new();
        }
        assert!(
            node.by_sample,
            "per_sample_grads: `{}`, recorded at {}, uses a parameter, and its rule cannot tell samples apart; \
             differentiate a function of one sample, by `vmap` of `value_and_grad`",
            node.op, node.location
        );
        list
    }
}

/// Sums and casts a gradient to a parameter's shape and type, but for the samples along the first dimension.
pub(super) fn fit_samples(node: &Node, input: &Node, gradient: Var, n: usize) -> Var {
    let mut to = Dims::from_elem(n, 1);
    to.extend_from_slice(&input.shape);
    let shape = gradient.shape();
    let mut gradient = if shape == to.as_slice() {
        gradient
    } else {
        // Of the result's shape: the parameter was broadcast along the samples, and perhaps other dimensions.
        let own = input.shape.as_slice();
        let mut kept = Dims::from_elem(1, shape.len());
        let fits = shape.first() == Some(&n)
            && own.len() <= shape.len()
            && (own.len() < shape.len() || own[0] == 1)
            && shape::broadcast(own, shape).is_some_and(|s| s.as_slice() == shape);
        assert!(
            fits,
            "per_sample_grads: `{}`, recorded at {}, has the result {:?}, from a parameter of shape {own:?}: \
             the samples, of which there are {n}, have to be the first dimension of every result",
            node.op, node.location, node.shape
        );
        let start = kept.len() - own.len();
        kept[start..].copy_from_slice(own);
        kept[0] = n;
        gradient.sum_to(&kept).reshape_to(&to)
    };
    let dtype = input.dtype();
    if gradient.dtype() != dtype {
        gradient = gradient.cast(dtype);
    }
    gradient
}
