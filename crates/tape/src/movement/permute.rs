//! `permute` and its special cases.

use crate::int_list::{Int, IntList};
use crate::node::record_linear;
use crate::shape::{self, Dims};
use crate::var::Var;

impl Var {
    /// The dimensions in another order: `out.size(i) = self.size(dims[i])` (`torch.permute`). A view.
    ///
    /// # Panics
    /// If the list does not name each dimension once.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 3, 4], DType::F32));
    /// assert_eq!(x.permute(&[2, 0, 1]).shape(), [4, 2, 3]);
    /// ```
    #[track_caller]
    pub fn permute(&self, dims: impl IntList) -> Var {
        let dims = &dims.to_isizes();
        assert_eq!(
            dims.len(),
            self.ndim(),
            "permute: {dims:?} names {} dimensions, but the tensor of shape {:?} has {}",
            dims.len(),
            self.shape(),
            self.ndim()
        );
        let order = if dims.is_empty() { Dims::new() } else { shape::dims("permute", dims, self.ndim()) };
        self.permuted("permute", &order)
    }

    /// Swaps two dimensions (`torch.transpose`). A view.
    ///
    /// # Panics
    /// If one is out of range.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 3, 4], DType::F32));
    /// assert_eq!(x.transpose(0, -1).shape(), [4, 3, 2]);
    /// ```
    #[track_caller]
    pub fn transpose(&self, dim0: impl Int, dim1: impl Int) -> Var {
        self.swapped("transpose", dim0.to_isize(), dim1.to_isize())
    }

    #[track_caller]
    fn swapped(&self, op: &'static str, dim0: isize, dim1: isize) -> Var {
        let (a, b) = (shape::dim(op, dim0, self.ndim()), shape::dim(op, dim1, self.ndim()));
        let mut order: Dims = (0..self.ndim()).collect();
        if a != b {
            order.swap(a, b);
        }
        self.permuted(op, &order)
    }

    /// [`Var::transpose`] under NumPy's name (`torch.swapaxes`).
    ///
    /// # Panics
    /// If one is out of range.
    #[track_caller]
    pub fn swapaxes(&self, axis0: impl Int, axis1: impl Int) -> Var {
        self.swapped("swapaxes", axis0.to_isize(), axis1.to_isize())
    }

    /// A matrix transposed; fewer dimensions stay as they are (`torch.t`). A view.
    ///
    /// # Panics
    /// If there are more than two dimensions.
    #[track_caller]
    pub fn t(&self) -> Var {
        assert!(
            self.ndim() <= 2,
            "t: expects a tensor with <= 2 dimensions, but this one has {}: shape {:?}; use transpose",
            self.ndim(),
            self.shape()
        );
        if self.ndim() < 2 { self.clone() } else { self.permuted("t", &[1, 0]) }
    }

    /// Moves dimensions to other places, the rest keeping their order (`torch.movedim`). A view.
    ///
    /// # Panics
    /// If a dimension is out of range or named twice, or the lists differ in length.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 3, 4, 5], DType::F32));
    /// assert_eq!(x.movedim(&[1], &[-1]).shape(), [2, 4, 5, 3]);
    /// ```
    #[track_caller]
    pub fn movedim(&self, source: impl IntList, destination: impl IntList) -> Var {
        let source = &source.to_isizes();
        let destination = &destination.to_isizes();
        assert_eq!(
            source.len(),
            destination.len(),
            "movedim: source {source:?} and destination {destination:?} have to name equally many dimensions"
        );
        if source.is_empty() {
            return self.clone();
        }
        let (from, to) =
            (moved("source", source, self.ndim()), moved("destination", destination, self.ndim()));
        let mut order: Dims = Dims::from_elem(usize::MAX, self.ndim());
        for (&f, &t) in from.iter().zip(&to).filter(|_| self.ndim() > 0) {
            order[t] = f;
        }
        let mut rest = (0..self.ndim()).filter(|d| !from.contains(d));
        for o in order.iter_mut().filter(|o| **o == usize::MAX) {
            *o = rest.next().expect("as many places as dimensions");
        }
        self.permuted("movedim", &order)
    }

    #[track_caller]
    fn permuted(&self, op: &'static str, order: &[usize]) -> Var {
        if order.iter().enumerate().all(|(i, &d)| i == d) {
            return self.clone();
        }
        let mut back = Dims::from_elem(0, order.len());
        for (i, &d) in order.iter().enumerate() {
            back[d] = i;
        }
        let dims: Vec<isize> = order.iter().map(|&d| d as isize).collect();
        record_linear(
            op,
            self,
            self.tensor().permute(&dims),
            |t| t.permuted(op, order),
            move |c| [Some(c.grad().permuted(op, &back))],
        )
    }
}

/// The dimensions of one of `movedim`'s lists.
#[track_caller]
fn moved(which: &str, list: &[isize], ndim: usize) -> Dims {
    let dims: Dims = list.iter().map(|&d| shape::dim("movedim", d, ndim)).collect();
    for (i, d) in dims.iter().enumerate() {
        assert!(!dims[..i].contains(d), "movedim: repeated dim in `{which}` {list:?}");
    }
    dims
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};

    #[test]
    fn shapes_and_memory() {
        let x = Var::from(Tensor::zeros_with(&[2, 3, 4, 5], DType::F32));
        assert_eq!(x.movedim(&[3, 0], &[0, -1]).shape(), [5, 3, 4, 2]);
        assert_eq!(x.permute(&[-1, 0, 2, 1]).shape(), [5, 2, 4, 3]);
        assert!(x.swapaxes(1, 2).tensor().shares_memory_with(&x.tensor()));
        assert_eq!(Var::from(1.0).permute(()).transpose(0, -1).t().shape(), [0usize; 0]);
    }

    #[test]
    fn gradients() {
        for seed in 0..5 {
            check(&[2, 3, 4], seed, |x| x.permute(&[2, 0, 1]));
            check(&[2, 3, 4], seed, |x| x.movedim(&[0, 1], &[2, 0]).transpose(0, 2));
            check(&[2, 3], seed, |x| x.t());
        }
    }

    #[test]
    #[should_panic(expected = "permute: dim 1 appears multiple times")]
    fn each_dimension_once() {
        Var::from(Tensor::zeros_with(&[2, 3], DType::F32)).permute(&[1, -1]);
    }

    #[test]
    #[should_panic(expected = "t: expects a tensor with <= 2 dimensions")]
    fn t_takes_matrices() {
        Var::from(Tensor::zeros_with(&[2, 3, 4], DType::F32)).t();
    }
}
