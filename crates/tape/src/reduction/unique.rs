//! `unique`, `unique_consecutive`.

use super::as_number;
use crate::int_list::OptionalInt;
use crate::kernels::order::{self, Ranked};
use crate::shape;
use crate::var::Var;
use std::cmp::Ordering;

impl Var {
    /// The distinct elements in ascending order (`torch.unique`). Every NaN is distinct. Without gradient.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![3f32, 1.0, 3.0], 3);
    /// assert_eq!(x.unique().to_vec::<f32>(), [1.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn unique(&self) -> Var {
        self.unique_with(None).0
    }

    /// The distinct elements in ascending order, or with a dimension its distinct entries (`torch.unique`): they, where
    /// among them each element of the input is, and how often each occurs, as I64 (PyTorch's `return_inverse` and
    /// `return_counts`). Entries are ordered by their first elements that differ.
    ///
    /// # Panics
    /// If the dimension is out of range, or has entries but they have no elements.
    ///
    /// ```
    /// let (values, inverse, counts) = tapegrad_tape::Var::from_vec(vec![3f32, 1.0, 3.0], 3).unique_with(None);
    /// assert_eq!(values.to_vec::<f32>(), [1.0, 3.0]);
    /// assert_eq!((inverse.to_vec::<i64>(), counts.to_vec::<i64>()), (vec![1, 0, 1], vec![1, 2]));
    /// ```
    #[track_caller]
    pub fn unique_with(&self, dim: impl OptionalInt) -> (Var, Var, Var) {
        groups("unique", self, dim.to_option(), true)
    }

    /// The first of each run of equal elements (`torch.unique_consecutive`). Without gradient.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![3f32, 3.0, 1.0, 3.0], 4);
    /// assert_eq!(x.unique_consecutive().to_vec::<f32>(), [3.0, 1.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn unique_consecutive(&self) -> Var {
        self.unique_consecutive_with(None).0
    }

    /// Like [`Var::unique_with`], where only neighbors are compared: the first of each run of equal elements, or of equal
    /// entries of a dimension, in their order (`torch.unique_consecutive`).
    ///
    /// # Panics
    /// Same as [`Var::unique_with`].
    ///
    /// ```
    /// let (values, _, counts) = tapegrad_tape::Var::from_vec(vec![3f32, 3.0, 1.0, 3.0], 4).unique_consecutive_with(None);
    /// assert_eq!((values.to_vec::<f32>(), counts.to_vec::<i64>()), (vec![3.0, 1.0, 3.0], vec![2, 1, 1]));
    /// ```
    #[track_caller]
    pub fn unique_consecutive_with(&self, dim: impl OptionalInt) -> (Var, Var, Var) {
        groups("unique_consecutive", self, dim.to_option(), false)
    }
}

#[track_caller]
fn groups(op: &'static str, x: &Var, dim: Option<isize>, sorted: bool) -> (Var, Var, Var) {
    let d = dim.map(|dim| shape::dim(op, dim, x.ndim())).filter(|_| x.ndim() > 0);
    let source = x.detach();
    // Entries as the rows of a matrix.
    let entries = match d {
        Some(d) => source.movedim(d, 0),
        None => source.flatten(()),
    };
    let n = entries.shape()[0];
    let width = shape::numel(&entries.shape()[1..]);
    assert!(
        n == 0 || width > 0,
        "{op}: the entries of dimension {} of shape {:?} have no elements that could be compared",
        d.unwrap_or(0),
        x.shape()
    );
    let t = as_number(&entries.tensor()).contiguous();
    let order = crate::dispatch!(number: t.dtype(), op, T => {
        let data = t.as_slice::<T>().expect("contiguous");
        let order = if sorted { ordered(data, n, width) } else { (0..n).collect() };
        if width == 1 {
            Groups::new(order, |a, b| data[a] == data[b])
        } else {
            Groups::new(order, |a, b| data[a * width..][..width] == data[b * width..][..width])
        }
    });
    let values = entries.index_select(0, &list(order.first));
    let values = match d {
        Some(d) => values.movedim(0, d),
        None => values,
    };
    let inverse = list(order.of_each);
    let inverse = if dim.is_none() { inverse.reshape_to(x.shape()) } else { inverse };
    (values, inverse, list(order.counts))
}

fn list(values: Vec<i64>) -> Var {
    let n = values.len();
    Var::from_vec(values, &[n])
}

/// The order of rows: by the first element that differs, and equal ones by their position.
fn ordered<T: Ranked>(data: &[T], n: usize, width: usize) -> Vec<usize> {
    if width == 1 {
        return order::sorted(data, false).into_iter().map(T::position).collect();
    }
    let row = |i: usize| &data[i * width..][..width];
    let compare = |a: usize, b: usize| {
        let mut order = row(a).iter().zip(row(b)).map(|(x, y)| x.rank(false).cmp(&y.rank(false)));
        order.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut list: Vec<usize> = (0..n).collect();
    list.sort_by(|&a, &b| compare(a, b));
    list
}

/// Runs of equal rows in an order.
struct Groups {
    /// The first row of each.
    first: Vec<i64>,
    /// How many rows are in each.
    counts: Vec<i64>,
    /// The group of each row.
    of_each: Vec<i64>,
}

impl Groups {
    fn new(order: Vec<usize>, equal: impl Fn(usize, usize) -> bool) -> Groups {
        let mut groups = Groups { first: Vec::new(), counts: Vec::new(), of_each: vec![0; order.len()] };
        let mut before = None;
        for i in order {
            if before.is_some_and(|b| equal(b, i)) {
                *groups.counts.last_mut().expect("a row came before") += 1;
            } else {
                groups.first.push(i as i64);
                groups.counts.push(1);
            }
            groups.of_each[i] = groups.first.len() as i64 - 1;
            before = Some(i);
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Tensor};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_inverse_restores(values in proptest::collection::vec(-3i64..4, 0..40), dim in 0isize..2, sorted: bool) {
            let n = values.len() / 4 * 4;
            let x = Var::from_vec(values[..n].to_vec(), &[4, n / 4]);
            let of = |dim| if sorted { x.unique_with(dim) } else { x.unique_consecutive_with(dim) };
            let (unique, inverse, counts) = of(None);
            prop_assert_eq!(unique.index_select(0, &inverse.flatten(())).to_vec::<i64>(), x.to_vec::<i64>());
            prop_assert_eq!(counts.sum_all().item(), n as f64);
            if sorted {
                let list = unique.to_vec::<i64>();
                prop_assert!(list.windows(2).all(|w| w[0] < w[1]));
            }
            if n > 0 {
                let (unique, inverse, counts) = of(Some(dim));
                prop_assert_eq!(unique.index_select(dim, &inverse).to_vec::<i64>(), x.to_vec::<i64>());
                prop_assert_eq!(counts.sum_all().item(), x.size(dim) as f64);
            }
        }
    }

    /// The values are PyTorch's.
    #[test]
    fn nan_zeros_and_nothing() {
        let x = Var::from_vec(vec![f64::NAN, 1.0, f64::NAN, -0.0, 0.0], &[5]);
        assert_eq!(x.unique_with(None).2.to_vec::<i64>(), [2, 1, 1, 1]);
        let nothing = Var::from(Tensor::zeros_with(&[0, 0], DType::F32));
        assert_eq!(nothing.unique_with(None).0.shape(), [0]);
        assert_eq!(nothing.unique_with(0).1.shape(), [0]);
        assert_eq!(Var::from(true).unique_with(0).0.to_vec::<bool>(), [true]);
    }
}
