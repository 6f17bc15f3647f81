//! Elementwise loops over tensors of any strides.
//!
//! The operands' dimensions are put into the order of the result's memory and merged where all of them
//! allow it, so that the inner loop is as long as it can be. Inner loops over dense operands, and dense
//! operands with one repeated value, are compiled for every instruction set.

use crate::dtype::Element;
use crate::kernels::parallel::parallel_blocks;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use smallvec::SmallVec;

/// Elements below which a loop stays on one thread.
const GRAIN: usize = 32 * 1024;

/// The common loop nest of a result (operand 0) and its inputs, outermost dimension first.
struct Nest<const N: usize> {
    sizes: Dims,
    strides: SmallVec<[[usize; N]; 6]>,
}

impl<const N: usize> Nest<N> {
    fn new(shape: &[usize], strides: [&[usize]; N]) -> Nest<N> {
        let mut order: Dims = (0..shape.len()).filter(|&d| shape[d] != 1).collect();
        order.sort_by_key(|&d| std::cmp::Reverse(strides[0][d]));
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

    /// Calls `row(offsets, length)` for every stretch of the innermost dimension, on all threads.
    fn for_each_row(&self, row: impl Fn([usize; N], usize) + Sync) {
        let inner = self.sizes.len() - 1;
        let (length, step) = (self.sizes[inner], self.strides[inner]);
        let rows: usize = self.sizes[..inner].iter().product();
        if rows == 0 || length == 0 {
            return;
        }
        if rows == 1 {
            parallel_blocks(length, GRAIN, |start, end| row(step.map(|s| s * start), end - start));
            return;
        }
        parallel_blocks(rows, GRAIN.div_ceil(length), |start, end| {
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

    fn inner_strides(&self) -> [usize; N] {
        self.strides[self.strides.len() - 1]
    }
}

/// A pointer that threads may share; each writes its own elements.
struct Shared<T>(*mut T);
// SAFETY: see the uses: rows of a dense result do not overlap.
unsafe impl<T> Sync for Shared<T> {}
impl<T> Shared<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// `out[i] = f(a[i])`; both have the same shape, `out` is dense and not shared.
pub(crate) fn unary_into<A: Element, O: Element>(out: &mut Tensor, a: &Tensor, f: impl Fn(A) -> O + Sync) {
    let nest = Nest::new(out.shape(), [out.strides(), a.strides()]);
    let a = a.data::<A>();
    let [so, sa] = nest.inner_strides();
    let out = Shared(out.data_mut::<O>().as_mut_ptr());
    nest.for_each_row(|[o, i], n| {
        if (so, sa) == (1, 1) {
            // SAFETY: the row lies inside the dense result, and no other row overlaps it.
            let out = unsafe { std::slice::from_raw_parts_mut(out.at(o), n) };
            for (o, &x) in out.iter_mut().zip(&a[i..i + n]) {
                *o = f(x);
            }
        } else {
            for k in 0..n {
                // SAFETY: element k of the row, inside the dense result.
                unsafe { *out.at(o + k * so) = f(a[i + k * sa]) };
            }
        }
    });
}

crate::multiversion! {
    fn unary_row<A: Element, O: Element>(out: &mut [O], a: &[A], f: &F) where F: [Fn(A) -> O] {
        for (o, &x) in out.iter_mut().zip(a) {
            *o = f(x);
        }
    }
}

crate::multiversion! {
    fn binary_row<A: Element, B: Element, O: Element>(out: &mut [O], a: &[A], b: &[B], f: &F) where F: [Fn(A, B) -> O] {
        match (a, b) {
            (&[a], b) => {
                for (o, &y) in out.iter_mut().zip(b) {
                    *o = f(a, y);
                }
            }
            (a, &[b]) => {
                for (o, &x) in out.iter_mut().zip(a) {
                    *o = f(x, b);
                }
            }
            (a, b) => {
                for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
                    *o = f(x, y);
                }
            }
        }
    }
}

crate::multiversion! {
    fn ternary_row<A: Element, B: Element, C: Element, O: Element>(out: &mut [O], a: &[A], b: &[B], c: &[C], f: &F)
    where F: [Fn(A, B, C) -> O] {
        for (((o, &x), &y), &z) in out.iter_mut().zip(a).zip(b).zip(c) {
            *o = f(x, y, z);
        }
    }
}

/// `f` of every element; the result keeps the operand's memory format.
pub fn map<A: Element, O: Element>(a: &Tensor, f: impl Fn(A) -> O + Sync) -> Tensor {
    let mut out = Tensor::uninit_strided(a.shape(), a.dense_strides(), O::DTYPE);
    let nest = Nest::new(out.shape(), [out.strides(), a.strides()]);
    if nest.inner_strides() != [1, 1] {
        unary_into(&mut out, a, f);
        return out;
    }
    let a = a.data::<A>();
    let pointer = Shared(out.data_mut::<O>().as_mut_ptr());
    nest.for_each_row(|[o, i], n| {
        // SAFETY: the row lies inside the dense result, and no other row overlaps it.
        let out = unsafe { std::slice::from_raw_parts_mut(pointer.at(o), n) };
        unary_row(out, &a[i..i + n], &f);
    });
    out
}

/// As [`map`], in the operand's own memory where nothing else shares it.
pub fn map_owned<T: Element>(mut a: Tensor, f: impl Fn(T) -> T + Sync) -> Tensor {
    if !(a.is_dense() && a.is_unique()) {
        return map(&a, f);
    }
    let data = a.data_mut::<T>();
    let (n, pointer) = (data.len(), Shared(data.as_mut_ptr()));
    parallel_blocks(n, GRAIN, |start, end| {
        // SAFETY: blocks of the operand's own memory do not overlap.
        let block = unsafe { std::slice::from_raw_parts_mut(pointer.at(start), end - start) };
        update_row(block, &f);
    });
    a
}

crate::multiversion! {
    fn update_row<T: Element>(row: &mut [T], f: &F) where F: [Fn(T) -> T] {
        for x in row {
            *x = f(*x);
        }
    }
}

/// The memory order for a result of `shape`: that of the first operand which has this shape and is dense.
fn result_strides(shape: &[usize], operands: &[&Tensor]) -> Dims {
    operands
        .iter()
        .find(|t| t.shape() == shape && t.is_dense())
        .map_or_else(|| shape::contiguous_strides(shape), |t| t.strides().into())
}

/// `f` of the elements of two tensors that broadcast to `shape`.
pub fn zip<A: Element, B: Element, O: Element>(
    shape: &[usize],
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(A, B) -> O + Sync,
) -> Tensor {
    let mut out = Tensor::uninit_strided(shape, result_strides(shape, &[a, b]), O::DTYPE);
    let (strides_a, strides_b) = (
        shape::broadcast_strides(a.shape(), a.strides(), shape),
        shape::broadcast_strides(b.shape(), b.strides(), shape),
    );
    let nest = Nest::new(shape, [out.strides(), &strides_a, &strides_b]);
    let [so, sa, sb] = nest.inner_strides();
    let (a, b) = (a.data::<A>(), b.data::<B>());
    let pointer = Shared(out.data_mut::<O>().as_mut_ptr());
    nest.for_each_row(|[o, i, j], n| {
        if so == 1 && sa <= 1 && sb <= 1 && sa + sb > 0 {
            // SAFETY: the row lies inside the dense result, and no other row overlaps it.
            let out = unsafe { std::slice::from_raw_parts_mut(pointer.at(o), n) };
            let row = |data_len: usize, stride: usize| if stride == 0 { 1 } else { data_len };
            binary_row(out, &a[i..i + row(n, sa)], &b[j..j + row(n, sb)], &f);
        } else {
            for k in 0..n {
                // SAFETY: element k of the row, inside the dense result.
                unsafe { *pointer.at(o + k * so) = f(a[i + k * sa], b[j + k * sb]) };
            }
        }
    });
    out
}

/// `a[i] = f(a[i], b[i])` for equal shapes; `a` keeps its memory where nothing else shares it.
pub fn zip_assign<T: Element, B: Element>(a: Tensor, b: &Tensor, f: impl Fn(T, B) -> T + Sync) -> Tensor {
    let mut a = a;
    if a.shape() != b.shape() || a.strides() != b.strides() || !a.is_dense() || !a.is_unique() {
        let shape: Dims = a.shape().into();
        return zip(&shape, &a, b, f);
    }
    let b = b.data::<B>();
    let data = a.data_mut::<T>();
    let (n, pointer) = (data.len(), Shared(data.as_mut_ptr()));
    parallel_blocks(n, GRAIN, |start, end| {
        // SAFETY: blocks of the operand's own memory do not overlap.
        let block = unsafe { std::slice::from_raw_parts_mut(pointer.at(start), end - start) };
        zip_assign_row(block, &b[start..end], &f);
    });
    a
}

crate::multiversion! {
    fn zip_assign_row<T: Element, B: Element>(row: &mut [T], b: &[B], f: &F) where F: [Fn(T, B) -> T] {
        for (x, &y) in row.iter_mut().zip(b) {
            *x = f(*x, y);
        }
    }
}

/// `f` of the elements of three tensors that broadcast to `shape`.
pub fn zip3<A: Element, B: Element, C: Element, O: Element>(
    shape: &[usize],
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    f: impl Fn(A, B, C) -> O + Sync,
) -> Tensor {
    let mut out = Tensor::uninit_strided(shape, result_strides(shape, &[a, b, c]), O::DTYPE);
    let [strides_a, strides_b, strides_c] =
        [a, b, c].map(|t| shape::broadcast_strides(t.shape(), t.strides(), shape));
    let nest = Nest::new(shape, [out.strides(), &strides_a, &strides_b, &strides_c]);
    let [so, sa, sb, sc] = nest.inner_strides();
    let (a, b, c) = (a.data::<A>(), b.data::<B>(), c.data::<C>());
    let pointer = Shared(out.data_mut::<O>().as_mut_ptr());
    nest.for_each_row(|[o, i, j, l], n| {
        if [so, sa, sb, sc] == [1; 4] {
            // SAFETY: the row lies inside the dense result, and no other row overlaps it.
            let out = unsafe { std::slice::from_raw_parts_mut(pointer.at(o), n) };
            ternary_row(out, &a[i..i + n], &b[j..j + n], &c[l..l + n], &f);
        } else {
            for k in 0..n {
                // SAFETY: element k of the row, inside the dense result.
                unsafe { *pointer.at(o + k * so) = f(a[i + k * sa], b[j + k * sb], c[l + k * sc]) };
            }
        }
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
