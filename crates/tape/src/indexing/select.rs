//! `index_select` and `index_add`, which are each other's rules.

use super::{check_range, integers, places};
use crate::dtype::{DType, Element, Number};
use crate::int_list::Int;
use crate::kernels::index;
use crate::node::{record, record_linear, record_part};
use crate::reduction::half_as_f32;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;
use std::sync::Arc;

impl Var {
    /// The entries of a dimension at a one-dimensional index, in its order (`torch.index_select`). Along dimension 0 of
    /// a matrix, this is an embedding.
    ///
    /// # Panics
    /// If the index has more than one dimension, is not of an integer type, or is out of bounds.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// let index = Var::from_vec(vec![1i64, 1, 0], &[3]);
    /// assert_eq!(x.index_select(0, &index).to_vec::<f32>(), [3.0, 4.0, 3.0, 4.0, 1.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn index_select(&self, dim: impl Int, index: &Var) -> Var {
        self.index_select_along(dim.to_isize(), index)
    }

    #[track_caller]
    fn index_select_along(&self, dim: isize, index: &Var) -> Var {
        let d = shape::dim("index_select", dim, self.ndim());
        let list = list("index_select", index, d, self.size(dim));
        if self.ndim() == 0 {
            assert_eq!(
                list.len(),
                1,
                "index_select: a tensor without dimensions takes an index of one element"
            );
            return self.clone();
        }
        pick("index_select", self, d, list)
    }

    /// A copy to which `alpha * source` is added at the entries of a dimension that the index lists, in its order
    /// (`torch.index_add`). An entry that is listed twice is added to twice.
    ///
    /// # Panics
    /// If the index has more than one dimension, is not of an integer type, or is out of bounds; or if `source` does
    /// not have as many entries as the index, or differs in another size or in type.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// let (index, source) = (Var::from_vec(vec![1i64, 1], &[2]), Var::from_vec(vec![10f32, 20.0], &[2]));
    /// assert_eq!(x.index_add(0, &index, &source).to_vec::<f32>(), [1.0, 32.0]);
    /// ```
    #[track_caller]
    pub fn index_add(&self, dim: impl Int, index: &Var, source: &Var) -> Var {
        self.index_add_with(dim, index, source, 1.0)
    }

    /// [`Var::index_add`] with a factor.
    ///
    /// # Panics
    /// Same as [`Var::index_add`].
    #[track_caller]
    pub fn index_add_with(&self, dim: impl Int, index: &Var, source: &Var, alpha: f64) -> Var {
        self.index_add_along(dim.to_isize(), index, source, alpha)
    }

    #[track_caller]
    fn index_add_along(&self, dim: isize, index: &Var, source: &Var, alpha: f64) -> Var {
        let d = shape::dim("index_add", dim, self.ndim());
        let entries = entries("index_add", index, d, self.size(dim));
        let count = entries.numel();
        let mut wanted: Dims = self.shape().into();
        if let Some(n) = wanted.get_mut(d) {
            *n = count;
        }
        assert_eq!(
            source.shape(),
            wanted.as_slice(),
            "index_add: self of shape {:?} and {} indices along dimension {d} take a source of shape {wanted:?}",
            self.shape(),
            count
        );
        assert_eq!(
            source.dtype(),
            self.dtype(),
            "index_add: self and source have to be of one type, not {} and {}",
            self.dtype(),
            source.dtype()
        );
        let source = if alpha == 1.0 { source.clone() } else { source.mul(alpha) };
        if self.ndim() == 0 {
            return (0..count).fold(self.clone(), |sum, _| sum.add(&source));
        }
        if self.ndim() == 1 && matches!(self.dtype(), DType::F32 | DType::F64 | DType::I64) {
            // Single elements need no list of entries.
            return self.scatter_add_at("index_add", d, entries.reshape(&[count]), &source);
        }
        add_at("index_add", self, d, places(&entries).into(), &source)
    }
}

/// The values of an index vector, checked.
#[track_caller]
pub(super) fn list(op: &str, index: &Var, dim: usize, size: usize) -> Arc<[usize]> {
    places(&entries(op, index, dim, size)).into()
}

/// An index vector, checked.
#[track_caller]
fn entries(op: &str, index: &Var, dim: usize, size: usize) -> Tensor {
    assert!(index.ndim() <= 1, "{op}: the index has to be a vector, but has shape {:?}", index.shape());
    let index = integers(op, index);
    check_range(op, &index, dim, size);
    index
}

/// The entries of a dimension at a checked index.
#[track_caller]
pub(crate) fn pick(op: &'static str, x: &Var, dim: usize, index: Arc<[usize]>) -> Var {
    let n = x.shape()[dim];
    let mut to: Dims = x.shape().into();
    to[dim] = index.len();
    shape::numel_for(op, &to);
    let value = index::select(&x.tensor(), dim, &index);
    let (list, again) = (index.clone(), index.clone());
    record_part(
        op,
        x,
        value,
        |t| pick(op, t, dim, again.clone()),
        move |c| spread(op, c.grad(), dim, index.clone(), n),
        move |grad, sum| add_rows(sum, grad, dim, &list),
    )
}

