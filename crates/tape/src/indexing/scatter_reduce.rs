//! `scatter_reduce`, `index_reduce`.

use super::gather::{prepared, with_dims};
use super::select::list;
use crate::dtype::{DType, Number};
use crate::grad_mode::is_grad_enabled;
use crate::int_list::Int;
use crate::kernels::index;
use crate::node::{record, record_with_output};
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;
use crate::{RoundingMode, where_};
use std::sync::Arc;

/// How elements that come to one place are reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// Their product.
    Prod,
    /// Their mean; of integers, rounded down.
    Mean,
    /// The largest.
    Amax,
    /// The smallest.
    Amin,
}

impl Var {
    /// A copy in which elements of `src` are reduced at the places that the index names, as in [`Var::scatter`]
    /// (`torch.scatter_reduce`); the elements of this take part. Equal
    /// extremes share the gradient evenly.
    ///
    /// # Panics
    /// If the index or `src` do not fit, the index is not of an integer type or is out of bounds, or the types differ. In
    /// a second derivative of products, if several factors of one are zero.
    ///
    /// ```
    /// use tapegrad_tape::{Reduce, Var};
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// let (index, src) = (Var::from_vec(vec![0i64, 0], &[2]), Var::from_vec(vec![5f32, 3.0], &[2]));
    /// assert_eq!(x.scatter_reduce(0, &index, &src, Reduce::Amax).to_vec::<f32>(), [5.0, 2.0]);
    /// assert_eq!(x.scatter_reduce_with(0, &index, &src, Reduce::Mean, false).to_vec::<f32>(), [4.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn scatter_reduce(&self, dim: impl Int, index: &Var, src: &Var, reduce: Reduce) -> Var {
        self.scatter_reduce_with(dim, index, src, reduce, true)
    }

    /// [`Var::scatter_reduce`] with a choice to leave out own elements.
    ///
    /// # Panics
    /// Same as [`Var::scatter_reduce`].
    #[track_caller]
    pub fn scatter_reduce_with(
        &self,
        dim: impl Int,
        index: &Var,
        src: &Var,
        reduce: Reduce,
        include_self: bool,
    ) -> Var {
        reduced("scatter_reduce", self, dim.to_isize(), index, None, src, reduce, include_self)
    }

    /// A copy in which the entries of `source` are reduced into the entries of a dimension that the index lists
    /// (`torch.index_reduce`); those of this take part. For
    /// [`Reduce::Sum`] there is [`Var::index_add`], too.
    ///
    /// # Panics
    /// If the index has more than one dimension, is not of an integer type, or is out of bounds; or if `source` does
    /// not have as many entries as the index, or differs in another size or in type. In a second derivative of
    /// products, if several factors of one are zero.
    ///
    /// ```
    /// use tapegrad_tape::{Reduce, Var};
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// let (index, source) = (Var::from_vec(vec![1i64, 1], &[2]), Var::from_vec(vec![5f32, 3.0], &[2]));
    /// assert_eq!(x.index_reduce(0, &index, &source, Reduce::Prod).to_vec::<f32>(), [1.0, 30.0]);
    /// ```
    #[track_caller]
    pub fn index_reduce(&self, dim: impl Int, index: &Var, source: &Var, reduce: Reduce) -> Var {
        self.index_reduce_with(dim, index, source, reduce, true)
    }

    /// [`Var::index_reduce`] with a choice to leave out own elements.
    ///
    /// # Panics
    /// Same as [`Var::index_reduce`].
    #[track_caller]
    pub fn index_reduce_with(
        &self,
        dim: impl Int,
        index: &Var,
        source: &Var,
        reduce: Reduce,
        include_self: bool,
    ) -> Var {
        self.index_reduce_along(dim.to_isize(), index, source, reduce, include_self)
    }

    #[track_caller]
    fn index_reduce_along(
        &self,
        dim: isize,
        index: &Var,
        source: &Var,
        reduce: Reduce,
        include_self: bool,
    ) -> Var {
        let op = "index_reduce";
        let d = shape::dim(op, dim, self.ndim());
        assert!(index.ndim() <= 1, "{op}: the index has to be a vector, but has shape {:?}", index.shape());
        let mut wanted: Dims = self.shape().into();
        if let Some(n) = wanted.get_mut(d) {
            *n = index.numel();
        }
        assert!(
            source.shape() == wanted.as_slice() || (self.ndim() == 0 && source.numel() == index.numel()),
            "{op}: self of shape {:?} and {} indices along dimension {d} take a source of shape {wanted:?}, not {:?}",
            self.shape(),
            index.numel(),
            source.shape()
        );
        let mut line = Dims::from_elem(1, source.ndim());
        if let Some(n) = line.get_mut(d) {
            *n = index.numel();
        }
        let rows = list(op, index, d, self.size(dim));
        let index = index.reshape_to(&line).expand_to(source.shape());
        let rows = (self.ndim() > 0).then_some(rows);
        reduced(op, self, dim, &index, rows, source, reduce, include_self)
    }
}

