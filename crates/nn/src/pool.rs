//! Pooling.

use crate::fields::Field;
use crate::module::Forward;
use crate::summary::observe;
use tapegrad_ops::{AvgPoolOptions, LpPoolOptions, MaxPoolOptions, MaxUnpoolOptions, OutputSize, Size};
use tapegrad_tape::{Int, Var};

impl<const D: usize> Field for MaxPoolOptions<D> {}
impl<const D: usize> Field for AvgPoolOptions<D> {}

impl<const D: usize> Field for OutputSize<D> {}

macro_rules! pools {
    ($($max:ident $max_fn:ident $max_indices:ident, $avg:ident $avg_fn:ident,
       $adaptive_avg:ident $adaptive_avg_fn:ident,
       $adaptive_max:ident $adaptive_max_fn:ident $adaptive_max_indices:ident, $d:literal;)*) => {$(
        crate::module! {
            #[doc = concat!("The largest element of each window (`torch.nn.", stringify!($max), "`).")]
            pub struct $max {
                options: MaxPoolOptions<$d>,
            }
        }

        impl $max {
            /// Windows of this size, with a stride of the same size.
            pub fn new(kernel_size: impl Into<Size<$d>>) -> $max {
                $max { options: MaxPoolOptions::new(kernel_size) }
            }
            /// This module with another stride.
            pub fn stride(mut self, stride: impl Into<Size<$d>>) -> $max {
                self.options = self.options.stride(stride);
                self
            }
            /// This module with implicit padding of minus infinity.
            pub fn padding(mut self, padding: impl Into<Size<$d>>) -> $max {
                self.options = self.options.padding(padding);
                self
            }
            /// This module with a dilation.
            pub fn dilation(mut self, dilation: impl Into<Size<$d>>) -> $max {
                self.options = self.options.dilation(dilation);
                self
            }
            /// This module with windows that may extend past the end (`ceil_mode`).
            pub fn ceil_mode(mut self, ceil_mode: bool) -> $max {
                self.options = self.options.ceil_mode(ceil_mode);
                self
            }
            /// The output, and the index of each maximum in the flattened spatial dimensions.
            #[track_caller]
            pub fn forward_with_indices(&self, x: &Var) -> (Var, Var) {
                tapegrad_ops::$max_indices(x, self.options.clone())
            }
        }

        impl Forward for $max {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                observe(self, x, |x| tapegrad_ops::$max_fn(x, self.options.clone()))
            }
        }

        crate::module! {
            #[doc = concat!("The mean of each window (`torch.nn.", stringify!($avg), "`).")]
            pub struct $avg {
                options: AvgPoolOptions<$d>,
            }
        }

        impl $avg {
            /// Windows of this size, with a stride of the same size.
            pub fn new(kernel_size: impl Into<Size<$d>>) -> $avg {
                $avg { options: AvgPoolOptions::new(kernel_size) }
            }
            /// This module with another stride.
            pub fn stride(mut self, stride: impl Into<Size<$d>>) -> $avg {
                self.options = self.options.stride(stride);
                self
            }
            /// This module with zero padding.
            pub fn padding(mut self, padding: impl Into<Size<$d>>) -> $avg {
                self.options = self.options.padding(padding);
                self
            }
            /// This module with windows that may extend past the end (`ceil_mode`).
            pub fn ceil_mode(mut self, ceil_mode: bool) -> $avg {
                self.options = self.options.ceil_mode(ceil_mode);
                self
            }
            /// This module with or without the padding included in the mean.
            pub fn count_include_pad(mut self, count_include_pad: bool) -> $avg {
                self.options = self.options.count_include_pad(count_include_pad);
                self
            }
            /// This module with another divisor than the window's size.
            pub fn divisor_override(mut self, divisor: impl Int) -> $avg {
                self.options = self.options.divisor_override(divisor);
                self
            }
        }

        impl Forward for $avg {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                observe(self, x, |x| tapegrad_ops::$avg_fn(x, self.options.clone()))
            }
        }

        crate::module! {
            #[doc = concat!("Means over as many windows as the output has elements (`torch.nn.", stringify!($adaptive_avg), "`).")]
            pub struct $adaptive_avg {
                output_size: OutputSize<$d>,
            }
        }

        impl $adaptive_avg {
            /// A module with this size of the output.
            pub fn new(output_size: impl Into<OutputSize<$d>>) -> $adaptive_avg {
                $adaptive_avg { output_size: output_size.into() }
            }
        }

        impl Forward for $adaptive_avg {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                observe(self, x, |x| tapegrad_ops::$adaptive_avg_fn(x, self.output_size.0))
            }
        }

        crate::module! {
            #[doc = concat!("The largest elements of as many windows as the output has elements (`torch.nn.", stringify!($adaptive_max), "`).")]
            pub struct $adaptive_max {
                output_size: OutputSize<$d>,
            }
        }

        impl $adaptive_max {
            /// A module with this size of the output.
            pub fn new(output_size: impl Into<OutputSize<$d>>) -> $adaptive_max {
                $adaptive_max { output_size: output_size.into() }
            }
            /// The output, and the index of each maximum in the flattened spatial dimensions.
            #[track_caller]
            pub fn forward_with_indices(&self, x: &Var) -> (Var, Var) {
                tapegrad_ops::$adaptive_max_indices(x, self.output_size.0)
            }
        }

        impl Forward for $adaptive_max {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                observe(self, x, |x| tapegrad_ops::$adaptive_max_fn(x, self.output_size.0))
            }
        }
    )*};
}

