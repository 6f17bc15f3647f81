//! Parts of a tensor, and their adjoint: a tensor of zeros with one part filled.

use crate::kernels::place;
use crate::node::record;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;

/// What a view shows of a tensor, so that a rule can find the same part in a gradient.
#[derive(Clone)]
pub(crate) enum Part {
    /// From `start`, `length` entries, each `step` after the one before, for every dimension.
    Block { start: Dims, length: Dims, step: Dims },
    /// One entry of a dimension, which goes away.
    Select { dim: usize, index: usize },
    /// A diagonal of two dimensions, as a new last one.
    Diagonal { offset: isize, dim1: usize, dim2: usize },
}

impl Part {
    /// The whole of a shape, for narrowing.
    pub(crate) fn whole(shape: &[usize]) -> Part {
        Part::Block {
            start: Dims::from_elem(0, shape.len()),
            length: shape.into(),
            step: Dims::from_elem(1, shape.len()),
        }
    }

    /// A stretch of one dimension of a shape.
    pub(crate) fn stretch(shape: &[usize], dim: usize, from: usize, count: usize, by: usize) -> Part {
        let mut part = Part::whole(shape);
        if let Part::Block { start, length, step } = &mut part {
            (start[dim], length[dim], step[dim]) = (from, count, by);
        }
        part
    }

    /// The part of a tensor, as a view.
    pub(crate) fn of(&self, t: &Tensor) -> Tensor {
        match self {
            Part::Block { start, length, step } => {
                let mut view = t.clone();
                for d in 0..t.ndim() {
                    if (start[d], length[d], step[d]) == (0, t.shape()[d], 1) {
                        continue;
                    }
                    let span = if length[d] == 0 { 0 } else { (length[d] - 1) * step[d] + 1 };
                    view = view.narrow(d as isize, start[d], span);
                    if step[d] != 1 {
                        view = view.step(d as isize, step[d]);
                    }
                }
                view
            }
            Part::Select { dim, index } => t.select(*dim as isize, *index as isize),
            Part::Diagonal { offset, dim1, dim2 } => t.diagonal(*offset, *dim1 as isize, *dim2 as isize),
        }
    }

    fn keeps_dims(&self) -> bool {
        matches!(self, Part::Block { .. })
    }
}

/// A part of a variable, as a view.
#[track_caller]
pub(crate) fn take(op: &'static str, x: &Var, part: Part) -> Var {
    let shape: Dims = x.shape().into();
    record(op, [x], part.of(&x.tensor()), move |c| [Some(put(op, c.grad(), part.clone(), &shape))])
}

/// Zeros of a shape, but for one part.
#[track_caller]
fn put(op: &'static str, g: &Var, part: Part, shape: &[usize]) -> Var {
    let value = filled(&g.tensor(), &part, shape, 0.0);
    record(op, [g], value, move |c| [Some(take(op, c.grad(), part.clone()))])
}

/// A tensor of `fill` but for one part, which is `t`; in the memory order of `t` where it has as many dimensions.
pub(crate) fn filled(t: &Tensor, part: &Part, shape: &[usize], fill: f64) -> Tensor {
    let mut out = if part.keeps_dims() {
        Tensor::uninit_strided(shape, shape::strides_in_order(shape, t.strides()), t.dtype())
    } else {
        Tensor::uninit(shape, t.dtype())
    };
    crate::dispatch!(all: t.dtype(), "fill", T => {
        out.data_mut::<T>().fill(<T as crate::Element>::from_f64(fill));
    });
    place::write(&mut out, |o| part.of(o), t);
    out
}
