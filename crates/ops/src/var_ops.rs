//! The operations of this crate as methods.

use tapegrad_tape::{Scalar, Var};

/// Defines the trait and its implementation; a row is a method and the arguments of the function that it calls.
macro_rules! methods {
    ($($name:ident($($arg:ident: $ty:ty),*) => ($($pass:expr),*);)*) => {
        /// Operations of this crate as methods of [`Var`], with the names that they have on `torch.Tensor`.
        ///
        /// ```
        /// use tapegrad_ops::VarOps;
        /// use tapegrad_tape::Var;
        /// let x = Var::from_vec(vec![1f32, -2.0], &[2]);
        /// assert_eq!(x.relu().dot(&x).item(), 1.0);
        /// ```
        pub trait VarOps {
            $(
                #[doc = concat!("See [`crate::", stringify!($name), "`].")]
                #[track_caller]
                fn $name(&self, $($arg: $ty),*) -> Var;
            )*
        }

        impl VarOps for Var {
            $(
                #[track_caller]
                fn $name(&self, $($arg: $ty),*) -> Var {
                    crate::$name(self, $($pass),*)
                }
            )*
        }
    };
}
methods! {
    matmul(other: &Var) => (other);
    mm(other: &Var) => (other);
    bmm(other: &Var) => (other);
    mv(vector: &Var) => (vector);
    dot(other: &Var) => (other);
    outer(other: &Var) => (other);
    addmm(a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, b, beta, alpha);
    addmv(a: &Var, x: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, x, beta, alpha);
    baddbmm(a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, b, beta, alpha);
    relu() => ();
    prelu(weight: &Var) => (weight);
    softmax(dim: isize) => (dim, None);
    log_softmax(dim: isize) => (dim, None);
}
