//! Activations. Most are rows of a table: a function, its fused gradient, and the gradient as differentiable
//! operations (see [`tapegrad_tape::pointwise!`]).

mod dropout;
mod glu;
mod hard;
mod prelu;
mod rectifier;
mod smooth;

pub(crate) use dropout::dropped_by;
pub use dropout::{dropout, dropout1d, dropout2d};
pub use glu::glu;
pub use hard::{hardshrink, hardsigmoid, hardswish, hardtanh, relu6, softshrink, tanhshrink, threshold};
pub use prelu::{prelu, rrelu};
pub use rectifier::{celu, elu, leaky_relu, relu, relu_, selu};
pub use smooth::{Approximate, gelu, gelu_with, logsigmoid, mish, silu, softplus, softsign};

#[cfg(test)]
mod tests;
