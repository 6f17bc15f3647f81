//! Conversion between element types.

use crate::dtype::DType;
use crate::node::record_linear;
use crate::var::Var;

impl Var {
    /// The values in another element type (`torch.Tensor.to(dtype)`). The gradient is cast back.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Var};
    /// assert_eq!(Var::from(2.9).cast(DType::I64).item(), 2.0);
    /// ```
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Var {
        if dtype == self.dtype() {
            return self.clone();
        }
        // The backward pass casts every gradient to its input's type.
        record_linear("cast", self, self.tensor().cast(dtype), |t| t.cast(dtype), |c| [Some(c.into_grad())])
    }

    /// The values as floating point: unchanged if they are, else as F32.
    #[track_caller]
    pub fn to_float(&self) -> Var {
        self.cast(self.dtype().to_float())
    }
}
