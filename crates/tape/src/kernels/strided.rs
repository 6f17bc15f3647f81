//! Elementwise loops over tensors of any strides.
//!
//! The operands' dimensions are sorted into the memory order of the result and merged where all operands allow it, so
//! that the inner loop is as long as possible. The loop nests are compiled once for each set of element types; what
//! differs between operations is a row function over dense slices, called through a pointer. Elements that are not
//! contiguous, or one repeated value, are first copied into a small buffer.

mod copy;

pub(crate) use copy::copy_into;

use crate::dtype::Element;
use crate::kernels::parallel::parallel_blocks;
use crate::kernels::shared::SharedSlice;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use smallvec::SmallVec;
use std::mem::MaybeUninit;

/// Loops over fewer elements stay on one thread.
pub const GRAIN: usize = 32 * 1024;

/// The common loop nest of a result (operand 0) and its inputs, outermost dimension first.
pub(crate) struct Nest<const N: usize> {
    sizes: Dims,
    strides: SmallVec<[[usize; N]; 6]>,
}

impl<const N: usize> Nest<N> {
    pub(crate) fn new(shape: &[usize], strides: [&[usize]; N]) -> Nest<N> {
        let mut order: Dims = (0..shape.len()).filter(|&d| shape[d] != 1).collect();
        shape::sort_descending(&mut order, &|d| strides[0][d]);
        let mut nest = Nest { sizes: Dims::new(), strides: SmallVec::new() };
        for &d in &order {
            let step: [usize; N] = std::array::from_fn(|i| strides[i][d]);
            let merges =
                nest.strides.last().is_some_and(|last| (0..N).all(|i| last[i] == step[i] * shape[d]));
            if merges {
                *nest.sizes.last_mut().expect("as long as strides") *= shape[d];
                *nest.strides.last_mut().expect("not empty") = step;
            } else {
                nest.sizes.push(shape[d]);
                nest.strides.push(step);
            }
        }
        if nest.sizes.is_empty() {
            nest.sizes.push(1);
            nest.strides.push([1; N]);
        }
        nest
    }

    /// Calls `row(offsets, length)` for every row of the innermost dimension, on all threads.
    pub(crate) fn for_each_row(&self, grain: usize, row: &(dyn Fn([usize; N], usize) + Sync)) {
        let inner = self.sizes.len() - 1;
        let (length, step) = (self.sizes[inner], self.strides[inner]);
        let rows: usize = self.sizes[..inner].iter().product();
        if rows == 0 || length == 0 {
            return;
        }
        if rows == 1 {
            parallel_blocks(length, grain, |start, end| row(step.map(|s| s * start), end - start));
            return;
        }
        parallel_blocks(rows, grain.div_ceil(length), |start, end| {
            let mut index = Dims::from_elem(0, inner);
            let mut offsets = [0; N];
            let mut rest = start;
            for d in (0..inner).rev() {
                index[d] = rest % self.sizes[d];
                rest /= self.sizes[d];
                for (o, s) in offsets.iter_mut().zip(self.strides[d]) {
                    *o += index[d] * s;
                }
            }
            for _ in start..end {
                row(offsets, length);
                for d in (0..inner).rev() {
                    index[d] += 1;
                    for (o, s) in offsets.iter_mut().zip(self.strides[d]) {
                        *o += s;
                    }
                    if index[d] < self.sizes[d] {
                        break;
                    }
                    for (o, s) in offsets.iter_mut().zip(self.strides[d]) {
                        *o -= self.sizes[d] * s;
                    }
                    index[d] = 0;
                }
            }
        });
    }

    pub(crate) fn inner_strides(&self) -> [usize; N] {
        self.strides[self.strides.len() - 1]
    }
}

/// The number of elements that are buffered at once if an operand is not contiguous.
const BUFFER: usize = 1024;

type Buffer<T> = [MaybeUninit<T>; BUFFER];

fn buffer<T>() -> Buffer<T> {
    [const { MaybeUninit::uninit() }; BUFFER]
}

/// `n` elements of an operand: in place if they are contiguous, else copied into the buffer.
#[inline(always)]
fn dense_chunk<T: Element>(
    data: &[T],
    start: usize,
    stride: usize,
    n: usize,
    buffer: &mut Buffer<T>,
) -> *const T {
    match stride {
        1 => return data[start..start + n].as_ptr(),
        0 => {
            let value = data[start];
            buffer[..n].iter_mut().for_each(|b| *b = MaybeUninit::new(value));
        }
        _ => {
            for (b, x) in buffer[..n].iter_mut().zip(data[start..].iter().step_by(stride)) {
                *b = MaybeUninit::new(*x);
            }
        }
    }
    buffer.as_ptr().cast()
}

