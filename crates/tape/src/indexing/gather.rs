//! `gather`, `scatter`, `scatter_add`, `take_along_dim`.

use super::{check_range, integers};
use crate::dtype::Number;
use crate::int_list::Int;
use crate::kernels::{index, place, strided};
use crate::node::{record, record_linear, record_part};
use crate::promote::Operand;
use crate::reduction::half_as_f32;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// `out[i][j] = self[index[i][j]][j]` for dimension 0 of two, and so on (`torch.gather`). The index has as many
    /// dimensions as the tensor, and is no larger in the other ones; the result has its shape.
    ///
    /// # Panics
    /// If the index does not fit, is not of an integer type, or is out of bounds.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// let index = Var::from_vec(vec![1i64, 0], &[2, 1]);
    /// assert_eq!(x.gather(1, &index).to_vec::<f32>(), [2.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn gather(&self, dim: impl Int, index: &Var) -> Var {
        let (d, index) = self.check_index("gather", dim.to_isize(), index);
        gather_values("gather", self, d, index)
    }

    /// A copy into which elements of `src`, or one scalar, are written: `out[index[i][j]][j] = src[i][j]` for dimension
    /// 0 of two, and so on (`torch.scatter`). `src` is at least as large as the index. Of several elements with one
    /// index the last is kept, and only it gets the gradient.
    ///
    /// # Panics
    /// If the index or `src` do not fit, the index is not of an integer type or is out of bounds, or the types differ.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![0f32; 4], &[2, 2]);
    /// let index = Var::from_vec(vec![1i64, 0], &[2, 1]);
    /// assert_eq!(x.scatter(1, &index, 5.0).to_vec::<f32>(), [0.0, 5.0, 5.0, 0.0]);
    /// ```
    #[track_caller]
    pub fn scatter(&self, dim: impl Int, index: &Var, src: impl Into<Operand>) -> Var {
        self.scatter_along(dim.to_isize(), index, src.into())
    }

    #[track_caller]
    fn scatter_along(&self, dim: isize, index: &Var, src: Operand) -> Var {
        let (d, index) = self.check_index("scatter", dim, index);
        if let Operand::Var(v) = &src {
            self.check_source("scatter", &index, v);
        }
        let from = match &src {
            Operand::Var(v) => v.tensor(),
            Operand::Scalar(s) => Tensor::full_with((), *s, self.dtype()).expand(index.shape()),
        };
        let value = put(self.tensor(), d, &index, &from);
        let kept = index.clone();
        let keep = move |g: &Var| g.scatter(d, &Var::from(&kept), 0.0);
        match &src {
            Operand::Scalar(_) => record("scatter", [self], value, move |c| [Some(keep(c.grad()))]),
            Operand::Var(v) => {
                let (shape, own): (Dims, Dims) = (v.shape().into(), self.shape().into());
                record("scatter", [self, v], value, move |c| {
                    let source = || {
                        let g = source_gradient("scatter", c.grad(), d, &index, &shape);
                        g.masked_fill(&Var::from(overwritten(&index, d, &own, &shape)), 0.0)
                    };
                    [c.wants(0).then(|| keep(c.grad())), c.wants(1).then(source)]
                })
            }
        }
    }

    /// A copy to which elements of `src` are added: `out[index[i][j]][j] += src[i][j]` for dimension 0 of two, and so
    /// on (`torch.scatter_add`). `src` is at least as large as the index.
    ///
    /// # Panics
    /// If the index or `src` do not fit, the index is not of an integer type or is out of bounds, or the types differ.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![0f32; 2], &[2]);
    /// let (index, src) = (Var::from_vec(vec![1i64, 1], &[2]), Var::from_vec(vec![2f32, 3.0], &[2]));
    /// assert_eq!(x.scatter_add(0, &index, &src).to_vec::<f32>(), [0.0, 5.0]);
    /// ```
    #[track_caller]
    pub fn scatter_add(&self, dim: impl Int, index: &Var, src: &Var) -> Var {
        let (d, index) = self.check_index("scatter_add", dim.to_isize(), index);
        self.check_source("scatter_add", &index, src);
        self.scatter_add_at("scatter_add", d, index, src)
    }

    /// [`Var::scatter_add`] with a checked index.
    #[track_caller]
    pub(super) fn scatter_add_at(&self, op: &'static str, d: usize, index: Tensor, src: &Var) -> Var {
        let value = scatter_values(self.tensor(), d, &index, &src.tensor());
        let shape: Dims = src.shape().into();
        record(op, [self, src], value, move |c| {
            [
                c.wants(0).then(|| c.grad().clone()),
                c.wants(1).then(|| source_gradient(op, c.grad(), d, &index, &shape)),
            ]
        })
    }

    /// Like [`Var::gather`], with the other dimensions broadcast against each other (`torch.take_along_dim` with a
    /// dimension). Negative indices count from the back. Fits what [`Var::argmax`] and [`Var::argsort`] give.
    ///
    /// # Panics
    /// If the index has another number of dimensions or does not broadcast, is not of an integer type, or is out of
    /// bounds.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// let index = Var::from_vec(vec![1i64], &[1, 1]);
    /// assert_eq!(x.take_along_dim(&index, 1).to_vec::<f32>(), [2.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn take_along_dim(&self, indices: &Var, dim: impl Int) -> Var {
        self.take_along(indices, dim.to_isize())
    }

    #[track_caller]
    fn take_along(&self, indices: &Var, dim: isize) -> Var {
        let d = shape::dim("take_along_dim", dim, self.ndim());
        assert_eq!(
            indices.ndim(),
            self.ndim(),
            "take_along_dim: input and indices should have the same number of dimensions, but have shapes {:?} and {:?}",
            self.shape(),
            indices.shape()
        );
        if self.ndim() == 0 {
            let (d, index) = self.check_index("take_along_dim", dim, indices);
            return gather_values("take_along_dim", self, d, index);
        }
        let without = |shape: &[usize]| {
            let mut shape: Dims = shape.into();
            shape[d] = 1;
            shape
        };
        let common =
            shape::broadcast_for("take_along_dim", &without(self.shape()), &without(indices.shape()));
        let with = |n: usize| {
            let mut shape = common.clone();
            shape[d] = n;
            shape
        };
        let n = self.shape()[d] as i64;
        let wrapped =
            strided::map::<i64, i64>(&integers("take_along_dim", indices), |i| if i < 0 { i + n } else { i });
        let indices = Var::from(wrapped);
        let x = self.expand_to(&with(self.shape()[d]));
        let indices = indices.expand_to(&with(indices.shape()[d]));
        let (d, index) = x.check_index("take_along_dim", d as isize, &indices);
        gather_values("take_along_dim", &x, d, index)
    }

    /// The dimension and the values of an index, checked against this tensor.
    #[track_caller]
    pub(super) fn check_index(&self, op: &str, dim: isize, index: &Var) -> (usize, Tensor) {
        let d = shape::dim(op, dim, self.ndim());
        let values = integers(op, index);
        // A tensor without dimensions is treated as a vector of one element.
        let (own, theirs) = (self.ndim().max(1), index.ndim().max(1));
        assert!(
            own == theirs || index.numel() == 0,
            "{op}: the index has to have the same number of dimensions as the input, but the shapes are {:?} and {:?}",
            index.shape(),
            self.shape()
        );
        if index.numel() == 0 {
            return (d, values);
        }
        for e in (0..index.ndim().min(self.ndim())).filter(|&e| e != d) {
            assert!(
                index.shape()[e] <= self.shape()[e],
                "{op}: expected index {:?} to be no larger than the input {:?} apart from dimension {d}",
                index.shape(),
                self.shape()
            );
        }
        check_range(op, &values, d, self.size(dim));
        (d, values)
    }

    #[track_caller]
    pub(super) fn check_source(&self, op: &str, index: &Tensor, src: &Var) {
        assert_eq!(
            src.dtype(),
            self.dtype(),
            "{op}: expected self and src to be of one type, not {} and {}",
            self.dtype(),
            src.dtype()
        );
        if index.numel() == 0 {
            return;
        }
        let fits = index.ndim().max(1) == src.ndim().max(1)
            && index.shape().iter().zip(src.shape()).all(|(i, s)| i <= s);
        assert!(
            fits,
            "{op}: the index has to have the same number of dimensions as src and be no larger, but the shapes are {:?} \
             and {:?}",
            index.shape(),
            src.shape()
        );
    }
}

