//! Scans: loops along one dimension that keep its size.

use crate::dtype::Element;
use crate::kernels::parallel::parallel_blocks;
use crate::kernels::shared::SharedSlice;
use crate::shape;
use crate::tensor::Tensor;

/// Loops over fewer elements stay on one thread.
const GRAIN: usize = 32 * 1024;

/// Replaces each element by the result of folding all up to it, from the front or from the back. At least one
/// dimension; the result is row-major.
pub(crate) fn scan<T: Element, A: Element>(
    t: &Tensor,
    dim: usize,
    reverse: bool,
    init: A,
    step: impl Fn(A, T) -> A + Sync,
    finish: impl Fn(A) -> T + Sync,
) -> Tensor {
    let t = t.contiguous();
    let mut out = Tensor::uninit(t.shape(), T::DTYPE);
    let (n, inner) = (t.shape()[dim], shape::numel(&t.shape()[dim + 1..]));
    if t.numel() == 0 {
        return out;
    }
    let source = t.as_slice::<T>().expect("contiguous");
    let pointer = SharedSlice::new(out.data_mut::<T>());
    let size = n * inner;
    parallel_blocks(source.len() / size, GRAIN.div_ceil(size), |start, end| {
        let mut acc = vec![init; inner];
        for o in start..end {
            // SAFETY: each outer position has its own range of a result that is not shared.
            let out = unsafe { pointer.part(o * size, size) };
            let source = &source[o * size..][..size];
            acc.fill(init);
            for i in 0..n {
                let at = if reverse { n - 1 - i } else { i } * inner;
                for ((a, x), o) in acc.iter_mut().zip(&source[at..]).zip(&mut out[at..at + inner]) {
                    *a = step(*a, *x);
                    *o = finish(*a);
                }
            }
        }
    });
    out
}

/// Fills a row of the result from the number of a row and its elements.
type Row<'a, T, O> = &'a (dyn Fn(usize, &[T], &mut [O]) + Sync);

/// Calls a function for every row along a dimension, with the row of the result to fill, of `length` elements, and its
/// index. At least one dimension; rows are numbered in row-major order of the other dimensions, and are contiguous in
/// the result.
pub(crate) fn rows<T: Element, O: Element>(t: &Tensor, dim: usize, length: usize, row: Row<T, O>) -> Tensor {
    let last = t.ndim() as isize - 1;
    let moved = to_last(t, dim).contiguous();
    let mut to: shape::Dims = moved.shape().into();
    let n = std::mem::replace(&mut to[last as usize], length);
    let count = shape::numel(&to[..last as usize]);
    let mut out = Tensor::uninit(&to, O::DTYPE);
    if count > 0 {
        let source = moved.as_slice::<T>().expect("contiguous");
        let pointer = SharedSlice::new(out.data_mut::<O>());
        parallel_blocks(count, GRAIN.div_ceil(n.max(length).max(1)), |start, end| {
            for r in start..end {
                // SAFETY: each row of a result that is not shared is taken once.
                let out = unsafe { pointer.part(r * length, length) };
                row(r, &source[r * n..][..n], out);
            }
        });
    }
    from_last(&out, dim)
}

/// The dimension moved to the last place.
pub(crate) fn to_last(t: &Tensor, dim: usize) -> Tensor {
    let order: Vec<isize> = (0..t.ndim()).filter(|&d| d != dim).chain([dim]).map(|d| d as isize).collect();
    t.permute(&order)
}

/// The last dimension moved to a place.
pub(crate) fn from_last(t: &Tensor, dim: usize) -> Tensor {
    let mut order: Vec<isize> = (0..t.ndim() as isize - 1).collect();
    order.insert(dim, t.ndim() as isize - 1);
    t.permute(&order)
}
