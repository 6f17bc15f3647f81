//! Activations. Most are rows of a table: a function, its fused gradient, and the gradient as differentiable
//! operations (see [`tapegrad_tape::pointwise!`]).

mod dropout;
mod glu;
mod hard;
mod prelu;
mod rectifier;
mod smooth;

pub(crate) use dropout::dropped_by;
pub use dropout::{dropout, dropout_with, dropout1d, dropout1d_with, dropout2d, dropout2d_with};
pub use glu::{glu, glu_with};
pub use hard::{
    hardshrink, hardshrink_with, hardsigmoid, hardswish, hardtanh, hardtanh_with, relu6, softshrink,
    softshrink_with, tanhshrink, threshold,
};
pub use prelu::{prelu, rrelu, rrelu_with};
pub use rectifier::{celu, celu_with, elu, elu_with, leaky_relu, leaky_relu_with, relu, relu_, selu};
pub use smooth::{Approximate, gelu, gelu_with, logsigmoid, mish, silu, softplus, softplus_with, softsign};

#[cfg(test)]
mod tests;
