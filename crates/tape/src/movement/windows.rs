//! Sliding windows, and their adjoint: the sum of overlapping windows.

use crate::int_list::Int;
use crate::kernels::place;
use crate::node::record;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// Sliding windows of `size` entries along a dimension, `step` apart: the dimension becomes the number of windows,
    /// and a new last one holds their entries (`torch.Tensor.unfold`). A view.
    ///
    /// # Panics
    /// If a window is larger than the dimension, or `step` is zero.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[4]);
    /// assert_eq!(x.unfold(0, 3, 1).to_vec::<f32>(), [1.0, 2.0, 3.0, 2.0, 3.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn unfold(&self, dim: impl Int, size: usize, step: usize) -> Var {
        self.unfold_along(dim.to_isize(), size, step)
    }

    #[track_caller]
    fn unfold_along(&self, dim: isize, size: usize, step: usize) -> Var {
        let d = shape::dim("unfold", dim, self.ndim()) as isize;
        let (n, scalar) = (self.size(d), self.ndim() == 0);
        record("unfold", [self], self.tensor().unfold(d, size, step), move |c| {
            let g = if scalar { c.grad().unsqueeze(0) } else { c.grad().clone() };
            let g = g.overlap_add(d, n, step);
            [Some(if scalar { g.squeeze(0) } else { g })]
        })
    }

    /// The adjoint of [`Var::unfold`]: windows, numbered along `dim` with their entries in the last dimension, are
    /// added into a dimension of size `length`, `step` apart (`aten::unfold_backward`).
    ///
    /// # Panics
    /// If the windows do not fit into `length`, or `step` is zero.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let windows = Var::from_vec(vec![1f32, 2.0, 3.0, 10.0, 20.0, 30.0], &[2, 3]);
    /// assert_eq!(windows.overlap_add(0, 4, 1).to_vec::<f32>(), [1.0, 12.0, 23.0, 30.0]);
    /// ```
    #[track_caller]
    pub fn overlap_add(&self, dim: impl Int, length: usize, step: usize) -> Var {
        self.overlap_add_along(dim.to_isize(), length, step)
    }

    #[track_caller]
    fn overlap_add_along(&self, dim: isize, length: usize, step: usize) -> Var {
        assert!(self.ndim() >= 2, "overlap_add: needs a dimension of windows and one of their entries");
        let d = shape::dim("overlap_add", dim, self.ndim() - 1);
        let (count, size) = (self.shape()[d], self.size(-1));
        assert!(step > 0, "overlap_add: step must be greater than zero");
        let reach = count.saturating_sub(1).saturating_mul(step).saturating_add(size);
        assert!(
            count == 0 || reach <= length,
            "overlap_add: {count} windows of {size}, {step} apart, do not fit into {length} (shape {:?})",
            self.shape()
        );
        let g = self.tensor();
        let mut to: Dims = self.shape()[..self.ndim() - 1].into();
        to[d] = length;
        shape::numel_for("overlap_add", &to);
        let mut out = Tensor::zeros_with(&to, g.dtype());
        for k in 0..size {
            if count == 0 {
                break;
            }
            let span = (count - 1) * step + 1;
            let entries = |t: &Tensor| t.narrow(d, k, span).step(d, step);
            place::add(&mut out, entries, &g.select(-1, k));
        }
        record("overlap_add", [self], out, move |c| {
            // After the last window there is nothing to add.
            let g = c.grad().narrow(d, 0, if count == 0 { 0 } else { (count - 1) * step + size });
            [Some(if count == 0 { empty_windows(&g, size) } else { g.unfold(d, size, step) })]
        })
    }
}

/// No windows at all, which `unfold` cannot make.
fn empty_windows(g: &Var, size: usize) -> Var {
    let mut to: Dims = g.shape().into();
    to.push(size);
    g.unsqueeze(-1).expand_to(&to)
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};
    use proptest::prelude::*;

    #[test]
    fn windows_are_views() {
        let x = Var::from(Tensor::zeros_with(&[2, 5], DType::F32));
        let y = x.unfold(1, 2, 2);
        assert_eq!(y.shape(), [2, 2, 2]);
        assert!(y.tensor().shares_memory_with(&x.tensor()));
        assert_eq!(Var::from(1.0).unfold(0, 1, 1).shape(), [1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in 0isize..2, size in 1usize..4, step in 1usize..4) {
            check(&[3, 4], seed, |x| x.unfold(dim, size, step));
            check(&[2, 2, 3], seed, |x| x.overlap_add(dim, 3 + step, step));
        }
    }

    #[test]
    #[should_panic(expected = "overlap_add: 3 windows of 2, 2 apart, do not fit into 5")]
    fn windows_that_do_not_fit() {
        Var::from(Tensor::zeros_with(&[3, 2], DType::F32)).overlap_add(0, 5, 2);
    }
}
