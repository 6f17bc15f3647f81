//! Sizes and dimensions as arguments: integers of any type, and lists of them as a tuple, an array, a slice or a vector.

use crate::shape::Dims;
use smallvec::{Array, SmallVec};

/// A dimension or a size: an integer of any type.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], (2, 2));
/// let last = x.ndim() - 1;
/// assert_eq!(x.cumsum(last).to_vec::<f32>(), x.cumsum(-1).to_vec::<f32>());
/// ```
pub trait Int: Copy + IntList {
    /// As a signed number; what does not fit is the largest.
    fn to_isize(self) -> isize;
    /// The same with 64 bits, on every machine.
    fn to_i64(self) -> i64;
    /// As a size, `None` if it is negative.
    fn to_usize(self) -> Option<usize>;
}

/// A dimension that can be left out: an integer of any type, or `None`.
pub trait OptionalInt {
    /// As a signed number, if there is one.
    fn to_option(self) -> Option<isize>;
}

impl OptionalInt for Option<isize> {
    #[inline]
    fn to_option(self) -> Option<isize> {
        self
    }
}

/// One integer or several, such as sizes (`(2, -1)`) or dimensions (`1`, `[0, 2]`). No integers are `()`.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], (2, 2));
/// assert_eq!(x.view((1, x.numel(), -1)).shape(), [1, 4, 1]);
/// assert_eq!(x.sum(0).to_vec::<f32>(), [4.0, 6.0]);
/// assert_eq!(x.sum(vec![0, 1]).item(), 10.0);
/// ```
pub trait IntList: Sized {
    /// As signed numbers.
    fn to_isizes(self) -> SmallVec<[isize; 6]>;

    /// As sizes.
    ///
    /// # Panics
    /// If one is negative, with the name of the operation.
    #[track_caller]
    fn to_sizes(self, op: &str) -> Dims;
}

#[track_caller]
fn size(op: &str, n: impl Int) -> usize {
    n.to_usize().unwrap_or_else(|| panic!("{op}: a size cannot be negative, got {}", n.to_isize()))
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Int for $t {
            #[inline]
            fn to_isize(self) -> isize {
                isize::try_from(self).unwrap_or(isize::MAX)
            }
            #[inline]
            fn to_i64(self) -> i64 {
                i64::try_from(self).unwrap_or(i64::MAX)
            }
            #[inline]
            fn to_usize(self) -> Option<usize> {
                usize::try_from(self).ok()
            }
        }
        impl OptionalInt for $t {
            #[inline]
            fn to_option(self) -> Option<isize> {
                Some(self.to_isize())
            }
        }
        impl IntList for $t {
            #[inline]
            fn to_isizes(self) -> SmallVec<[isize; 6]> {
                SmallVec::from_elem(self.to_isize(), 1)
            }
            #[track_caller]
            fn to_sizes(self, op: &str) -> Dims {
                Dims::from_elem(size(op, self), 1)
            }
        }
    )*};
}
integers!(i32, i64, isize, u32, usize);

macro_rules! tuples {
    ($(($($t:ident $i:tt),*)),*) => {$(
        impl<$($t: Int),*> IntList for ($($t,)*) {
            #[inline]
            fn to_isizes(self) -> SmallVec<[isize; 6]> {
                [$(self.$i.to_isize()),*].into_iter().collect()
            }
            #[track_caller]
            fn to_sizes(self, _op: &str) -> Dims {
                [$(size(_op, self.$i)),*].into_iter().collect()
            }
        }
    )*};
}
tuples!(
    (),
    (A 0),
    (A 0, B 1),
    (A 0, B 1, C 2),
    (A 0, B 1, C 2, D 3),
    (A 0, B 1, C 2, D 3, E 4),
    (A 0, B 1, C 2, D 3, E 4, F 5)
);

impl<T: Int> IntList for &[T] {
    #[inline]
    fn to_isizes(self) -> SmallVec<[isize; 6]> {
        self.iter().map(|n| n.to_isize()).collect()
    }
    #[track_caller]
    fn to_sizes(self, op: &str) -> Dims {
        let mut sizes = Dims::with_capacity(self.len());
        for &n in self {
            sizes.push(size(op, n));
        }
        sizes
    }
}

macro_rules! slices {
    ($([$($generics:tt)*] $t:ty;)*) => {$(
        impl<$($generics)*> IntList for $t {
            #[inline]
            fn to_isizes(self) -> SmallVec<[isize; 6]> {
                IntList::to_isizes(&self[..])
            }
            #[track_caller]
            fn to_sizes(self, op: &str) -> Dims {
                IntList::to_sizes(&self[..], op)
            }
        }
    )*};
}
slices! {
    [T: Int, const N: usize] [T; N];
    [T: Int, const N: usize] &[T; N];
    [T: Int] Vec<T>;
    [T: Int] &Vec<T>;
    [A: Array<Item: Int>] &SmallVec<A>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Var, cat};

    #[test]
    fn every_form() {
        let n = 3usize;
        assert_eq!(IntList::to_isizes((n, -1)).as_slice(), [3, -1]);
        assert_eq!(IntList::to_isizes([-1, 2]).as_slice(), [-1, 2]);
        assert_eq!(IntList::to_isizes(&[usize::MAX]).as_slice(), [isize::MAX]);
        assert_eq!(IntList::to_sizes(&vec![1, 2], "op").as_slice(), [1, 2]);
        assert_eq!(IntList::to_sizes(&Dims::from_elem(usize::MAX, 1), "op").as_slice(), [usize::MAX]);
        assert_eq!(IntList::to_sizes((), "op").as_slice(), [0usize; 0]);
        assert_eq!(
            (IntList::to_sizes(4, "op").as_slice(), IntList::to_isizes(-2i64).as_slice()),
            (&[4][..], &[-2][..])
        );
    }

    #[test]
    fn dimensions_of_any_type() {
        let x = Var::from_vec((0..6).map(f64::from).collect(), (2, 3));
        let (d, e) = (1usize, -1i32);
        assert_eq!(x.size(d), x.size(-1));
        assert_eq!(x.select(d, 0).to_vec::<f64>(), x.select(1i64, 0usize).to_vec::<f64>());
        assert_eq!(x.transpose(d, 0u32).to_vec::<f64>(), x.transpose(e, 0).to_vec::<f64>());
        assert_eq!(cat(&[&x, &x], d).to_vec::<f64>(), cat(&[&x, &x], -1isize).to_vec::<f64>());
        let median = |x: Var| x.to_vec::<f64>();
        assert_eq!(median(x.quantile(0.5, d)), median(x.quantile(0.5, Some(1))));
        assert_eq!(median(x.quantile(0.5, None)), [2.5]);
    }

    #[test]
    #[should_panic(expected = "softmax: dimension out of range (expected to be in range of [-2, 1], but got")]
    fn a_dimension_too_large() {
        crate::shape::dim("softmax", usize::MAX, 2);
    }

    #[test]
    #[should_panic(expected = "zeros: a size cannot be negative, got -2")]
    fn negative_sizes() {
        IntList::to_sizes((1, -2), "zeros");
    }
}
