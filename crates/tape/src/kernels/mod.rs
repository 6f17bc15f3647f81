//! What kernels are built on: instruction sets, threads, and loops over strided tensors.

pub mod arch;
pub(crate) mod callers;
pub mod channels;
pub mod fused;
pub(crate) mod half;
pub(crate) mod index;
pub mod list;
pub mod math;
pub(crate) mod order;
pub mod pages;
pub mod parallel;
pub(crate) mod place;
pub(crate) mod reduce;
pub(crate) mod region;
pub(crate) mod remainder;
pub(crate) mod scan;
pub mod shared;
pub mod special;
pub mod strided;
pub(crate) mod sync;
pub mod transpose;
pub(crate) mod trigonometric;
pub mod update;
pub mod vector_math;