/// At least one dimension, for kernels that iterate over rows.
pub(super) fn with_dims(t: &Tensor) -> Tensor {
    if t.ndim() == 0 { t.reshape(&[1]) } else { t.clone() }
}

/// [`Var::gather`] with a checked index.
#[track_caller]
pub(crate) fn gather_values(op: &'static str, x: &Var, d: usize, index: Tensor) -> Var {
    let value = if index.numel() == 0 {
        Tensor::uninit(index.shape(), x.dtype())
    } else {
        index::gather(&with_dims(&x.tensor()), d, &with_dims(&index)).reshape(index.shape())
    };
    let shape: Dims = x.shape().into();
    let (places, again) = (index.clone(), index.clone());
    record_part(
        op,
        x,
        value,
        |t| gather_values(op, t, d, again.clone()),
        move |c| collect(op, c.grad(), d, index.clone(), &shape),
        move |grad, sum| scatter_values(sum, d, &places, grad),
    )
}

/// The adjoint of a gather: elements are added into zeros of a shape at a checked index.
#[track_caller]
pub(crate) fn collect(op: &'static str, g: &Var, d: usize, index: Tensor, shape: &[usize]) -> Var {
    let value = scatter_values(Tensor::zeros_with(shape, g.dtype()), d, &index, &g.tensor());
    let again = index.clone();
    record_linear(
        op,
        g,
        value,
        |t| collect(op, t, d, again.clone(), shape),
        move |c| [Some(gather_values(op, c.grad(), d, index.clone()))],
    )
}

