//! Operations that take many elements to one, or go along a dimension.

mod sum;

use crate::dtype::DType;
use crate::kernels::reduce;
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::var::Var;

/// A shape, the dimensions that are reduced, and whether they stay with size one.
#[derive(Clone)]
pub(crate) struct Reduced {
    pub(crate) dims: Dims,
    shape: Dims,
    keepdim: bool,
}

impl Reduced {
    pub(crate) fn new(dims: Dims, shape: &[usize], keepdim: bool) -> Reduced {
        Reduced { dims, shape: shape.into(), keepdim }
    }

    /// The number of elements that each result is made from.
    pub(crate) fn count(&self) -> usize {
        self.dims.iter().map(|&d| self.shape[d]).product()
    }

    /// The result of a kernel, which has only the kept dimensions.
    pub(crate) fn finish(&self, value: Tensor) -> Tensor {
        if self.keepdim { self.with_ones(&value) } else { value }
    }

    /// A tensor of the kept dimensions, the reduced ones put back with size one.
    pub(crate) fn with_ones(&self, value: &Tensor) -> Tensor {
        value.reshape(&reduce::reduced_shape(&self.shape, &self.dims, true))
    }

    /// A result with the reduced dimensions put back with size one, so that it broadcasts with the operand.
    pub(crate) fn restore(&self, y: &Var) -> Var {
        if self.keepdim { y.clone() } else { y.reshape_to(&reduce::reduced_shape(&self.shape, &self.dims, true)) }
    }

    /// A result repeated for each element that it is made from.
    pub(crate) fn spread(&self, y: &Var) -> Var {
        self.restore(y).expand_to(&self.shape)
    }
}

/// Computes in F32 what comes in F16 or BF16; the result is F32 then.
pub(crate) fn half_as_f32(t: Tensor, f: impl FnOnce(Tensor) -> Tensor) -> Tensor {
    match t.dtype() {
        DType::F16 | DType::BF16 => f(t.cast(DType::F32)),
        _ => f(t),
    }
}
