//! `x[...]`: integers, slices, new dimensions, tensors of indices, masks.

use super::mask::nonzero;
use super::{integers, pick};
use crate::dtype::DType;
use crate::kernels::list::list_for;
use crate::movement::{Slice, place};
use crate::shape::{self, Dims};
use crate::var::Var;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// One entry of an index, as between the brackets in Python. Made by `into()` from integers, ranges, [`Slice`]s and
/// variables.
#[derive(Clone, Debug)]
pub enum Index {
    /// One entry of a dimension, which is removed: `x[2]`, `x[-1]`.
    At(isize),
    /// A range of a dimension: `x[1:5:2]`.
    Slice(Slice),
    /// All of a dimension: `x[:]`.
    Full,
    /// All remaining dimensions: `x[...]`.
    Ellipsis,
    /// A new dimension of size one: `x[None]`.
    NewAxis,
    /// A tensor of integers, or a mask of booleans over as many dimensions as the mask has.
    Tensor(Var),
}

impl From<Slice> for Index {
    fn from(s: Slice) -> Index {
        Index::Slice(s)
    }
}

impl From<Var> for Index {
    fn from(v: Var) -> Index {
        Index::Tensor(v)
    }
}

impl From<&Var> for Index {
    fn from(v: &Var) -> Index {
        Index::Tensor(v.clone())
    }
}

impl From<&Index> for Index {
    fn from(i: &Index) -> Index {
        i.clone()
    }
}

impl From<RangeFull> for Index {
    fn from(_: RangeFull) -> Index {
        Index::Full
    }
}

/// A whole index: one entry, a tuple of entries, or a slice of them.
///
/// ```
/// use tapegrad_tape::{Index, Slice, Var};
/// let x = Var::from_vec((0..24i64).collect(), &[2, 3, 4]);
/// assert_eq!(x.get(1).shape(), [3, 4]);
/// assert_eq!(x.get((0, 1..3, -1)).to_vec::<i64>(), [7, 11]);
/// assert_eq!(x.get((Index::Ellipsis, Slice::from(..).step(2))).shape(), [2, 3, 2]);
/// assert_eq!(x.get((.., Index::NewAxis, 0)).shape(), [2, 1, 4]);
/// let rows = Var::from_vec(vec![2i64, 0], &[2]);
/// assert_eq!(x.get((.., &rows)).shape(), [2, 2, 4]);
/// let mask = Var::from_vec(vec![true, false], &[2]);
/// assert_eq!(x.get(&mask).shape(), [1, 3, 4]);
/// ```
pub trait Indices {
    /// The entries.
    fn into_indices(self) -> Vec<Index>;
}

macro_rules! one_entry {
    ($($ty:ty)*) => {$(
        impl Indices for $ty {
            fn into_indices(self) -> Vec<Index> {
                vec![self.into()]
            }
        }
    )*};
}
one_entry!(Index &Index Slice Var &Var RangeFull);

macro_rules! integers {
    ($($ty:ty)*) => {$(
        impl From<$ty> for Index {
            fn from(i: $ty) -> Index {
                Index::At(place(i as i128))
            }
        }
        one_entry!($ty);
        integers!(@range $ty, Range RangeFrom RangeTo RangeInclusive RangeToInclusive);
    )*};
    (@range $ty:ty, $($range:ident)*) => {$(
        impl From<$range<$ty>> for Index {
            fn from(r: $range<$ty>) -> Index {
                Index::Slice(r.into())
            }
        }
        one_entry!($range<$ty>);
    )*};
}
integers!(i32 i64 isize usize);

impl Indices for Vec<Index> {
    fn into_indices(self) -> Vec<Index> {
        self
    }
}

impl Indices for &[Index] {
    fn into_indices(self) -> Vec<Index> {
        self.to_vec()
    }
}

impl<const N: usize> Indices for [Index; N] {
    fn into_indices(self) -> Vec<Index> {
        self.into()
    }
}

impl<const N: usize> Indices for &[Index; N] {
    fn into_indices(self) -> Vec<Index> {
        self.to_vec()
    }
}

/// An index for [`Var::get`] and [`Var::index_put`] that reads as Python's: entries as in a tuple, `...` for all remaining
/// dimensions, `None` for a new one, and a step behind a semicolon, `1..9;2` for `1:9:2`.
///
/// ```
/// use tapegrad_tape::{Var, s};
/// let x = Var::from_vec((0..24i64).collect(), (2, 3, 4));
/// assert_eq!(x.get(s![.., 1..3]).shape(), [2, 2, 4]);              // x[:, 1:3]
/// assert_eq!(x.get(s![..., ..;2]).shape(), [2, 3, 2]);             // x[..., ::2]
/// assert_eq!(x.get(s![1, None, -1, 1..;2]).to_vec::<i64>(), [21, 23]); // x[1, None, -1, 1::2]
/// assert_eq!(x.index_put(s![..., 0], 7).get(s![1, .., 0]).to_vec::<i64>(), [7, 7, 7]);
/// ```
#[macro_export]
macro_rules! s {
    (@entries [$($done:expr,)*]) => { [$($done),*] };
    (@entries [$($done:expr,)*] ... $(, $($rest:tt)*)?) => {
        $crate::s!(@entries [$($done,)* $crate::Index::Ellipsis,] $($($rest)*)?)
    };
    (@entries [$($done:expr,)*] None $(, $($rest:tt)*)?) => {
        $crate::s!(@entries [$($done,)* $crate::Index::NewAxis,] $($($rest)*)?)
    };
    (@entries [$($done:expr,)*] $range:expr; $step:expr $(, $($rest:tt)*)?) => {
        $crate::s!(@entries [$($done,)* $crate::Index::Slice($crate::Slice::from($range).step($step)),] $($($rest)*)?)
    };
    (@entries [$($done:expr,)*] $entry:expr $(, $($rest:tt)*)?) => {
        $crate::s!(@entries [$($done,)* $crate::Index::from($entry),] $($($rest)*)?)
    };
    ($($entries:tt)*) => { $crate::s!(@entries [] $($entries)*) };
}

