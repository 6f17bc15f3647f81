//! Reductions, and scans along a dimension.

mod cumulative;
mod differences;
mod extreme;
mod logical;
mod logsumexp;
mod median;
mod nan;
mod norm;
mod prod;
mod quantile;
mod scan;
mod sort;
mod sum;
mod unique;
mod var;

pub use differences::Spacing;
pub use quantile::Interpolation;

use crate::dtype::DType;
use crate::indexing::{collect, gather_values};
use crate::int_list::{Int, IntList};
use crate::kernels::reduce;
use crate::node::record_linear;
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::var::Var;

/// The forms of reductions that keep the reduced dimensions.
macro_rules! keepdim {
    ($($name:ident $keepdim:ident $with:ident($dims:ident: $ty:ty) -> $result:ty;)*) => {
        impl Var {
            $(
                #[doc = concat!("[`Var::", stringify!($name), "`] with the reduced dimensions kept with size one (`keepdim=True`).")]
                #[track_caller]
                pub fn $keepdim(&self, $dims: $ty) -> $result {
                    self.$with($dims, true)
                }
            )*
        }
    };
}
keepdim! {
    sum sum_keepdim sum_with(dims: impl IntList) -> Var;
    mean mean_keepdim mean_with(dims: impl IntList) -> Var;
    prod prod_keepdim prod_with(dim: impl Int) -> Var;
    amax amax_keepdim amax_with(dims: impl IntList) -> Var;
    amin amin_keepdim amin_with(dims: impl IntList) -> Var;
    max max_keepdim max_with(dim: impl Int) -> (Var, Var);
    min min_keepdim min_with(dim: impl Int) -> (Var, Var);
    argmax argmax_keepdim argmax_with(dim: impl Int) -> Var;
    argmin argmin_keepdim argmin_with(dim: impl Int) -> Var;
    median median_keepdim median_with(dim: impl Int) -> (Var, Var);
    logsumexp logsumexp_keepdim logsumexp_with(dims: impl IntList) -> Var;
    nansum nansum_keepdim nansum_with(dims: impl IntList) -> Var;
    nanmean nanmean_keepdim nanmean_with(dims: impl IntList) -> Var;
    nanmedian nanmedian_keepdim nanmedian_with(dim: impl Int) -> (Var, Var);
    all all_keepdim all_with(dims: impl IntList) -> Var;
    any any_keepdim any_with(dims: impl IntList) -> Var;
}

/// A shape, the dimensions that are reduced, and whether they stay with size one.
#[derive(Clone)]
struct Reduced {
    dims: Dims,
    shape: Dims,
    keepdim: bool,
}

impl Reduced {
    fn new(dims: Dims, shape: &[usize], keepdim: bool) -> Reduced {
        Reduced { dims, shape: shape.into(), keepdim }
    }

    /// The number of elements that are reduced to each result.
    fn count(&self) -> usize {
        self.dims.iter().map(|&d| self.shape[d]).product()
    }

    /// The reduced dimensions as arguments for an operation.
    fn list(&self) -> Vec<isize> {
        self.dims.iter().map(|&d| d as isize).collect()
    }

    /// The result of a kernel, which has only the kept dimensions.
    fn finish(&self, value: Tensor) -> Tensor {
        if self.keepdim { self.with_ones(&value) } else { value }
    }

    /// A tensor of the kept dimensions, the reduced ones put back with size one.
    fn with_ones(&self, value: &Tensor) -> Tensor {
        value.reshape(&reduce::reduced_shape(&self.shape, &self.dims, true))
    }

    /// A result with the reduced dimensions put back with size one, so that it broadcasts with the operand.
    fn restore(&self, y: &Var) -> Var {
        if self.keepdim {
            y.clone()
        } else {
            y.reshape_to(&reduce::reduced_shape(&self.shape, &self.dims, true))
        }
    }

    /// A result, repeated for each element that it was reduced from.
    fn spread(&self, y: &Var) -> Var {
        self.restore(y).expand_to(&self.shape)
    }

    /// Checks that no result is reduced from zero elements.
    ///
    /// # Panics
    /// If a reduced dimension is of size zero.
    #[track_caller]
    fn check_not_empty(&self, op: &str) {
        let all = self.dims.len() == self.shape.len();
        if let Some(d) = self.dims.iter().find(|&&d| self.shape[d] == 0) {
            assert!(
                !all,
                "{op}: the tensor of shape {:?} is empty: there is nothing to choose from",
                self.shape
            );
            panic!("{op}: expected reduction dim {d} of shape {:?} to have non-zero size", self.shape);
        }
    }
}

/// Converts F16 and BF16 to F32.
pub(crate) fn half_as_f32(t: Tensor, f: impl FnOnce(Tensor) -> Tensor) -> Tensor {
    match t.dtype() {
        DType::F16 | DType::BF16 => f(t.cast(DType::F32)),
        _ => f(t),
    }
}

/// A tensor in a type with arithmetic and comparisons.
fn as_number(t: &Tensor) -> Tensor {
    t.cast(match t.dtype() {
        DType::F16 | DType::BF16 => DType::F32,
        DType::Bool | DType::U8 => DType::I64,
        other => other,
    })
}

/// Records elements that were chosen along a dimension: the gradient goes where they came from. `indices` has the shape
/// of the values, the dimension `d` included.
#[track_caller]
fn record_chosen(op: &'static str, x: &Var, d: usize, values: Tensor, indices: &Var) -> Var {
    let (shape, indices): (Dims, Tensor) = (x.shape().into(), indices.tensor());
    let (places, to): (Tensor, Dims) = (indices.clone(), values.shape().into());
    record_linear(
        op,
        x,
        values,
        |t| gather_values(op, t, d, places.clone()).reshape_to(&to),
        move |c| {
            let g = c.grad().reshape_to(indices.shape());
            [Some(collect(op, &g, d, indices.clone(), &shape))]
        },
    )
}
