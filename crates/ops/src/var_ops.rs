//! The operations of this crate as methods.

use tape::Var;

/// Operations of this crate as methods of [`Var`], with the names that they have on `torch.Tensor`.
///
/// ```
/// use ops::VarOps;
/// use tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
/// assert_eq!(x.dot(&x).item(), 5.0);
/// ```
pub trait VarOps {
    /// See [`crate::matmul`].
    fn matmul(&self, other: &Var) -> Var;
    /// See [`crate::mm`].
    fn mm(&self, other: &Var) -> Var;
    /// See [`crate::bmm`].
    fn bmm(&self, other: &Var) -> Var;
    /// See [`crate::mv`].
    fn mv(&self, vector: &Var) -> Var;
    /// See [`crate::dot`].
    fn dot(&self, other: &Var) -> Var;
    /// See [`crate::outer`].
    fn outer(&self, other: &Var) -> Var;
    /// See [`crate::softmax`].
    fn softmax(&self, dim: isize) -> Var;
    /// See [`crate::log_softmax`].
    fn log_softmax(&self, dim: isize) -> Var;
}

impl VarOps for Var {
    #[track_caller]
    fn matmul(&self, other: &Var) -> Var {
        crate::matmul(self, other)
    }
    #[track_caller]
    fn mm(&self, other: &Var) -> Var {
        crate::mm(self, other)
    }
    #[track_caller]
    fn bmm(&self, other: &Var) -> Var {
        crate::bmm(self, other)
    }
    #[track_caller]
    fn mv(&self, vector: &Var) -> Var {
        crate::mv(self, vector)
    }
    #[track_caller]
    fn dot(&self, other: &Var) -> Var {
        crate::dot(self, other)
    }
    #[track_caller]
    fn outer(&self, other: &Var) -> Var {
        crate::outer(self, other)
    }
    #[track_caller]
    fn softmax(&self, dim: isize) -> Var {
        crate::softmax(self, dim, None)
    }
    #[track_caller]
    fn log_softmax(&self, dim: isize) -> Var {
        crate::log_softmax(self, dim, None)
    }
}
