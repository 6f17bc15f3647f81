//! Loops that read or write at an index.

use crate::dtype::{Element, Number};
use crate::kernels::parallel::parallel_blocks;
use crate::kernels::shared::SharedSlice;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use std::sync::Mutex;

/// Loops over fewer elements stay on one thread.
const GRAIN: usize = 32 * 1024;

crate::multiversion! {
    /// Whether all indices are from zero on and below a size.
    pub(crate) fn within(index: &[i64], size: usize) -> bool {
        let size = size as u64;
        // Without an early exit, so that the loop vectorizes. Negative numbers become large ones.
        index.iter().fold(true, |all, &i| all & ((i as u64) < size))
    }
}

/// The entries `index` of a dimension, in that order; a dense tensor keeps its order of dimensions in memory. Every
/// index has been checked.
pub(crate) fn select(t: &Tensor, dim: usize, index: &[usize]) -> Tensor {
    if t.is_dense() && !t.is_contiguous() {
        let mut order: Dims = (0..t.ndim()).collect();
        shape::sort_descending(&mut order, &|d| t.strides()[d]);
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &d)| back[d] = i as isize);
        let order: Vec<isize> = order.iter().map(|&d| d as isize).collect();
        let moved = t.permute(&order);
        // With dimensions of size one in between, the order may not be row-major yet.
        if moved.is_contiguous() {
            return select(&moved, back[dim] as usize, index).permute(&back);
        }
    }
    let mut to: Dims = t.shape().into();
    to[dim] = index.len();
    let mut out = Tensor::uninit(&to, t.dtype());
    crate::dispatch!(all: t.dtype(), "index_select", T => select_into::<T>(&mut out, t, dim, index));
    out
}

/// Where runs of consecutive entries begin, until there are too many for copies of whole runs.
fn runs(index: &[usize]) -> Vec<usize> {
    let most = index.len() / 8 + 1;
    let begins = (0..index.len()).filter(|&i| i == 0 || index[i] != index[i - 1] + 1);
    begins.take(most).collect()
}

fn select_into<T: Element>(out: &mut Tensor, t: &Tensor, dim: usize, index: &[usize]) {
    let t = t.contiguous();
    let n = t.shape()[dim];
    let inner = shape::numel(&t.shape()[dim + 1..]);
    let source = t.as_slice::<T>().expect("contiguous");
    let count = index.len();
    if inner == 0 || count == 0 {
        return;
    }
    let rows = out.numel() / inner;
    let pointer = SharedSlice::new(out.data_mut::<T>());
    let runs = runs(index);
    if runs.len() * 8 <= count {
        parallel_blocks(rows, GRAIN.div_ceil(inner), |start, end| {
            // SAFETY: blocks of rows of a result that is not shared; they do not overlap.
            let mut block = unsafe { pointer.part(start * inner, (end - start) * inner) };
            let mut r = start;
            while r < end {
                let (outer, at) = (r / count, r % count);
                let k = runs.partition_point(|&run| run <= at) - 1;
                let next = runs.get(k + 1).copied().unwrap_or(count);
                let many = (next - at).min(end - r);
                let (to, rest) = block.split_at_mut(many * inner);
                to.copy_from_slice(&source[(outer * n + index[at]) * inner..][..many * inner]);
                (r, block) = (r + many, rest);
            }
        });
        return;
    }
    if inner == 1 {
        // The order of a flipped dimension, which is copied without looking at each index.
        let reversed = index.windows(2).all(|pair| pair[0] == pair[1] + 1);
        parallel_blocks(rows, GRAIN, |start, end| {
            // SAFETY: blocks of a result that is not shared; they do not overlap.
            let mut block = unsafe { pointer.part(start, end - start) };
            let mut r = start;
            while !block.is_empty() {
                let (outer, at) = (r / count, r % count);
                let (line, rest) = block.split_at_mut(block.len().min(count - at));
                let source = &source[outer * n..][..n];
                if reversed {
                    let last = index[at] + 1;
                    line.iter_mut().zip(source[..last].iter().rev()).for_each(|(o, &x)| *o = x);
                } else {
                    line.iter_mut().zip(&index[at..]).for_each(|(o, &i)| *o = source[i]);
                }
                r += line.len();
                block = rest;
            }
        });
        return;
    }
    parallel_blocks(rows, GRAIN.div_ceil(inner), |start, end| {
        // SAFETY: blocks of rows of a result that is not shared; they do not overlap.
        let block = unsafe { pointer.part(start * inner, (end - start) * inner) };
        for (row, r) in block.chunks_exact_mut(inner).zip(start..) {
            let from = (r / count * n + index[r % count]) * inner;
            row.copy_from_slice(&source[from..from + inner]);
        }
    });
}

