//! Loops that take many elements to one.
//!
//! The work is cut by the size of the tensor, and partial results are joined in a fixed order, so the bits
//! do not depend on the number of threads.

use crate::dtype::Element;
use crate::kernels::parallel::parallel_chunks;
use crate::shape::Dims;
use crate::tensor::Tensor;

/// Elements that one task reduces at the least.
const GRAIN: usize = 32 * 1024;

/// A tensor seen as `[kept, reduced]` with row-major strides of its own on either side.
pub(crate) struct Split {
    /// The sizes that stay.
    pub(crate) kept: Dims,
    /// The number of elements that each result is made from.
    pub(crate) length: usize,
}

/// The tensor with the dimensions `dims` moved to the back, and the sizes of both parts.
pub(crate) fn split(t: &Tensor, dims: &[usize]) -> (Tensor, Split) {
    let kept: Dims = (0..t.ndim()).filter(|d| !dims.contains(d)).collect();
    let order: Vec<isize> = kept.iter().chain(dims).map(|&d| d as isize).collect();
    let moved = t.permute(&order);
    let kept: Dims = kept.iter().map(|&d| t.shape()[d]).collect();
    let length = dims.iter().map(|&d| t.shape()[d]).product();
    (moved, Split { kept, length })
}

/// The sizes of a result: reduced dimensions are gone, or of size one with `keepdim`.
pub(crate) fn reduced_shape(shape: &[usize], dims: &[usize], keepdim: bool) -> Dims {
    let mut out = Dims::new();
    for (d, &n) in shape.iter().enumerate() {
        if !dims.contains(&d) {
            out.push(n);
        } else if keepdim {
            out.push(1);
        }
    }
    out
}

/// Reduces each row of `length` elements by `row`, which sees them as one slice.
///
/// The result has the kept shape in row-major order. A tensor whose rows are not dense is copied first.
pub(crate) fn rows<T: Element, O: Element>(
    t: &Tensor,
    dims: &[usize],
    row: impl Fn(&[T]) -> O + Sync,
) -> Tensor {
    let (moved, split) = split(t, dims);
    let mut out = Tensor::uninit(&split.kept, O::DTYPE);
    let moved = moved.contiguous();
    let data = moved.as_slice::<T>().expect("contiguous");
    let per_task = (GRAIN / split.length.max(1)).max(1);
    parallel_chunks(out.data_mut::<O>(), per_task, |i, chunk| {
        for (k, o) in chunk.iter_mut().enumerate() {
            let start = (i * per_task + k) * split.length;
            *o = row(&data[start..start + split.length]);
        }
    });
    out
}
