//! Differentiable kernels on the tape: matrix products, convolutions, pooling, normalisation and losses.

mod conv;
pub mod kernels;
mod size;

pub use conv::*;
pub use size::Size;

mod linear;
mod matmul;
mod product;
#[cfg(test)]
mod testing;
mod var_ops;

pub use linear::linear;
pub use matmul::{bmm, dot, matmul, mm, mv, outer};
pub use var_ops::VarOps;
