//! Differentiable kernels on the tape: matrix products, convolutions, pooling, normalization and losses.

#[doc(hidden)]
pub mod kernels;

mod activation;
mod addmm;
mod attention;
mod autocast;
mod batch_norm;
mod bilinear;
mod cdist;
mod channel_shuffle;
mod conv;
mod cov;
mod cross;
pub mod detection;
mod distance;
pub mod distributions;
mod einsum;
mod embedding;
mod embedding_bag;
mod grid_sample;
mod group_norm;
mod gumbel_softmax;
mod inner;
mod interpolate;
mod kron;
mod layer_norm;
#[cfg(feature = "linalg")]
pub mod linalg;
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
mod renorm;
mod size;
mod softmax;
mod tensordot;
#[cfg(test)]
mod testing;
mod trace;
mod unfold;
mod var_ops;

pub use activation::*;
pub use addmm::{
    addbmm, addbmm_with, addmm, addmm_with, addmv, addmv_with, addr, addr_with, baddbmm, baddbmm_with,
};
pub use attention::{
    AttentionOptions, scaled_dot_product_attention, scaled_dot_product_attention_with,
    scaled_dot_product_attention_with_weights,
};
pub use batch_norm::{BatchNormOptions, batch_norm, batch_norm_relu, batch_norm_relu6, batch_norm_with};
pub use bilinear::bilinear;
pub use cdist::{CdistMode, cdist, cdist_with, pdist, pdist_with};
pub use channel_shuffle::channel_shuffle;
pub use conv::*;
pub use cov::{CovOptions, corrcoef, cov, cov_with};
pub use cross::{cross, cross_with, linalg_cross, linalg_cross_with};
pub use distance::{
    cosine_similarity, cosine_similarity_with, dist, dist_with, normalize, normalize_with, pairwise_distance,
    pairwise_distance_with,
};
pub use einsum::einsum;
pub use embedding::{EmbeddingOptions, embedding, embedding_with};
pub use embedding_bag::{EmbeddingBagMode, EmbeddingBagOptions, embedding_bag, embedding_bag_with};
pub use grid_sample::{GridPadding, GridSampleMode, GridSampleOptions, grid_sample, grid_sample_with};
pub use group_norm::{InstanceNormOptions, group_norm, group_norm_with, instance_norm, instance_norm_with};
pub use gumbel_softmax::{GumbelSoftmaxOptions, gumbel_softmax, gumbel_softmax_from, gumbel_softmax_with};
pub use inner::inner;
pub use interpolate::{
    InterpolateMode, InterpolateOptions, ScaleFactor, interpolate, upsample_bilinear, upsample_nearest,
};
pub use kernels::recurrent::RecurrentCell;
pub use kron::kron;
pub use layer_norm::{layer_norm, layer_norm_with, rms_norm, rms_norm_with};
#[cfg(feature = "linalg")]
pub use linalg::{cholesky_solve, cholesky_solve_with, logdet};
pub use linear::linear;
pub use local_response_norm::{local_response_norm, local_response_norm_with};
pub use loss::*;
pub use matmul::{bmm, dot, matmul, mm, mv, outer, vdot};
pub use pixel_shuffle::{pixel_shuffle, pixel_unshuffle};
pub use pool::*;
pub use recurrent::recurrent;
pub use renorm::renorm;
pub use size::{OutputSize, Size};
pub use softmax::{log_softmax, softmax, softmin};
pub use tensordot::{TensordotDims, tensordot, tensordot_with};
pub use trace::trace;
pub use unfold::{UnfoldOptions, fold, unfold};
pub use var_ops::VarOps;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