macro_rules! tuples {
    ($(($($t:ident)*))*) => {$(
        impl<$($t: Into<Index>),*> Indices for ($($t,)*) {
            #[allow(non_snake_case)]
            fn into_indices(self) -> Vec<Index> {
                let ($($t,)*) = self;
                vec![$($t.into()),*]
            }
        }
    )*};
}
tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F));

impl Var {
    /// Python's `x[...]` (`torch.Tensor.__getitem__`); see [`Indices`] for its forms. Integers, ranges and new
    /// dimensions give views; tensors of integers (which broadcast with each other, negative ones counting from the
    /// back) and masks copy. The dimensions of index tensors replace the first of them, or come first if they are not
    /// adjacent.
    ///
    /// # Panics
    /// If there are more entries than dimensions, an index is out of range, a mask does not match the dimensions that
    /// it masks, or index tensors do not broadcast.
    #[track_caller]
    pub fn get(&self, index: impl Indices) -> Var {
        let index = index.into_indices();
        let consumed = |i: &Index| match i {
            Index::At(_) | Index::Slice(_) | Index::Full => 1,
            Index::Ellipsis | Index::NewAxis => 0,
            Index::Tensor(v) if v.dtype() == DType::Bool => v.ndim(),
            Index::Tensor(_) => 1,
        };
        let used: usize = index.iter().map(consumed).sum();
        assert!(
            used <= self.ndim(),
            "index: too many indices ({used}) for a tensor of dimension {} and shape {:?}",
            self.ndim(),
            self.shape()
        );
        let ellipses = index.iter().filter(|i| matches!(i, Index::Ellipsis)).count();
        assert!(ellipses <= 1, "index: an index can only have a single ellipsis, but has {ellipses}");
        let mut x = self.clone();
        // The dimension of `x` of the next entry.
        let mut d = 0;
        let mut advanced: Vec<(usize, Var)> = Vec::new();
        for entry in &index {
            match entry {
                Index::At(i) => {
                    let n = x.shape()[d];
                    assert!(
                        (-(n as isize)..n as isize).contains(i),
                        "index: index {i} is out of bounds for dimension {d} with size {n} (shape {:?})",
                        self.shape()
                    );
                    x = x.select(d, *i);
                }
                Index::Slice(s) => {
                    x = x.slice(d, *s);
                    d += 1;
                }
                Index::Full => d += 1,
                Index::Ellipsis => d += self.ndim() - used,
                Index::NewAxis => {
                    x = x.unsqueeze(d);
                    d += 1;
                }
                Index::Tensor(mask) if mask.dtype() == DType::Bool => {
                    let end = d + mask.ndim();
                    assert!(
                        mask.shape() == &x.shape()[d..end],
                        "index: the mask of shape {:?} does not match dimensions {d}..{end} of shape {:?}",
                        mask.shape(),
                        x.shape()
                    );
                    if mask.ndim() == 0 {
                        x = x.unsqueeze(d);
                        let count = usize::from(mask.item() != 0.0);
                        advanced.push((d, Var::from_vec(vec![0i64; count], &[count])));
                        d += 1;
                    }
                    for column in nonzero(&mask.tensor()) {
                        let n = column.len();
                        advanced.push((d, Var::from_vec(column, &[n])));
                        d += 1;
                    }
                }
                Index::Tensor(v) => {
                    advanced.push((d, v.clone()));
                    d += 1;
                }
            }
        }
        if advanced.is_empty() { x } else { x.get_advanced(&advanced) }
    }

    /// Entries along several dimensions at once, given by tensors of integers.
    #[track_caller]
    fn get_advanced(&self, indices: &[(usize, Var)]) -> Var {
        let common =
            indices.iter().fold(Dims::new(), |s, (_, v)| shape::broadcast_for("index", &s, v.shape()));
        let first = indices[0].0;
        let adjacent = indices.iter().enumerate().all(|(i, (d, _))| *d == first + i);
        let (x, at) = if adjacent {
            (self.clone(), first)
        } else {
            let from: Vec<isize> = indices.iter().map(|(d, _)| *d as isize).collect();
            let to: Vec<isize> = (0..indices.len() as isize).collect();
            (self.movedim(&from, &to), 0)
        };
        // The indexed dimensions flattened to one, and a flat index into it.
        let flat = flat_index("index", &x.shape()[at..], indices, &common);
        let end = at + indices.len();
        let sizes = |middle: &[usize]| -> Dims {
            x.shape()[..at].iter().chain(middle).chain(&x.shape()[end..]).copied().collect()
        };
        let merged = x.reshape_to(&sizes(&[shape::numel(&x.shape()[at..end])]));
        pick("index", &merged, at, flat.into()).reshape_to(&sizes(&common))
    }
}