/// Adds the rows of `src` to the rows `index` of a dimension of `out`, in that order. Both are row-major.
///
/// Every sum is in the order of the index, whatever the number of threads.
pub(crate) fn add_rows<T: Number>(out: &mut Tensor, src: &Tensor, dim: usize, index: &[usize]) {
    combine_rows::<T>(out, src, dim, index, |x, y| *x += y);
}

/// Copies the rows of `src` to the rows `index` of a dimension of `out`: of several with one index, the last one.
pub(crate) fn put_rows<T: Element>(out: &mut Tensor, src: &Tensor, dim: usize, index: &[usize]) {
    combine_rows::<T>(out, src, dim, index, |x, y| *x = y);
}

/// Combines the rows of `src` with the rows `index` of a dimension of `out`, in that order.
pub(crate) fn combine_rows<T: Element>(
    out: &mut Tensor,
    src: &Tensor,
    dim: usize,
    index: &[usize],
    f: impl Fn(&mut T, T) + Sync,
) {
    let src = src.contiguous();
    let source = src.as_slice::<T>().expect("contiguous");
    let n = out.shape()[dim];
    let inner = shape::numel(&out.shape()[dim + 1..]);
    let count = index.len();
    if source.is_empty() || n == 0 {
        return;
    }
    // A task owns some rows of the result and searches the whole index for them.
    let parts = (count * inner / GRAIN).clamp(1, inner.div_ceil(16).min(16));
    let span = n.div_ceil(parts);
    let data = out.data_mut::<T>();
    let mut tasks = Vec::new();
    for (o, part) in data.chunks_exact_mut(n * inner).enumerate() {
        tasks.extend(
            part.chunks_mut(span * inner).enumerate().map(|(p, rows)| Mutex::new((o, p * span, rows))),
        );
    }
    let work = (count * inner / parts).max(1);
    parallel_blocks(tasks.len(), GRAIN.div_ceil(work), |start, end| {
        for task in &tasks[start..end] {
            let mut task = task.lock().expect("each task is taken once");
            let (o, first, rows) = &mut *task;
            if inner == 1 && rows.len() == n {
                // One element each, and all are here.
                let from = &source[*o * count..][..count];
                index.iter().zip(from).for_each(|(&at, &y)| f(&mut rows[at], y));
                continue;
            }
            let mine = *first..*first + rows.len() / inner;
            for (k, &at) in index.iter().enumerate().filter(|(_, at)| mine.contains(at)) {
                let row = &mut rows[(at - mine.start) * inner..][..inner];
                let from = &source[(*o * count + k) * inner..][..inner];
                for (x, &y) in row.iter_mut().zip(from) {
                    f(x, y);
                }
            }
        }
    });
}

/// The positions of an index tensor, one row of its last dimension after the other, in a tensor with strides.
struct Rows {
    shape: Dims,
    strides: Dims,
}

impl Rows {
    /// At least one dimension. For the indexed tensor, without `dim`.
    fn new(shape: &[usize], strides: &[usize], indexed: Option<usize>) -> Rows {
        let mut strides: Dims = strides.into();
        if let Some(d) = indexed {
            strides[d] = 0;
        }
        let mut rows = Rows { shape: shape.into(), strides };
        // One index for each row of a matrix is a row of its own.
        while rows.shape.len() > 1 && rows.shape.last() == Some(&1) {
            rows.shape.pop();
            rows.strides.pop();
        }
        rows
    }

    fn length(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    fn count(&self) -> usize {
        shape::numel(&self.shape[..self.shape.len() - 1])
    }

    /// The stride of the positions of a row.
    fn step(&self) -> usize {
        self.strides[self.strides.len() - 1]
    }

    /// The offset of the first position of row `r`.
    fn base(&self, r: usize) -> usize {
        let (mut rest, mut base) = (r, 0);
        for d in (0..self.shape.len() - 1).rev() {
            base += rest % self.shape[d] * self.strides[d];
            rest /= self.shape[d];
        }
        base
    }
}

/// `out[i][j] = t[index[i][j]][j]` along a dimension. Every index has been checked; at least one dimension.
pub(crate) fn gather(t: &Tensor, dim: usize, index: &Tensor) -> Tensor {
    let mut out = Tensor::uninit(index.shape(), t.dtype());
    crate::dispatch!(all: t.dtype(), "gather", T => gather_into::<T>(&mut out, t, dim, index));
    out
}

fn gather_into<T: Element>(out: &mut Tensor, t: &Tensor, dim: usize, index: &Tensor) {
    let rows = Rows::new(index.shape(), t.strides(), Some(dim));
    let (length, line) = (rows.length(), Line::new(t.shape()[dim], t.strides()[dim], rows.step()));
    let index = index.contiguous();
    let index = index.as_slice::<i64>().expect("contiguous");
    let source = t.data::<T>();
    if index.is_empty() {
        return;
    }
    let pointer = SharedSlice::new(out.data_mut::<T>());
    let pieces = length.div_ceil(GRAIN);
    let most = length.div_ceil(pieces);
    parallel_blocks(rows.count() * pieces, GRAIN.div_ceil(most), |start, end| {
        for number in start..end {
            let (r, from) = (number / pieces, length.min(number % pieces * most));
            let range = r * length + from..r * length + length.min(from + most);
            // SAFETY: a piece of a row of a result that is not shared; each is taken once.
            let row = unsafe { pointer.part(range.start, range.len()) };
            if !range.is_empty() {
                take(row, &index[range], &source[rows.base(r) + from * line.step..], line);
            }
        }
    });
}

/// Where the elements of an indexed tensor are that a row of indices may name: the size and the stride of the indexed
/// dimension, and the stride along the row.
#[derive(Clone, Copy)]
struct Line {
    size: usize,
    along: usize,
    step: usize,
}

impl Line {
    fn new(size: usize, along: usize, step: usize) -> Line {
        Line { size, along, step }
    }

