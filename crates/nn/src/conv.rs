//! Convolutions.

use crate::fields::Field;
use crate::init::{Draws, default_bound};
use crate::module::Module;
use crate::summary::observe;
use tapegrad_ops::{ConvOptions, ConvTransposeOptions, Padding, Size};
use tapegrad_tape::Var;

impl<const D: usize> Field for ConvOptions<D> {}
impl<const D: usize> Field for ConvTransposeOptions<D> {}

macro_rules! options {
    ($options:ident, $d:literal; $($(#[$meta:meta])* $name:ident: $ty:ty;)*) => {$(
        $(#[$meta])*
        pub fn $name(mut self, $name: impl Into<$ty>) -> Self {
            self.options = self.options.$name($name);
            self
        }
    )*};
}

/// PyTorch's default bound for a weight of this shape.
fn bound_of(shape: &[usize]) -> f64 {
    default_bound(shape[1..].iter().product())
}

/// A layer's weight and bias, and what both kinds of convolutions do with them.
macro_rules! layer {
    ($name:ident, $d:literal, $options:ident, $function:ident, [$first:ident, $second:ident], $example:literal) => {
        crate::module! {
            #[doc = concat!("A ", $d, "-dimensional convolution with its weight and bias (`torch.nn.", stringify!($name), "`).")]
            ///
            #[doc = concat!("Options are set by methods: `", $example, "`.")]
            pub struct $name {
                #[doc = concat!("`[", stringify!($first), "_channels, ", stringify!($second), "_channels / groups, ...]`")]
                pub weight: Var,
                /// `[out_channels]`
                pub bias: Option<Var>,
                out_channels: usize,
                options: $options<$d>,
                drawn: Draws,
            }
        }

        impl $name {
            /// A layer with stride 1, no padding, and a bias. All values are drawn uniformly within
            /// `1 / sqrt(fan_in)`.
            pub fn new(in_channels: usize, out_channels: usize, kernel_size: impl Into<Size<$d>>) -> $name {
                let mut shape = vec![channels!($first, in_channels, out_channels), channels!($second, in_channels, out_channels)];
                shape.extend(kernel_size.into().0);
                let mut drawn = Draws::here();
                let (weight, bias) = drawn.layer(&shape, Some(out_channels), bound_of(&shape));
                $name { weight, bias, out_channels, options: $options::default(), drawn }
            }

            /// This layer with or without a bias, as if it had been made so: the next layer draws the numbers that
            /// follow.
            pub fn bias(mut self, bias: bool) -> Self {
                if bias != self.bias.is_some() {
                    self.bias = self.drawn.bias(bias.then_some(self.out_channels), bound_of(self.weight.shape()));
                }
                self
            }

            /// This layer with its channels in independent groups; weight and bias are drawn again, as if it
            /// had been made so.
            ///
            /// # Panics
            /// If a number of channels is not divisible by `groups`.
            #[track_caller]
            pub fn groups(mut self, groups: usize) -> Self {
                let mut shape = self.weight.shape().to_vec();
                let whole = shape[1] * self.options.groups;
                assert!(
                    groups > 0 && whole.is_multiple_of(groups) && self.out_channels.is_multiple_of(groups)
                        && shape[0].is_multiple_of(groups),
                    "{}: the channels of weight {:?} cannot be divided into {groups} groups", stringify!($name), shape
                );
                shape[1] = whole / groups;
                self.options = self.options.groups(groups);
                let bias = self.bias.is_some().then_some(self.out_channels);
                (self.weight, self.bias) = self.drawn.layer(&shape, bias, bound_of(&shape));
                self
            }
        }

        impl Module for $name {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                observe(self, x, || tapegrad_ops::$function(x, &self.weight, self.bias.as_ref(), self.options.clone()))
            }
        }
    };
}

macro_rules! channels {
    (in, $in:expr, $out:expr) => {
        $in
    };
    (out, $in:expr, $out:expr) => {
        $out
    };
}

macro_rules! conv {
    ($($name:ident, $transposed:ident, $d:literal, $function:ident, $transposed_function:ident, $example:literal, $transposed_example:literal;)*) => {$(
        layer!($name, $d, ConvOptions, $function, [out, in], $example);
        impl $name {
            options! {
                ConvOptions, $d;
                /// This layer with a stride.
                stride: Size<$d>;
                /// This layer with zero padding of its input: sizes, or [`Padding::Same`].
                padding: Padding<$d>;
                /// This layer with a dilation.
                dilation: Size<$d>;
            }
        }

        layer!($transposed, $d, ConvTransposeOptions, $transposed_function, [in, out], $transposed_example);
        impl $transposed {
            options! {
                ConvTransposeOptions, $d;
                /// This layer with a stride.
                stride: Size<$d>;
                /// This layer with this much trimmed from its output.
                padding: Size<$d>;
                /// This layer with this much added at the far end of its output.
                output_padding: Size<$d>;
                /// This layer with a dilation.
                dilation: Size<$d>;
            }
        }
    )*};
}

conv! {
    Conv1d, ConvTranspose1d, 1, conv1d_with, conv_transpose1d_with,
        "Conv1d::new(3, 8, 5).padding(2)", "ConvTranspose1d::new(8, 3, 4).stride(2)";
    Conv2d, ConvTranspose2d, 2, conv2d_with, conv_transpose2d_with,
        "Conv2d::new(3, 64, 3).padding(1).bias(false)", "ConvTranspose2d::new(64, 3, 4).stride(2).padding(1)";
    Conv3d, ConvTranspose3d, 3, conv3d_with, conv_transpose3d_with,
        "Conv3d::new(1, 8, 3).stride(2)", "ConvTranspose3d::new(8, 1, 2).stride(2)";
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::{DType, Tensor};

    #[test]
    fn options_reach_the_operation() {
        let x = Var::from(Tensor::zeros_with(&[2, 4, 9, 9], DType::F32));
        let conv = Conv2d::new(4, 6, 3).stride(2).padding(1).groups(2).bias(false);
        assert_eq!(conv.weight.shape(), [6, 2, 3, 3]);
        assert!(conv.bias.is_none());
        assert_eq!(conv.forward(&x).shape(), [2, 6, 5, 5]);
        assert_eq!(Conv2d::new(4, 6, (3, 5)).padding(Padding::Same).forward(&x).shape(), [2, 6, 9, 9]);
        let up = ConvTranspose2d::new(4, 6, 2).stride(2).groups(2);
        assert_eq!(up.weight.shape(), [4, 3, 2, 2]);
        assert_eq!(up.forward(&x).shape(), [2, 6, 18, 18]);
    }

    #[test]
    #[should_panic(expected = "cannot be divided into 3 groups")]
    fn groups_that_do_not_fit() {
        let _ = Conv2d::new(4, 6, 3).groups(3);
    }
}