/// A row of one operand: the results, then the elements.
pub type Row1<'a, A, O> = &'a (dyn Fn(&mut [O], &[A]) + Sync);
/// A row of two operands.
pub type Row2<'a, A, B, O> = &'a (dyn Fn(&mut [O], &[A], &[B]) + Sync);
/// A row of three operands.
pub type Row3<'a, A, B, C, O> = &'a (dyn Fn(&mut [O], &[A], &[B], &[C]) + Sync);
/// A row of four operands.
type Row4<'a, A, B, C, D, O> = &'a (dyn Fn(&mut [O], &[A], &[B], &[C], &[D]) + Sync);

macro_rules! drive {
    ($(#[$meta:meta])* $name:ident, $Row:ident, $n:literal, $($T:ident $a:ident $i:ident $k:tt),*) => {
        $(#[$meta])*
        fn $name<$($T: Element,)* O: Element>(out: &mut Tensor, $($a: (&Tensor, &[usize]),)* grain: usize, row: $Row<$($T,)* O>) {
            let nest = Nest::new(out.shape(), [out.strides(), $($a.1),*]);
            let steps = nest.inner_strides();
            assert!(steps[0] == 1 || out.numel() == 0, "a result is dense");
            let dense = steps == [1; $n];
            $(let $a = $a.0.data::<$T>();)*
            let pointer = SharedSlice::new(out.data_mut::<O>());
            nest.for_each_row(grain, &|[o, $($i),*]: [usize; $n], n| {
                let step = if dense { n } else { BUFFER };
                let mut buffers = ($(buffer::<$T>(),)*);
                let mut k = 0;
                while k < n {
                    let m = step.min(n - k);
                    // SAFETY: the chunk is inside the dense result, and no other one overlaps it.
                    let out = unsafe { pointer.part(o + k, m) };
                    $(
                        let $i = dense_chunk($a, $i + k * steps[$k + 1], steps[$k + 1], m, &mut buffers.$k);
                    )*
                    // SAFETY: `dense_chunk` returns m elements, in bounds of the operand or written to the buffer.
                    row(out, $(unsafe { std::slice::from_raw_parts($i, m) }),*);
                    k += m;
                }
            });
        }
    };
}
drive!(
    /// Runs a row function over one operand with the strides that it has in the result's shape.
    drive1, Row1, 2, A a i 0
);
drive!(
    /// Like [`drive1`], for two operands.
    drive2, Row2, 3, A a i 0, B b j 1
);
drive!(
    /// Like [`drive1`], for three operands.
    drive3, Row3, 4, A a i 0, B b j 1, C c l 2
);
drive!(
    /// Like [`drive1`], for four operands.
    drive4, Row4, 5, A a i 0, B b j 1, C c l 2, D d p 3
);

/// `out[i] = f(a[i])`; both have the same shape, `out` is dense and not shared. Compiled for the baseline.
pub(crate) fn unary_into<A: Element, O: Element>(out: &mut Tensor, a: &Tensor, f: impl Fn(A) -> O + Sync) {
    drive1::<A, O>(out, (a, a.strides()), GRAIN, &|out, a| {
        for (o, &x) in out.iter_mut().zip(a) {
            *o = f(x);
        }
    });
}

/// Applies a row function to every chunk of a tensor; the result keeps the operand's memory format.
///
/// Row functions get contiguous chunks only: other elements are copied first. Blocks of at least `grain` elements are
/// shared between threads.
pub fn map_rows<A: Element, O: Element>(a: &Tensor, grain: usize, row: Row1<A, O>) -> Tensor {
    let mut out = Tensor::uninit_strided(a.shape(), a.dense_strides(), O::DTYPE);
    if out.strides() == a.strides() {
        let a = a.data::<A>();
        flat(&mut out, grain, &|out, at| row(out, &a[at..at + out.len()]));
    } else {
        drive1(&mut out, (a, a.strides()), grain, row);
    }
    out
}

/// Calls `row(results, position)` for blocks of a result whose operands all have its shape and its strides.
fn flat<O: Element>(out: &mut Tensor, grain: usize, row: &(dyn Fn(&mut [O], usize) + Sync)) {
    let data = out.data_mut::<O>();
    let (n, pointer) = (data.len(), SharedSlice::new(data));
    parallel_blocks(n, grain, |start, end| {
        // SAFETY: blocks of the result's own memory do not overlap.
        row(unsafe { pointer.part(start, end - start) }, start);
    });
}

/// Like [`map_rows`], over two tensors that broadcast to `shape`.
pub fn zip_rows<A: Element, B: Element, O: Element>(
    shape: &[usize],
    a: &Tensor,
    b: &Tensor,
    grain: usize,
    row: Row2<A, B, O>,
) -> Tensor {
    let mut out = Tensor::uninit_strided(shape, result_strides(shape, &[a, b]), O::DTYPE);
    if [a, b].iter().all(|t| t.shape() == shape && t.strides() == out.strides()) {
        let (a, b) = (a.data::<A>(), b.data::<B>());
        flat(&mut out, grain, &|out, at| row(out, &a[at..at + out.len()], &b[at..at + out.len()]));
        return out;
    }
    let [sa, sb] = [a, b].map(|t| shape::broadcast_strides(t.shape(), t.strides(), shape));
    drive2(&mut out, (a, &sa), (b, &sb), grain, row);
    out
}

/// Like [`map_rows`], over three tensors that broadcast to `shape`.
pub fn zip3_rows<A: Element, B: Element, C: Element, O: Element>(
    shape: &[usize],
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    grain: usize,
    row: Row3<A, B, C, O>,
) -> Tensor {
    let mut out = Tensor::uninit_strided(shape, result_strides(shape, &[a, b, c]), O::DTYPE);
    let [sa, sb, sc] = [a, b, c].map(|t| shape::broadcast_strides(t.shape(), t.strides(), shape));
    drive3(&mut out, (a, &sa), (b, &sb), (c, &sc), grain, row);
    out
}

/// Like [`map_rows`], in the operand's own memory if it is not shared.
pub fn map_rows_owned<T: Element>(mut a: Tensor, grain: usize, row: Row1<T, T>) -> Tensor {
    if !(a.is_dense() && a.is_unique()) {
        return map_rows(&a, grain, row);
    }
    in_place::<T>(&mut a, grain, &|out, old, _| row(out, old));
    a
}

/// Like [`zip_rows`] for equal shapes, in the memory of `a` if it is not shared.
pub fn zip_rows_owned<T: Element, B: Element>(
    mut a: Tensor,
    b: &Tensor,
    grain: usize,
    row: Row2<T, B, T>,
) -> Tensor {
    if a.shape() != b.shape() || a.strides() != b.strides() || !a.is_dense() || !a.is_unique() {
        let shape: Dims = a.shape().into();
        return zip_rows(&shape, &a, b, grain, row);
    }
    let b = b.data::<B>();
    in_place::<T>(&mut a, grain, &|out, old, at| row(out, old, &b[at..at + out.len()]));
    a
}

/// Calls `row(elements, their old values, position)` for chunks of a tensor's own memory.
fn in_place<T: Element>(a: &mut Tensor, grain: usize, row: &(dyn Fn(&mut [T], &[T], usize) + Sync)) {
    let data = a.data_mut::<T>();
    let (n, pointer) = (data.len(), SharedSlice::new(data));
    parallel_blocks(n, grain, |start, end| {
        let mut copy = buffer::<T>();
        for at in (start..end).step_by(BUFFER) {
            let m = BUFFER.min(end - at);
            // SAFETY: chunks of the operand's own memory do not overlap.
            let piece = unsafe { pointer.part(at, m) };
            copy[..m].iter_mut().zip(piece.iter()).for_each(|(c, x)| *c = MaybeUninit::new(*x));
            // SAFETY: the first m elements were just written.
            let old = unsafe { std::slice::from_raw_parts(copy.as_ptr().cast::<T>(), m) };
            row(piece, old, at);
        }
    });
}

crate::multiversion! {
    vectors of A;
    fn unary_row<A: Element, O: Element>(out: &mut [O], a: &[A], f: &F) where F: [Fn(A) -> O] {
        for (o, &x) in out.iter_mut().zip(a) {
            *o = f(x);
        }
    }
}

crate::multiversion! {
    vectors of A;
    fn binary_row<A: Element, B: Element, O: Element>(out: &mut [O], a: &[A], b: &[B], f: &F) where F: [Fn(A, B) -> O] {
        for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
            *o = f(x, y);
        }
    }
}

crate::multiversion! {
    vectors of B;
    fn ternary_row<A: Element, B: Element, C: Element, O: Element>(out: &mut [O], a: &[A], b: &[B], c: &[C], f: &F)
    where F: [Fn(A, B, C) -> O] {
        for (((o, &x), &y), &z) in out.iter_mut().zip(a).zip(b).zip(c) {
            *o = f(x, y, z);
        }
    }
}

crate::multiversion! {
    vectors of T;
    fn quaternary_row<T: Element>(out: &mut [T], a: &[T], b: &[T], c: &[T], d: &[T], f: &F) where F: [Fn(T, T, T, T) -> T] {
        for ((((o, &x), &y), &z), &w) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *o = f(x, y, z, w);
        }
    }
}