/// The gradient of a scatter's source: the gradients at the index, and zero beyond it.
#[track_caller]
fn source_gradient(op: &'static str, g: &Var, d: usize, index: &Tensor, shape: &[usize]) -> Var {
    if index.numel() == 0 {
        return Var::from(Tensor::zeros_with(shape, g.dtype()));
    }
    let taken = gather_values(op, g, d, index.clone());
    if taken.ndim() != shape.len() {
        return taken.reshape_to(shape);
    }
    let pad: Vec<isize> =
        (0..shape.len()).rev().flat_map(|d| [0, (shape[d] - index.shape()[d]) as isize]).collect();
    taken.pad(&pad)
}

/// Which elements of a scatter's source, of `shape`, a later one has overwritten.
fn overwritten(index: &Tensor, d: usize, own: &[usize], shape: &[usize]) -> Tensor {
    let numbers = Tensor::arange(0, shape::numel(shape) as i64).reshape(shape);
    let last = put(Tensor::zeros_with(own, crate::DType::I64), d, index, &numbers);
    if index.numel() == 0 {
        return Tensor::zeros_with(shape, crate::DType::Bool);
    }
    let last = index::gather(&with_dims(&last), d, &with_dims(index));
    let mut lost = Tensor::zeros_with(shape, crate::DType::Bool);
    let numbers = with_dims(&numbers);
    let mut used = numbers.clone();
    for (e, &n) in last.shape().iter().enumerate() {
        used = used.narrow(e, 0, n);
    }
    let differ = strided::zip::<i64, i64, bool>(last.shape(), &last, &used, |a, b| a != b);
    let view =
        |t: &Tensor| differ.shape().iter().enumerate().fold(with_dims(t), |t, (e, &n)| t.narrow(e, 0, n));
    place::write(&mut lost, view, &differ);
    lost
}

/// A row-major tensor that is not shared, with at least one dimension; copies only if needed.
pub(super) fn prepared<T: crate::Element>(base: Tensor) -> Tensor {
    let mut out = if base.is_contiguous() { base } else { base.contiguous() };
    out.make_mut::<T>();
    if out.ndim() == 0 { out.reshape(&[1]) } else { out }
}

/// `base` with `src` written at a checked index.
fn put(base: Tensor, d: usize, index: &Tensor, src: &Tensor) -> Tensor {
    fn put<T: crate::Element>(base: Tensor, d: usize, index: &Tensor, src: &Tensor) -> Tensor {
        let mut out = prepared::<T>(base);
        index::scatter(&mut out, d, &with_dims(index), &with_dims(src), |_: T, new| new);
        out
    }
    if index.numel() == 0 {
        return base;
    }
    let shape: Dims = base.shape().into();
    crate::dispatch!(all: base.dtype(), "scatter", T => put::<T>(base, d, index, src)).reshape(&shape)
}

