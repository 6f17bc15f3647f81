//! `narrow`, `select`, `slice`, `diagonal`.

use super::part::{Part, take};
use crate::int_list::Int;
use crate::shape;
use crate::var::Var;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A position in a dimension; negative ones count from the back. Made by `into()` from any integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(pub isize);

/// An integer of any type as a position. A value that is too large saturates and does not become negative.
pub(crate) fn place(n: i128) -> isize {
    n.clamp(isize::MIN as i128, isize::MAX as i128) as isize
}

macro_rules! positions {
    ($($ty:ty)*) => {$(
        impl From<$ty> for Position {
            fn from(v: $ty) -> Position {
                Position(place(v as i128))
            }
        }
        impl From<Range<$ty>> for Slice {
            fn from(r: Range<$ty>) -> Slice {
                Slice { start: Some(place(r.start as i128)), end: Some(place(r.end as i128)), step: 1 }
            }
        }
        impl From<RangeFrom<$ty>> for Slice {
            fn from(r: RangeFrom<$ty>) -> Slice {
                Slice { start: Some(place(r.start as i128)), end: None, step: 1 }
            }
        }
        impl From<RangeTo<$ty>> for Slice {
            fn from(r: RangeTo<$ty>) -> Slice {
                Slice { start: None, end: Some(place(r.end as i128)), step: 1 }
            }
        }
        impl From<RangeInclusive<$ty>> for Slice {
            fn from(r: RangeInclusive<$ty>) -> Slice {
                Slice { start: Some(*r.start() as isize), end: after(*r.end() as isize), step: 1 }
            }
        }
        impl From<RangeToInclusive<$ty>> for Slice {
            fn from(r: RangeToInclusive<$ty>) -> Slice {
                Slice { start: None, end: after(place(r.end as i128)), step: 1 }
            }
        }
    )*};
}
positions!(i32 i64 isize usize);

/// The end of a slice with the last entry `last`; for -1 there is none.
fn after(last: isize) -> Option<isize> {
    (last != -1).then(|| last.saturating_add(1))
}

impl From<RangeFull> for Slice {
    fn from(_: RangeFull) -> Slice {
        Slice { start: None, end: None, step: 1 }
    }
}

/// Python's `start:end:step`. Made by `into()` from a range; negative positions count from the back, and positions out
/// of range are clamped.
///
/// ```
/// use tapegrad_tape::Slice;
/// let every_other = Slice::from(1..-1).step(2);
/// assert_eq!(every_other, Slice { start: Some(1), end: Some(-1), step: 2 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first position; by default the start of the dimension.
    pub start: Option<isize>,
    /// The position before which to stop; by default the end of the dimension.
    pub end: Option<isize>,
    /// The distance between positions, at least 1.
    pub step: usize,
}

impl Slice {
    /// The same slice with every `step`-th entry only.
    ///
    /// # Panics
    /// If `step` is zero.
    #[track_caller]
    pub fn step(self, step: usize) -> Slice {
        assert!(step > 0, "slice: step must be greater than zero");
        Slice { step, ..self }
    }

    /// Start and count of its entries in a dimension of size `n`.
    pub(crate) fn resolve(&self, n: usize) -> (usize, usize) {
        let clip = |place: isize| {
            let from_front = if place < 0 { place.saturating_add(n as isize) } else { place };
            from_front.clamp(0, n as isize) as usize
        };
        let start = self.start.map_or(0, clip);
        let end = self.end.map_or(n, clip);
        (start, end.saturating_sub(start).div_ceil(self.step))
    }
}

