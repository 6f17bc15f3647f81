//! Operations that read or write at an index.

mod gather;
mod get;
mod mask;
mod one_hot;
mod put;
mod scatter_reduce;
mod search;
mod select;

pub use get::{Index, Indices};
pub use scatter_reduce::Reduce;

pub(crate) use gather::{collect, gather_values};
pub(crate) use select::pick;

use crate::dtype::DType;
use crate::kernels::index;
use crate::kernels::list::list_for;
use crate::tensor::Tensor;
use crate::var::Var;

/// The values of an index tensor as I64.
///
/// # Panics
/// If it is not of an integer type.
#[track_caller]
fn integers(op: &str, index: &Var) -> Tensor {
    assert!(
        matches!(index.dtype(), DType::I64 | DType::U8),
        "{op}: the index has to be of type int64, not {}",
        index.dtype()
    );
    index.tensor().cast(DType::I64)
}

/// Checks that every value of an index is within a dimension.
///
/// # Panics
/// At the first that does not, with its value, the dimension and its size.
#[track_caller]
fn check_range(op: &str, index: &Tensor, dim: usize, size: usize) {
    let index = index.contiguous();
    let values = index.as_slice::<i64>().expect("contiguous");
    if index::within(values, size) {
        return;
    }
    if let Some(bad) = values.iter().find(|&&i| i < 0 || i as usize >= size) {
        panic!("{op}: index {bad} is out of bounds for dimension {dim} with size {size}");
    }
}

/// The values of a checked index.
#[track_caller]
fn places(index: &Tensor) -> Vec<usize> {
    let index = index.contiguous();
    let values = index.as_slice::<i64>().expect("contiguous");
    list_for("index", values.len(), |k| values[k] as usize)
}
