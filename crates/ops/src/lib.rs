//! Differentiable kernels on the tape: matrix products, convolutions, pooling, normalisation and losses.

pub mod kernels;

mod activation;
mod addmm;
mod batch_norm;
mod conv;
mod einsum;
mod group_norm;
mod layer_norm;
mod linear;
mod loss;
mod matmul;
mod normalization;
mod pool;
mod product;
mod size;
mod softmax;
#[cfg(test)]
mod testing;
mod var_ops;

pub use activation::*;
pub use addmm::{addmm, addmv, baddbmm};
pub use batch_norm::{BatchNormOptions, batch_norm, batch_norm_relu};
pub use conv::*;
pub use einsum::{TensordotDims, bilinear, einsum, tensordot};
pub use group_norm::{InstanceNormOptions, group_norm, instance_norm};
pub use layer_norm::{layer_norm, rms_norm};
pub use linear::linear;
pub use loss::*;
pub use matmul::{bmm, dot, matmul, mm, mv, outer};
pub use pool::*;
pub use size::Size;
pub use softmax::{log_softmax, softmax, softmin};
pub use var_ops::VarOps;