/// `f` of every element; the result keeps the operand's memory format.
pub fn map<A: Element, O: Element>(a: &Tensor, f: impl Fn(A) -> O + Sync) -> Tensor {
    map_rows(a, GRAIN, &|out, a| unary_row(out, a, &f))
}

/// Like [`map`], in the operand's own memory if it is not shared.
pub fn map_owned<T: Element>(a: Tensor, f: impl Fn(T) -> T + Sync) -> Tensor {
    map_rows_owned(a, GRAIN, &|out, a| unary_row(out, a, &f))
}

/// Like [`zip`] for equal shapes, in the memory of `a` if it is not shared.
pub fn zip_owned<T: Element, B: Element>(a: Tensor, b: &Tensor, f: impl Fn(T, B) -> T + Sync) -> Tensor {
    zip_rows_owned(a, b, GRAIN, &|out, a, b| binary_row(out, a, b, &f))
}

/// The memory order for a result of `shape`: that of the first operand which has this shape and is dense.
fn result_strides(shape: &[usize], operands: &[&Tensor]) -> Dims {
    operands
        .iter()
        .find(|t| t.shape() == shape && t.is_dense())
        .map_or_else(|| shape::contiguous_strides(shape), |t| Dims::from_slice(t.strides()))
}

/// `f` of the elements of two tensors that broadcast to `shape`.
pub fn zip<A: Element, B: Element, O: Element>(
    shape: &[usize],
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(A, B) -> O + Sync,
) -> Tensor {
    zip_rows(shape, a, b, GRAIN, &|out, a, b| binary_row(out, a, b, &f))
}

