//! `split`, `chunk`, `unbind`, `tensor_split`.

use super::part::{Part, take};
use super::slice::Slice;
use crate::int_list::{Int, IntList};
use crate::shape;
use crate::var::Var;

/// How many empty pieces an empty dimension can be split into.
const MAX_EMPTY_CHUNKS: usize = 1 << 16;

/// Into what a dimension is split: a number of pieces, or the positions between them. Made by `into()` from a number,
/// or from an array, a slice or a vector of positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sections {
    /// So many pieces.
    Count(usize),
    /// A piece up to each position, and one from the last on.
    At(Vec<isize>),
}

impl From<usize> for Sections {
    fn from(count: usize) -> Sections {
        Sections::Count(count)
    }
}

impl<T: Int> From<Vec<T>> for Sections {
    fn from(positions: Vec<T>) -> Sections {
        Sections::from(&positions[..])
    }
}

impl<T: Int> From<&[T]> for Sections {
    fn from(positions: &[T]) -> Sections {
        Sections::At(positions.to_isizes().into_vec())
    }
}

impl<T: Int, const N: usize> From<[T; N]> for Sections {
    fn from(positions: [T; N]) -> Sections {
        Sections::from(&positions[..])
    }
}

impl Var {
    /// Pieces of `size` entries of a dimension, the last one smaller if need be (`torch.split` with a number). Views.
    ///
    /// # Panics
    /// If there is no such dimension, or `size` is zero for a dimension that is not.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0], &[5]);
    /// let sizes: Vec<usize> = x.split(2, 0).iter().map(|p| p.numel()).collect();
    /// assert_eq!(sizes, [2, 2, 1]);
    /// ```
    #[track_caller]
    pub fn split(&self, size: usize, dim: impl Int) -> Vec<Var> {
        assert!(self.ndim() > 0, "split: expects at least a 1-dimensional tensor");
        let d = shape::dim("split", dim, self.ndim());
        let n = self.shape()[d];
        assert!(size > 0 || n == 0, "split: split_size can only be 0 if dimension size is 0, but it is {n}");
        let count = if size == 0 { 1 } else { n.div_ceil(size).max(1) };
        let sizes: Vec<usize> = (0..count).map(|i| size.min(n - i * size)).collect();
        self.pieces("split", d, &sizes)
    }