/// The positions in several dimensions, of `sizes`, as positions in one that they are flattened to.
#[track_caller]
pub(super) fn flat_index(
    op: &str,
    sizes: &[usize],
    indices: &[(usize, Var)],
    common: &[usize],
) -> Vec<usize> {
    let mut flat = list_for(op, shape::numel(common), |_| 0usize);
    for ((d, v), &n) in indices.iter().zip(sizes) {
        let values = integers(op, v).expand(common).to_vec::<i64>();
        for (f, &i) in flat.iter_mut().zip(&values) {
            let here = if i < 0 { i + n as i64 } else { i };
            assert!(
                (0..n as i64).contains(&here),
                "{op}: index {i} is out of bounds for dimension {d} with size {n} (indexed sizes {:?})",
                &sizes[..indices.len()]
            );
            *f = *f * n + here as usize;
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::check;
    use crate::{DType, Tensor};

    fn counting(shape: &[usize]) -> Var {
        Var::from_vec((0..shape::numel(shape) as i64).collect(), shape)
    }

    fn list(values: &[i64]) -> Var {
        Var::from_vec(values.to_vec(), &[values.len()])
    }

    #[test]
    fn basic_indices_are_views() {
        let x = Var::from(Tensor::zeros_with(&[4, 5, 6], DType::F32));
        let y = x.get((1, Index::NewAxis, Slice::from(1..).step(2), Index::Ellipsis));
        assert_eq!(y.shape(), [1, 2, 6]);
        assert!(y.tensor().shares_memory_with(&x.tensor()));
        assert_eq!(x.get(&[Index::from(0), Index::from(1..3), Index::Full]).shape(), [2, 6]);
        assert_eq!(x.get((-2.., ..=1usize)).shape(), [2, 2, 6]);
    }

    /// The shapes and values are those of NumPy and PyTorch.
    #[test]
    fn index_tensors() {
        let x = counting(&[3, 4, 5]);
        let (a, b) = (list(&[0, -1]), list(&[1, 2]));
        assert_eq!(x.get((&a, &b)).to_vec::<i64>()[..6], [5, 6, 7, 8, 9, 50]);
        assert_eq!(x.get((.., &a, &b)).to_vec::<i64>(), [1, 17, 21, 37, 41, 57]);
        // Not adjacent: their dimension comes first.
        assert_eq!(x.get((&a, .., &b)).to_vec::<i64>(), [1, 6, 11, 16, 42, 47, 52, 57]);
        assert_eq!(x.get((0, .., &b)).shape(), [4, 2]);
        let column = a.unsqueeze(1);
        assert_eq!(x.get((&column, &b)).shape(), [2, 2, 5]);
        assert_eq!(x.get((&list(&[]), 0)).shape(), [0, 5]);
    }

    #[test]
    fn masks() {
        let x = counting(&[2, 3]);
        let mask = Var::from_vec(vec![true, false, true, false, false, true], &[2, 3]);
        assert_eq!(x.get(&mask).to_vec::<i64>(), [0, 2, 5]);
        let row = Var::from_vec(vec![false, true, true], &[3]);
        assert_eq!(x.get((.., &row)).to_vec::<i64>(), [1, 2, 4, 5]);
        assert_eq!(x.get(Var::from(true)).shape(), [1, 2, 3]);
        assert_eq!(x.get(Var::from(false)).shape(), [0, 2, 3]);
    }

    #[test]
    fn gradients() {
        let (a, b) = (list(&[0, -1, 0]), list(&[1]));
        let mask = Var::from_vec(vec![true, false, true], &[3]);
        for seed in 0..5 {
            check(&[2, 3, 4], seed, |x| x.get((1, Slice::from(..).step(2), -3..)));
            check(&[2, 3, 2], seed, |x| x.get((&a, .., &b)));
            check(&[2, 3, 2], seed, |x| x.get((.., &mask, &b)));
        }
    }

    #[test]
    #[should_panic(expected = "index: index 4 is out of bounds for dimension 1 with size 3")]
    fn out_of_bounds() {
        counting(&[2, 3]).get((.., &list(&[0, 4])));
    }

    #[test]
    #[should_panic(expected = "index: the mask of shape [2] does not match dimensions 1..2 of shape [2, 3]")]
    fn a_mask_of_another_shape() {
        counting(&[2, 3]).get((.., Var::from_vec(vec![true, true], &[2])));
    }

    #[test]
    #[should_panic(expected = "index: too many indices (3) for a tensor of dimension 2")]
    fn too_many() {
        counting(&[2, 3]).get((0, .., 1));
    }
}
