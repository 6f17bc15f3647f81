//! `sort`, `argsort`, `msort`, `topk`.

use super::{as_number, record_chosen};
use crate::int_list::Int;
use crate::kernels::order::{self, Ranked};
use crate::kernels::scan;
use crate::shape;
use crate::var::Var;

impl Var {
    /// The elements along a dimension in order, and their indices, as I64 (`torch.sort` with `stable=True`). NaN counts
    /// as largest. The gradient goes where the elements came from.
    ///
    /// # Panics
    /// If the dimension is out of range.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let (values, indices) = Var::from_vec(vec![3f32, 1.0, 2.0], &[3]).sort_with(-1, true);
    /// assert_eq!((values.to_vec::<f32>(), indices.to_vec::<i64>()), (vec![3.0, 2.0, 1.0], vec![0, 2, 1]));
    /// ```
    #[track_caller]
    pub fn sort(&self, dim: impl Int) -> (Var, Var) {
        self.sort_with(dim, false)
    }

    /// [`Var::sort`], with the largest first if `descending`.
    #[track_caller]
    pub fn sort_with(&self, dim: impl Int, descending: bool) -> (Var, Var) {
        let d = shape::dim("sort", dim, self.ndim());
        self.chosen("sort", d, self.size(dim), Choice::First { descending })
    }

    /// The entries of the first dimension in ascending order (`torch.msort`).
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from_vec(vec![3f32, 1.0, 2.0], &[3]).msort().to_vec::<f32>(), [1.0, 2.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn msort(&self) -> Var {
        self.sort(0).0
    }

    /// The indices that sort the elements along a dimension, as I64; equal ones stay in their order (`torch.argsort`).
    /// Has no derivative.
    ///
    /// # Panics
    /// If the dimension is out of range.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from_vec(vec![3f32, 1.0, 2.0], &[3]).argsort(0).to_vec::<i64>(), [1, 2, 0]);
    /// ```
    #[track_caller]
    pub fn argsort(&self, dim: impl Int) -> Var {
        self.argsort_with(dim, false)
    }

    /// [`Var::argsort`], with the largest first if `descending`.
    #[track_caller]
    pub fn argsort_with(&self, dim: impl Int, descending: bool) -> Var {
        shape::dim("argsort", dim, self.ndim());
        self.detach().sort_with(dim, descending).1
    }

    /// The `k` largest elements along a dimension in order, and their indices, as I64 (`torch.topk`). Of equal ones the first
    /// are taken. NaN counts as largest.
    ///
    /// # Panics
    /// If the dimension is out of range, or smaller than `k`.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let (values, indices) = Var::from_vec(vec![3f32, 1.0, 2.0], &[3]).topk(2, 0);
    /// assert_eq!((values.to_vec::<f32>(), indices.to_vec::<i64>()), (vec![3.0, 2.0], vec![0, 2]));
    /// ```
    #[track_caller]
    pub fn topk(&self, k: usize, dim: impl Int) -> (Var, Var) {
        self.topk_with(k, dim, true, true)
    }

    /// [`Var::topk`], of the smallest elements unless `largest`.
    #[track_caller]
    pub fn topk_with(&self, k: usize, dim: impl Int, largest: bool, sorted: bool) -> (Var, Var) {
        let _ = sorted;
        let d = shape::dim("topk", dim, self.ndim());
        let n = self.size(dim);
        assert!(k <= n, "topk: selected index k = {k} is out of range for dimension {d} of size {n}");
        self.chosen("topk", d, k, Choice::First { descending: largest })
    }

    /// The elements along a dimension that are chosen from each line, `k` of them, and their indices; the dimension
    /// stays, if there is one.
    #[track_caller]
    pub(super) fn chosen(&self, op: &'static str, d: usize, k: usize, choice: Choice) -> (Var, Var) {
        let x = as_number(&if self.ndim() == 0 { self.tensor().reshape(&[1]) } else { self.tensor() });
        let indices = crate::dispatch!(number: x.dtype(), op, T => {
            scan::rows::<T, i64>(&x, d, k, &|_, row, out| choice.choose(row, out))
        });
        let mut to: shape::Dims = self.shape().into();
        if let Some(n) = to.get_mut(d) {
            *n = k;
        }
        let indices = Var::from(indices.reshape(if to.is_empty() && k == 0 { &[0] } else { &to }));
        let values = crate::no_grad(|| self.detach().gather(d, &indices)).tensor();
        (record_chosen(op, self, d, values, &indices), indices)
    }
}

/// Which elements of a line are chosen.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    /// The first ones in order.
    First { descending: bool },
    /// The lower middle one, or the first NaN.
    Median,
    /// The lower middle one of those that are numbers, or the first NaN if none is.
    NanMedian,
    /// The one that is at this place in ascending order, counted from zero.
    Nth(usize),
}