    /// Pieces of the given sizes, which make up the dimension (`torch.split` with a list). Views.
    ///
    /// # Panics
    /// If the sizes do not add up to that of the dimension.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
    /// assert_eq!(x.split_with_sizes(&[1, 2], 0)[1].to_vec::<f32>(), [2.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn split_with_sizes(&self, sizes: impl IntList, dim: impl Int) -> Vec<Var> {
        let sizes = &sizes.to_sizes("split_with_sizes");
        assert!(self.ndim() > 0, "split: expects at least a 1-dimensional tensor");
        let d = shape::dim("split", dim, self.ndim());
        assert!(
            sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) == Some(self.shape()[d]),
            "split: split_sizes {sizes:?} should sum to the size of dimension {d}: {}",
            self.shape()[d]
        );
        self.pieces("split", d, sizes)
    }

    /// At most `chunks` pieces of equal size, but for the last (`torch.chunk`). Views.
    ///
    /// # Panics
    /// If there is no such dimension, `chunks` is zero, or an empty dimension is split into more than 65536 pieces.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[4]);
    /// assert_eq!(x.chunk(2, 0)[1].to_vec::<f32>(), [3.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn chunk(&self, chunks: usize, dim: impl Int) -> Vec<Var> {
        self.chunk_along(chunks, dim.to_isize())
    }

    #[track_caller]
    fn chunk_along(&self, chunks: usize, dim: isize) -> Vec<Var> {
        assert!(self.ndim() > 0, "chunk: expects at least a 1-dimensional tensor");
        assert!(chunks > 0, "chunk: expects `chunks` to be greater than 0");
        let d = shape::dim("chunk", dim, self.ndim());
        let n = self.shape()[d];
        let size = n.div_ceil(chunks);
        let sizes: Vec<usize> = match size {
            0 => {
                assert!(
                    chunks <= MAX_EMPTY_CHUNKS,
                    "chunk: a dimension of size 0 (shape {:?}) can be cut into at most {MAX_EMPTY_CHUNKS} pieces, not {chunks}",
                    self.shape()
                );
                vec![0; chunks]
            }
            _ => (0..n.div_ceil(size)).map(|i| size.min(n - i * size)).collect(),
        };
        self.pieces("chunk", d, &sizes)
    }

    /// All entries of a dimension, which is removed (`torch.unbind`). Views.
    ///
    /// # Panics
    /// If there is no such dimension.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.unbind(0)[1].to_vec::<f32>(), [3.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn unbind(&self, dim: impl Int) -> Vec<Var> {
        assert!(self.ndim() > 0, "unbind: cannot be applied to a tensor without dimensions");
        let d = shape::dim("unbind", dim, self.ndim());
        (0..self.shape()[d]).map(|index| take("unbind", self, Part::Select { dim: d, index })).collect()
    }

    /// Pieces of a dimension: so many, of sizes that differ by at most one, or cut at positions, of which negative ones
    /// count from the back (`torch.tensor_split`). Views.
    ///
    /// # Panics
    /// If there is no such dimension, or no pieces are asked for.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0], &[5]);
    /// assert_eq!(x.tensor_split(2, 0)[0].to_vec::<f32>(), [1.0, 2.0, 3.0]);
    /// assert_eq!(x.tensor_split([1, 3], 0)[1].to_vec::<f32>(), [2.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn tensor_split(&self, sections: impl Into<Sections>, dim: impl Int) -> Vec<Var> {
        self.sections("tensor_split", sections.into(), dim.to_isize())
    }

    /// Equal pieces, or pieces cut at positions, of the second dimension, or of a vector (`torch.hsplit`). Views.
    ///
    /// # Panics
    /// If there is no dimension, or it cannot be split into equal pieces.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.hsplit(2)[0].to_vec::<f32>(), [1.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn hsplit(&self, sections: impl Into<Sections>) -> Vec<Var> {
        self.equal_sections("hsplit", sections.into(), 1, if self.ndim() == 1 { 0 } else { 1 })
    }

    /// Equal pieces, or pieces cut at positions, of the first of two or more dimensions (`torch.vsplit`). Views.
    ///
    /// # Panics
    /// If there are fewer than two dimensions, or the first cannot be split into equal pieces.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.vsplit(2)[0].to_vec::<f32>(), [1.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn vsplit(&self, sections: impl Into<Sections>) -> Vec<Var> {
        self.equal_sections("vsplit", sections.into(), 2, 0)
    }

    /// Equal pieces, or pieces cut at positions, of the third dimension (`torch.dsplit`). Views.
    ///
    /// # Panics
    /// If there are fewer than three dimensions, or the third cannot be split into equal pieces.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[1, 2, 2]);
    /// assert_eq!(x.dsplit(2)[0].to_vec::<f32>(), [1.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn dsplit(&self, sections: impl Into<Sections>) -> Vec<Var> {
        self.equal_sections("dsplit", sections.into(), 3, 2)
    }

    #[track_caller]
    fn equal_sections(&self, op: &'static str, sections: Sections, least: usize, d: usize) -> Vec<Var> {
        assert!(
            self.ndim() >= least,
            "{op}: requires a tensor with at least {least} dimensions, but the shape is {:?}",
            self.shape()
        );
        if let Sections::Count(count) = sections {
            assert!(
                count > 0 && self.shape()[d].is_multiple_of(count),
                "{op}: dimension {d} of size {} cannot be split into {count} equal pieces",
                self.shape()[d]
            );
        }
        self.sections(op, sections, d as isize)
    }

    #[track_caller]
    fn sections(&self, op: &'static str, sections: Sections, dim: isize) -> Vec<Var> {
        assert!(self.ndim() > 0, "{op}: expects at least a 1-dimensional tensor");
        let d = shape::dim(op, dim, self.ndim());
        let n = self.shape()[d];
        match sections {
            Sections::Count(count) => {
                assert!(count > 0, "{op}: the number of sections must be larger than 0");
                assert!(
                    count <= n.saturating_add(MAX_EMPTY_CHUNKS),
                    "{op}: a dimension of size {n} (shape {:?}) cannot be split into {count} pieces",
                    self.shape()
                );
                let sizes: Vec<usize> = (0..count).map(|i| n / count + usize::from(i < n % count)).collect();
                self.pieces(op, d, &sizes)
            }
            Sections::At(positions) => {
                let starts = std::iter::once(None).chain(positions.iter().copied().map(Some));
                let ends = positions.iter().copied().map(Some).chain([None]);
                let piece = |(start, end)| {
                    let (start, count) = Slice { start, end, step: 1 }.resolve(n);
                    take(op, self, Part::range(self.shape(), d, start, count, 1))
                };
                starts.zip(ends).map(piece).collect()
            }
        }
    }

    #[track_caller]
    fn pieces(&self, op: &'static str, d: usize, sizes: &[usize]) -> Vec<Var> {
        let mut start = 0;
        let mut list = Vec::with_capacity(sizes.len());
        for &n in sizes {
            list.push(take(op, self, Part::range(self.shape(), d, start, n, 1)));
            start += n;
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};

    #[test]
    fn sizes() {
        let of = |n: usize| Var::from(Tensor::zeros_with(&[n], DType::F32));
        let sizes = |list: Vec<Var>| list.iter().map(|v| v.numel()).collect::<Vec<_>>();
        assert_eq!(sizes(of(15).chunk(12, 0)), [2, 2, 2, 2, 2, 2, 2, 1]);
        assert_eq!(sizes(of(0).chunk(3, 0)), [0, 0, 0]);
        assert_eq!(sizes(of(0).split(2, 0)), [0]);
        assert_eq!(sizes(of(0).split(0, 0)), [0]);
        assert_eq!(of(3).unbind(0).len(), 3);
        assert_eq!(sizes(of(5).tensor_split(7, 0)), [1, 1, 1, 1, 1, 0, 0]);
        assert_eq!(sizes(of(5).tensor_split([3, 1, -1], 0)), [3, 0, 3, 1]);
    }

    #[test]
    fn gradients() {
        for seed in 0..5 {
            check(&[2, 5], seed, |x| x.split(2, 1));
            check(&[2, 5], seed, |x| x.split_with_sizes(&[1, 0, 4], -1));
            check(&[3, 2], seed, |x| x.unbind(1));
            check(&[4, 2], seed, |x| x.chunk(3, 0)[1].clone());
            check(&[5, 2], seed, |x| x.tensor_split(3, 0));
            check(&[2, 4], seed, |x| x.hsplit([1, -1, 7]));
        }
    }

    #[test]
    #[should_panic(expected = "hsplit: dimension 0 of size 5 cannot be split into 2 equal pieces")]
    fn pieces_that_are_not_equal() {
        Var::from(Tensor::zeros_with(&[5], DType::F32)).hsplit(2);
    }

    #[test]
    #[should_panic(expected = "split: split_sizes [1, 2] should sum to the size of dimension 0: 4")]
    fn sizes_that_do_not_add_up() {
        Var::from(Tensor::zeros_with(&[4], DType::F32)).split_with_sizes(&[1, 2], 0);
    }
}
