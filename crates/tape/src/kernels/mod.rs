//! What every kernel stands on: instruction sets, threads, and loops over strided tensors.

pub mod parallel;
pub mod simd;
pub mod strided;
