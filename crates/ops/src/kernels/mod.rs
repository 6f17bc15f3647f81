//! The loops of the operations, on plain slices and without a tape.

pub(crate) mod activation;
pub(crate) mod attention;
#[cfg(test)]
mod conv_testing;
pub(crate) mod cross_entropy;
pub mod direct_conv;
pub mod dropout;
mod fold;
pub mod gemm;
pub mod geometry;
pub(crate) mod im2col;
pub mod layer_norm;
pub mod matmul;
pub mod microkernel;
pub mod norm;
mod pixels;
pub(crate) mod pool;
pub mod row_winograd;
pub(crate) mod scratch;
pub mod softmax;
pub(crate) mod windows;
pub mod winograd;
