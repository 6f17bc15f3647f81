//! `reshape`, `view`, `flatten`, `unflatten`.

use crate::int_list::{Int, IntList};
use crate::node::record_linear;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The same elements in another shape, one size of which may be -1 (`torch.reshape`). Copies only where
    /// the strides allow no view.
    ///
    /// # Panics
    /// If the number of elements differs.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 6], DType::F32));
    /// assert_eq!(x.reshape(&[-1, 3]).shape(), [4, 3]);
    /// ```
    #[track_caller]
    pub fn reshape(&self, sizes: impl IntList) -> Var {
        let sizes = &sizes.to_isizes();
        let to = shape::infer("reshape", self.shape(), sizes);
        self.reshaped("reshape", &to, self.tensor().reshape(&to))
    }

    /// Like [`Var::reshape`], but never a copy (`torch.Tensor.view`).
    ///
    /// # Panics
    /// If the number of elements differs, or the strides allow no view; [`Var::reshape`] copies then.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 6], DType::F32));
    /// assert_eq!(x.view(&[4, 3]).shape(), [4, 3]);
    /// ```
    #[track_caller]
    pub fn view(&self, sizes: impl IntList) -> Var {
        let sizes = &sizes.to_isizes();
        let to = shape::infer("view", self.shape(), sizes);
        let value = self.tensor();
        let Some(view) = value.try_view(&to) else {
            panic!(
                "view: shape {:?} with strides {:?} cannot be seen as {to:?} without a copy; use reshape",
                self.shape(),
                value.strides()
            )
        };
        self.reshaped("view", &to, view)
    }

    /// Like [`Var::reshape`] to a whole shape with the right number of elements.
    #[track_caller]
    pub(crate) fn reshape_to(&self, to: &[usize]) -> Var {
        self.reshaped("reshape", to, self.tensor().reshape(to))
    }

    #[track_caller]
    fn reshaped(&self, op: &'static str, to: &[usize], value: Tensor) -> Var {
        if self.shape() == to {
            return self.clone();
        }
        let from: Dims = self.shape().into();
        let x = self.tensor();
        // The gradient of a copy from another memory format is in that format; the operations before would otherwise
        // read two formats at once.
        let copied = !value.shares_memory_with(&x);
        let strides: Option<Dims> = (copied && x.is_dense()).then(|| x.strides().into());
        record_linear(
            op,
            self,
            value,
            |t| t.reshape_to(to),
            move |c| {
                let grad = c.grad().reshape_to(&from);
                [Some(match &strides {
                    Some(strides) => grad.laid_out(strides),
                    None => grad,
                })]
            },
        )
    }

    /// The same values with these strides in memory.
    fn laid_out(&self, strides: &Dims) -> Var {
        record_linear(
            "reshape",
            self,
            self.tensor().copy(strides.clone()),
            |t| t.laid_out(strides),
            |c| [Some(c.into_grad())],
        )
    }

    /// All elements as a vector, in row-major order: [`Var::flatten`] of all dimensions (`torch.ravel`).
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// assert_eq!(Var::from(Tensor::zeros_with(&[2, 3], DType::F32)).ravel().shape(), [6]);
    /// ```
    #[track_caller]
    pub fn ravel(&self) -> Var {
        self.flatten(())
    }

    /// Merges all dimensions for `()`, those from `start` on for `start`, or those from `start` to `end` for
    /// `(start, end)` (`torch.flatten`). No dimension becomes one.
    ///
    /// # Panics
    /// If they are out of range, `start` comes after `end`, or there are more than two numbers.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[8, 3, 4, 5], DType::F32));
    /// assert_eq!(x.flatten(1).shape(), [8, 60]);
    /// assert_eq!(x.flatten((0, 1)).shape(), [24, 4, 5]);
    /// assert_eq!(x.flatten(()).shape(), [480]);
    /// ```
    #[track_caller]
    pub fn flatten(&self, dims: impl IntList) -> Var {
        let (start, end) = match dims.to_isizes()[..] {
            [] => (0, -1),
            [start] => (start, -1),
            [start, end] => (start, end),
            ref more => panic!("flatten: takes a first and a last dimension, got {more:?}"),
        };
        let (a, b) = (shape::dim("flatten", start, self.ndim()), shape::dim("flatten", end, self.ndim()));
        assert!(
            a <= b,
            "flatten: start_dim {start} cannot come after end_dim {end} in shape {:?}",
            self.shape()
        );
        let mut to = Dims::new();
        if self.ndim() == 0 {
            to.push(1);
        } else {
            to.extend_from_slice(&self.shape()[..a]);
            to.push(shape::numel(&self.shape()[a..=b]));
            to.extend_from_slice(&self.shape()[b + 1..]);
        }
        self.reshaped("flatten", &to, self.tensor().reshape(&to))
    }

    /// Splits a dimension into several, one size of which may be -1 (`torch.unflatten`).
    ///
    /// # Panics
    /// If the sizes do not multiply to that of the dimension.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[8, 60], DType::F32));
    /// assert_eq!(x.unflatten(1, &[3, -1, 5]).shape(), [8, 3, 4, 5]);
    /// ```
    #[track_caller]
    pub fn unflatten(&self, dim: impl Int, sizes: impl IntList) -> Var {
        let sizes = &sizes.to_isizes();
        assert!(!sizes.is_empty(), "unflatten: sizes must not be empty");
        assert!(self.ndim() > 0, "unflatten: cannot be applied to a tensor without dimensions");
        let d = shape::dim("unflatten", dim, self.ndim());
        let cut = shape::infer("unflatten", &self.shape()[d..=d], sizes);
        let mut to: Dims = self.shape()[..d].into();
        to.extend(cut);
        to.extend_from_slice(&self.shape()[d + 1..]);
        self.reshaped("unflatten", &to, self.tensor().reshape(&to))
    }
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, MemoryFormat, Tensor, Var, gradgradcheck};
    use proptest::prelude::*;

    #[test]
    fn views_share_memory_and_copies_do_not() {
        let x = Var::from(Tensor::zeros_with(&[4, 6], DType::F32));
        assert!(x.view(&[2, 2, 6]).tensor().shares_memory_with(&x.tensor()));
        let t = x.t();
        assert!(t.unflatten(1, &[2, -1]).tensor().shares_memory_with(&x.tensor()));
        assert!(!t.flatten(()).tensor().shares_memory_with(&x.tensor()));
    }

    #[test]
    fn the_gradient_of_a_copy_comes_in_the_format_of_its_operand() {
        let images = Tensor::arange(0, 2 * 3 * 4 * 5).reshape(&[2, 3, 4, 5]).cast(DType::F64);
        let x = Var::parameter(images.to_format(MemoryFormat::ChannelsLast));
        let y = x.flatten(1);
        (&y * &y).sum_all().backward();
        let grad = x.grad().expect("a leaf").tensor();
        assert!(grad.is_contiguous_in(MemoryFormat::ChannelsLast));
        assert_eq!(grad.to_vec::<f64>(), (&x * 2.0).to_vec::<f64>());
        let cube = |v: &[Var]| v[0].flatten(1).pow(3);
        gradgradcheck(cube, &[x]).unwrap();
    }

    #[test]
    #[should_panic(expected = "view: shape [6, 4] with strides [1, 6] cannot be seen as [24] without a copy")]
    fn a_view_that_needs_a_copy() {
        Var::from(Tensor::zeros_with(&[4, 6], DType::F32)).t().view(&[-1]);
    }

    #[test]
    #[should_panic(expected = "unflatten: shape [2, 2] is invalid")]
    fn sizes_that_do_not_multiply() {
        Var::from(Tensor::zeros_with(&[4, 6], DType::F32)).unflatten(1, &[2, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10))]
        #[test]
        fn gradients(seed in 0u64..1000) {
            check(&[2, 3, 4], seed, |x| x.reshape(&[4, -1]));
            check(&[2, 3, 4], seed, |x| x.flatten((0, 1)).unflatten(0, &[3, 2]));
        }
    }
}