#[track_caller]
#[allow(clippy::too_many_arguments)]
fn reduced(
    op: &'static str,
    x: &Var,
    dim: isize,
    index: &Var,
    rows: Option<Arc<[usize]>>,
    src: &Var,
    reduce: Reduce,
    include_self: bool,
) -> Var {
    let (d, places) = x.check_index(op, dim, index);
    x.check_source(op, &places, src);
    if places.numel() == 0 {
        return x.scatter_add_at(op, d, places, src);
    }
    let (dim, index) = (d as isize, Var::from(places));
    // What lies beyond the index takes no part.
    let mut src = src.clone();
    if src.ndim() == index.ndim() {
        for (e, &n) in index.shape().iter().enumerate() {
            src = src.narrow(e, 0, n);
        }
    } else {
        src = src.reshape_to(index.shape());
    }
    let at = At { op, dim, index, rows, include_self };
    match reduce {
        Reduce::Sum => at.sum(x, &src),
        Reduce::Mean => at.mean(x, &src),
        Reduce::Prod => at.product(x, &src),
        Reduce::Amax | Reduce::Amin => at.extreme(x, &src, reduce),
    }
}

/// Where a reduction goes.
#[derive(Clone)]
struct At {
    op: &'static str,
    dim: isize,
    index: Var,
    /// The index, if it is the same for all entries of a dimension.
    rows: Option<Arc<[usize]>>,
    include_self: bool,
}

impl At {
    /// `y`, or zero at the index where the elements of self take no part.
    #[track_caller]
    fn of_self(&self, y: Var) -> Var {
        if self.include_self { y } else { y.scatter(self.dim, &self.index, 0.0) }
    }

    #[track_caller]
    fn gather(&self, y: &Var) -> Var {
        y.gather(self.dim, &self.index)
    }

    #[track_caller]
    fn sum(&self, x: &Var, src: &Var) -> Var {
        self.of_self(x.clone()).scatter_add(self.dim, &self.index, src)
    }

    #[track_caller]
    fn mean(&self, x: &Var, src: &Var) -> Var {
        let sum = self.sum(x, src);
        let count = self.of_self(x.ones_like()).scatter_add(self.dim, &self.index, &src.ones_like());
        if x.dtype().is_float() { sum.div(&count) } else { sum.div_rounded(&count, RoundingMode::Floor) }
    }

    /// The value of a product or an extreme.
    fn value(&self, x: &Tensor, src: &Tensor, reduce: Reduce) -> Tensor {
        fn of<T: Number>(at: &At, x: Tensor, src: &Tensor, reduce: Reduce) -> Tensor {
            let (mut out, src) = (prepared::<T>(x), with_dims(src));
            if !at.include_self {
                let neutral = match reduce {
                    Reduce::Amax => T::from_f64(f64::NEG_INFINITY),
                    Reduce::Amin => T::from_f64(f64::INFINITY),
                    _ => T::ONE,
                };
                at.combine(&mut out, &src, |_: T, _| neutral);
            }
            match reduce {
                Reduce::Amax => {
                    at.combine(&mut out, &src, |a: T, b| if b > a || b.is_nan() { b } else { a });
                }
                Reduce::Amin => {
                    at.combine(&mut out, &src, |a: T, b| if b < a || b.is_nan() { b } else { a });
                }
                _ => at.combine(&mut out, &src, |a: T, b| a * b),
            }
            out
        }
        let wide = match x.dtype() {
            DType::F16 | DType::BF16 => DType::F32,
            DType::U8 | DType::Bool => DType::I64,
            other => other,
        };
        let (base, src) = (x.cast(wide), src.cast(wide));
        let out = crate::dispatch!(number: wide, self.op, T => of::<T>(self, base, &src, reduce));
        out.reshape(x.shape()).cast(x.dtype())
    }

