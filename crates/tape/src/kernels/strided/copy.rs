//! Copies between tensors with different strides.

use super::{GRAIN, Nest, unary_into};
use crate::dtype::Element;
use crate::kernels::shared::SharedSlice;
use crate::kernels::transpose::transpose_to;
use crate::tensor::Tensor;

/// Copies `a` into `out`, with its strides.
///
/// Elements of four bytes that are contiguous in one tensor along one dimension and in the other along another, as
/// between memory formats, are transposed in registers. Short rows are copied many at a time.
pub(crate) fn copy_into<T: Element>(out: &mut Tensor, a: &Tensor) {
    let mut nest = Nest::<2>::new(a.shape(), [out.strides(), a.strides()]);
    let inner = nest.sizes.len() - 1;
    let (width, [to_step, from_step]) = (nest.sizes[inner], nest.strides[inner]);
    let across = (0..inner).find(|&d| nest.strides[d][1] == 1 && nest.sizes[d] >= 2);
    let fits = size_of::<T>() == 4 && to_step == 1 && from_step > 1 && width >= 2;
    let Some(across) = across.filter(|_| fits) else {
        if inner > 0 && (1..=SHORT).contains(&width) {
            return copy_short_rows::<T>(out, a, nest);
        }
        return unary_into(out, a, |x: T| x);
    };
    // The contiguous dimension of one tensor is the last one of the nest, that of the other is inside `row`.
    nest.sizes.remove(inner);
    nest.strides.remove(inner);
    let (size, step) = (nest.sizes.remove(across), nest.strides.remove(across));
    nest.sizes.push(size);
    nest.strides.push(step);
    let from = a.data::<T>();
    let to = SharedSlice::new(out.data_mut::<T>());
    nest.for_each_row(GRAIN.div_ceil(width), &|[o, i], height| {
        let from = from[i..].as_ptr().cast::<f32>();
        // SAFETY: the elements are inside the operand and the result, where each has its own address, and four bytes
        // are copied unchanged.
        unsafe { transpose_to([width, height], from, from_step, to.at(o).cast(), step[0]) };
    });
}

/// Rows of at most this many elements are copied many at a time.
const SHORT: usize = 32;

/// Copies `a` into `out` by two dimensions at a time, since a call for each row would take longer than the row.
fn copy_short_rows<T: Element>(out: &mut Tensor, a: &Tensor, mut nest: Nest<2>) {
    let (width, inner) =
        (nest.sizes.pop().expect("two dimensions"), nest.strides.pop().expect("two dimensions"));
    let outer = nest.inner_strides();
    let from = a.data::<T>();
    let to = SharedSlice::new(out.data_mut::<T>());
    nest.for_each_row(GRAIN.div_ceil(width), &|[o, i], height| {
        let (to, from) = (to.at(o), from[i..].as_ptr());
        // SAFETY: the elements are inside the operand and the result, where each has its own address.
        unsafe {
            match (width, inner) {
                (2, [1, 1]) => copy_arrays::<T, 2>(to, from, outer, height),
                (3, [1, 1]) => copy_arrays::<T, 3>(to, from, outer, height),
                (4, [1, 1]) => copy_arrays::<T, 4>(to, from, outer, height),
                (_, [1, 1]) => {
                    for j in 0..height {
                        std::ptr::copy_nonoverlapping(from.add(j * outer[1]), to.add(j * outer[0]), width);
                    }
                }
                _ => {
                    for j in 0..height {
                        for k in 0..width {
                            *to.add(j * outer[0] + k * inner[0]) = *from.add(j * outer[1] + k * inner[1]);
                        }
                    }
                }
            }
        }
    });
}

/// Copies `height` rows of `N` elements; those of the target are `apart[0]` elements apart, and those of the source `apart[1]`.
///
/// # Safety
/// All rows of the source must be readable, and those of the target writable.
#[inline(always)]
unsafe fn copy_arrays<T: Copy, const N: usize>(to: *mut T, from: *const T, apart: [usize; 2], height: usize) {
    for j in 0..height {
        // SAFETY: the caller's promise; an array is aligned as its elements are.
        unsafe { *to.add(j * apart[0]).cast::<[T; N]>() = *from.add(j * apart[1]).cast::<[T; N]>() };
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor};

    #[test]
    fn no_elements() {
        for sizes in [[2, 3, 0], [0, 3, 2], [2, 0, 3], [0, 0, 0]] {
            let t = Tensor::zeros_with(&sizes, DType::F32);
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
                assert_eq!(t.permute(&order).contiguous().numel(), 0);
                assert!(t.permute(&order).to_vec::<f32>().is_empty());
            }
        }
    }

    /// All orders of dimensions among which are rows of one to seven elements, contiguous and not.
    #[test]
    fn short_rows_of_every_type() {
        for sizes in [[2, 3, 5, 2], [1, 2, 40, 3], [4, 33, 2, 1], [3, 1, 4, 7]] {
            let n = sizes.iter().product::<usize>() as i64;
            let t = Tensor::from_vec((0..n).collect::<Vec<i64>>(), &sizes);
            let step = [sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1];
            for number in 0..256usize {
                let order = [number % 4, number / 4 % 4, number / 16 % 4, number / 64];
                if order.iter().fold(0, |seen, d| seen | 1 << d) != 15 {
                    continue;
                }
                let to = order.map(|d| sizes[d]);
                let naive = (0..n as usize).map(|flat| {
                    let (mut rest, mut at) = (flat, 0);
                    for d in (0..4).rev() {
                        at += rest % to[d] * step[order[d]];
                        rest /= to[d];
                    }
                    at as i64
                });
                for dtype in [DType::I64, DType::F64, DType::F32, DType::F16] {
                    let view = t.cast(dtype).permute(&order.map(|d| d as isize));
                    let copy = view.contiguous().cast(DType::I64);
                    let copy = copy.as_slice::<i64>().expect("contiguous");
                    assert!(copy.iter().copied().eq(naive.clone()), "{sizes:?} {order:?} {dtype}");
                }
            }
        }
    }
}
