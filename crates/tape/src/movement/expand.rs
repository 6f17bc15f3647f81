//! `expand`, and its adjoint `sum_to`.

use crate::int_list::IntList;
use crate::node::record_linear;
use crate::shape;
use crate::var::Var;

impl Var {
    /// Repeats dimensions of size one, and adds leading ones, without a copy (`torch.Tensor.expand`). A size of -1
    /// keeps the size of the dimension.
    ///
    /// # Panics
    /// If a dimension other than of size one would change.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from_vec(vec![1f32, 2.0], &[2, 1]).expand(&[-1, 3]).shape(), [2, 3]);
    /// ```
    #[track_caller]
    pub fn expand(&self, sizes: impl IntList) -> Var {
        let sizes = &sizes.to_isizes();
        assert!(
            sizes.len() >= self.ndim(),
            "expand: {sizes:?} has fewer dimensions than the tensor of shape {:?}",
            self.shape()
        );
        let lead = sizes.len() - self.ndim();
        let to: shape::Dims = sizes
            .iter()
            .enumerate()
            .map(|(d, &n)| match n {
                -1 if d >= lead => self.shape()[d - lead],
                n => usize::try_from(n).unwrap_or_else(|_| panic!("expand: invalid size {n} in {sizes:?}")),
            })
            .collect();
        self.expand_to(&to)
    }

    /// Like [`Var::expand`], to a whole shape (`torch.broadcast_to`).
    ///
    /// # Panics
    /// If this shape does not broadcast to the other.
    #[track_caller]
    pub fn expand_to(&self, to: &[usize]) -> Var {
        if self.shape() == to {
            return self.clone();
        }
        // The backward pass sums every gradient to its input's shape.
        record_linear(
            "expand",
            self,
            self.tensor().expand(to),
            |t| t.expand_to(to),
            |c| [Some(c.into_grad())],
        )
    }

    /// [`Var::expand_to`] under the name of `torch.broadcast_to`.
    ///
    /// # Panics
    /// If this shape does not broadcast to the other.
    #[track_caller]
    pub fn broadcast_to(&self, to: impl IntList) -> Var {
        let to = &to.to_sizes("broadcast_to");
        let fits = shape::broadcast(self.shape(), to).is_some_and(|s| s == *to);
        assert!(fits, "broadcast_to: shape {:?} cannot be broadcast to {to:?}", self.shape());
        self.expand_to(to)
    }

    /// Like [`Var::expand_to`], to the shape of another (`torch.Tensor.expand_as`).
    ///
    /// # Panics
    /// If this shape does not broadcast to the other.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// assert_eq!(Var::from(3f32).expand_as(&x).to_vec::<f32>(), [3.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn expand_as(&self, other: &Var) -> Var {
        let fits =
            shape::broadcast(self.shape(), other.shape()).is_some_and(|s| s.as_slice() == other.shape());
        assert!(fits, "expand_as: shape {:?} cannot be expanded to {:?}", self.shape(), other.shape());
        self.expand_to(other.shape())
    }

    /// Sums over the dimensions that broadcasting from `to` has made (`torch.Tensor.sum_to_size`).
    ///
    /// # Panics
    /// If `to` does not broadcast to this shape.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.sum_to_size((2, 1)).to_vec::<f32>(), [3.0, 7.0]);
    /// ```
    #[track_caller]
    pub fn sum_to_size(&self, to: impl IntList) -> Var {
        let to = &to.to_sizes("sum_to_size")[..];
        let fits = shape::broadcast(to, self.shape()).is_some_and(|s| s.as_slice() == self.shape());
        assert!(fits, "sum_to_size: size {to:?} is not expandable to size {:?}", self.shape());
        self.sum_to(to)
    }

    /// [`Var::sum_to_size`] under a shorter name.
    ///
    /// # Panics
    /// If `to` does not broadcast to this shape.
    #[track_caller]
    pub fn sum_to(&self, to: &[usize]) -> Var {
        if self.shape() == to {
            return self.clone();
        }
        let fits = shape::broadcast(to, self.shape()).is_some_and(|s| s.as_slice() == self.shape());
        assert!(fits, "sum_to: shape {to:?} does not broadcast to {:?}", self.shape());
        let lead = self.ndim() - to.len();
        let dims: Vec<isize> = (0..self.ndim())
            .filter(|&d| d < lead || (to[d - lead] == 1 && self.shape()[d] != 1))
            .map(|d| d as isize)
            .collect();
        let summed = if dims.is_empty() { self.clone() } else { self.sum_keepdim(&dims) };
        summed.reshape_to(to)
    }
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};

    #[test]
    fn views() {
        let x = Var::from(Tensor::zeros_with(&[3, 1], DType::F32));
        assert!(x.expand(&[2, -1, 4]).tensor().shares_memory_with(&x.tensor()));
        assert_eq!(x.broadcast_to(&[2, 3, 4]).shape(), [2, 3, 4]);
    }

    #[test]
    fn gradients() {
        for seed in 0..5 {
            check(&[3, 1], seed, |x| x.expand(&[2, -1, 2]));
            check(&[2, 3, 2], seed, |x| x.sum_to(&[3, 1]));
        }
    }

    #[test]
    #[should_panic(expected = "expand: shape [3, 1] cannot be expanded to [2, 4]")]
    fn sizes_that_do_not_fit() {
        Var::from(Tensor::zeros_with(&[3, 1], DType::F32)).expand(&[2, 4]);
    }
}