    fn combine<T: Number>(&self, out: &mut Tensor, src: &Tensor, f: impl Fn(T, T) -> T + Sync) {
        let d = self.dim as usize;
        match &self.rows {
            Some(rows) => index::combine_rows(out, src, d, rows, |x, y| *x = f(*x, y)),
            None => index::scatter(out, d, &with_dims(&self.index.tensor()), src, f),
        }
    }

    #[track_caller]
    fn product(&self, x: &Var, src: &Var) -> Var {
        let value = self.value(&x.tensor(), &src.tensor(), Reduce::Prod);
        let (at, sx, ss) = (self.clone(), x.saved(), src.saved());
        record_with_output(self.op, [x, src], value, move |c| {
            let of_self = || {
                // The product of the others, as if this factor were one where it is zero.
                let x = sx.masked_fill(&sx.detach().eq(0.0), 1.0);
                at.of_self(c.grad() * at.product(&x, &ss) / &x)
            };
            [
                c.wants(0).then(of_self),
                c.wants(1).then(|| at.product_of_others(&sx, &ss, &c.output(), c.grad())),
            ]
        })
    }

    /// `g` times the product of all factors but each one of `src`. Where that one alone is zero, it is replaced by one.
    #[track_caller]
    fn product_of_others(&self, x: &Var, src: &Var, out: &Var, g: &Var) -> Var {
        let zero = src.detach().eq(0.0);
        if zero.any(()).item() == 0.0 {
            return self.gather(&(g * out)) / src;
        }
        let count = x.detach().zeros_like().scatter_add(self.dim, &self.index, &zero.cast(x.dtype()));
        let count = self.gather(&count);
        let single = zero.logical_and(&count.eq(1.0));
        let without = self.product(x, &src.masked_fill(&single, 1.0));
        let single_gradient = self.gather(&(g * without));
        let gradient = self.gather(&(g * out)) / src.masked_fill(&zero, 1.0);
        let gradient = where_(&single, &single_gradient, &gradient);
        if is_grad_enabled() && count.gt(1.0).any(()).item() != 0.0 {
            let op = self.op;
            return record(op, [&gradient, x, src], gradient.tensor(), move |c| {
                assert!(
                    !c.wants(1) && !c.wants(2),
                    "{op}: there is no second derivative of a product of which several factors are zero"
                );
                [Some(c.into_grad()), None, None]
            });
        }
        gradient
    }

