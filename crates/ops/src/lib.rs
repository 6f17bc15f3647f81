//! Differentiable kernels on the tape: matrix products, convolutions, pooling, normalisation and losses.

mod conv;
pub mod kernels;
mod size;

pub use conv::*;
pub use size::Size;