impl Choice {
    /// The positions of the chosen elements.
    fn choose<T: Ranked>(self, row: &[T], out: &mut [i64]) {
        let first = match self {
            Choice::First { descending } => {
                let keys = if out.len() == row.len() {
                    order::sorted(row, descending)
                } else {
                    order::first(row, out.len(), descending)
                };
                out.iter_mut().zip(keys).for_each(|(o, key)| *o = T::position(key) as i64);
                return;
            }
            Choice::Median => match row.iter().position(|x| x.is_nan()) {
                Some(nan) => nan,
                None => order::nth(row, (row.len() - 1) / 2),
            },
            Choice::NanMedian => {
                let numbers = row.iter().filter(|x| !x.is_nan()).count();
                order::nth(row, numbers.saturating_sub(1) / 2)
            }
            Choice::Nth(k) => order::nth(row, k),
        };
        out.fill(first as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::test_views::check;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -2isize..2, flag: bool, k in 0usize..3) {
            // Layout 3 repeats elements: ties may be reordered.
            let seed = if seed % 5 == 3 { seed + 1 } else { seed };
            check(&[2, 3], seed, |x| x.sort_with(dim, flag).0);
            check(&[2, 3], seed, |x| [x.topk_with(k, dim, flag, true).0, x.msort()]);
        }

        #[test]
        fn the_best_are_the_first_of_all(values in proptest::collection::vec(-3i64..4, 1..20), k in 0usize..20, largest: bool) {
            let n = values.len();
            let k = k.min(n);
            let x = Var::from_vec(values, &[n]);
            let (all, at) = x.sort_with(0, largest);
            let (best, places) = x.topk_with(k, 0, largest, true);
            prop_assert_eq!(&all.to_vec::<i64>()[..k], &best.to_vec::<i64>()[..]);
            prop_assert_eq!(&at.to_vec::<i64>()[..k], &places.to_vec::<i64>()[..]);
            let middle = x.sort(0).0.select(0, (n - 1) / 2);
            prop_assert_eq!(x.median(0).0.to_vec::<i64>(), middle.to_vec::<i64>());
            prop_assert_eq!(x.kthvalue(n, 0).0.item(), x.max_all().item());
        }
    }

    #[test]
    fn nan_counts_as_largest() {
        let x = Var::from_vec(vec![f32::NAN, 1.0, f32::INFINITY], &[3]);
        assert_eq!(x.argsort(0).to_vec::<i64>(), [1, 2, 0]);
        assert_eq!(x.argsort_with(0, true).to_vec::<i64>(), [0, 2, 1]);
        assert_eq!(x.topk_with(2, 0, false, true).1.to_vec::<i64>(), [1, 2]);
        assert!(x.median(0).0.item().is_nan());
    }

    #[test]
    fn no_dimensions() {
        let x = Var::parameter(Tensor::scalar(3.0));
        let (value, index) = x.sort(-1);
        assert_eq!((value.shape().len(), index.to_vec::<i64>()), (0, vec![0]));
        value.backward();
        assert_eq!(x.topk_with(1, 0, true, false).0.item() + x.grad().unwrap().item(), 4.0);
    }

    #[test]
    #[should_panic(expected = "topk: selected index k = 4 is out of range for dimension 0 of size 3")]
    fn too_many() {
        Var::from_vec(vec![1f32, 2.0, 3.0], &[3]).topk(4, 0);
    }
}
