//! `index_copy`, `index_fill`, `take`, `put`, `index_put`, `masked_scatter`.

use super::get::{Index, Indices, flat_index};
use super::integers;
use super::select::{add_at, list, pick, put_at};
use crate::dtype::DType;
use crate::int_list::Int;
use crate::kernels::list::list_for;
use crate::promote::Operand;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;
use std::sync::Arc;

impl Var {
    /// A copy in which `source` replaces the entries of a dimension that the index lists (`torch.index_copy`). Of several
    /// with one index the last is kept, and only it gets the gradient.
    ///
    /// # Panics
    /// If the index has more than one dimension, is not of an integer type, or is out of bounds; or if `source` does
    /// not have as many entries as the index, or differs in another size or in type.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
    /// let (index, source) = (Var::from_vec(vec![2i64, 0], &[2]), Var::from_vec(vec![10f32, 20.0], &[2]));
    /// assert_eq!(x.index_copy(0, &index, &source).to_vec::<f32>(), [20.0, 2.0, 10.0]);
    /// ```
    #[track_caller]
    pub fn index_copy(&self, dim: impl Int, index: &Var, source: &Var) -> Var {
        self.index_copy_along(dim.to_isize(), index, source)
    }

    #[track_caller]
    fn index_copy_along(&self, dim: isize, index: &Var, source: &Var) -> Var {
        let op = "index_copy";
        let d = shape::dim(op, dim, self.ndim());
        let list = list(op, index, d, self.size(dim));
        let mut wanted: Dims = self.shape().into();
        if let Some(n) = wanted.get_mut(d) {
            *n = list.len();
        }
        assert!(
            source.shape() == wanted.as_slice()
                || (self.ndim() == 0 && source.numel() == 1 && list.len() == 1),
            "{op}: self of shape {:?} and {} indices along dimension {d} take a source of shape {wanted:?}, not {:?}",
            self.shape(),
            list.len(),
            source.shape()
        );
        same_type(op, self, source);
        if self.ndim() == 0 {
            return put_at(op, &self.atleast_1d(), 0, list, &source.flatten(())).reshape_to(&[]);
        }
        put_at(op, self, d, list, source)
    }

    /// A copy in which one value fills the entries of a dimension that the index lists (`torch.index_fill`). Negative
    /// indices count from the back.
    ///
    /// # Panics
    /// If the index has more than one dimension, is not of an integer type, or is out of bounds; or if the value is a
    /// tensor with dimensions.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
    /// let index = Var::from_vec(vec![-1i64, 0], &[2]);
    /// assert_eq!(x.index_fill(0, &index, 9.0).to_vec::<f32>(), [9.0, 2.0, 9.0]);
    /// ```
    #[track_caller]
    pub fn index_fill(&self, dim: impl Int, index: &Var, value: impl Into<Operand>) -> Var {
        self.index_fill_along(dim.to_isize(), index, value.into())
    }

    #[track_caller]
    fn index_fill_along(&self, dim: isize, index: &Var, value: Operand) -> Var {
        let op = "index_fill";
        assert!(
            value.shape().is_empty(),
            "{op}: only supports a 0-dimensional value tensor, but got shape {:?}",
            value.shape()
        );
        assert!(index.ndim() <= 1, "{op}: the index has to be a vector, but has shape {:?}", index.shape());
        let d = shape::dim(op, dim, self.ndim());
        // An entry that is listed twice is filled once.
        let mut list = wrapped(op, index, self.size(dim));
        list.sort_unstable();
        list.dedup();
        let x = self.atleast_1d();
        let mut to: Dims = x.shape().into();
        to[d] = list.len();
        let fill = match value {
            Operand::Scalar(s) => Var::from(Tensor::full_with((), s, self.dtype())),
            Operand::Var(v) => v.cast(self.dtype()),
        };
        put_at(op, &x, d, list.into(), &fill.expand_to(&to)).reshape_to(self.shape())
    }

