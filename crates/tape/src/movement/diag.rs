//! `diag`, `diag_embed`, `diagflat`, and the parts of a tensor replaced: `diagonal_scatter`, `select_scatter`,
//! `slice_scatter`.

use super::part::{Part, put, replaced};
use super::slice::{Position, Slice};
use crate::int_list::Int;
use crate::shape::{self, Dims};
use crate::var::Var;

impl Var {
    /// The elements of the last dimension on a diagonal of two new dimensions, which count in the result, with zeros
    /// elsewhere (`torch.diag_embed`). Adjoint to [`Var::diagonal`].
    ///
    /// # Panics
    /// If there is no dimension, or `dim1` and `dim2` are out of range or the same.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// assert_eq!(x.diag_embed().to_vec::<f32>(), [1.0, 0.0, 0.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn diag_embed(&self) -> Var {
        self.diag_embed_with(0, -2, -1)
    }

    /// [`Var::diag_embed`] with another diagonal, or other dimensions.
    ///
    /// # Panics
    /// Same as [`Var::diag_embed`].
    #[track_caller]
    pub fn diag_embed_with(&self, offset: impl Int, dim1: impl Int, dim2: impl Int) -> Var {
        embedded("diag_embed", self, offset.to_isize(), dim1.to_isize(), dim2.to_isize())
    }

    /// A matrix with this vector on a diagonal, or a diagonal of this matrix (`torch.diag`).
    ///
    /// # Panics
    /// If this is neither a vector nor a matrix.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// assert_eq!(x.diag().to_vec::<f32>(), [1.0, 0.0, 0.0, 2.0]);
    /// assert_eq!(x.diag().diag().to_vec::<f32>(), [1.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn diag(&self) -> Var {
        self.diag_with(0)
    }

    /// [`Var::diag`] with another diagonal.
    ///
    /// # Panics
    /// Same as [`Var::diag`].
    #[track_caller]
    pub fn diag_with(&self, diagonal: impl Int) -> Var {
        match self.ndim() {
            1 => embedded("diag", self, diagonal.to_isize(), 0, 1),
            2 => self.diagonal_with(diagonal, 0, 1),
            _ => panic!("diag: expected a vector or a matrix, but the shape is {:?}", self.shape()),
        }
    }

    /// A matrix with all elements on a diagonal, in row-major order (`torch.diagflat`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(3.0).diagflat_with(1).to_vec::<f32>(), [0.0, 3.0, 0.0, 0.0]);
    /// ```
    #[track_caller]
    pub fn diagflat(&self) -> Var {
        self.diagflat_with(0)
    }

    /// [`Var::diagflat`] with another diagonal.
    #[track_caller]
    pub fn diagflat_with(&self, offset: impl Int) -> Var {
        embedded("diagflat", &self.flatten(()), offset.to_isize(), 0, 1)
    }

    /// A copy in which `src` is the diagonal of two dimensions (`torch.diagonal_scatter`).
    ///
    /// # Panics
    /// If the dimensions are out of range or the same, or `src` does not have the shape of the diagonal.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 2], DType::F32));
    /// let y = x.diagonal_scatter(&Var::from_vec(vec![1f32, 2.0], &[2]));
    /// assert_eq!(y.to_vec::<f32>(), [1.0, 0.0, 0.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn diagonal_scatter(&self, src: &Var) -> Var {
        self.diagonal_scatter_with(src, 0, 0, 1)
    }

    /// [`Var::diagonal_scatter`] with another diagonal, or other dimensions.
    ///
    /// # Panics
    /// Same as [`Var::diagonal_scatter`].
    #[track_caller]
    pub fn diagonal_scatter_with(&self, src: &Var, offset: impl Int, dim1: impl Int, dim2: impl Int) -> Var {
        let op = "diagonal_scatter";
        let [a, b] = two_dims(op, dim1.to_isize(), dim2.to_isize(), self.ndim());
        assert!(self.ndim() >= 2, "{op}: needs at least two dimensions, got shape {:?}", self.shape());
        with_part(op, self, src, Part::Diagonal { offset: offset.to_isize(), dim1: a, dim2: b })
    }

    /// A copy in which `src` is one entry of a dimension (`torch.select_scatter`).
    ///
    /// # Panics
    /// If the index is out of range, there is no dimension, or `src` does not have the shape of an entry.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 2], DType::F32));
    /// let y = x.select_scatter(&Var::from_vec(vec![1f32, 2.0], &[2]), 0, -1);
    /// assert_eq!(y.to_vec::<f32>(), [0.0, 0.0, 1.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn select_scatter(&self, src: &Var, dim: impl Int, index: impl Into<Position>) -> Var {
        let op = "select_scatter";
        assert!(self.ndim() > 0, "{op}: cannot be applied to a tensor without dimensions");
        let d = shape::dim(op, dim, self.ndim());
        let n = self.shape()[d];
        let Position(index) = index.into();
        assert!(
            (-(n as isize)..n as isize).contains(&index),
            "{op}: index {index} out of range for dimension {d} of size {n} (shape {:?})",
            self.shape()
        );
        let index = if index < 0 { n - index.unsigned_abs() } else { index as usize };
        with_part(op, self, src, Part::Select { dim: d, index })
    }

    /// A copy in which `src` is a range of a dimension, as with Python's `x[start:end:step] = src`
    /// (`torch.slice_scatter`).
    ///
    /// # Panics
    /// If there is no such dimension, or `src` does not have the shape of the range.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[3], DType::F32));
    /// assert_eq!(x.slice_scatter(&Var::from_vec(vec![1f32, 2.0], &[2]), 0, 1..).to_vec::<f32>(), [0.0, 1.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn slice_scatter(&self, src: &Var, dim: impl Int, range: impl Into<Slice>) -> Var {
        let op = "slice_scatter";
        assert!(self.ndim() > 0, "{op}: cannot be applied to a tensor without dimensions");
        let range = range.into();
        assert!(range.step > 0, "{op}: step must be greater than zero");
        let d = shape::dim(op, dim, self.ndim());
        let (start, count) = range.resolve(self.shape()[d]);
        with_part(op, self, src, Part::range(self.shape(), d, start, count, range.step))
    }
}