pools! {
    MaxPool1d max_pool1d max_pool1d_with_indices, AvgPool1d avg_pool1d,
        AdaptiveAvgPool1d adaptive_avg_pool1d,
        AdaptiveMaxPool1d adaptive_max_pool1d adaptive_max_pool1d_with_indices, 1;
    MaxPool2d max_pool2d max_pool2d_with_indices, AvgPool2d avg_pool2d,
        AdaptiveAvgPool2d adaptive_avg_pool2d,
        AdaptiveMaxPool2d adaptive_max_pool2d adaptive_max_pool2d_with_indices, 2;
    MaxPool3d max_pool3d max_pool3d_with_indices, AvgPool3d avg_pool3d,
        AdaptiveAvgPool3d adaptive_avg_pool3d,
        AdaptiveMaxPool3d adaptive_max_pool3d adaptive_max_pool3d_with_indices, 3;
}

impl<const D: usize> Field for LpPoolOptions<D> {}
impl<const D: usize> Field for MaxUnpoolOptions<D> {}

macro_rules! other_pools {
    ($($lp:ident $lp_fn:ident, $unpool:ident $unpool_fn:ident, $d:literal;)*) => {$(
        crate::module! {
            #[doc = concat!("The root of the sum of powers of each window (`torch.nn.", stringify!($lp), "`).")]
            pub struct $lp {
                options: LpPoolOptions<$d>,
            }
        }

        impl $lp {
            /// Windows of this size, with a stride of the same size.
            pub fn new(norm_type: f64, kernel_size: impl Into<Size<$d>>) -> $lp {
                $lp { options: LpPoolOptions::new(norm_type, kernel_size) }
            }
            /// This module with another stride.
            pub fn stride(mut self, stride: impl Into<Size<$d>>) -> $lp {
                self.options = self.options.stride(stride);
                self
            }
            /// This module with windows that may extend past the end (`ceil_mode`).
            pub fn ceil_mode(mut self, ceil_mode: bool) -> $lp {
                self.options = self.options.ceil_mode(ceil_mode);
                self
            }
        }

        impl Forward for $lp {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                observe(self, x, |x| tapegrad_ops::$lp_fn(x, self.options))
            }
        }

        crate::module! {
            #[doc = concat!("Elements where they were before a max pooling, and zeros elsewhere (`torch.nn.", stringify!($unpool), "`).")]
            pub struct $unpool {
                options: MaxUnpoolOptions<$d>,
            }
        }

        impl $unpool {
            /// For windows of this size, with a stride of the same size.
            pub fn new(kernel_size: impl Into<Size<$d>>) -> $unpool {
                $unpool { options: MaxUnpoolOptions::new(kernel_size) }
            }
            /// This module with another stride.
            pub fn stride(mut self, stride: impl Into<Size<$d>>) -> $unpool {
                self.options = self.options.stride(stride);
                self
            }
            /// This module for windows that were padded.
            pub fn padding(mut self, padding: impl Into<Size<$d>>) -> $unpool {
                self.options = self.options.padding(padding);
                self
            }
            /// The output for the indices of a pooling, with a size where the smallest is not the right one.
            ///
            /// # Panics
            /// If shapes, indices and options do not fit.
            #[track_caller]
            pub fn forward(&self, x: &Var, indices: &Var, output_size: Option<[usize; $d]>) -> Var {
                tapegrad_ops::$unpool_fn(x, indices, MaxUnpoolOptions { output_size, ..self.options })
            }
        }
    )*};
}

other_pools! {
    LPPool1d lp_pool1d, MaxUnpool1d max_unpool1d, 1;
    LPPool2d lp_pool2d, MaxUnpool2d max_unpool2d, 2;
    LPPool3d lp_pool3d, MaxUnpool3d max_unpool3d, 3;
}
