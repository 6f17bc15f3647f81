//! Writing a tensor into a part of a larger one.

use crate::bf16;
use crate::dtype::{DType, Element, Number};
use crate::f16;
use crate::kernels::shared::SharedSlice;
use crate::kernels::strided::{GRAIN, Nest};
use crate::shape::{self, Dims};
use crate::tensor::Tensor;

/// Copies `src` to the elements of `out` that `view` selects; both have the same shape and type.
pub(crate) fn write(out: &mut Tensor, view: impl FnOnce(&Tensor) -> Tensor, src: &Tensor) {
    let place = Place::new(out, &view(out));
    write_at(out, &place, src);
}

fn write_at(out: &mut Tensor, place: &Place, src: &Tensor) {
    crate::dispatch!(all: src.dtype(), "copy", T => combine(out, place, src, |_: T, new: T| new));
}

/// Adds `src` to the elements of `out` that `view` selects; both have the same shape and type.
pub(crate) fn add(out: &mut Tensor, view: impl FnOnce(&Tensor) -> Tensor, src: &Tensor) {
    let place = Place::new(out, &view(out));
    add_at(out, &place, src);
}

fn add_at(out: &mut Tensor, place: &Place, src: &Tensor) {
    fn sum<T: Number>(out: &mut Tensor, place: &Place, src: &Tensor) {
        combine(out, place, src, |old: T, new: T| old + new);
    }
    match src.dtype() {
        DType::F16 => combine(out, place, src, |old: f16, new| f16::from_f32(old.to_f32() + new.to_f32())),
        DType::BF16 => combine(out, place, src, |old: bf16, new| bf16::from_f32(old.to_f32() + new.to_f32())),
        other => crate::dispatch!(number: other, "add", T => sum::<T>(out, place, src)),
    }
}

/// A part of a tensor, in elements from its beginning.
struct Place {
    shape: Dims,
    strides: Dims,
    offset: usize,
}

impl Place {
    fn new(out: &Tensor, view: &Tensor) -> Place {
        assert!(view.shares_memory_with(out), "a part of a tensor lies in its memory");
        let offset = view.offset() - out.offset();
        Place { shape: view.shape().into(), strides: view.strides().into(), offset }
    }
}

/// True if no two indices of the shape have the same address: each stride exceeds the extent of all smaller ones.
fn is_injective(shape: &[usize], strides: &[usize]) -> bool {
    let mut dims: Dims = (0..shape.len()).filter(|&d| shape[d] != 1).collect();
    shape::sort_descending(&mut dims, &|d| strides[d]);
    let mut reach = 0;
    dims.iter().rev().all(|&d| {
        let clear = strides[d] > reach;
        reach += (shape[d] - 1) * strides[d];
        clear
    })
}

fn combine<T: Element>(out: &mut Tensor, place: &Place, src: &Tensor, f: impl Fn(T, T) -> T + Sync) {
    let &Place { shape: ref to, ref strides, offset } = place;
    assert_eq!(to.as_slice(), src.shape(), "a part and what is written to it have one shape");
    let count = shape::numel(to);
    if count == 0 {
        return;
    }
    let data = out.data_mut::<T>();
    let last = offset + to.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum::<usize>();
    assert!(last < data.len() && is_injective(to, strides), "a part lies inside its tensor, once");
    let nest = Nest::new(to, [strides, src.strides()]);
    let source = src.data::<T>();
    let [so, ss] = nest.inner_strides();
    let pointer = SharedSlice::new(data);
    nest.for_each_row(GRAIN, &|[o, i], n| {
        if (so, ss) == (1, 1) {
            // SAFETY: in bounds and not overlapping another row, as checked above.
            let row = unsafe { pointer.part(offset + o, n) };
            for (x, &y) in row.iter_mut().zip(&source[i..i + n]) {
                *x = f(*x, y);
            }
        } else {
            for k in 0..n {
                let at = pointer.at(offset + o + k * so);
                // SAFETY: in bounds, and no other index has this address, as checked above.
                unsafe { *at = f(*at, source[i + k * ss]) };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn parts_of_any_strides() {
        let mut out = Tensor::zeros_with(&[3, 4], DType::F32);
        let src = Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]).transpose(0, 1);
        write(&mut out, |t| t.narrow(0, 1, 2).step(1, 2), &src);
        assert_eq!(out.to_vec::<f32>(), [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 3.0, 0.0, 2.0, 0.0, 4.0, 0.0]);
        add(&mut out, |t| t.diagonal(1, 0, 1), &Tensor::from_vec(vec![1f32, 1.0, 1.0], &[3]));
        assert_eq!(out.to_vec::<f32>(), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 4.0, 0.0, 2.0, 0.0, 4.0, 1.0]);
    }

    #[test]
    #[should_panic(expected = "lies inside its tensor, once")]
    fn overlapping_parts_are_refused() {
        let mut out = Tensor::zeros_with(&[1, 4], DType::F32);
        write(&mut out, |t| t.expand(&[2, 4]), &Tensor::ones_with(&[2, 4], DType::F32));
    }
}