/// `base` with `src` added at a checked index.
fn scatter_values(base: Tensor, d: usize, index: &Tensor, src: &Tensor) -> Tensor {
    fn add<T: Number>(base: Tensor, d: usize, index: &Tensor, src: &Tensor) -> Tensor {
        let mut out = prepared::<T>(base);
        index::scatter(&mut out, d, &with_dims(index), &with_dims(src), |old: T, new| old + new);
        out
    }
    if index.numel() == 0 {
        return base;
    }
    let shape: Dims = base.shape().into();
    let dtype = base.dtype();
    let sum = half_as_f32(base, |base| {
        let src = src.cast(base.dtype());
        crate::dispatch!(number: base.dtype(), "scatter_add", T => add::<T>(base, d, index, &src))
    });
    sum.cast(dtype).reshape(&shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::test_views::{check, check2};
    use proptest::prelude::*;

    /// Values of a flat index in row-major order, and the flat position with another entry of one dimension.
    fn naive(shape: &[usize], index: &Tensor, d: usize, f: impl FnMut(usize, usize)) {
        let strides = shape::contiguous_strides(shape);
        let mut f = f;
        for (flat, i) in index.to_vec::<i64>().into_iter().enumerate() {
            let (mut rest, mut at) = (flat, 0);
            for e in (0..index.ndim()).rev() {
                let here = if e == d { i as usize } else { rest % index.shape()[e] };
                rest /= index.shape()[e];
                at += here * strides[e];
            }
            f(flat, at);
        }
    }

    fn index_for(shape: [usize; 3], d: usize, n: usize, seed: u64) -> Var {
        let mut to = shape;
        to[d] = n;
        let count: usize = to.iter().product();
        let values = (0..count as u64).map(|i| (((i * 7 + seed) * 2654435761) >> 7) as i64 % shape[d] as i64);
        Var::from_vec(values.collect(), &to)
    }

    /// Rows of one index are taken as one row, in pieces.
    #[test]
    fn one_index_a_row() {
        let n = 70_001;
        let x = Var::parameter(Tensor::arange(0, 3 * n).cast(DType::F64).reshape(&[n as usize, 3]));
        let index = Var::from_vec((0..n).map(|i| i * i % 3).collect::<Vec<i64>>(), &[n as usize, 1]);
        let y = x.gather(1, &index);
        assert!(y.to_vec::<f64>().iter().enumerate().all(|(i, &y)| y == (3 * i + i * i % 3) as f64));
        y.backward_with(Some(&y.detach()), Default::default());
        let grad = x.grad().expect("of the picked ones").to_vec::<f64>();
        assert!(grad.iter().enumerate().all(|(at, &g)| {
            let (i, column) = (at / 3, at % 3);
            g == if column == i * i % 3 { at as f64 } else { 0.0 }
        }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn values_and_gradients(seed in 0u64..1000, d in 0usize..3, n in 0usize..4) {
            let shape = [2, 3, 2];
            let index = index_for(shape, d, n, seed);
            let x = Var::from_vec((0..12i64).collect(), &shape);
            let (mut got, mut sums) = (vec![], vec![0i64; 12]);
            naive(&shape, &index.tensor(), d, |flat, at| {
                got.push(at as i64);
                sums[at] += flat as i64;
            });
            prop_assert_eq!(x.gather(d, &index).to_vec::<i64>(), got);
            let src = Var::from_vec((0..index.numel() as i64).collect(), index.shape());
            let zeros = Var::from(Tensor::zeros_with(&shape, DType::I64));
            prop_assert_eq!(zeros.scatter_add(d, &index, &src).to_vec::<i64>(), sums);

            check(&shape, seed, |x| x.gather(d, &index));
            check2([&shape, index.shape()], seed, |x, y| x.scatter_add(d, &index, y));
            check(&shape, seed, |x| x.scatter(d, &index, 2.5));
        }
    }

    #[test]
    fn a_source_larger_than_the_index() {
        let index = Var::from_vec(vec![2i64, 0, 1, 1, 2, 0], &[3, 2]);
        for seed in 0..10 {
            check2([&[3, 4], &[3, 3]], seed, |x, y| {
                [x.scatter(0, &index, y), x.scatter_add(1, &index, y), y.take_along_dim(&index, 1)]
            });
        }
    }

    #[test]
    fn tensors_without_dimensions() {
        let x = Var::parameter(Tensor::scalar(3.0));
        let zero = Var::from_vec(vec![0i64], &[1]);
        assert_eq!(x.gather(0, &zero).shape(), [1]);
        assert_eq!(x.gather(-1, &Var::from(0i64)).shape(), [0usize; 0]);
        assert_eq!(x.scatter_add(0, &Var::from(0i64), &Var::from(2.0)).item(), 5.0);
    }

    #[test]
    #[should_panic(expected = "gather: index 23 is out of bounds for dimension 1 with size 2")]
    fn out_of_bounds() {
        let x = Var::from(Tensor::zeros_with(&[2, 2], DType::F32));
        x.gather(1, &Var::from_vec(vec![0i64, 23], &[2, 1]));
    }

    #[test]
    #[should_panic(expected = "scatter: the index has to have the same number of dimensions as the input")]
    fn dimensions_that_differ() {
        let x = Var::from(Tensor::zeros_with(&[3, 5, 3], DType::F32));
        x.scatter(
            0,
            &Var::from_vec(vec![0i64; 4], &[2, 2]),
            Var::from(Tensor::zeros_with(&[2, 5], DType::F32)),
        );
    }
}
