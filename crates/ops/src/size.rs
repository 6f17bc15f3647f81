//! Sizes along the spatial dimensions.

use tapegrad_tape::shape::MAX_NUMEL;

/// Rejects numbers beyond the size of any tensor, so that sums of several do not overflow.
#[track_caller]
pub(crate) fn check_sizes(op: &str, name: &str, sizes: &[usize]) {
    assert!(
        sizes.iter().all(|&n| n <= MAX_NUMEL),
        "{op}: {name} {sizes:?} is too large: a tensor has at most {MAX_NUMEL} elements"
    );
}

/// One number for each of `D` spatial dimensions; a single number stands for all of them, as in PyTorch.
///
/// ```
/// use tapegrad_ops::Size;
/// assert_eq!(Size::<2>::from(3), Size::from([3, 3]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const D: usize>(pub [usize; D]);

impl<const D: usize> From<usize> for Size<D> {
    fn from(n: usize) -> Size<D> {
        Size([n; D])
    }
}

impl<const D: usize> From<[usize; D]> for Size<D> {
    fn from(sizes: [usize; D]) -> Size<D> {
        Size(sizes)
    }
}

impl From<(usize, usize)> for Size<2> {
    fn from((h, w): (usize, usize)) -> Size<2> {
        Size([h, w])
    }
}

/// The size of an adaptive pool's output in each dimension; `None` keeps the input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSize<const D: usize>(pub [Option<usize>; D]);

impl<const D: usize> From<usize> for OutputSize<D> {
    fn from(n: usize) -> Self {
        OutputSize([Some(n); D])
    }
}

impl<const D: usize> From<[usize; D]> for OutputSize<D> {
    fn from(n: [usize; D]) -> Self {
        OutputSize(n.map(Some))
    }
}

impl<const D: usize> From<[Option<usize>; D]> for OutputSize<D> {
    fn from(n: [Option<usize>; D]) -> Self {
        OutputSize(n)
    }
}

impl<const D: usize> Size<D> {
    /// The numbers as three, with `fill` for missing spatial dimensions.
    pub(crate) fn to3(self, fill: usize) -> [usize; 3] {
        let mut out = [fill; 3];
        out[3 - D..].copy_from_slice(&self.0);
        out
    }
}
