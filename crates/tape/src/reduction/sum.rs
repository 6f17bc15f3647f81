//! `sum`, `mean`.

use super::{Reduced, half_as_f32};
use crate::dtype::{DType, Number};
use crate::int_list::IntList;
use crate::kernels::{reduce, strided};
use crate::node::record_linear;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The sum over dimensions, all if none is given (`torch.sum`). Integers are summed as I64; for PyTorch's `dtype`,
    /// [cast](Var::cast) first.
    ///
    /// Short sums are added in pairs: in F32 the result is within `128 * 2^-24` (8e-6) of the sum of the magnitudes,
    /// for up to 2^40 elements; 2e7 times 0.1 is right to that. Over a dimension that is not the densest in memory it
    /// is within `(128 + n / 4096) * 2^-24` for `n` elements, and within `4224 * 2^-24` where the elements of a view
    /// are not contiguous. F16 and BF16 are summed in F32; for F64 the bounds are the same with 2^-53.
    ///
    /// # Panics
    /// If a dimension is out of range or appears twice.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.sum(0).to_vec::<f32>(), [4.0, 6.0]);
    /// assert_eq!(x.sum_keepdim(-1).shape(), [2, 1]);
    /// ```
    #[track_caller]
    pub fn sum(&self, dims: impl IntList) -> Var {
        self.sum_with(dims, false)
    }

    /// [`Var::sum`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn sum_with(&self, dims: impl IntList, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        let r = Reduced::new(shape::dims("sum", dims, self.ndim()), self.shape(), keepdim);
        let value = r.finish(sum_value(self.tensor(), &r.dims));
        record_linear("sum", self, value, |t| t.sum_with(dims, keepdim), move |c| [Some(r.spread(c.grad()))])
    }

    /// The sum of all elements, without dimensions.
    #[track_caller]
    pub fn sum_all(&self) -> Var {
        self.sum(())
    }

    /// The mean over dimensions, all if none is given (`torch.mean`); NaN where there are no elements. For PyTorch's
    /// `dtype`, [cast](Var::cast) first. As accurate as [`Var::sum`].
    ///
    /// # Panics
    /// If the elements are not floating point, or a dimension is out of range or appears twice.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.mean(0).to_vec::<f32>(), [2.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn mean(&self, dims: impl IntList) -> Var {
        self.mean_with(dims, false)
    }

    /// [`Var::mean`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn mean_with(&self, dims: impl IntList, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        assert!(
            self.dtype().is_float(),
            "mean: the input has to be floating point, not {}; cast it first",
            self.dtype()
        );
        let r = Reduced::new(shape::dims("mean", dims, self.ndim()), self.shape(), keepdim);
        // The gradient of no element is not divided: its own derivative is zero, not NaN.
        let n = r.count().max(1) as f64;
        let value = r.finish(mean_value(self.tensor(), &r.dims));
        record_linear(
            "mean",
            self,
            value,
            |t| t.mean_with(dims, keepdim),
            move |c| [Some(r.spread(&c.grad().div(n)))],
        )
    }

    /// The mean of all elements, without dimensions.
    #[track_caller]
    pub fn mean_all(&self) -> Var {
        self.mean(())
    }
}

/// The sums of the elements along `dims`; booleans and integers as I64.
pub(super) fn sum_value(t: Tensor, dims: &[usize]) -> Tensor {
    fn sum<T: Number>(t: &Tensor, dims: &[usize]) -> Tensor {
        reduce::fold(t, dims, T::ZERO, |a, x: T| a + x, |a, b| a + b)
    }
    match t.dtype() {
        DType::Bool | DType::U8 | DType::I64 => sum::<i64>(&t.cast(DType::I64), dims),
        dtype => {
            half_as_f32(t, |t| crate::dispatch!(float: t.dtype(), "sum", T => sum::<T>(&t, dims))).cast(dtype)
        }
    }
}

/// The means of the elements along `dims`.
pub(super) fn mean_value(t: Tensor, dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().map(|&d| t.shape()[d]).product();
    let dtype = t.dtype();
    let mean = half_as_f32(t, |t| {
        let sum = sum_value(t, dims);
        crate::dispatch!(float: sum.dtype(), "mean", T => {
            let n = <T as crate::Element>::from_f64(n as f64);
            strided::map_owned::<T>(sum, |x| x / n)
        })
    });
    mean.cast(dtype)
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{BackwardOptions, DType, Tensor, Var, bf16};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dims in proptest::sample::subsequence(vec![0isize, 1, -1], 0..4), keepdim: bool) {
            check(&[2, 3, 2], seed, |x| [x.sum_with(&dims, keepdim), x.mean_with(&dims, keepdim)]);
        }
    }

    #[test]
    fn types() {
        let t = Var::from_vec(vec![true, true, false], &[3]);
        assert_eq!((t.sum_all().dtype(), t.sum_all().item()), (DType::I64, 2.0));
        let h = Var::from_vec(vec![bf16::ONE; 1000], &[1000]);
        assert_eq!((h.sum_all().dtype(), h.sum_all().item()), (DType::BF16, 1000.0));
        assert_eq!(h.mean_all().item(), 1.0);
    }

    #[test]
    fn nothing_and_no_dimensions() {
        let nothing = Var::parameter(Tensor::zeros_with(&[0, 2], DType::F32));
        assert_eq!(nothing.sum_keepdim(0).to_vec::<f32>(), [0.0, 0.0]);
        assert!(nothing.mean_all().item().is_nan());
        assert_eq!(nothing.sum(1).shape(), [0]);
        // Of nothing, the derivative of the gradient is zero.
        let g = Var::parameter(Tensor::scalar(2.0f32));
        let weighted = |g: &Var| nothing.mean_all() * g;
        let options = BackwardOptions::new().create_graph(true);
        weighted(&g).backward_with(None, options);
        let gradient = nothing.take_grad().expect("it was used");
        g.zero_grad();
        gradient.sum_all().backward();
        assert_eq!(g.grad().map(|g| g.item()), Some(0.0));
        let x = Var::parameter(Tensor::scalar(3.0));
        x.sum_keepdim(0).backward();
        assert_eq!(x.grad().unwrap().item(), 1.0);
        assert_eq!(x.mean_keepdim(-1).shape(), [0usize; 0]);
    }

    #[test]
    #[should_panic(expected = "mean: the input has to be floating point, not int64")]
    fn the_mean_of_integers() {
        Var::from(1i64).mean_all();
    }

    #[test]
    #[should_panic(expected = "sum: dim 1 appears multiple times")]
    fn a_dimension_twice() {
        Var::from(Tensor::zeros_with(&[2, 2], DType::F32)).sum([1, -1]);
    }
}
