//! `cat`, `stack`.

use super::part::{Part, take};
use crate::dtype::DType;
use crate::int_list::Int;
use crate::kernels::place;
use crate::node::{RecordOptions, record_with};
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;
use std::borrow::Borrow;

/// Concatenates tensors along a dimension (`torch.cat`). The types are promoted; empty tensors of one dimension are
/// left out, as PyTorch does.
///
/// # Panics
/// If there is no tensor, one has no dimensions, or sizes differ in another dimension.
///
/// ```
/// use tapegrad_tape::Var;
/// let (a, b) = (Var::from_vec(vec![1f32, 2.0], &[1, 2]), Var::from_vec(vec![3f32], &[1, 1]));
/// assert_eq!(tapegrad_tape::cat(&[&a, &b], 1).to_vec::<f32>(), [1.0, 2.0, 3.0]);
/// ```
#[track_caller]
pub fn cat<V: Borrow<Var>>(tensors: &[V], dim: impl Int) -> Var {
    cat_as("cat", &tensors.iter().map(Borrow::borrow).collect::<Vec<_>>(), dim.to_isize())
}

/// [`cat`] under the name of the operation that is made of it.
#[track_caller]
pub(super) fn cat_as(op: &'static str, all: &[&Var], dim: isize) -> Var {
    assert!(!all.is_empty(), "{op}: expected a list of at least one tensor");
    for (i, t) in all.iter().enumerate() {
        assert!(
            t.ndim() > 0,
            "{op}: the tensor at position {i} has no dimensions and cannot be concatenated"
        );
    }
    let counts = |t: &Var| t.shape() != [0];
    let model = all.iter().copied().find(|t| counts(t)).unwrap_or(all[0]);
    let d = shape::dim(op, dim, model.ndim());
    let mut to: Dims = model.shape().into();
    to[d] = 0;
    // The start of each along the dimension; `None` for those left out.
    let mut starts = Vec::with_capacity(all.len());
    for (i, t) in all.iter().enumerate() {
        if !counts(t) {
            starts.push(None);
            continue;
        }
        assert_eq!(
            t.ndim(),
            model.ndim(),
            "{op}: tensors must have the same number of dimensions, but shapes {:?} and {:?} (number {i}) differ",
            model.shape(),
            t.shape()
        );
        for e in (0..to.len()).filter(|&e| e != d) {
            assert!(
                t.shape()[e] == to[e],
                "{op}: sizes of tensors must match except in dimension {d}: expected size {} but got size {} in \
                 dimension {e} of tensor number {i} (shapes {:?} and {:?})",
                to[e],
                t.shape()[e],
                model.shape(),
                t.shape()
            );
        }
        starts.push(Some(to[d]));
        to[d] = to[d].saturating_add(t.shape()[d]);
    }
    shape::numel_for(op, &to);
    let dtype = all.iter().map(|t| t.dtype()).reduce(DType::promote).expect("at least one");
    // In the memory order of the first tensor, so that channels-last is kept.
    let order = model.tensor();
    let mut value = Tensor::uninit_strided(&to, shape::strides_in_order(&to, order.strides()), dtype);
    drop(order);
    let parts: Vec<Option<Part>> = all
        .iter()
        .zip(&starts)
        .map(|(t, start)| start.map(|start| Part::range(&to, d, start, t.shape()[d], 1)))
        .collect();
    for (t, part) in all.iter().zip(&parts) {
        if let Some(part) = part {
            place::write(&mut value, |v| part.of(v), &t.tensor().cast(dtype));
        }
    }
    let joined = |ts: &[Option<Var>]| {
        let zeros = |x: &Var| Var::from(Tensor::zeros_with((), x.dtype()).expand(x.shape()));
        let ts: Vec<Var> = ts.iter().zip(all).map(|(t, x)| t.clone().unwrap_or_else(|| zeros(x))).collect();
        vec![Some(cat_as(op, &ts.iter().collect::<Vec<_>>(), dim))]
    };
    record_with(op, all, value, RecordOptions::new().forward(&joined), move |c| {
        let gradient = |(i, part): (usize, &Option<Part>)| {
            c.wants(i).then(|| match part {
                Some(part) => take(op, c.grad(), part.clone()),
                None => Var::from(Tensor::zeros_with(&[0], c.grad().dtype())),
            })
        };
        parts.iter().enumerate().map(gradient).collect()
    })
}

/// Tensors of one shape along a new dimension, which counts in the result (`torch.stack`).
///
/// # Panics
/// If there is no tensor, or the shapes differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let (a, b) = (Var::from_vec(vec![1f32, 2.0], &[2]), Var::from_vec(vec![3f32, 4.0], &[2]));
/// assert_eq!(tapegrad_tape::stack(&[a, b], 1).to_vec::<f32>(), [1.0, 3.0, 2.0, 4.0]);
/// ```
#[track_caller]
pub fn stack<V: Borrow<Var>>(tensors: &[V], dim: impl Int) -> Var {
    let first = tensors.first().expect("stack: expected a list of at least one tensor").borrow();
    for (i, t) in tensors.iter().map(Borrow::borrow).enumerate() {
        assert_eq!(
            t.shape(),
            first.shape(),
            "stack: expects each tensor to be equal size, but got {:?} at entry 0 and {:?} at entry {i}",
            first.shape(),
            t.shape()
        );
    }
    let d = shape::dim("stack", dim, first.ndim() + 1) as isize;
    let rows: Vec<Var> = tensors.iter().map(|t| t.borrow().unsqueeze(d)).collect();
    cat(&rows, d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFormat;
    use crate::test_views::check2;

    #[test]
    fn values_and_types() {
        let (a, b) =
            (Var::from_vec(vec![1i64, 2], &[2, 1]), Var::from_vec(vec![0.5f32, 1.5, 2.5, 3.5], &[2, 2]));
        let y = cat(&[&a, &b], -1);
        assert_eq!((y.dtype(), y.to_vec::<f32>()), (DType::F32, vec![1.0, 0.5, 1.5, 2.0, 2.5, 3.5]));
        let nothing = Var::from(Tensor::zeros_with(&[0], DType::F32));
        assert_eq!(cat(&[&nothing, &b, &nothing], 1).shape(), [2, 2]);
        assert_eq!(stack(&[&a, &a], -1).shape(), [2, 1, 2]);
    }

    #[test]
    fn channels_last_stays() {
        let x =
            Var::from(Tensor::zeros_with(&[2, 3, 4, 5], DType::F32).to_format(MemoryFormat::ChannelsLast));
        assert!(cat(&[&x, &x], 1).tensor().is_contiguous_in(MemoryFormat::ChannelsLast));
    }

    #[test]
    fn gradients() {
        for seed in 0..25 {
            check2([&[2, 2, 3], &[2, 1, 3]], seed, |x, y| cat(&[x, y, x], 1));
            check2([&[2, 3], &[2, 3]], seed, |x, y| stack(&[x, y], 1));
        }
    }

    #[test]
    #[should_panic(
        expected = "cat: sizes of tensors must match except in dimension 1: expected size 2 but got size 3"
    )]
    fn sizes_that_differ() {
        cat(
            &[
                Var::from(Tensor::zeros_with(&[2, 1], DType::F32)),
                Var::from(Tensor::zeros_with(&[3, 1], DType::F32)),
            ],
            1,
        );
    }
}
