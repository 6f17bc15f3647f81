//! `searchsorted`, `bucketize`, `isin`.

use crate::dtype::{DType, Number};
use crate::kernels::order::Ranked;
use crate::kernels::parallel::parallel_chunks;
use crate::kernels::strided;
use crate::promote::{Operand, result_type};
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// Where values would be inserted along the last dimension of this sorted tensor so that it stays sorted, as I64
    /// (`torch.searchsorted`, where this is `sorted_sequence`): before equal elements, or after them with `right`
    /// (`side="right"`). This is a vector, or has the other dimensions of `values`. `sorter` are indices that sort this
    /// tensor, if it is not sorted. NaN is behind all elements, and an element that is NaN before all values. Of two types,
    /// elements are compared in the one that holds both. Without gradient.
    ///
    /// # Panics
    /// If the other dimensions differ, or the sorter does not fit.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1i64, 3, 3, 5], &[4]);
    /// assert_eq!(x.searchsorted(3).item(), 1.0);
    /// let values = Var::from_vec(vec![0i64, 3, 9], &[3]);
    /// assert_eq!(x.searchsorted_with(&values, true, None).to_vec::<i64>(), [0, 3, 4]);
    /// ```
    #[track_caller]
    pub fn searchsorted(&self, values: impl Into<Operand>) -> Var {
        self.searchsorted_with(values, false, None)
    }

    /// [`Var::searchsorted`] with a side, and for a tensor that is sorted by indices.
    ///
    /// # Panics
    /// Same as [`Var::searchsorted`].
    #[track_caller]
    pub fn searchsorted_with<'a>(
        &self,
        values: impl Into<Operand>,
        right: bool,
        sorter: impl Into<Option<&'a Var>>,
    ) -> Var {
        let values = values.into();
        let sorted = match sorter.into() {
            None => self.detach(),
            Some(sorter) => {
                assert!(
                    sorter.shape() == self.shape() && sorter.dtype() == DType::I64,
                    "searchsorted: the sorter has to be of the shape {:?} and of type int64, not {:?} and {}",
                    self.shape(),
                    sorter.shape(),
                    sorter.dtype()
                );
                if self.ndim() == 0 { self.detach() } else { self.detach().gather(-1, sorter) }
            }
        };
        search("searchsorted", &sorted, &values, right)
    }

    /// The numbers of the buckets between sorted boundaries that elements fall into, as I64 (`torch.bucketize`): the
    /// bucket below an equal boundary, or above it with `right`. [`Var::searchsorted`] with one vector.
    ///
    /// # Panics
    /// If the boundaries are no vector.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![0.5f32, 1.0, 7.0], &[3]);
    /// let boundaries = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// assert_eq!(x.bucketize(&boundaries).to_vec::<i64>(), [0, 0, 2]);
    /// ```
    #[track_caller]
    pub fn bucketize(&self, boundaries: &Var) -> Var {
        self.bucketize_with(boundaries, false)
    }

    /// [`Var::bucketize`] with the other side.
    ///
    /// # Panics
    /// Same as [`Var::bucketize`].
    #[track_caller]
    pub fn bucketize_with(&self, boundaries: &Var, right: bool) -> Var {
        assert_eq!(
            boundaries.ndim(),
            1,
            "bucketize: the boundaries have to be a vector, but have shape {:?}",
            boundaries.shape()
        );
        search("bucketize", &boundaries.detach(), &self.into(), right)
    }

    /// True where an element is one of `test_elements`, or with `invert` where it is not (`torch.isin`). NaN is equal to
    /// nothing. Without gradient.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1i64, 2, 3], &[3]);
    /// assert_eq!(x.isin(&Var::from_vec(vec![3i64, 1], &[2])).to_vec::<bool>(), [true, false, true]);
    /// ```
    #[track_caller]
    pub fn isin(&self, test_elements: impl Into<Operand>) -> Var {
        self.isin_with(test_elements, false)
    }

    /// [`Var::isin`] with a choice of the opposite.
    #[track_caller]
    pub fn isin_with(&self, test_elements: impl Into<Operand>, invert: bool) -> Var {
        let (elements, test) = (Operand::from(self), test_elements.into());
        let dtype = number_type(result_type(&[&elements, &test]));
        let (elements, test) = (elements.tensor(dtype), test.tensor(dtype));
        Var::from(crate::dispatch!(number: dtype, "isin", T => {
            let mut list: Vec<_> = test.to_vec::<T>().into_iter().filter(|x| !x.is_nan()).map(|x| x.rank(false)).collect();
            list.sort_unstable();
            let list = &list[..];
            strided::map_rows::<T, bool>(&elements, GRAIN, &|out, row| {
                for (o, &x) in out.iter_mut().zip(row) {
                    let found = list.get(place(list, |r| *r < x.rank(false)));
                    *o = (!x.is_nan() && found == Some(&x.rank(false))) != invert;
                }
            })
        }))
    }
}

/// Searches take about as long as this many steps of other loops.
const GRAIN: usize = strided::GRAIN / 16;

fn number_type(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        DType::Bool | DType::U8 => DType::I64,
        other => other,
    }
}

