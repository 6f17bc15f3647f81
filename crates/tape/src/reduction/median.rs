//! `median`, `nanmedian`, `kthvalue`: one element of each line, chosen by its order.

use super::Reduced;
use super::extreme::record_shared;
use super::sort::Choice;
use crate::int_list::Int;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The medians along a dimension, the lower of two middle elements, and their indices, as I64 (`torch.median` with
    /// a dimension). NaN where there is one. The gradient goes to that one element.
    ///
    /// # Panics
    /// If the dimension is out of range or of size zero.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from_vec(vec![3f32, 1.0, 2.0, 4.0], &[4]).median(0).0.item(), 2.0);
    /// ```
    #[track_caller]
    pub fn median(&self, dim: impl Int) -> (Var, Var) {
        self.median_with(dim, false)
    }

    /// [`Var::median`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn median_with(&self, dim: impl Int, keepdim: bool) -> (Var, Var) {
        one_of("median", self, dim.to_isize(), keepdim, Choice::Median)
    }

    /// The median of all elements, the lower of two middle ones, without dimensions (`torch.median`). NaN where there
    /// is one, and of no element. Elements that are equal to it share the gradient evenly.
    ///
    /// # Panics
    /// If the tensor is empty and not of a floating-point type.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![3f32, 1.0, 2.0, 2.0], &[2, 2]).median_all().item(), 2.0);
    /// ```
    #[track_caller]
    pub fn median_all(&self) -> Var {
        of_all("median", self, Choice::Median)
    }

    /// Like [`Var::median`], of the elements that are not NaN (`torch.nanmedian` with a dimension); NaN only where all
    /// are.
    ///
    /// # Panics
    /// If the dimension is out of range or of size zero.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from_vec(vec![3f32, f32::NAN, 2.0], &[3]).nanmedian(0).0.item(), 2.0);
    /// ```
    #[track_caller]
    pub fn nanmedian(&self, dim: impl Int) -> (Var, Var) {
        self.nanmedian_with(dim, false)
    }

    /// [`Var::nanmedian`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn nanmedian_with(&self, dim: impl Int, keepdim: bool) -> (Var, Var) {
        one_of("nanmedian", self, dim.to_isize(), keepdim, Choice::NanMedian)
    }

    /// Like [`Var::median_all`], of the elements that are not NaN (`torch.nanmedian`); NaN only if all are.
    ///
    /// # Panics
    /// If the tensor is empty and not of a floating-point type.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![3f32, f32::NAN, 2.0], &[3]).nanmedian_all().item(), 2.0);
    /// ```
    #[track_caller]
    pub fn nanmedian_all(&self) -> Var {
        of_all("nanmedian", self, Choice::NanMedian)
    }

    /// The `k`-th smallest elements along a dimension, counted from 1, and their indices, as I64 (`torch.kthvalue`). NaN
    /// counts as largest; of equal elements the first is number one. The gradient goes to that one element.
    ///
    /// # Panics
    /// If the dimension is out of range, or has no `k`-th element.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let (value, index) = Var::from_vec(vec![3f32, 1.0, 2.0], &[3]).kthvalue(2, 0);
    /// assert_eq!((value.item(), index.item()), (2.0, 2.0));
    /// ```
    #[track_caller]
    pub fn kthvalue(&self, k: usize, dim: impl Int) -> (Var, Var) {
        self.kthvalue_with(k, dim, false)
    }

    /// [`Var::kthvalue`], where the dimension stays with size one if `keepdim`.
    #[track_caller]
    pub fn kthvalue_with(&self, k: usize, dim: impl Int, keepdim: bool) -> (Var, Var) {
        let d = shape::dim("kthvalue", dim, self.ndim());
        let n = self.size(dim);
        assert!(
            (1..=n).contains(&k),
            "kthvalue: selected number k = {k} is out of range for dimension {d} of size {n}"
        );
        one_of("kthvalue", self, dim.to_isize(), keepdim, Choice::Nth(k - 1))
    }
}

/// One element of each line, and its index.
#[track_caller]
fn one_of(op: &'static str, x: &Var, dim: isize, keepdim: bool, choice: Choice) -> (Var, Var) {
    let d = shape::dim(op, dim, x.ndim());
    assert!(
        x.size(dim) > 0,
        "{op}: expected reduction dim {d} of shape {:?} to have non-zero size",
        x.shape()
    );
    let (value, index) = x.chosen(op, d, 1, choice);
    if keepdim || x.ndim() == 0 { (value, index) } else { (value.squeeze(d), index.squeeze(d)) }
}

/// One element of all; those that are equal to it share the gradient.
#[track_caller]
fn of_all(op: &'static str, x: &Var, choice: Choice) -> Var {
    let r = Reduced::new((0..x.ndim()).collect(), x.shape(), false);
    if x.numel() == 0 && x.dtype().is_float() {
        return record_shared(op, x, r, Tensor::full_with((), f64::NAN, x.dtype()), true);
    }
    r.check_not_empty(op);
    let value = one_of(op, &x.detach().flatten(()), 0, false, choice).0.into_tensor();
    record_shared(op, x, r, value, true)
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{Tensor, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -2isize..2, keepdim: bool, k in 1usize..3) {
            // Layout 3 repeats elements: ties may be reordered.
            let seed = if seed % 5 == 3 { seed + 1 } else { seed };
            check(&[2, 3], seed, |x| [x.median_with(dim, keepdim).0, x.nanmedian_with(dim, keepdim).0]);
            check(&[2, 3], seed, |x| [x.median_all(), x.nanmedian_all(), x.kthvalue_with(k, dim, keepdim).0]);
        }
    }

    /// The values are PyTorch's.
    #[test]
    fn equal_elements_share_the_gradient_of_the_median() {
        let x = Var::parameter(Tensor::from_vec(vec![2f64, 1.0, 2.0, 5.0], &[2, 2]));
        x.median_all().backward();
        assert_eq!(x.grad().unwrap().to_vec::<f64>(), [0.5, 0.0, 0.5, 0.0]);
    }

    #[test]
    fn nan_is_left_out_or_largest() {
        let nan = f64::NAN;
        let x = Var::from_vec(vec![nan, 5.0, 1.0, 3.0, nan, nan, nan, nan], &[2, 4]);
        let (value, index) = x.nanmedian(1);
        assert_eq!((value.to_vec::<f64>()[0], index.to_vec::<i64>()), (3.0, vec![3, 0]));
        assert!(value.to_vec::<f64>()[1].is_nan() && x.median_all().item().is_nan());
        assert_eq!(x.kthvalue(3, 1).1.to_vec::<i64>(), [1, 2]);
        assert_eq!(x.nanmedian_all().item(), 3.0);
        let nothing = Var::parameter(Tensor::zeros_with(&[0, 2], crate::DType::F64));
        let median = nothing.median_all();
        assert!(median.item().is_nan() && nothing.nanmedian_all().item().is_nan());
        median.backward();
        assert_eq!(nothing.grad().unwrap().shape(), [0, 2]);
    }

    #[test]
    #[should_panic(expected = "kthvalue: selected number k = 3 is out of range for dimension 1 of size 2")]
    fn no_such_element() {
        Var::from(Tensor::zeros_with(&[2, 2], crate::DType::F32)).kthvalue(3, -1);
    }
}