    #[track_caller]
    fn extreme(&self, x: &Var, src: &Var, reduce: Reduce) -> Var {
        let value = self.value(&x.tensor(), &src.tensor(), reduce);
        let (at, sx, ss) = (self.clone(), x.saved(), src.saved());
        record_with_output(self.op, [x, src], value, move |c| {
            let (out, dtype) = (c.output().detach(), sx.dtype());
            let of_self = at.of_self(sx.detach().eq(&out).cast(dtype));
            let of_src = ss.detach().eq(at.gather(&out)).cast(dtype);
            let share = c.grad() / of_self.scatter_add(at.dim, &at.index, &of_src);
            [
                c.wants(0).then(|| at.of_self(&of_self * &share)),
                c.wants(1).then(|| &of_src * at.gather(&share)),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck;
    use crate::test_views::check2;
    use proptest::prelude::*;

    const ALL: [Reduce; 5] = [Reduce::Sum, Reduce::Prod, Reduce::Mean, Reduce::Amax, Reduce::Amin];

    #[test]
    fn an_index_of_nothing() {
        let (x, src) = [[2usize, 3], [2, 3]].map(|shape| Var::parameter(crate::Tensor::ones(&shape))).into();
        let index = Var::from_vec(Vec::<i64>::new(), &[0, 3]);
        for reduce in ALL {
            x.scatter_reduce(0, &index, &src, reduce).sum_all().backward();
            assert_eq!(x.take_grad().unwrap().to_vec::<f32>(), [1.0; 6], "{reduce:?}");
            assert_eq!(src.take_grad().unwrap().to_vec::<f32>(), [0.0; 6], "{reduce:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -2isize..2, include: bool, list in proptest::collection::vec(0i64..2, 6)) {
            // Layout 3 repeats elements: at ties there is no derivative. The second tensor has its seed divided by five.
            let seed = if seed % 5 == 3 || seed / 5 % 5 == 3 { 20 } else { seed };
            let index = Var::from_vec(list[..4].to_vec(), &[2, 2]);
            let row = Var::from_vec(list[..3].to_vec(), &[3]);
            for reduce in ALL {
                check2([&[2, 3], &[2, 3]], seed, |x, y| (x * 1.1).scatter_reduce_with(dim, &index, y, reduce, include));
                let shape = if dim.rem_euclid(2) == 0 { [3, 3] } else { [2, 3] };
                check2([&[2, 3], &shape], seed, |x, y| (x * 1.1).index_reduce_with(dim, &row, y, reduce, include));
            }
        }

        #[test]
        fn products_with_zeros(list in proptest::collection::vec(0i64..2, 4), zeros in proptest::collection::vec(0usize..6, 1..4), include: bool) {
            let mut values = [0.5, -1.5, 2.0, 0.7, -0.3, 1.1];
            zeros.iter().for_each(|&z| values[z] = 0.0);
            let x = Var::parameter(Tensor::from_slice(&values[..2], &[2]));
            let src = Var::parameter(Tensor::from_slice(&values[2..], &[4]));
            let index = Var::from_vec(list, &[4]);
            let f = |v: &[Var]| v[0].scatter_reduce_with(0, &index, &v[1], Reduce::Prod, include);
            gradcheck(f, &[x, src]).unwrap();
        }
    }

    /// The values are PyTorch's.
    #[test]
    fn integers_nan_and_nothing() {
        let (x, src) = (Var::from_vec(vec![1i64, -7], &[2]), Var::from_vec(vec![4i64, -2], &[2]));
        let index = Var::from_vec(vec![1i64, 1], &[2]);
        let of = |reduce, include| x.scatter_reduce_with(0, &index, &src, reduce, include).to_vec::<i64>();
        assert_eq!((of(Reduce::Mean, true), of(Reduce::Mean, false)), (vec![1, -2], vec![1, 1]));
        assert_eq!((of(Reduce::Amax, false), of(Reduce::Amin, true)), (vec![1, 4], vec![1, -7]));
        let x = Var::from_vec(vec![1f32, f32::NAN], &[2]);
        let nan = x.scatter_reduce(0, &index, &Var::from_vec(vec![3f32, 5.0], &[2]), Reduce::Amax);
        assert!(nan.to_vec::<f32>()[1].is_nan());
        let none = Var::from(Tensor::zeros_with(&[0], DType::I64));
        assert_eq!(x.scatter_reduce_with(0, &none, &x, Reduce::Amin, false).to_vec::<f32>()[0], 1.0);
        let y = Var::from(2f32).scatter_reduce(0, &Var::from(0i64), &Var::from(3f32), Reduce::Prod);
        assert_eq!((y.shape(), y.item()), (&[][..], 6.0));
    }

    #[test]
    #[should_panic(
        expected = "index_reduce: self of shape [2] and 1 indices along dimension 0 take a source of shape [1]"
    )]
    fn a_source_that_does_not_fit() {
        let x = Var::from_vec(vec![1f32, 2.0], &[2]);
        x.index_reduce(0, &Var::from_vec(vec![0i64], &[1]), &x, Reduce::Amax);
    }
}
