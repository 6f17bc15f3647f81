//! `lp_pool1d`, `lp_pool2d`, `lp_pool3d`.

use super::avg_pool::{AvgPoolOptions, avg_pool1d, avg_pool2d, avg_pool3d};
use super::check_window;
use super::max_pool::{MaxPoolOptions, max_pool1d, max_pool2d, max_pool3d};
use crate::Size;
use crate::options::size_setters;
use tapegrad_tape::Var;

/// The arguments of a power-average pooling, with PyTorch's defaults; the stride is the kernel's size if it is not set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LpPoolOptions<const D: usize> {
    /// The exponent.
    pub norm_type: f64,
    /// The size of the window.
    pub kernel_size: [usize; D],
    /// The step of the window.
    pub stride: [usize; D],
    /// Windows may overhang at the end.
    pub ceil_mode: bool,
}

impl<const D: usize> LpPoolOptions<D> {
    /// Adjacent windows of a size.
    pub fn new(norm_type: f64, kernel_size: impl Into<Size<D>>) -> Self {
        let kernel_size = kernel_size.into().0;
        LpPoolOptions { norm_type, kernel_size, stride: kernel_size, ceil_mode: false }
    }

    size_setters! { stride }

    /// Sets whether windows may overhang at the end.
    pub fn ceil_mode(mut self, ceil_mode: bool) -> Self {
        self.ceil_mode = ceil_mode;
        self
    }

    #[track_caller]
    fn pool(
        self,
        op: &str,
        x: &Var,
        means: impl Fn(&Var, AvgPoolOptions<D>) -> Var,
        maxima: impl Fn(&Var, MaxPoolOptions<D>) -> Var,
    ) -> Var {
        assert!(x.dtype().is_float(), "{op}: not defined for {}; it takes floating-point types", x.dtype());
        assert!(self.norm_type != 0.0, "{op}: norm_type must not be zero");
        check_window(op, x.shape(), &self.kernel_size, &self.stride, &[0; D], &[1; D]);
        if self.norm_type.is_infinite() {
            let options = MaxPoolOptions::new(self.kernel_size).stride(self.stride).ceil_mode(self.ceil_mode);
            let size = x.abs();
            return if self.norm_type > 0.0 { maxima(&size, options) } else { -maxima(&-size, options) };
        }
        let options = AvgPoolOptions {
            stride: self.stride,
            ceil_mode: self.ceil_mode,
            ..AvgPoolOptions::new(self.kernel_size)
        };
        let mean = means(&x.pow(self.norm_type), options);
        let count: f64 = self.kernel_size.iter().map(|&n| n as f64).product();
        // Of a mean of zero the gradient is multiplied by zero.
        let kept = mean.detach().ne(0.0).cast(mean.dtype());
        mean.mul(kept).mul(count).pow(1.0 / self.norm_type)
    }
}

macro_rules! lp_pool {
    ($($(#[$meta:meta])* $name:ident, $avg:ident, $max:ident, $d:literal;)*) => {$(
        $(#[$meta])*
        ///
        /// For an infinite exponent it is the largest magnitude, for minus infinity the smallest. A window of zeros has a
        /// gradient of NaN, as in PyTorch.
        ///
        /// # Panics
        /// If shape and options do not fit.
        #[track_caller]
        pub fn $name(input: &Var, options: LpPoolOptions<$d>) -> Var {
            options.pool(stringify!($name), input, |x, o| $avg(x, o), |x, o| $max(x, o))
        }
    )*};
}
lp_pool! {
    /// The `p`-th root of the sum of `p`-th powers of each window of `[N, C, L]` or `[C, L]`
    /// (`torch.nn.functional.lp_pool1d`).
    ///
    /// ```
    /// use tapegrad_ops::{LpPoolOptions, lp_pool1d};
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![3f64, 4.0], &[1, 1, 2]);
    /// assert_eq!(lp_pool1d(&x, LpPoolOptions::new(2.0, 2)).item(), 5.0);
    /// ```
    lp_pool1d, avg_pool1d, max_pool1d, 1;
    /// The same for `[N, C, H, W]` or `[C, H, W]` (`torch.nn.functional.lp_pool2d`).
    lp_pool2d, avg_pool2d, max_pool2d, 2;
    /// The same for `[N, C, D, H, W]` or `[C, D, H, W]` (`torch.nn.functional.lp_pool3d`).
    lp_pool3d, avg_pool3d, max_pool3d, 3;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        for p in [1.5, 2.0, 3.0, f64::INFINITY, f64::NEG_INFINITY] {
            let options = LpPoolOptions::<2>::new(p, 2).stride(1);
            check_gradients(|v| lp_pool2d(&(v[0].square() + 0.1), options), &[parameter(&[1, 2, 3, 3], 1)]);
        }
    }
}
