//! Differentiable kernels on the tape: matrix products, convolutions, pooling, normalization and losses.

#[doc(hidden)]
pub mod kernels;

mod activation;
mod addmm;
mod attention;
mod batch_norm;
mod conv;
mod distance;
mod einsum;
mod embedding;
mod group_norm;
mod interpolate;
mod layer_norm;
mod linear;
mod local_response_norm;
mod loss;
mod matmul;
mod memory;
mod normalization;
mod options;
mod pixel_shuffle;
mod pool;
mod product;
mod recurrent;
mod size;
mod softmax;
#[cfg(test)]
mod testing;
mod unfold;
mod var_ops;

pub use activation::*;
pub use addmm::{addmm, addmv, baddbmm};
pub use attention::{
    AttentionOptions, scaled_dot_product_attention, scaled_dot_product_attention_with,
    scaled_dot_product_attention_with_weights,
};
pub use batch_norm::{BatchNormOptions, batch_norm, batch_norm_relu, batch_norm_relu6, batch_norm_with};
pub use conv::*;
pub use distance::{cosine_similarity, normalize, pairwise_distance};
pub use einsum::{TensordotDims, bilinear, einsum, tensordot};
pub use embedding::{EmbeddingOptions, embedding, embedding_with};
pub use group_norm::{InstanceNormOptions, group_norm, group_norm_with, instance_norm, instance_norm_with};
pub use interpolate::{InterpolateMode, InterpolateOptions, interpolate};
pub use layer_norm::{layer_norm, layer_norm_with, rms_norm, rms_norm_with};
pub use kernels::recurrent::RecurrentCell;
pub use linear::linear;
pub use local_response_norm::local_response_norm;
pub use loss::*;
pub use matmul::{bmm, dot, matmul, mm, mv, outer};
pub use pixel_shuffle::{pixel_shuffle, pixel_unshuffle};
pub use pool::*;
pub use recurrent::recurrent;
pub use size::Size;
pub use softmax::{log_softmax, softmax, softmin};
pub use unfold::{UnfoldOptions, fold, unfold};
pub use var_ops::VarOps;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
