//! `sort`, `argsort`, `topk`, `median`.

use super::extreme::record_shared;
use super::{Reduced, as_number, record_chosen};
use crate::dtype::{DType, Number};
use crate::kernels::scan;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;
use std::cmp::Ordering;

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
    pub fn sort(&self, dim: isize) -> (Var, Var) {
        self.sort_with(dim, false)
    }

    /// [`Var::sort`], with the largest first if `descending`.
    #[track_caller]
    pub fn sort_with(&self, dim: isize, descending: bool) -> (Var, Var) {
        let d = shape::dim("sort", dim, self.ndim());
        self.ordered(
            "sort",
            d,
            self.size(dim),
            |list, _| sort_all(list, descending),
            |list, _| sort_all(list, descending),
        )
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
    pub fn argsort(&self, dim: isize) -> Var {
        self.argsort_with(dim, false)
    }

    /// [`Var::argsort`], with the largest first if `descending`.
    #[track_caller]
    pub fn argsort_with(&self, dim: isize, descending: bool) -> Var {
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
    pub fn topk(&self, k: usize, dim: isize) -> (Var, Var) {
        self.topk_with(k, dim, true, true)
    }

    /// [`Var::topk`], of the smallest elements unless `largest`.
    #[track_caller]
    pub fn topk_with(&self, k: usize, dim: isize, largest: bool, sorted: bool) -> (Var, Var) {
        let _ = sorted;
        let d = shape::dim("topk", dim, self.ndim());
        let n = self.size(dim);
        assert!(k <= n, "topk: selected index k = {k} is out of range for dimension {d} of size {n}");
        self.ordered("topk", d, k, |list, k| best_of(list, k, largest), |list, k| best_of(list, k, largest))
    }

    /// The medians along a dimension, the lower of two middle elements, and their indices, as I64 (`torch.median` with
    /// a dimension). NaN where there is one. The gradient goes to that one element.
    ///
    /// # Panics
    /// If the dimension is out of range or of size zero.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from_vec(vec![3f32, 1.0, 2.0, 4.0], &[4]).median(0).0.item(), 2.0);
    /// ```
    #[track_caller]
    pub fn median(&self, dim: isize) -> (Var, Var) {
        self.median_with(dim, false)
    }

    /// [`Var::median`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn median_with(&self, dim: isize, keepdim: bool) -> (Var, Var) {
        let d = shape::dim("median", dim, self.ndim());
        let n = self.size(dim);
        assert!(
            n > 0,
            "median: expected reduction dim {d} of shape {:?} to have non-zero size",
            self.shape()
        );
        let (value, index) = self.ordered("median", d, 1, |list, _| middle(list), |list, _| middle(list));
        if keepdim || self.ndim() == 0 {
            (value, index)
        } else {
            (value.squeeze(d as isize), index.squeeze(d as isize))
        }
    }

    /// The median of all elements, the lower of two middle ones, without dimensions (`torch.median`). NaN where there
    /// is one. Elements that are equal to it share the gradient evenly.
    ///
    /// # Panics
    /// If the tensor is empty.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![3f32, 1.0, 2.0, 2.0], &[2, 2]).median_all().item(), 2.0);
    /// ```
    #[track_caller]
    pub fn median_all(&self) -> Var {
        let r = Reduced::new((0..self.ndim()).collect(), self.shape(), false);
        r.check_not_empty("median");
        let value = self.detach().flatten(0, -1).median(0).0.into_tensor();
        record_shared("median", self, r, value, true)
    }

    /// The first `k` pairs of a value and its index that `order` (for floats, `order_integers` for integers) sorts
    /// first.
    #[track_caller]
    fn ordered(
        &self,
        op: &'static str,
        d: usize,
        k: usize,
        order: impl Fn(&mut Vec<(f64, i64)>, usize) + Sync,
        order_integers: impl Fn(&mut Vec<(i64, i64)>, usize) + Sync,
    ) -> (Var, Var) {
        let x = if self.ndim() == 0 { self.tensor().reshape(&[1]) } else { self.tensor() };
        let x = as_number(&x);
        // f32 values are all f64 values, in the same order.
        let indices = match x.dtype() {
            DType::I64 => places::<i64, i64>(&x, d, k, |x| x, &order_integers),
            DType::F64 => places::<f64, f64>(&x, d, k, |x| x, &order),
            _ => places::<f32, f64>(&x, d, k, f64::from, &order),
        };
        let mut to: shape::Dims = self.shape().into();
        if let Some(n) = to.get_mut(d) {
            *n = k;
        }
        let indices = Var::from(indices.reshape(if to.is_empty() && k == 0 { &[0] } else { &to }));
        let values = crate::no_grad(|| self.detach().gather(d as isize, &indices)).tensor();
        (record_chosen(op, self, d, values, &indices), indices)
    }
}

/// For every line along a dimension, the indices of the `k` elements that come first.
fn places<T: Number, K: Number>(
    t: &Tensor,
    d: usize,
    k: usize,
    key: impl Fn(T) -> K + Sync,
    order: &(impl Fn(&mut Vec<(K, i64)>, usize) + Sync),
) -> Tensor {
    scan::rows::<T, i64>(t, d, k, &|_, row, out| {
        let mut list: Vec<(K, i64)> = row.iter().zip(0..).map(|(&x, i)| (key(x), i)).collect();
        order(&mut list, k);
        for (o, (_, i)) in out.iter_mut().zip(list) {
            *o = i;
        }
    })
}

/// NaN above all numbers.
fn compare<K: Number>(a: K, b: K) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn order<K: Number>(descending: bool) -> impl Fn(&(K, i64), &(K, i64)) -> Ordering {
    move |a, b| {
        let order = compare(a.0, b.0);
        (if descending { order.reverse() } else { order }).then(a.1.cmp(&b.1))
    }
}

fn sort_all<K: Number>(list: &mut [(K, i64)], descending: bool) {
    list.sort_unstable_by(order(descending));
}

fn best_of<K: Number>(list: &mut Vec<(K, i64)>, k: usize, largest: bool) {
    if k > 0 && k < list.len() {
        list.select_nth_unstable_by(k - 1, order(largest));
    }
    list.truncate(k);
    list.sort_unstable_by(order(largest));
}

fn middle<K: Number>(list: &mut [(K, i64)]) {
    let at = match list.iter().position(|(x, _)| x.is_nan()) {
        Some(nan) => nan,
        None => {
            let middle = (list.len() - 1) / 2;
            list.select_nth_unstable_by(middle, order(false));
            middle
        }
    };
    list.swap(0, at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::check;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -2isize..2, flag: bool, k in 0usize..3) {
            // Layout 3 repeats elements: ties may be reordered.
            let seed = if seed % 5 == 3 { seed + 1 } else { seed };
            check(&[2, 3], seed, |x| x.sort_with(dim, flag).0);
            check(&[2, 3], seed, |x| [x.topk_with(k, dim, flag, true).0, x.median_with(dim, flag).0]);
            check(&[2, 3], seed, |x| x.median_all());
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

    /// The values are PyTorch's.
    #[test]
    fn equal_elements_share_the_gradient_of_the_median() {
        let x = Var::parameter(Tensor::from_vec(vec![2f64, 1.0, 2.0, 5.0], &[2, 2]));
        x.median_all().backward();
        assert_eq!(x.grad().unwrap().to_vec::<f64>(), [0.5, 0.0, 0.5, 0.0]);
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