#[track_caller]
fn two_dims(op: &str, dim1: isize, dim2: isize, ndim: usize) -> [usize; 2] {
    let dims = [dim1, dim2].map(|d| shape::dim(op, d, ndim));
    assert!(dims[0] != dims[1], "{op}: dimensions cannot be identical {dim1}, {dim2}");
    dims
}

#[track_caller]
fn embedded(op: &'static str, x: &Var, offset: isize, dim1: isize, dim2: isize) -> Var {
    assert!(x.ndim() > 0, "{op}: cannot be applied to a tensor without dimensions");
    let [a, b] = two_dims(op, dim1, dim2, x.ndim() + 1);
    let last = x.ndim() - 1;
    let n = x.shape()[last].saturating_add(offset.unsigned_abs());
    let mut to: Dims = x.shape()[..last].into();
    to.insert(a.min(b), n);
    to.insert(a.max(b), n);
    shape::numel_for(op, &to);
    put(op, x, Part::Diagonal { offset: offset.to_isize(), dim1: a, dim2: b }, &to)
}

#[track_caller]
fn with_part(op: &'static str, x: &Var, src: &Var, part: Part) -> Var {
    let place = part.of(&x.tensor());
    assert!(
        src.shape() == place.shape(),
        "{op}: expected src of the shape {:?} of what it replaces, but it has shape {:?}",
        place.shape(),
        src.shape()
    );
    drop(place);
    replaced(op, x, src, part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::{check, check2};
    use crate::{DType, Tensor};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gradients(seed in 0u64..1000, offset in -2isize..3, dim in -3isize..3) {
            let other = (dim + 1).rem_euclid(3);
            check(&[2, 2], seed, |x| x.diag_embed_with(offset, dim, other));
            check(&[2, 3], seed, |x| [x.diag_with(offset), x.diagflat_with(offset)]);
            let x = Var::from(Tensor::zeros_with(&[3, 3, 3], DType::F64));
            let part = x.diagonal_with(offset, dim, other);
            check2([&[3, 3, 3], part.shape()], seed, |x, y| x.diagonal_scatter_with(y, offset, dim, other));
            let embedded = x.diagonal().diag_embed_with(offset, dim, other);
            prop_assert_eq!(embedded.diagonal_with(offset, dim, other).to_vec::<f64>(), [0.0; 9]);
            check2([&[2, 3, 4], &[2, 3, 4]], seed, |x, y| {
                [x.select_scatter(&y.select(dim, -1), dim, 0), x.slice_scatter(&y.slice(dim, 1..), dim, 1..)]
            });
        }
    }

    #[test]
    #[should_panic(expected = "select_scatter: expected src of the shape [3] of what it replaces")]
    fn a_source_that_does_not_fit() {
        let x = Var::from(Tensor::zeros_with(&[2, 3], DType::F32));
        x.select_scatter(&Var::from(1f32), 0, 0);
    }
}