    /// The elements at an index into the flattened tensor, in the shape of the index (`torch.take`). Negative indices
    /// count from the back.
    ///
    /// # Panics
    /// If the index is not of an integer type, or is out of bounds.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.take(&Var::from_vec(vec![2i64, -1], &[2])).to_vec::<f32>(), [3.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn take(&self, index: &Var) -> Var {
        let list = wrapped("take", index, self.numel());
        pick("take", &self.flatten(()), 0, list.into()).reshape_to(index.shape())
    }

    /// A copy in which elements of `source` are written at an index into the flattened tensor, or added with `accumulate`
    /// (`torch.put`). Negative indices count from the back. Of several elements with one index the last is kept, and
    /// only it gets the gradient.
    ///
    /// # Panics
    /// If the index is not of an integer type, or is out of bounds; or if `source` has another number of elements, or
    /// another type.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// let (index, source) = (Var::from_vec(vec![2i64, -1], &[2]), Var::from_vec(vec![10f32, 20.0], &[2]));
    /// assert_eq!(x.put(&index, &source).to_vec::<f32>(), [1.0, 2.0, 10.0, 20.0]);
    /// ```
    #[track_caller]
    pub fn put(&self, index: &Var, source: &Var) -> Var {
        self.put_with(index, source, false)
    }

    /// [`Var::put`] with a choice to add.
    ///
    /// # Panics
    /// Same as [`Var::put`].
    #[track_caller]
    pub fn put_with(&self, index: &Var, source: &Var, accumulate: bool) -> Var {
        assert_eq!(
            index.numel(),
            source.numel(),
            "put: expected source and index to have the same number of elements, but the shapes are {:?} and {:?}",
            source.shape(),
            index.shape()
        );
        same_type("put", self, source);
        let list = wrapped("put", index, self.numel());
        self.put_flat("put", list.into(), source, accumulate)
    }

    /// A copy in which the elements that an index selects are replaced by values, which broadcast to it, or to which they
    /// are added with `accumulate` (`torch.index_put`): Python's `x[index] = values`. See [`Indices`] for the forms of an
    /// index. Of several elements in one place the last is kept, and only it gets the gradient.
    ///
    /// # Panics
    /// Same as [`Var::get`]; or if the values do not broadcast, or are of another type.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// let rows = Var::from_vec(vec![1i64, 1], &[2]);
    /// assert_eq!(x.index_put_with((&rows, 0), 5.0, true).to_vec::<f32>(), [1.0, 2.0, 13.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn index_put(&self, index: impl Indices, values: impl Into<Operand>) -> Var {
        self.index_put_with(index, values, false)
    }

    /// [`Var::index_put`] with a choice to add.
    ///
    /// # Panics
    /// Same as [`Var::index_put`].
    #[track_caller]
    pub fn index_put_with(&self, index: impl Indices, values: impl Into<Operand>, accumulate: bool) -> Var {
        let op = "index_put";
        let values = match values.into() {
            Operand::Var(v) => v,
            Operand::Scalar(s) => Var::from(Tensor::full_with((), s, self.dtype())),
        };
        same_type(op, self, &values);
        let index = index.into_indices();
        if let Some(leading) = self.leading(&index) {
            return self.put_leading(op, &leading, &values, accumulate);
        }
        // The places of the elements that reading at the index would give.
        let places = Var::from(Tensor::arange(0, self.numel() as i64).reshape(self.shape())).get(index);
        let fits =
            shape::broadcast(values.shape(), places.shape()).is_some_and(|s| s.as_slice() == places.shape());
        assert!(
            fits,
            "{op}: values of shape {:?} cannot be broadcast to the indexed elements of shape {:?}",
            values.shape(),
            places.shape()
        );
        let list = places.to_vec::<i64>();
        let list = list_for(op, list.len(), |k| list[k] as usize);
        self.put_flat(op, list.into(), &values.expand_to(places.shape()), accumulate)
    }

    /// A copy in which elements of `source` replace those where the mask is true, in row-major order
    /// (`torch.masked_scatter`). Tensor and mask are broadcast; elements that are left over are not used.
    ///
    /// # Panics
    /// If the mask is not of booleans, the shapes do not broadcast, the types differ, or `source` has too few elements.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
    /// let mask = Var::from_vec(vec![true, false, true], &[3]);
    /// let source = Var::from_vec(vec![10f32, 20.0, 30.0], &[3]);
    /// assert_eq!(x.masked_scatter(&mask, &source).to_vec::<f32>(), [10.0, 2.0, 20.0]);
    /// ```
    #[track_caller]
    pub fn masked_scatter(&self, mask: &Var, source: &Var) -> Var {
        let op = "masked_scatter";
        assert_eq!(mask.dtype(), DType::Bool, "{op}: expects a mask of type bool, not {}", mask.dtype());
        same_type(op, self, source);
        let to = shape::broadcast_for(op, self.shape(), mask.shape());
        let mask = mask.tensor().expand(&to).to_vec::<bool>();
        let chosen: Arc<[usize]> = (0..mask.len()).filter(|&i| mask[i]).collect();
        assert!(
            source.numel() >= chosen.len(),
            "{op}: the source of shape {:?} has fewer elements than the {} that the mask selects",
            source.shape(),
            chosen.len()
        );
        let source = source.flatten(()).narrow(0, 0, chosen.len());
        self.expand_to(&to).put_flat(op, chosen, &source, false)
    }

    /// The index tensors of an index that has nothing else, one for each of the first dimensions.
    fn leading(&self, index: &[Index]) -> Option<Vec<(usize, Var)>> {
        let tensors = index.iter().enumerate().map(|(d, entry)| match entry {
            Index::Tensor(v) if v.dtype() == DType::I64 => Some((d, v.clone())),
            _ => None,
        });
        tensors.collect::<Option<Vec<_>>>().filter(|list| (1..=self.ndim()).contains(&list.len()))
    }

    #[track_caller]
    fn put_leading(&self, op: &'static str, indices: &[(usize, Var)], values: &Var, accumulate: bool) -> Var {
        let common = indices.iter().fold(Dims::new(), |s, (_, v)| shape::broadcast_for(op, &s, v.shape()));
        let list = flat_index(op, self.shape(), indices, &common);
        let (indexed, rest) = self.shape().split_at(indices.len());
        let sizes = |first: &[usize]| -> Dims { first.iter().chain(rest).copied().collect() };
        let wanted = sizes(&common);
        check_values(op, values, &wanted);
        let values = values.expand_to(&wanted).reshape_to(&sizes(&[list.len()]));
        let x = self.reshape_to(&sizes(&[shape::numel(indexed)]));
        let put = if accumulate { add_at } else { put_at };
        put(op, &x, 0, list.into(), &values).reshape_to(self.shape())
    }

    /// A copy in which elements are written or added at checked places of the flattened tensor.
    #[track_caller]
    fn put_flat(&self, op: &'static str, places: Arc<[usize]>, source: &Var, accumulate: bool) -> Var {
        let (x, source) = (self.flatten(()), source.flatten(()));
        let y =
            if accumulate { add_at(op, &x, 0, places, &source) } else { put_at(op, &x, 0, places, &source) };
        y.reshape_to(self.shape())
    }
}