/// `a[i] = f(a[i], b[i])` for equal shapes; in the memory of `a` if it is not shared.
pub fn zip_assign<T: Element, B: Element>(a: Tensor, b: &Tensor, f: impl Fn(T, B) -> T + Sync) -> Tensor {
    zip_rows_owned(a, b, GRAIN, &|out, a, b| binary_row(out, a, b, &f))
}

/// `f` of the elements of three tensors that broadcast to `shape`.
pub fn zip3<A: Element, B: Element, C: Element, O: Element>(
    shape: &[usize],
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    f: impl Fn(A, B, C) -> O + Sync,
) -> Tensor {
    zip3_rows(shape, a, b, c, GRAIN, &|out, a, b, c| ternary_row(out, a, b, c, &f))
}

/// `f` of the elements of four tensors that broadcast to `shape`.
pub(crate) fn zip4<T: Element>(
    shape: &[usize],
    operands: [&Tensor; 4],
    f: impl Fn(T, T, T, T) -> T + Sync,
) -> Tensor {
    let mut out = Tensor::uninit_strided(shape, result_strides(shape, &operands), T::DTYPE);
    let [a, b, c, d] = operands;
    let [sa, sb, sc, sd] = operands.map(|t| shape::broadcast_strides(t.shape(), t.strides(), shape));
    drive4::<T, T, T, T, T>(&mut out, (a, &sa), (b, &sb), (c, &sc), (d, &sd), GRAIN, &|out, a, b, c, d| {
        quaternary_row(out, a, b, c, d, &f);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFormat;
    use proptest::prelude::*;

    /// A view with arbitrary strides: permuted, narrowed and expanded.
    fn view(shape: &[usize], seed: u64) -> Tensor {
        let n = shape::numel(shape) * 2 + 8;
        let data: Vec<f32> = (0..n).map(|i| (i as u64 * 2654435761 + seed) as u32 as f32 / 1e9).collect();
        let mut strides = shape::contiguous_strides(shape);
        if seed.is_multiple_of(3) {
            strides = shape::channels_last_strides(shape);
        }
        if seed.is_multiple_of(5) {
            strides.iter_mut().for_each(|s| *s *= 2);
        }
        if seed.is_multiple_of(7) && !strides.is_empty() {
            strides[0] = 0;
        }
        Tensor::from_strided(&data, shape, &strides, (seed % 8) as usize)
    }

    proptest! {
        #[test]
        fn any_strides_give_the_same_values(shape in proptest::collection::vec(0usize..5, 0..5), s in any::<[u16; 3]>()) {
            let [a, b, c] = s.map(|s| view(&shape, u64::from(s)));
            let (va, vb, vc) = (a.to_vec::<f32>(), b.to_vec::<f32>(), c.to_vec::<f32>());
            let naive: Vec<f32> = va.iter().zip(&vb).zip(&vc).map(|((x, y), z)| x * y - z).collect();
            prop_assert_eq!(zip3(&shape, &a, &b, &c, |x: f32, y: f32, z: f32| x * y - z).to_vec::<f32>(), naive);
            let naive: Vec<f32> = va.iter().zip(&vb).map(|(x, y)| x - y).collect();
            prop_assert_eq!(zip(&shape, &a, &b, |x: f32, y: f32| x - y).to_vec::<f32>(), naive.clone());
            prop_assert_eq!(zip_assign(a.clone(), &b, |x: f32, y: f32| x - y).to_vec::<f32>(), naive.clone());
            prop_assert_eq!(zip_assign(a.contiguous(), &b, |x: f32, y: f32| x - y).to_vec::<f32>(), naive);
            let naive: Vec<f32> = va.iter().map(|x| x * 2.0).collect();
            prop_assert_eq!(map(&a, |x: f32| x * 2.0).to_vec::<f32>(), naive.clone());
            prop_assert_eq!(map_owned(a, |x: f32| x * 2.0).to_vec::<f32>(), naive);
        }
    }

    #[test]
    fn copies_between_formats() {
        for shape in [[2, 7, 5, 9], [1, 40, 33, 1], [3, 64, 16, 16], [2, 4, 2, 2]] {
            let n = shape.iter().product::<usize>() as i64;
            let t = Tensor::from_vec((0..n).collect::<Vec<i64>>(), &shape);
            let last = t.to_format(MemoryFormat::ChannelsLast);
            assert_eq!(last.strides(), shape::channels_last_strides(&shape).as_slice());
            assert_eq!(last.to_format(MemoryFormat::Contiguous).data::<i64>(), t.data::<i64>());
            let floats = t.cast(crate::DType::F32);
            let back = floats.to_format(MemoryFormat::ChannelsLast).to_format(MemoryFormat::Contiguous);
            assert_eq!(back.data::<f32>(), floats.data::<f32>());
            assert_eq!(
                floats.to_format(MemoryFormat::ChannelsLast).cast(crate::DType::I64).data::<i64>(),
                last.data::<i64>()
            );
            let part = last.narrow(1, 1, shape[1] - 1).narrow(0, 0, 1).contiguous();
            let plane = (shape[2] * shape[3]) as i64;
            assert!(part.as_slice::<i64>().unwrap().iter().copied().eq(plane..shape[1] as i64 * plane));
        }
    }

    #[test]
    fn broadcasting_and_memory_format() {
        let a = view(&[2, 3, 4, 5], 1).to_format(MemoryFormat::ChannelsLast);
        let b = view(&[3, 1, 1], 2);
        let out = zip(&[2, 3, 4, 5], &a, &b, |x: f32, y: f32| x + y);
        assert_eq!(out.strides(), a.strides());
        let (va, vb) = (a.to_vec::<f32>(), b.to_vec::<f32>());
        let naive: Vec<f32> = va.iter().enumerate().map(|(i, x)| x + vb[i / 20 % 3]).collect();
        assert_eq!(out.to_vec::<f32>(), naive);
    }

    #[test]
    fn large_tensors_are_cut_into_blocks() {
        let n = 3 * GRAIN + 17;
        let a = Tensor::arange(0, n as i64);
        let out = map(&a, |x: i64| x * 2);
        assert!(out.to_vec::<i64>().iter().enumerate().all(|(i, &x)| x == 2 * i as i64));
    }
}
