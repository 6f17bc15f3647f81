//! Derivative rules as a node holds them.

use super::{Cotangent, Gradients, Node, gradients};
use crate::tensor::Tensor;
use crate::var::Var;
use std::sync::Arc;

/// A derivative rule and what it has captured.
pub(crate) trait Rule: Send + Sync {
    /// The gradients for the inputs of `node`.
    fn apply(&self, node: &Arc<Node>, c: Cotangent) -> Gradients;

    /// True if [`Rule::accumulate`] may replace the rule where the only input has already received a gradient.
    fn accumulates(&self) -> bool {
        false
    }

    /// Adds the input's gradient, which follows from that of the result, to the sum that the input has received.
    fn accumulate(&self, _gradient: &Tensor, _sum: Tensor) -> Tensor {
        unreachable!("only for rules that accumulate")
    }
}

/// A rule that is a function of the result's gradient.
pub(super) struct Plain<F>(pub(super) F);

impl<F: Fn(Cotangent) -> Gradients + Send + Sync> Rule for Plain<F> {
    fn apply(&self, _: &Arc<Node>, c: Cotangent) -> Gradients {
        (self.0)(c)
    }
}

/// A rule that needs the operation's result, too.
pub(super) struct WithOutput<F>(pub(super) F, pub(super) Tensor);

impl<F: Fn(Cotangent) -> Gradients + Send + Sync> Rule for WithOutput<F> {
    fn apply(&self, node: &Arc<Node>, mut c: Cotangent) -> Gradients {
        c.output = Some(Var::of_node(self.1.clone(), node.clone()));
        (self.0)(c)
    }
}

/// The rule of an operation that reads few elements, see [`record_part`](super::record_part).
pub(super) struct Part<F, A>(pub(super) F, pub(super) A);

impl<F, A> Rule for Part<F, A>
where
    F: Fn(&Cotangent) -> Var + Send + Sync,
    A: Fn(&Tensor, Tensor) -> Tensor + Send + Sync,
{
    fn apply(&self, _: &Arc<Node>, c: Cotangent) -> Gradients {
        gradients([Some((self.0)(&c))])
    }
    fn accumulates(&self) -> bool {
        true
    }
    fn accumulate(&self, gradient: &Tensor, sum: Tensor) -> Tensor {
        (self.1)(gradient, sum)
    }
}