#[track_caller]
fn search(op: &'static str, sorted: &Var, values: &Operand, right: bool) -> Var {
    assert!(sorted.ndim() > 0, "{op}: the sorted sequence has to have a dimension");
    let fits = |v: &Var| {
        let own = &sorted.shape()[..sorted.ndim() - 1];
        sorted.ndim() == 1 || (v.ndim() == sorted.ndim() && &v.shape()[..own.len()] == own)
    };
    let dtype = match values {
        Operand::Var(v) => {
            assert!(
                fits(v),
                "{op}: the sequence of shape {:?} has to be a vector, or have all dimensions but the last of the \
                 values of shape {:?}",
                sorted.shape(),
                v.shape()
            );
            v.dtype().promote(sorted.dtype())
        }
        Operand::Scalar(s) => {
            assert!(
                sorted.ndim() == 1,
                "{op}: one number is searched in a vector, not in a sequence of shape {:?}",
                sorted.shape()
            );
            sorted.dtype().promote_scalar(*s)
        }
    };
    let dtype = number_type(dtype);
    let (sorted, values) = (sorted.tensor().cast(dtype).contiguous(), values.tensor(dtype));
    Var::from(crate::dispatch!(number: dtype, op, T => places::<T>(&sorted, &values, right)))
}

/// The places of values in lines: the first where `mid >= value` holds, or with `right` where `mid > value` does.
fn places<T: Number>(sorted: &Tensor, values: &Tensor, right: bool) -> Tensor {
    let lines = sorted.as_slice::<T>().expect("contiguous");
    let n = sorted.size(-1);
    let within = |line: &[T], v: T| {
        (if right {
            place(line, |mid| !matches!(mid.partial_cmp(&v), Some(std::cmp::Ordering::Greater)))
        } else {
            place(line, |mid| mid.partial_cmp(&v).is_none_or(|order| order.is_lt()))
        }) as i64
    };
    if sorted.ndim() == 1 {
        return strided::map_rows::<T, i64>(values, GRAIN, &|out, row| {
            out.iter_mut().zip(row).for_each(|(o, &v)| *o = within(lines, v));
        });
    }
    let values = values.contiguous();
    let mut out = Tensor::uninit(values.shape(), DType::I64);
    let m = values.size(-1);
    if out.numel() > 0 {
        let source = values.as_slice::<T>().expect("contiguous");
        let rows = GRAIN.div_ceil(m);
        parallel_chunks(out.data_mut::<i64>(), rows * m, |task, out| {
            for (k, out) in out.chunks_exact_mut(m).enumerate() {
                let r = task * rows + k;
                let line = &lines[r * n..][..n];
                out.iter_mut().zip(&source[r * m..]).for_each(|(o, &v)| *o = within(line, v));
            }
        });
    }
    out
}

/// The number of elements at the front for which `below` holds, which it does for none behind them. Without a branch
/// that the processor could mispredict.
#[inline(always)]
fn place<T>(line: &[T], below: impl Fn(&T) -> bool) -> usize {
    let (mut start, mut size) = (0, line.len());
    while size > 0 {
        let half = size / 2;
        let take = below(&line[start + half]);
        start = if take { start + half + 1 } else { start };
        size = if take { size - half - 1 } else { half };
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_keep_the_order(mut line in proptest::collection::vec(-5i64..5, 0..20), v in -7i64..7) {
            line.sort_unstable();
            let x = Var::from_vec(line.clone(), &[line.len()]);
            prop_assert_eq!(x.searchsorted(v).item() as usize, line.partition_point(|&x| x < v));
            prop_assert_eq!(x.searchsorted_with(v, true, None).item() as usize, line.partition_point(|&x| x <= v));
            prop_assert_eq!(Var::from(v).isin(&x).item() != 0.0, line.contains(&v));
        }
    }

    /// The places are PyTorch's: 0.1 in F32 is larger than in F64.
    #[test]
    fn operands_of_two_types() {
        let (whole, real) = (Var::from_vec(vec![1i64, 2, 3], 3), Var::from_vec(vec![1.5f32, 2.5], 2));
        assert_eq!(whole.searchsorted(&real).to_vec::<i64>(), [1, 2]);
        assert_eq!(whole.bucketize(&real).to_vec::<i64>(), [0, 1, 2]);
        let (single, double) = (Var::from_vec(vec![0.1f32], 1), Var::from_vec(vec![0.1f64], 1));
        assert_eq!(single.searchsorted(&double).to_vec::<i64>(), [0]);
        assert_eq!(double.searchsorted(&single).to_vec::<i64>(), [1]);
    }

    /// The values are PyTorch's.
    #[test]
    fn lines_sorters_and_nan() {
        let x = Var::from_vec(vec![1f64, 3.0, 5.0, 2.0, 4.0, f64::NAN], &[2, 3]);
        let v = Var::from_vec(vec![3f64, f64::NAN, 4.0, 9.0], &[2, 2]);
        assert_eq!(x.searchsorted(&v).to_vec::<i64>(), [1, 3, 1, 3]);
        assert_eq!(x.searchsorted_with(&v, true, None).to_vec::<i64>(), [2, 3, 3, 3]);
        let unsorted = Var::from_vec(vec![5f64, 1.0, 3.0], &[3]);
        let sorter = unsorted.argsort(0);
        assert_eq!(unsorted.searchsorted_with(4.0, false, Some(&sorter)).item(), 2.0);
        let nan = Var::from(f64::NAN);
        assert_eq!(nan.isin(&nan).to_vec::<bool>(), [false]);
        assert_eq!(Var::from(3).bucketize_with(&Var::from_vec(vec![3i64], &[1]), true).item(), 1.0);
    }

    #[test]
    #[should_panic(expected = "searchsorted: the sequence of shape [2, 3] has to be a vector")]
    fn lines_that_do_not_fit() {
        Var::from(Tensor::zeros_with(&[2, 3], DType::F32)).searchsorted(&Var::from_vec(vec![1f32], &[1]));
    }
}
