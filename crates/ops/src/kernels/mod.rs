//! The loops of the operations, on plain slices and without a tape.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod cdist;
pub(crate) mod col2im;
#[cfg(test)]
mod conv_testing;
pub(crate) mod cross_entropy;
pub(crate) mod ctc;
pub mod depthwise;
pub mod direct_conv;
pub mod dropout;
pub(crate) mod embedding_bag;
mod fold;
pub mod gemm;
pub mod geometry;
pub(crate) mod grid_sample;
pub mod grouped;
pub(crate) mod im2col;
pub(crate) mod implicit;
pub mod layer_norm;
#[cfg(feature = "linalg")]
pub(crate) mod linalg;
pub mod matmul;
pub mod microkernel;
pub(crate) mod nms;
pub mod norm;
mod pixels;
pub(crate) mod pool;
pub(crate) mod recurrent;
pub(crate) mod resample;
pub(crate) mod roi_align;
pub mod row_winograd;
pub(crate) mod scratch;
pub mod softmax;
pub(crate) mod volumes;
pub(crate) mod windows;
pub mod winograd;
