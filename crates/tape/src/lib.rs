//! Tensors, the tape that records what is done to them, and its replay in reverse.

mod dtype;
pub mod kernels;
pub mod shape;
mod storage;
mod tensor;

pub use dtype::{DType, Element, Float, Number, Scalar};
pub use half::{bf16, f16};
pub use shape::{Dims, MemoryFormat};
pub use storage::{PoolStats, empty_cache, pool_stats};
pub use tensor::Tensor;
