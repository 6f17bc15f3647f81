//! Derivative rules as a node holds them.

use super::{Cotangent, Gradients, Node, gradients};
use crate::forward;
use crate::tensor::Tensor;
use crate::var::Var;
use std::sync::Arc;

/// A derivative rule and what it has captured.
pub(crate) trait Rule: Send + Sync {
    /// The gradients for the inputs of `node`, or of an operation without one, for whose tangent the rule is asked: `c` has the
    /// result then.
    fn apply(&self, node: Option<&Arc<Node>>, c: Cotangent) -> Gradients;

    /// What may replace the rule.
    fn shortcut(&self) -> Shortcut {
        Shortcut::None
    }

    /// Adds the input's gradient, which follows from that of the result, to the sum that the input has received.
    fn accumulate(&self, _gradient: &Tensor, _sum: Tensor) -> Tensor {
        unreachable!("only for rules that accumulate")
    }

    /// The rows that the operation looked up, and their gradients, from the gradient of its result.
    fn rows(&self, _gradient: &Var) -> (Tensor, Tensor) {
        unreachable!("only for rules of rows")
    }
}

/// A shorter way than [`Rule::apply`].
pub(crate) enum Shortcut {
    None,
    /// By [`Rule::accumulate`], where the only input has already received a gradient.
    Accumulate,
    /// By [`Rule::rows`], where the only input is a leaf.
    Rows,
}

/// A rule that is a function of the result's gradient.
pub(super) struct Plain<F>(pub(super) F);

impl<F: Fn(Cotangent) -> Gradients + Send + Sync> Rule for Plain<F> {
    fn apply(&self, _: Option<&Arc<Node>>, c: Cotangent) -> Gradients {
        (self.0)(c)
    }
}

/// A rule that needs the operation's result, too.
pub(super) struct WithOutput<F>(pub(super) F, pub(super) Tensor);

impl<F: Fn(Cotangent) -> Gradients + Send + Sync> Rule for WithOutput<F> {
    fn apply(&self, node: Option<&Arc<Node>>, mut c: Cotangent) -> Gradients {
        if let Some(node) = node {
            let tangents = forward::tangents_of_output(node.levels(), node.seq);
            c.output = Some(Var::of_node(self.1.clone(), node.clone()).with_tangents(tangents));
        }
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
    fn apply(&self, _: Option<&Arc<Node>>, c: Cotangent) -> Gradients {
        gradients([Some((self.0)(&c))])
    }
    fn shortcut(&self) -> Shortcut {
        Shortcut::Accumulate
    }
    fn accumulate(&self, gradient: &Tensor, sum: Tensor) -> Tensor {
        (self.1)(gradient, sum)
    }
}