impl Var {
    /// `length` entries of a dimension starting at `start` (`torch.narrow`). A view; a negative start counts from the
    /// back.
    ///
    /// # Panics
    /// If they are out of range, or there is no dimension.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[4]);
    /// assert_eq!(x.narrow(0, 1, 2).to_vec::<f32>(), [2.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn narrow(&self, dim: impl Int, start: impl Into<Position>, length: usize) -> Var {
        self.narrow_along(dim.to_isize(), start.into(), length)
    }

    #[track_caller]
    fn narrow_along(&self, dim: isize, Position(start): Position, length: usize) -> Var {
        assert!(self.ndim() > 0, "narrow: cannot be applied to a tensor without dimensions");
        let d = shape::dim("narrow", dim, self.ndim());
        let n = self.shape()[d];
        assert!(
            start.unsigned_abs() <= n,
            "narrow: start out of range (expected to be in range of [-{n}, {n}], but got {start})"
        );
        let from = if start < 0 { n - start.unsigned_abs() } else { start as usize };
        assert!(
            length <= n - from,
            "narrow: start ({from}) + length ({length}) exceeds dimension size ({n}) of shape {:?}",
            self.shape()
        );
        if length == n {
            return self.clone();
        }
        take("narrow", self, Part::range(self.shape(), d, from, length, 1))
    }

    /// One entry of a dimension, which is removed (`torch.select`). A view; a negative index counts from the back.
    ///
    /// # Panics
    /// If the index is out of range, or there is no dimension.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.select(1, -1).to_vec::<f32>(), [2.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn select(&self, dim: impl Int, index: impl Into<Position>) -> Var {
        self.select_along(dim.to_isize(), index.into())
    }

    #[track_caller]
    fn select_along(&self, dim: isize, Position(index): Position) -> Var {
        assert!(self.ndim() > 0, "select: cannot be applied to a tensor without dimensions");
        let d = shape::dim("select", dim, self.ndim());
        let n = self.shape()[d];
        assert!(
            (-(n as isize)..n as isize).contains(&index),
            "select: index {index} out of range for dimension {d} of size {n} (shape {:?})",
            self.shape()
        );
        let index = if index < 0 { n - index.unsigned_abs() } else { index as usize };
        take("select", self, Part::Select { dim: d, index })
    }

    /// A range of a dimension, as Python's `x[start:end:step]`: positions out of range are clamped. A view.
    ///
    /// # Panics
    /// If there is no such dimension.
    ///
    /// ```
    /// use tapegrad_tape::{Slice, Var};
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0], &[5]);
    /// assert_eq!(x.slice(0, -2..).to_vec::<f32>(), [4.0, 5.0]);
    /// assert_eq!(x.slice(0, Slice::from(..).step(2)).to_vec::<f32>(), [1.0, 3.0, 5.0]);
    /// ```
    #[track_caller]
    pub fn slice(&self, dim: impl Int, range: impl Into<Slice>) -> Var {
        self.slice_along(dim.to_isize(), range.into())
    }

    #[track_caller]
    fn slice_along(&self, dim: isize, range: Slice) -> Var {
        assert!(self.ndim() > 0, "slice: cannot be applied to a tensor without dimensions");
        assert!(range.step > 0, "slice: step must be greater than zero");
        let d = shape::dim("slice", dim, self.ndim());
        let (start, count) = range.resolve(self.shape()[d]);
        if (start, count, range.step) == (0, self.shape()[d], 1) {
            return self.clone();
        }
        take("slice", self, Part::range(self.shape(), d, start, count, range.step))
    }

    /// The elements along two dimensions at `(i, i + offset)`, as a new last dimension (`torch.diagonal`). A view.
    ///
    /// # Panics
    /// If the dimensions are out of range or the same.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.diagonal().to_vec::<f32>(), [1.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn diagonal(&self) -> Var {
        self.diagonal_with(0, 0, 1)
    }

    /// [`Var::diagonal`] with another diagonal, or other dimensions.
    ///
    /// # Panics
    /// Same as [`Var::diagonal`].
    #[track_caller]
    pub fn diagonal_with(&self, offset: impl Int, dim1: impl Int, dim2: impl Int) -> Var {
        let a = shape::dim("diagonal", dim1, self.ndim());
        let b = shape::dim("diagonal", dim2, self.ndim());
        assert!(a != b, "diagonal: dimensions cannot be identical {a}, {b}");
        take("diagonal", self, Part::Diagonal { offset: offset.to_isize(), dim1: a, dim2: b })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::check;
    use proptest::prelude::*;

    // Negative ends count from the back; the ranges are not iterated.
    #[allow(clippy::reversed_empty_ranges)]
    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "an end below zero counts from the back")]
    fn slices_are_pythons() {
        let list = |s: Slice, n: usize| {
            let (start, count) = s.resolve(n);
            (0..count).map(|i| start + i * s.step).collect::<Vec<_>>()
        };
        assert_eq!(list(Slice::from(-3..), 5), [2, 3, 4]);
        assert_eq!(list(Slice::from(1..=-1), 5), [1, 2, 3, 4]);
        assert_eq!(list(Slice::from(..-1).step(3), 5), [0, 3]);
        assert_eq!(list(Slice::from(2..100), 5), [2, 3, 4]);
        assert!(list(Slice::from(4..2), 5).is_empty() && list(Slice::from(..), 0).is_empty());
    }

    #[test]
    fn they_are_views() {
        let x = Var::from(crate::Tensor::zeros_with(&[4, 5, 6], crate::DType::F32));
        for y in [
            x.narrow(1, -2, 2),
            x.select(0, -1),
            x.slice(2, Slice::from(1..).step(2)),
            x.diagonal_with(-1, 2, 0),
        ] {
            assert!(y.tensor().shares_memory_with(&x.tensor()));
        }
        assert_eq!(x.diagonal_with(-1, 2, 0).shape(), [5, 4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn gradients(seed in 0u64..1000, start in -5isize..5, step in 1usize..4, dim in -3isize..3, offset in -4isize..4) {
            check(&[3, 4, 2], seed, |x| x.slice(dim, Slice::from(start..).step(step)));
            check(&[3, 4, 2], seed, |x| x.select(dim, 1).narrow(0, -1, 1));
            check(&[3, 4, 2], seed, |x| x.diagonal_with(offset, dim, (dim + 1).rem_euclid(3)));
        }
    }

    #[test]
    #[should_panic(expected = "narrow: start (3) + length (2) exceeds dimension size (4)")]
    fn a_range_out_of_bounds() {
        Var::from(crate::Tensor::zeros_with(&[4], crate::DType::F32)).narrow(0, 3, 2);
    }
}
