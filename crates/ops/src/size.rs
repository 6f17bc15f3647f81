//! Sizes along the spatial dimensions.

use tapegrad_tape::shape::MAX_NUMEL;
use tapegrad_tape::{Int, OptionalInt};

/// Rejects numbers beyond the size of any tensor, so that sums of several do not overflow.
#[track_caller]
pub(crate) fn check_sizes(op: &str, name: &str, sizes: &[usize]) {
    assert!(
        sizes.iter().all(|&n| n <= MAX_NUMEL),
        "{op}: {name} {sizes:?} is too large: a tensor has at most {MAX_NUMEL} elements"
    );
}

/// One number for each of `D` spatial dimensions; a single number stands for all of them, as in PyTorch. Made by `into()`
/// from an integer of any type, an array or a tuple.
///
/// ```
/// use tapegrad_ops::Size;
/// assert_eq!(Size::<2>::from(3), Size::from([3, 3]));
/// assert_eq!(Size::from((2usize, 3)), Size([2, 3]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const D: usize>(pub [usize; D]);

#[track_caller]
fn size(n: impl Int) -> usize {
    n.to_usize().unwrap_or_else(|| panic!("a size cannot be negative, got {}", n.to_i64()))
}

impl<N: Int, const D: usize> From<[N; D]> for Size<D> {
    #[track_caller]
    fn from(sizes: [N; D]) -> Size<D> {
        Size(std::array::from_fn(|d| size(sizes[d])))
    }
}

/// The size of an adaptive pool's output in each dimension; `None` keeps the input's. Made by `into()` from an integer of
/// any type, an array or a tuple.
///
/// ```
/// use tapegrad_ops::OutputSize;
/// assert_eq!(OutputSize::from((None, 7)), OutputSize([None, Some(7)]));
/// assert_eq!(OutputSize::<2>::from(7), OutputSize::from([7, 7]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSize<const D: usize>(pub [Option<usize>; D]);

impl<const D: usize> From<[Option<usize>; D]> for OutputSize<D> {
    fn from(n: [Option<usize>; D]) -> Self {
        OutputSize(n)
    }
}

macro_rules! from_integers {
    ($($t:ty),*) => {$(
        impl<const D: usize> From<$t> for Size<D> {
            #[track_caller]
            fn from(n: $t) -> Self {
                Size([size(n); D])
            }
        }
        impl<const D: usize> From<$t> for OutputSize<D> {
            #[track_caller]
            fn from(n: $t) -> Self {
                OutputSize([Some(size(n)); D])
            }
        }
        impl<const D: usize> From<[$t; D]> for OutputSize<D> {
            #[track_caller]
            fn from(n: [$t; D]) -> Self {
                OutputSize(std::array::from_fn(|d| Some(size(n[d]))))
            }
        }
    )*};
}
from_integers!(i32, i64, isize, u32, usize);

macro_rules! from_tuples {
    ($($d:literal: $($t:ident $i:tt),*;)*) => {$(
        impl<$($t: Int),*> From<($($t,)*)> for Size<$d> {
            #[track_caller]
            fn from(n: ($($t,)*)) -> Self {
                Size([$(size(n.$i)),*])
            }
        }
        impl<$($t: OptionalInt),*> From<($($t,)*)> for OutputSize<$d> {
            #[track_caller]
            fn from(n: ($($t,)*)) -> Self {
                OutputSize([$(n.$i.to_option().map(|n| size(n))),*])
            }
        }
    )*};
}
from_tuples! {
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
}

impl<const D: usize> Size<D> {
    /// The numbers as three, with `fill` for missing spatial dimensions.
    pub(crate) fn to3(self, fill: usize) -> [usize; 3] {
        let mut out = [fill; 3];
        out[3 - D..].copy_from_slice(&self.0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let n = 3usize;
        assert_eq!(Size::<2>::from(n), Size::from([3i64, 3]));
        assert_eq!(Size::from((n, 4, 5i64)), Size([3, 4, 5]));
        assert_eq!(Size::from((n,)), Size([3]));
        assert_eq!(OutputSize::from((n, None, Some(2))), OutputSize([Some(3), None, Some(2)]));
        assert_eq!(OutputSize::from([None, Some(n)]), OutputSize([None, Some(3)]));
        assert_eq!(OutputSize::<1>::from([n]), OutputSize::from(3));
    }

    #[test]
    #[should_panic(expected = "a size cannot be negative, got -1")]
    fn negative_sizes() {
        let _ = Size::<2>::from((2, -1));
    }
}
