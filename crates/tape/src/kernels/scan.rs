//! Scans: loops along one dimension that keep its size.

use crate::dtype::Element;
use crate::kernels::parallel::parallel_blocks;
use crate::kernels::shared::SharedSlice;
use crate::shape;
use crate::tensor::Tensor;

/// Loops over fewer elements stay on one thread.
const GRAIN: usize = 32 * 1024;

/// Rows that are scanned at once: in each, a step waits for the one before.
const LANES: usize = 8;
/// Columns that are scanned at once: their state stays in the L1 cache.
const COLUMNS: usize = 256;

/// Replaces each element by the result of folding all up to it, from the front or from the back; `step` is told the
/// position, too. At least one dimension; the result is row-major.
pub(crate) fn scan<T: Element, A: Copy + Sync, O: Element>(
    t: &Tensor,
    dim: usize,
    reverse: bool,
    init: A,
    step: impl Fn(A, T, usize) -> A + Sync,
    finish: impl Fn(A) -> O + Sync,
) -> Tensor {
    let t = t.contiguous();
    let mut out = Tensor::uninit(t.shape(), O::DTYPE);
    let (n, inner) = (t.shape()[dim], shape::numel(&t.shape()[dim + 1..]));
    if t.numel() == 0 {
        return out;
    }
    let source = t.as_slice::<T>().expect("contiguous");
    let pointer = SharedSlice::new(out.data_mut::<O>());
    let outer = source.len() / (n * inner);
    if inner == 1 {
        parallel_blocks(outer.div_ceil(LANES), GRAIN.div_ceil(LANES * n), |start, end| {
            let (start, end) = (start * LANES * n, (end * LANES * n).min(source.len()));
            // SAFETY: each group of rows has its own range of a result that is not shared.
            let out = unsafe { pointer.part(start, end - start) };
            for (out, source) in out.chunks_mut(LANES * n).zip(source[start..end].chunks(LANES * n)) {
                along(out, source, n, reverse, init, &step, &finish);
            }
        });
        return out;
    }
    let blocks = inner.div_ceil(COLUMNS);
    let work = n * inner.min(COLUMNS);
    parallel_blocks(outer * blocks, GRAIN.div_ceil(work), |start, end| {
        let mut state = [init; COLUMNS];
        for task in start..end {
            let (o, from) = (task / blocks, task % blocks * COLUMNS);
            let width = COLUMNS.min(inner - from);
            let state = &mut state[..width];
            state.fill(init);
            for k in 0..n {
                let i = if reverse { n - 1 - k } else { k };
                let at = (o * n + i) * inner + from;
                // SAFETY: each block of columns is taken once.
                let out = unsafe { pointer.part(at, width) };
                across(out, &source[at..at + width], state, i, &step, &finish);
            }
        }
    });
    out
}

crate::multiversion! {
    vectors of T;
    fn along<T: Element, A: Copy, O: Element>(out: &mut [O], source: &[T], n: usize, reverse: bool, init: A, step: &F, finish: &G)
    where F: [Fn(A, T, usize) -> A], G: [Fn(A) -> O] {
        if source.len() == LANES * n {
            let mut outs = out.chunks_exact_mut(n);
            let outs: [&mut [O]; LANES] = std::array::from_fn(|_| outs.next().expect("as many rows"));
            let rows: [&[T]; LANES] = std::array::from_fn(|l| &source[l * n..][..n]);
            let mut state = [init; LANES];
            for k in 0..n {
                let i = if reverse { n - 1 - k } else { k };
                for l in 0..LANES {
                    state[l] = step(state[l], rows[l][i], i);
                    outs[l][i] = finish(state[l]);
                }
            }
            return;
        }
        for (out, row) in out.chunks_exact_mut(n).zip(source.chunks_exact(n)) {
            let mut state = init;
            for k in 0..n {
                let i = if reverse { n - 1 - k } else { k };
                state = step(state, row[i], i);
                out[i] = finish(state);
            }
        }
    }
}

crate::multiversion! {
    vectors of T;
    fn across<T: Element, A: Copy, O: Element>(out: &mut [O], source: &[T], state: &mut [A], i: usize, step: &F, finish: &G)
    where F: [Fn(A, T, usize) -> A], G: [Fn(A) -> O] {
        for ((a, x), o) in state.iter_mut().zip(source).zip(out) {
            *a = step(*a, *x, i);
            *o = finish(*a);
        }
    }
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
