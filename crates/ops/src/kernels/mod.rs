//! The loops behind the operations: plain slices in, plain slices out, no tape.

pub mod conv_shape;
pub mod direct_conv;
pub mod microkernel;
pub(crate) mod scratch;
