//! `reshape`.

use crate::node::record;
use crate::shape;
use crate::var::Var;

impl Var {
    /// The same elements in another shape, one size of which may be -1 (`torch.reshape`). Copies only where
    /// the strides allow no view.
    ///
    /// # Panics
    /// If the number of elements differs.
    ///
    /// ```
    /// use tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros(&[2, 6], DType::F32));
    /// assert_eq!(x.reshape(&[-1, 3]).shape(), [4, 3]);
    /// ```
    #[track_caller]
    pub fn reshape(&self, sizes: &[isize]) -> Var {
        let to = shape::infer("reshape", self.shape(), sizes);
        if self.shape() == to.as_slice() {
            return self.clone();
        }
        let from: Vec<isize> = self.shape().iter().map(|&n| n as isize).collect();
        record("reshape", [self], self.tensor().reshape(&to), move |c| [Some(c.grad().reshape(&from))])
    }
}
