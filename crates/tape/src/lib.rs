//! Tensors, the tape that records what is done to them, and its replay in reverse.

pub mod kernels;
