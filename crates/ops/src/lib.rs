//! Differentiable kernels on the tape: matrix products, convolutions, pooling, normalisation and losses.

pub mod kernels;
