//! Views: tensors that share another's memory.

use super::Tensor;
use crate::int_list::{Int, IntList};
use crate::shape::{self, Dims};

impl Tensor {
    /// A view with other strides, of a checked shape whose elements are all in bounds.
    pub(super) fn view_as(&self, shape: Dims, strides: Dims, offset: usize) -> Tensor {
        Tensor { storage: self.storage.clone(), offset, shape, strides, dtype: self.dtype }
    }

    /// The dimensions in another order; the list holds each once. A view.
    pub(super) fn permute_dims(&self, order: &[usize]) -> Tensor {
        let shape = order.iter().map(|&d| self.shape[d]).collect();
        let strides = order.iter().map(|&d| self.strides[d]).collect();
        self.view_as(shape, strides, self.offset)
    }

    /// The dimensions in another order: `out.size(i) = self.size(order[i])`. A view.
    ///
    /// # Panics
    /// If the list does not name each dimension once.
    #[track_caller]
    pub fn permute(&self, order: impl IntList) -> Tensor {
        self.permuted(&order.to_isizes())
    }

    #[track_caller]
    fn permuted(&self, order: &[isize]) -> Tensor {
        assert_eq!(
            order.len(),
            self.ndim(),
            "permute: {order:?} has {} entries, but the tensor has {} dimensions",
            order.len(),
            self.ndim()
        );
        if order.is_empty() {
            return self.clone();
        }
        self.permute_dims(&shape::dims("permute", order, self.ndim()))
    }

    /// Swaps two dimensions. A view.
    #[track_caller]
    pub fn transpose(&self, a: impl Int, b: impl Int) -> Tensor {
        let (a, b) = (shape::dim("transpose", a, self.ndim()), shape::dim("transpose", b, self.ndim()));
        let mut order: Dims = (0..self.ndim()).collect();
        if !order.is_empty() {
            order.swap(a, b);
        }
        self.permute_dims(&order)
    }

    /// `length` entries of a dimension starting at `start`. A view.
    ///
    /// # Panics
    /// If they are out of range.
    #[track_caller]
    pub fn narrow(&self, dim: impl Int, start: usize, length: usize) -> Tensor {
        self.narrow_along(dim.to_isize(), start, length)
    }

    #[track_caller]
    fn narrow_along(&self, dim: isize, start: usize, length: usize) -> Tensor {
        assert!(self.ndim() > 0, "narrow: cannot be applied to a tensor without dimensions");
        let d = shape::dim("narrow", dim, self.ndim());
        assert!(
            start <= self.shape[d] && length <= self.shape[d] - start,
            "narrow: start ({start}) + length ({length}) exceeds dimension size ({})",
            self.shape[d]
        );
        let mut t = self.clone();
        t.shape[d] = length;
        t.offset += if length == 0 { 0 } else { start * self.strides[d] };
        t
    }

    /// Every `step`-th entry of a dimension, from the first on. A view.
    #[track_caller]
    pub fn step(&self, dim: impl Int, step: usize) -> Tensor {
        assert!(step > 0, "step: the step has to be positive");
        let d = shape::dim("step", dim, self.ndim());
        let mut t = self.clone();
        if let Some(&n) = self.shape.get(d) {
            t.shape[d] = n.div_ceil(step);
            t.strides[d] = t.strides[d].saturating_mul(step);
        }
        t
    }

    /// One entry of a dimension, which is removed; a negative index counts from the back. A view.
    #[track_caller]
    pub fn select(&self, dim: impl Int, index: impl Int) -> Tensor {
        self.select_along(dim.to_isize(), index.to_isize())
    }

    #[track_caller]
    fn select_along(&self, dim: isize, index: isize) -> Tensor {
        assert!(self.ndim() > 0, "select: cannot be applied to a tensor without dimensions");
        let d = shape::dim("select", dim, self.ndim());
        let n = self.shape[d] as isize;
        assert!((-n..n).contains(&index), "select: index {index} out of range for dimension {d} of size {n}");
        let start = if index < 0 { index + n } else { index } as usize;
        let mut t = self.narrow(dim, start, 1);
        t.shape.remove(d);
        t.strides.remove(d);
        t
    }

    /// The elements along two dimensions at `(i, i + offset)`, as a new last dimension. A view.
    #[track_caller]
    pub fn diagonal(&self, offset: impl Int, dim1: impl Int, dim2: impl Int) -> Tensor {
        self.diagonal_of(offset.to_isize(), dim1.to_isize(), dim2.to_isize())
    }