#[track_caller]
fn check_values(op: &str, values: &Var, to: &[usize]) {
    let fits = shape::broadcast(values.shape(), to).is_some_and(|s| s.as_slice() == to);
    assert!(
        fits,
        "{op}: values of shape {:?} cannot be broadcast to the indexed elements of shape {to:?}",
        values.shape()
    );
}

#[track_caller]
fn same_type(op: &str, x: &Var, source: &Var) {
    assert_eq!(
        x.dtype(),
        source.dtype(),
        "{op}: self and source have to be of one type, not {} and {}",
        x.dtype(),
        source.dtype()
    );
}

/// The values of an index, of which negative ones count from the back of `n` entries.
#[track_caller]
fn wrapped(op: &str, index: &Var, n: usize) -> Vec<usize> {
    let index = integers(op, index).to_vec::<i64>();
    list_for(op, index.len(), |k| {
        let i = index[k];
        let here = if i < 0 { i + n as i64 } else { i };
        assert!((0..n as i64).contains(&here), "{op}: index {i} is out of bounds for {n} elements");
        here as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::{check, check2};
    use proptest::prelude::*;

    fn of(list: &[i64]) -> Var {
        Var::from_vec(list.to_vec(), &[list.len()])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -2isize..2, index in proptest::collection::vec(-2i64..2, 0..4), accumulate: bool) {
            let k = index.len();
            let mut shape = [2, 3];
            shape[dim.rem_euclid(2) as usize] = k;
            let positive: Vec<i64> = index.iter().map(|i| i.rem_euclid(2)).collect();
            check2([&[2, 3], &shape], seed, |x, y| x.index_copy(dim, &of(&positive), y));
            check2([&[2, 3], &[]], seed, |x, y| [x.index_fill(dim, &of(&index), y), x.index_fill(dim, &of(&index), 2)]);
            check2([&[2, 3], &[k]], seed, |x, y| x.put_with(&of(&index), y, accumulate));
            check2([&[2, 3], &[k]], seed, |x, y| x.index_put_with((&of(&index), 1), y, accumulate));
            check2([&[2, 3], &[3]], seed, |x, y| x.index_put_with(&of(&index), y, accumulate));
            check2([&[2, 3], &[k]], seed, |x, y| x.index_put_with((&of(&index), &Var::from(-1i64)), y, accumulate));
            check(&[2, 3], seed, |x| x.take(&of(&index)));
            let mask = Var::from_vec(vec![true, false, true], &[3]);
            check2([&[2, 1], &[3, 2]], seed, |x, y| x.masked_scatter(&mask, y));
        }
    }

    #[test]
    fn one_element_and_none() {
        let x = Var::from(1f32);
        let (zero, none) = (of(&[0]), of(&[]));
        assert_eq!(x.index_copy(0, &zero, &Var::from(5f32)).item(), 5.0);
        assert_eq!(x.index_fill(0, &none, 5.0).item(), 1.0);
        assert_eq!(x.put_with(&Var::from(0i64), &Var::from(2f32), true).item(), 3.0);
        assert_eq!(x.take(&none).shape(), [0]);
        assert_eq!(x.take(&Var::from(-1i64)).shape(), [0usize; 0]);
    }

    #[test]
    #[should_panic(expected = "take: index 4 is out of bounds for 4 elements")]
    fn out_of_bounds() {
        Var::from_vec(vec![1f32; 4], &[2, 2]).take(&of(&[4]));
    }

    #[test]
    #[should_panic(expected = "masked_scatter: the source of shape [1] has fewer elements than the 2")]
    fn too_few() {
        let mask = Var::from_vec(vec![true, true], &[2]);
        Var::from_vec(vec![1f32; 2], &[2]).masked_scatter(&mask, &Var::from_vec(vec![1f32], &[1]));
    }
}
