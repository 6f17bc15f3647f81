//! `nansum`, `nanmean`: NaN is left out.

use super::{Reduced, half_as_f32};
use crate::dtype::Float;
use crate::int_list::IntList;
use crate::kernels::reduce;
use crate::node::record;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The sum over dimensions, all if none is given, of the elements that are not NaN (`torch.nansum`). For PyTorch's
    /// `dtype`, [cast](Var::cast) first. Integers are summed as I64.
    ///
    /// # Panics
    /// If a dimension is out of range or appears twice.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, f32::NAN, 2.0], &[3]);
    /// assert_eq!(x.nansum(()).item(), 3.0);
    /// ```
    #[track_caller]
    pub fn nansum(&self, dims: impl IntList) -> Var {
        self.nansum_with(dims, false)
    }

    /// [`Var::nansum`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn nansum_with(&self, dims: impl IntList, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        let r = Reduced::new(shape::dims("nansum", dims, self.ndim()), self.shape(), keepdim);
        if !self.dtype().is_float() {
            return self.sum_with(dims, keepdim);
        }
        let dtype = self.dtype();
        let sums = half_as_f32(
            self.tensor(),
            |t| crate::dispatch!(float: t.dtype(), "nansum", T => sums::<T>(&t, &r.dims)),
        );
        let (saved, value) = (self.saved(), r.finish(sums.cast(dtype)));
        record("nansum", [self], value, move |c| [Some(r.spread(c.grad()).masked_fill(&saved.isnan(), 0.0))])
    }

    /// The mean over dimensions, all if none is given, of the elements that are not NaN (`torch.nanmean`); NaN where
    /// there are none. The gradient there is zero, PyTorch's is NaN. For PyTorch's `dtype`, [cast](Var::cast) first.
    ///
    /// # Panics
    /// If the elements are not floating point, or a dimension is out of range or appears twice.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, f32::NAN, 2.0], &[3]);
    /// assert_eq!(x.nanmean(()).item(), 1.5);
    /// ```
    #[track_caller]
    pub fn nanmean(&self, dims: impl IntList) -> Var {
        self.nanmean_with(dims, false)
    }

    /// [`Var::nanmean`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn nanmean_with(&self, dims: impl IntList, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        assert!(
            self.dtype().is_float(),
            "nanmean: the input has to be floating point, not {}; cast it first",
            self.dtype()
        );
        shape::dims("nanmean", dims, self.ndim());
        let count = self.detach().isnan().logical_not().sum_with(dims, keepdim);
        self.nansum_with(dims, keepdim).div(count.cast(self.dtype()))
    }
}

fn sums<T: Float>(t: &Tensor, dims: &[usize]) -> Tensor {
    reduce::fold(t, dims, T::ZERO, |a, x: T| if x.is_nan() { a } else { a + x }, |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{Tensor, Var};

    #[test]
    fn gradients() {
        for seed in 0..5 {
            check(&[2, 3], seed, |x| [x.nansum(1), x.nanmean_keepdim(-2), x.nanmean(())]);
        }
    }

    #[test]
    fn nan_gets_no_gradient() {
        let nan = f64::NAN;
        let x = Var::parameter(Tensor::from_vec(vec![1.0, nan, 4.0, nan, nan, nan], &[2, 3]));
        let mean = x.nanmean(1);
        assert!(mean.to_vec::<f64>()[0] == 2.5 && mean.to_vec::<f64>()[1].is_nan());
        mean.select(0, 0).backward();
        assert_eq!(x.grad().unwrap().to_vec::<f64>(), [0.5, 0.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(x.nansum(()).item(), 5.0);
    }
}
