//! Parts of a tensor, and their adjoint: a tensor of zeros with one part filled.

use crate::kernels::place;
use crate::node::{record, record_linear, record_part};
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;

/// The part of a tensor that a view selects, so that a rule can find the same part of a gradient.
#[derive(Clone)]
pub(crate) enum Part {
    /// From `start`, `length` entries, each `step` after the one before, for every dimension.
    Block { start: Dims, length: Dims, step: Dims },
    /// One entry of a dimension, which is removed.
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

    /// A range of one dimension of a shape.
    pub(crate) fn range(shape: &[usize], dim: usize, from: usize, count: usize, by: usize) -> Part {
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
                    view = view.narrow(d, start[d], span);
                    if step[d] != 1 {
                        view = view.step(d, step[d]);
                    }
                }
                view
            }
            Part::Select { dim, index } => t.select(*dim, *index),
            Part::Diagonal { offset, dim1, dim2 } => t.diagonal(*offset, *dim1, *dim2),
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
    let (value, place, again) = (part.of(&x.tensor()), part.clone(), part.clone());
    record_part(
        op,
        x,
        value,
        |t| take(op, t, again.clone()),
        move |c| put(op, c.grad(), part.clone(), &shape),
        move |grad, sum| add_part(sum, &place, grad),
    )
}

/// `sum`, to one part of which a gradient is added.
fn add_part(mut sum: Tensor, part: &Part, grad: &Tensor) -> Tensor {
    crate::dispatch!(all: sum.dtype(), "backward", T => {
        sum.make_mut::<T>();
    });
    place::add(&mut sum, |t| part.of(t), grad);
    sum
}

/// A copy of a variable in which one part is replaced. `op` has checked the shape of `src`.
#[track_caller]
pub(crate) fn replaced(op: &'static str, x: &Var, src: &Var, part: Part) -> Var {
    let mut value = x.tensor();
    crate::dispatch!(all: value.dtype(), op, T => {
        value.make_mut::<T>();
    });
    let src = src.cast(x.dtype());
    place::write(&mut value, |v| part.of(v), &src.tensor());
    let shape: Dims = src.shape().into();
    record(op, [x, &src], value, move |c| {
        let rest =
            || replaced(op, c.grad(), &Var::from(Tensor::zeros_with(&shape, c.grad().dtype())), part.clone());
        [c.wants(0).then(rest), c.wants(1).then(|| take(op, c.grad(), part.clone()))]
    })
}

/// Zeros of a shape, but for one part.
#[track_caller]
pub(crate) fn put(op: &'static str, g: &Var, part: Part, shape: &[usize]) -> Var {
    let value = filled(&g.tensor(), &part, shape, 0.0);
    let again = part.clone();
    record_linear(
        op,
        g,
        value,
        |t| put(op, t, again.clone(), shape),
        move |c| [Some(take(op, c.grad(), part.clone()))],
    )
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

#[cfg(test)]
mod tests {
    use crate::test_views::{strided, values};
    use crate::{BackwardOptions, DType, Tensor, Var};
    use proptest::prelude::*;

    /// Reads a tensor of shape `[4, 3, 2]` in parts that overlap, by indices, and as a whole.
    fn readers(x: &Var) -> [Var; 9] {
        let index = Var::from_vec(vec![2i64, 0, 2], &[3]);
        let places = Var::from_vec(vec![1i64, 0, 1, 1], &[1, 2, 2]);
        [
            x.select(0, 1),
            x.narrow(1, 1, 2),
            x.slice(0, crate::Slice::from(1..).step(2)),
            x.diagonal_with(-1, 0, 1),
            x.index_select(1, &index),
            x.gather(0, &places),
            x.transpose(0, 2).select(0, 1),
            x * 3.0,
            x.slice(2, 0..0),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Each gradient is added to the sum in place; with a graph each is a tensor of its own.
        #[test]
        fn gradients_of_parts_add_up(seed in 0u64..1000, order in Just((0..9).collect::<Vec<_>>()).prop_shuffle(), dtype in 0..4usize) {
            let dtype = [DType::F64, DType::F32, DType::F16, DType::BF16][dtype];
            let gradient = |create_graph| {
                let (x, see) = strided(&[4, 3, 2], seed);
                let y = see(&x).cast(dtype);
                let list = order.iter().map(|&i| readers(&y)[i].clone());
                let loss = list.map(|part| {
                    let weights = Tensor::from_vec(values(part.numel(), seed + 1), part.shape()).cast(part.dtype());
                    part.mul(Var::from(weights)).sum_all()
                });
                let loss = loss.reduce(|a, b| a + b).expect("nine parts");
                loss.backward_with(None, BackwardOptions::new().create_graph(create_graph));
                x.grad().expect("x was read").to_vec::<f64>()
            };
            for (a, b) in gradient(false).into_iter().zip(gradient(true)) {
                let tolerance = match dtype {
                    DType::F64 => 1e-12,
                    DType::F32 => 1e-5,
                    _ => 0.1,
                };
                prop_assert!((a - b).abs() <= tolerance, "{a} and {b} in {dtype}");
            }
        }
    }

    #[test]
    fn a_gradient_that_others_hold_stays_as_it_is() {
        let x = Var::parameter(Tensor::ones_with(&[3], DType::F32));
        let y = &x * 1.0;
        y.retain_grad();
        let z = &y + 0.0;
        z.retain_grad();
        // The gradient of the sum is shared by `z` and `y` when that of the part is added.
        (z.sum_all() + y.select(0, 1)).backward();
        assert_eq!(z.grad().unwrap().to_vec::<f32>(), [1.0, 1.0, 1.0]);
        assert_eq!(x.grad().unwrap().to_vec::<f32>(), [1.0, 2.0, 1.0]);
    }
}
