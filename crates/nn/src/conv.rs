//! Convolutions.

use crate::fields::Field;
use crate::init::{Draws, default_bound};
use crate::module::Forward;
use crate::summary::observe;
use tapegrad_ops::{ConvOptions, ConvTransposeOptions, Padding, Size};
use tapegrad_tape::{PadMode, Var};

/// What a convolution's padding consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingMode {
    /// Zeros, the default.
    #[default]
    Zeros,
    /// The mirrored input.
    Reflect,
    /// The repeated border.
    Replicate,
    /// The opposite side.
    Circular,
}

impl Field for PaddingMode {}

/// The input with the padding of a convolution that is not zeros, and the options of one without padding.
#[track_caller]
fn padded<const D: usize>(
    x: &Var,
    kernel: &[usize],
    options: &ConvOptions<D>,
    mode: PaddingMode,
) -> Option<(Var, ConvOptions<D>)> {
    let mode = match mode {
        PaddingMode::Zeros => return None,
        PaddingMode::Reflect => PadMode::Reflect,
        PaddingMode::Replicate => PadMode::Replicate,
        PaddingMode::Circular => PadMode::Circular,
    };
    let sides = |d: usize| match &options.padding {
        Padding::Explicit(p) => [p[d], p[d]],
        Padding::Same => {
            let total = options.dilation[d] * (kernel[d] - 1);
            [total / 2, total - total / 2]
        }
    };
    let all: Vec<isize> = (0..D).rev().flat_map(sides).map(|n| n as isize).collect();
    Some((x.pad_with(&all, mode), ConvOptions { padding: Padding::Explicit([0; D]), ..*options }))
}

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
    (
        $name:ident, $d:literal, $options:ident, $function:ident, [$first:ident, $second:ident], $example:literal,
        [$($mode:ident)?]
    ) => {
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
                $($mode: PaddingMode,)?
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
                $name { weight, bias, out_channels, options: $options::default(), drawn, $($mode: PaddingMode::Zeros,)? }
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

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                observe(self, x, |x| {
                    $(if let Some((x, options)) = padded(x, &self.weight.shape()[2..], &self.options, self.$mode) {
                        return tapegrad_ops::$function(&x, &self.weight, self.bias.as_ref(), options);
                    })?
                    tapegrad_ops::$function(x, &self.weight, self.bias.as_ref(), self.options.clone())
                })
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
        layer!($name, $d, ConvOptions, $function, [out, in], $example, [padding_mode]);
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

            /// This layer with another padding than zeros.
            pub fn padding_mode(mut self, padding_mode: PaddingMode) -> Self {
                self.padding_mode = padding_mode;
                self
            }
        }

        layer!($transposed, $d, ConvTransposeOptions, $transposed_function, [in, out], $transposed_example, []);
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
    fn padding_other_than_zeros() {
        let x = Var::from(Tensor::arange(0, 12).cast(DType::F32).reshape(&[1, 1, 3, 4]));
        for (padding_mode, mode) in [
            (PaddingMode::Reflect, PadMode::Reflect),
            (PaddingMode::Replicate, PadMode::Replicate),
            (PaddingMode::Circular, PadMode::Circular),
        ] {
            let conv = Conv2d::new(1, 2, (3, 2)).padding((2, 1)).padding_mode(padding_mode);
            let want =
                tapegrad_ops::conv2d(&x.pad_with(&[1, 1, 2, 2], mode), &conv.weight, conv.bias.as_ref());
            assert_eq!(conv.forward(&x).to_vec::<f32>(), want.to_vec::<f32>());
            let same = Conv2d::new(1, 2, (3, 2)).padding(Padding::Same).padding_mode(padding_mode);
            assert_eq!(same.forward(&x).shape(), [1, 2, 3, 4]);
        }
    }

    #[test]
    #[should_panic(expected = "cannot be divided into 3 groups")]
    fn groups_that_do_not_fit() {
        let _ = Conv2d::new(4, 6, 3).groups(3);
    }
}
