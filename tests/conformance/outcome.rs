//! What a call gives: variables, or values of other kinds.

use tapegrad::tape::{Tensor, Var};

/// A result of a call.
pub enum Out {
    /// A tensor.
    Var(Var),
    /// `None`.
    None,
}

/// All results of a call, in PyTorch's order.
pub struct Outcome(pub Vec<Out>);

impl From<Var> for Out {
    fn from(v: Var) -> Out {
        Out::Var(v)
    }
}

impl From<Option<Var>> for Out {
    fn from(v: Option<Var>) -> Out {
        v.map_or(Out::None, Out::Var)
    }
}

impl From<Tensor> for Out {
    fn from(t: Tensor) -> Out {
        Out::Var(Var::from(t))
    }
}

impl<T: Into<Out>> From<T> for Outcome {
    fn from(x: T) -> Outcome {
        Outcome(vec![x.into()])
    }
}

impl<A: Into<Out>, B: Into<Out>> From<(A, B)> for Outcome {
    fn from((a, b): (A, B)) -> Outcome {
        Outcome(vec![a.into(), b.into()])
    }
}

impl<A: Into<Out>, B: Into<Out>, C: Into<Out>> From<(A, B, C)> for Outcome {
    fn from((a, b, c): (A, B, C)) -> Outcome {
        Outcome(vec![a.into(), b.into(), c.into()])
    }
}

impl<T: Into<Out>> From<Vec<T>> for Outcome {
    fn from(list: Vec<T>) -> Outcome {
        Outcome(list.into_iter().map(Into::into).collect())
    }
}