    /// Panics unless all elements that a row of indices names are among the first `len` ones.
    #[inline(always)]
    fn check(self, index: &[i64], len: usize) {
        let fits = index.is_empty()
            || within(index, self.size) && (index.len() - 1) * self.step + (self.size - 1) * self.along < len;
        assert!(fits, "an index lies inside the tensor");
    }
}

crate::multiversion! {
    vectors of T;
    /// `out[j] = source[index[j] * along + j * step]`.
    fn take<T: Element>(out: &mut [T], index: &[i64], source: &[T], line: Line) {
        line.check(index, source.len());
        if (line.along, line.step) == (1, 0) {
            for (o, &i) in out.iter_mut().zip(index) {
                // SAFETY: as just checked.
                *o = unsafe { *source.get_unchecked(i as usize) };
            }
            return;
        }
        for (j, (o, &i)) in out.iter_mut().zip(index).enumerate() {
            // SAFETY: as just checked.
            *o = unsafe { *source.get_unchecked(i as usize * line.along + j * line.step) };
        }
    }
}

/// `place = f(place, source[j * from_step])` for `place` at `index[j] * along + j * step`, in the order of the index.
#[inline(always)]
fn combine<T: Element>(
    data: &mut [T],
    line: Line,
    index: &[i64],
    source: &[T],
    from_step: usize,
    f: impl Fn(T, T) -> T,
) {
    line.check(index, data.len());
    assert!(index.is_empty() || (index.len() - 1) * from_step < source.len(), "the source is large enough");
    for (j, &i) in index.iter().enumerate() {
        // SAFETY: both as just checked.
        let (place, new) = unsafe {
            (
                data.get_unchecked_mut(i as usize * line.along + j * line.step),
                *source.get_unchecked(j * from_step),
            )
        };
        *place = f(*place, new);
    }
}

/// `out[index[i][j]][j] = f(out[index[i][j]][j], src[i][j])` along a dimension, in the order of the index.
///
/// `out` is row-major, `src` at least as large as the index, and every index has been checked. At least one
/// dimension.
pub(crate) fn scatter<T: Element>(
    out: &mut Tensor,
    dim: usize,
    index: &Tensor,
    src: &Tensor,
    f: impl Fn(T, T) -> T + Sync,
) {
    let rows = Rows::new(index.shape(), out.strides(), Some(dim));
    let from = Rows::new(index.shape(), src.strides(), None);
    let (length, line) = (rows.length(), Line::new(out.shape()[dim], out.strides()[dim], rows.step()));
    let index = index.contiguous();
    let index = index.as_slice::<i64>().expect("contiguous");
    let source = src.data::<T>();
    if index.is_empty() {
        return;
    }
    // Positions that differ in the first dimension write to different places, unless it is the indexed one.
    let blocks = if dim == 0 || rows.count() == 1 { 1 } else { rows.shape[0] };
    let per_block = rows.count() / blocks;
    let size = if blocks == 1 { out.numel() } else { out.strides()[0] };
    let tasks: Vec<_> = out.data_mut::<T>().chunks_mut(size).take(blocks).map(Mutex::new).collect();
    parallel_blocks(blocks, GRAIN.div_ceil(per_block * length), |start, end| {
        for (b, task) in (start..end).zip(&tasks[start..end]) {
            let mut data = task.lock().expect("each task is taken once");
            for r in b * per_block..(b + 1) * per_block {
                let data = &mut data[rows.base(r) - b * size..];
                let index = &index[r * length..][..length];
                combine(data, line, index, &source[from.base(r)..], from.step(), &f);
            }
        }
    });
}
