//! `squeeze`, `unsqueeze`.

use crate::int_list::{Int, IntList};
use crate::node::record_linear;
use crate::shape::{self, Dims};
use crate::var::Var;

impl Var {
    /// Drops a dimension if its size is one (`torch.squeeze(dim)`). A view.
    ///
    /// # Panics
    /// If there is no such dimension.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 1, 3], DType::F32));
    /// assert_eq!(x.squeeze(1).shape(), [2, 3]);
    /// assert_eq!(x.squeeze(0).shape(), [2, 1, 3]);
    /// ```
    #[track_caller]
    pub fn squeeze(&self, dim: impl Int) -> Var {
        self.squeeze_dims(&[dim])
    }

    /// Drops those of several dimensions that are of size one (`torch.squeeze(dims)`); an empty list drops none.
    ///
    /// # Panics
    /// If one is out of range or appears twice.
    #[track_caller]
    pub fn squeeze_dims(&self, dims: impl IntList) -> Var {
        let dims = &dims.to_isizes();
        if dims.is_empty() {
            return self.clone();
        }
        let dims = shape::dims("squeeze", dims, self.ndim());
        self.drop_ones(|d| dims.contains(&d))
    }

    /// Drops all dimensions of size one (`torch.squeeze()`). A view.
    #[track_caller]
    pub fn squeeze_all(&self) -> Var {
        self.drop_ones(|_| true)
    }

    #[track_caller]
    fn drop_ones(&self, chosen: impl Fn(usize) -> bool) -> Var {
        let from: Dims = self.shape().into();
        let mut value = self.tensor();
        for d in (0..from.len()).rev().filter(|&d| chosen(d) && from[d] == 1) {
            value = value.squeeze(d);
        }
        if value.ndim() == from.len() {
            return self.clone();
        }
        let to: Dims = value.shape().into();
        record_linear(
            "squeeze",
            self,
            value,
            |t| t.reshape_to(&to),
            move |c| [Some(c.grad().reshape_to(&from))],
        )
    }

    /// A new dimension of size one before `dim`, which counts in the result (`torch.unsqueeze`). A view.
    ///
    /// # Panics
    /// If there is no such dimension in the result.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 3], DType::F32));
    /// assert_eq!(x.unsqueeze(-1).shape(), [2, 3, 1]);
    /// ```
    #[track_caller]
    pub fn unsqueeze(&self, dim: impl Int) -> Var {
        self.unsqueeze_at(dim.to_isize())
    }

    #[track_caller]
    fn unsqueeze_at(&self, dim: isize) -> Var {
        let d = shape::dim("unsqueeze", dim, self.ndim() + 1) as isize;
        record_linear(
            "unsqueeze",
            self,
            self.tensor().unsqueeze(d),
            |t| t.unsqueeze(d),
            move |c| [Some(c.grad().squeeze(d))],
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};

    #[test]
    fn shapes() {
        let x = Var::from(Tensor::zeros_with(&[1, 2, 1, 3], DType::F32));
        assert_eq!(x.squeeze_all().shape(), [2, 3]);
        assert_eq!(x.squeeze_dims(&[0, 1]).shape(), [2, 1, 3]);
        assert_eq!(x.squeeze_dims(()).shape(), x.shape());
        assert!(x.squeeze_all().unsqueeze(1).tensor().shares_memory_with(&x.tensor()));
        assert_eq!(Var::from(1.0).squeeze(0).unsqueeze(-1).shape(), [1]);
    }

    #[test]
    fn gradients() {
        for seed in 0..5 {
            check(&[2, 1, 3], seed, |x| x.unsqueeze(0).squeeze_dims(&[0, 2]));
            check(&[1, 2, 1], seed, |x| x.squeeze_all());
        }
    }

    #[test]
    #[should_panic(
        expected = "squeeze: dimension out of range (expected to be in range of [-2, 1], but got 2)"
    )]
    fn no_such_dimension() {
        Var::from(Tensor::zeros_with(&[1, 2], DType::F32)).squeeze(2);
    }
}
