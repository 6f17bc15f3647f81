//! `all`, `any`, `count_nonzero`: without gradient.

use super::{Reduced, sum};
use crate::dtype::DType;
use crate::int_list::IntList;
use crate::kernels::{reduce, strided};
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// True where all elements over dimensions, all if none is given, are not zero (`torch.all`; its `dim=[]`, which
    /// reduces nothing, has no counterpart); U8 stays U8.
    ///
    /// # Panics
    /// If a dimension is out of range or appears twice.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![true, true, true, false], &[2, 2]);
    /// assert_eq!(x.all(1).to_vec::<bool>(), [true, false]);
    /// ```
    #[track_caller]
    pub fn all(&self, dims: impl IntList) -> Var {
        self.all_with(dims, false)
    }

    /// [`Var::all`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn all_with(&self, dims: impl IntList, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        self.reduce_logical("all", dims, keepdim, |t, dims| {
            reduce::fold(t, dims, true, |a, x: bool| a & x, |a, b| a & b)
        })
    }

    /// True where an element over dimensions, all if none is given, is not zero (`torch.any`; its `dim=[]`, which
    /// reduces nothing, has no counterpart); U8 stays U8.
    ///
    /// # Panics
    /// If a dimension is out of range or appears twice.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![0f32, 1.0, 0.0, 0.0], &[2, 2]);
    /// assert_eq!(x.any(1).to_vec::<bool>(), [true, false]);
    /// ```
    #[track_caller]
    pub fn any(&self, dims: impl IntList) -> Var {
        self.any_with(dims, false)
    }

    /// [`Var::any`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn any_with(&self, dims: impl IntList, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        self.reduce_logical("any", dims, keepdim, |t, dims| {
            reduce::fold(t, dims, false, |a, x: bool| a | x, |a, b| a | b)
        })
    }

    /// The number of elements over dimensions, all if none is given, that are not zero, as I64 (`torch.count_nonzero`).
    ///
    /// # Panics
    /// If a dimension is out of range or appears twice.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![0f32, 1.0, 2.0, 3.0], &[2, 2]);
    /// assert_eq!(x.count_nonzero(&[0]).to_vec::<i64>(), [1, 2]);
    /// ```
    #[track_caller]
    pub fn count_nonzero(&self, dims: impl IntList) -> Var {
        let dims = &dims.to_isizes();
        let dims = shape::dims("count_nonzero", dims, self.ndim());
        Var::from(sum::sum_value(is_true(&self.tensor()), &dims))
    }

    #[track_caller]
    fn reduce_logical(
        &self,
        op: &str,
        dims: &[isize],
        keepdim: bool,
        fold: impl Fn(&Tensor, &[usize]) -> Tensor,
    ) -> Var {
        let r = Reduced::new(shape::dims(op, dims, self.ndim()), self.shape(), keepdim);
        let value = r.finish(fold(&is_true(&self.tensor()), &r.dims));
        Var::from(if self.dtype() == DType::U8 { value.cast(DType::U8) } else { value })
    }
}

fn is_true(t: &Tensor) -> Tensor {
    if t.dtype() == DType::Bool {
        return t.clone();
    }
    crate::dispatch!(all: t.dtype(), "all", T => strided::map::<T, bool>(t, |x| x != T::default()))
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, Var};

    #[test]
    fn types_and_nothing() {
        let x = Var::from_vec(vec![1u8, 0, 2, 3], &[2, 2]);
        assert_eq!((x.all_keepdim(1).dtype(), x.all_keepdim(1).shape().to_vec()), (DType::U8, vec![2, 1]));
        assert_eq!(x.any(()).to_vec::<i64>(), [1]);
        assert_eq!(x.count_nonzero(()).to_vec::<i64>(), [3]);
        let nothing = Var::from(Tensor::zeros_with(&[0], DType::F32));
        assert_eq!((nothing.all(()).item(), nothing.any(()).item()), (1.0, 0.0));
        assert_eq!(Var::from(f64::NAN).any(()).item(), 1.0);
    }
}