/// A copy to which entries are added at a checked index.
#[track_caller]
pub(super) fn add_at(op: &'static str, x: &Var, dim: usize, index: Arc<[usize]>, source: &Var) -> Var {
    let value = add_rows(x.tensor(), &source.tensor(), dim, &index);
    record(op, [x, source], value, move |c| {
        [c.wants(0).then(|| c.grad().clone()), c.wants(1).then(|| pick(op, c.grad(), dim, index.clone()))]
    })
}

/// A copy in which the entries at a checked index are replaced: of several with one index the last is kept, and only it
/// gets the gradient.
#[track_caller]
pub(super) fn put_at(op: &'static str, x: &Var, dim: usize, index: Arc<[usize]>, source: &Var) -> Var {
    fn put<T: Element>(mut out: Tensor, src: &Tensor, dim: usize, index: &[usize]) -> Tensor {
        out.make_mut::<T>();
        index::put_rows::<T>(&mut out, src, dim, index);
        out
    }
    let base = x.tensor().contiguous();
    let value = crate::dispatch!(all: base.dtype(), op, T => put::<T>(base, &source.tensor(), dim, &index));
    let (n, shape): (usize, Dims) = (x.shape()[dim], source.shape().into());
    record(op, [x, source], value, move |c| {
        let rest = || {
            let zeros = Var::from(Tensor::zeros_with(&shape, c.grad().dtype()));
            put_at(op, c.grad(), dim, index.clone(), &zeros)
        };
        let taken = || {
            let g = pick(op, c.grad(), dim, index.clone());
            match overwritten(&index, n) {
                None => g,
                Some(lost) => {
                    let mut to = Dims::from_elem(1, shape.len());
                    to[dim] = lost.len();
                    g.masked_fill(&Var::from_vec(lost, &to), 0.0)
                }
            }
        };
        [c.wants(0).then(rest), c.wants(1).then(taken)]
    })
}

/// Which entries of an index a later one repeats, if any does.
fn overwritten(index: &[usize], n: usize) -> Option<Vec<bool>> {
    let mut last = vec![usize::MAX; n];
    index.iter().enumerate().for_each(|(k, &i)| last[i] = k);
    let lost: Vec<bool> = index.iter().enumerate().map(|(k, &i)| last[i] != k).collect();
    lost.contains(&true).then_some(lost)
}

/// The adjoint: entries are added at the index, into a dimension of size `n`.
#[track_caller]
fn spread(op: &'static str, g: &Var, dim: usize, index: Arc<[usize]>, n: usize) -> Var {
    let mut to: Dims = g.shape().into();
    to[dim] = n;
    let value = add_rows(Tensor::zeros_with(&to, g.dtype()), &g.tensor(), dim, &index);
    let again = index.clone();
    record_linear(
        op,
        g,
        value,
        |t| spread(op, t, dim, again.clone(), n),
        move |c| [Some(pick(op, c.grad(), dim, index.clone()))],
    )
}

/// Works in the memory of `base` if that is row-major and not shared.
fn add_rows(base: Tensor, src: &Tensor, dim: usize, index: &[usize]) -> Tensor {
    fn add<T: Number>(mut out: Tensor, src: &Tensor, dim: usize, index: &[usize]) -> Tensor {
        out.make_mut::<T>();
        index::add_rows::<T>(&mut out, src, dim, index);
        out
    }
    let base = if base.is_contiguous() { base } else { base.contiguous() };
    let dtype = base.dtype();
    let sum = half_as_f32(base, |base| {
        let src = src.cast(base.dtype());
        crate::dispatch!(number: base.dtype(), "index_add", T => add::<T>(base, &src, dim, index))
    });
    sum.cast(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::test_views::{check, check2};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -3isize..3, index in proptest::collection::vec(0i64..2, 0..4)) {
            let k = index.len();
            let index = Var::from_vec(index, &[k]);
            check(&[2, 3, 2], seed, |x| x.index_select(dim, &index));
            let mut shape = [2, 3, 2];
            shape[dim.rem_euclid(3) as usize] = k;
            check2([&[2, 3, 2], &shape], seed, |x, y| x.index_add_with(dim, &index, y, -0.5));
        }
    }

    #[test]
    fn rows_are_added_in_the_order_of_the_index() {
        let (n, k, inner) = (50, 3000, 40);
        let index: Vec<i64> = (0..k as i64).map(|i| i * i % n as i64).collect();
        let rows: Vec<f32> = (0..k * inner).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut naive = vec![0f32; n * inner];
        for (r, &i) in index.iter().enumerate() {
            for j in 0..inner {
                naive[i as usize * inner + j] += rows[r * inner + j];
            }
        }
        let zeros = Var::from(Tensor::zeros_with(&[n, inner], DType::F32));
        let sum = zeros.index_add(0, &Var::from_vec(index, &[k]), &Var::from_vec(rows, &[k, inner]));
        assert_eq!(sum.to_vec::<f32>(), naive);
    }

    #[test]
    #[should_panic(expected = "index_select: index 5 is out of bounds for dimension 1 with size 3")]
    fn an_entry_that_is_not_there() {
        Var::from(Tensor::zeros_with(&[2, 3], DType::F32))
            .index_select(-1, &Var::from_vec(vec![0i64, 5], &[2]));
    }
}