    #[track_caller]
    fn diagonal_of(&self, offset: isize, dim1: isize, dim2: isize) -> Tensor {
        let (a, b) = (shape::dim("diagonal", dim1, self.ndim()), shape::dim("diagonal", dim2, self.ndim()));
        assert!(a != b, "diagonal: dimensions cannot be identical {dim1}, {dim2}");
        assert!(self.ndim() >= 2, "diagonal: needs at least two dimensions, got shape {:?}", self.shape);
        let (row, column) = if offset < 0 { (offset.unsigned_abs(), 0) } else { (0, offset as usize) };
        let length = self.shape[a].saturating_sub(row).min(self.shape[b].saturating_sub(column));
        let mut t = self.clone();
        if length > 0 {
            t.offset += row * self.strides[a] + column * self.strides[b];
        }
        for d in [a.max(b), a.min(b)] {
            t.shape.remove(d);
            t.strides.remove(d);
        }
        t.shape.push(length);
        t.strides.push(self.strides[a].saturating_add(self.strides[b]));
        t
    }

    /// Sliding windows along a dimension: `[.., (n - size) / step + 1, .., size]`. A view.
    #[track_caller]
    pub fn unfold(&self, dim: impl Int, size: usize, step: usize) -> Tensor {
        self.unfold_along(dim.to_isize(), size, step)
    }

    #[track_caller]
    fn unfold_along(&self, dim: isize, size: usize, step: usize) -> Tensor {
        let d = shape::dim("unfold", dim, self.ndim());
        let n = self.size(dim);
        assert!(size <= n, "unfold: maximum size for the tensor at dimension {d} is {n} but size is {size}");
        assert!(step > 0, "unfold: step is {step} but must be > 0");
        let mut t = self.clone();
        if self.ndim() == 0 {
            t.shape.push(size);
            t.strides.push(1);
            return t;
        }
        t.shape[d] = (n - size) / step + 1;
        t.strides[d] = t.strides[d].saturating_mul(step);
        t.shape.push(size);
        shape::numel_for("unfold", &t.shape);
        t.strides.push(self.strides[d]);
        t
    }

    /// Repeats dimensions of size one without a copy, and adds leading ones. A view.
    ///
    /// # Panics
    /// If `to` is not a shape that this one broadcasts to, or has too many elements.
    #[track_caller]
    pub fn expand(&self, to: &[usize]) -> Tensor {
        let fits = shape::broadcast(&self.shape, to).is_some_and(|s| s.as_slice() == to);
        assert!(fits, "expand: shape {:?} cannot be expanded to {to:?}", self.shape);
        shape::numel_for("expand", to);
        self.view_as(to.into(), shape::broadcast_strides(&self.shape, &self.strides, to), self.offset)
    }

    /// The same elements in another shape; a view where the strides allow it, else a copy.
    ///
    /// # Panics
    /// If the number of elements differs.
    #[track_caller]
    pub fn reshape(&self, to: &[usize]) -> Tensor {
        assert!(
            shape::checked_numel(to) == Some(self.numel()),
            "reshape: shape {to:?} is invalid for an input of {} elements (shape {:?})",
            self.numel(),
            self.shape
        );
        match self.try_view(to) {
            Some(t) => t,
            None => self.contiguous().try_view(to).expect("a contiguous tensor has every view"),
        }
    }

    /// The same memory in another shape, if the strides allow it.
    pub fn try_view(&self, to: &[usize]) -> Option<Tensor> {
        let strides = shape::view_strides(&self.shape, &self.strides, to)?;
        Some(self.view_as(to.into(), strides, self.offset))
    }

    /// A new dimension of size one before `dim` (of the result). A view.
    #[track_caller]
    pub fn unsqueeze(&self, dim: impl Int) -> Tensor {
        let d = shape::dim("unsqueeze", dim, self.ndim() + 1);
        let mut t = self.clone();
        t.shape.insert(d, 1);
        t.strides.insert(d, self.strides.get(d).map_or(1, |s| s.saturating_mul(self.shape[d])));
        t
    }

    /// Drops a dimension if its size is one. A view.
    #[track_caller]
    pub fn squeeze(&self, dim: impl Int) -> Tensor {
        let d = shape::dim("squeeze", dim, self.ndim());
        let mut t = self.clone();
        if self.shape.get(d) == Some(&1) {
            t.shape.remove(d);
            t.strides.remove(d);
        }
        t
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor};

    fn counting(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::arange(0, n as i64).cast(DType::F32).reshape(shape)
    }

    #[test]
    fn views_share_memory() {
        let t = counting(&[2, 3, 4]);
        let v = t.permute(&[2, 0, 1]).narrow(0, 1, 2).select(1, -1);
        assert!(v.shares_memory_with(&t));
        assert_eq!(v.shape(), [2, 3]);
        assert_eq!(v.to_vec::<f32>(), [13.0, 17.0, 21.0, 14.0, 18.0, 22.0]);
    }

    #[test]
    fn diagonals_and_windows() {
        let t = counting(&[3, 4]);
        assert_eq!(t.diagonal(1, 0, 1).to_vec::<f32>(), [1.0, 6.0, 11.0]);
        assert_eq!(t.diagonal(-1, 0, 1).to_vec::<f32>(), [4.0, 9.0]);
        assert_eq!(counting(&[5]).unfold(0, 3, 2).to_vec::<f32>(), [0.0, 1.0, 2.0, 2.0, 3.0, 4.0]);
    }
}
