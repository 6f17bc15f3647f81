//! Tensors, the tape that records operations on them, and the backward pass.

mod assert_close;
mod autocast;
mod backward;
mod checkpoint;
mod cost;
mod display;
mod dtype;
mod elementwise;
mod forward;
mod functional;
mod grad_mode;
mod gradcheck;
mod indexing;
mod int_list;
pub mod kernels;
mod makers;
mod movement;
mod node;
mod operators;
mod vmap;
#[macro_use]
mod options;
mod promote;
mod random;
mod reduction;
mod row_grad;
pub mod shape;
mod storage;
mod substitute;
mod tensor;
#[cfg(test)]
mod test_views;
mod trace;
mod var;

pub use assert_close::{assert_close, assert_close_with};
pub use autocast::{autocast, autocast_dtype, without_autocast};
pub use backward::{BackwardOptions, GradOptions, grad, grad_with};
pub use checkpoint::checkpoint;
pub use cost::{note_flops, note_saved, set_profiling};
pub use dtype::{DType, Element, Float, Number, Scalar, default_dtype, set_default_dtype};
pub use elementwise::{Params, Pointwise, RoundingMode, Rows, float_power, pow, where_, xlog1py, xlogy};
pub use functional::{hessian, hvp, jacfwd, jacobian, jacrev, jvp, value_and_grad, vjp};
pub use grad_mode::{
    GradModeGuard, detect_anomaly, enable_grad, find_nonfinite, is_grad_enabled, no_grad, set_grad_enabled,
};
pub use gradcheck::{
    GradCheck, GradCheckError, Outputs, gradcheck, gradcheck_with, gradgradcheck, gradgradcheck_with,
};
pub use half::{bf16, f16};
pub use indexing::{Index, Indices, Reduce};
pub use int_list::{Int, IntList, OptionalInt};
pub use kernels::parallel::{num_threads, set_num_threads};
pub use movement::{
    Indexing, PadMode, Position, Sections, Slice, block_diag, broadcast_tensors, cartesian_prod, cat,
    column_stack, dstack, hstack, meshgrid, meshgrid_with, stack, vstack,
};
pub use node::{Cotangent, Inputs, RecordOptions, record, record_with, record_with_output};
pub use promote::{Operand, result_type};
/// The traits and distributions behind [`Generator`].
pub use rand;
pub use random::{
    Generator, GeneratorState, default_generator_state, manual_seed, set_default_generator_state,
    with_default_generator,
};
pub use reduction::{Interpolation, Spacing};
pub use row_grad::record_rows;
pub use shape::{Dims, MemoryFormat};
pub use storage::{OutOfMemoryError, PoolStats, empty_cache, pool_stats, set_cache_limit};
pub use substitute::substitute;
pub use tensor::Tensor;
pub use trace::{Trace, TraceRow, trace};
pub use var::{HookHandle, Var};
pub use vmap::{per_sample_grads, vmap, vmap_many};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
