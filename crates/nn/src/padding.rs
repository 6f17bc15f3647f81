//! Padding of the spatial dimensions.

use crate::fields::Field;
use crate::module::Forward;
use crate::summary::observe;
use tapegrad_tape::{PadMode, Var};

/// How much is added before and after each dimension, the last dimension first: one number applies to all sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides<const N: usize>(pub [isize; N]);

impl<const N: usize> Field for Sides<N> {}

impl<const N: usize> From<isize> for Sides<N> {
    fn from(n: isize) -> Self {
        Sides([n; N])
    }
}

impl<const N: usize> From<[isize; N]> for Sides<N> {
    fn from(n: [isize; N]) -> Self {
        Sides(n)
    }
}

macro_rules! padding {
    ($($name:ident, $sides:literal, $what:literal, [$($value:ident)?] => $mode:expr;)*) => {$(
        crate::module! {
            #[doc = concat!("Adds ", $what, " around the last dimensions (`torch.nn.", stringify!($name), "`). Negative sizes crop.")]
            pub struct $name {
                padding: Sides<$sides>,
                $($value: f64,)?
            }
        }

        impl $name {
            /// A module that adds this much: one number for all sides, or one for each, the last dimension first.
            pub fn new(padding: impl Into<Sides<$sides>> $(, $value: f64)?) -> $name {
                $name { padding: padding.into() $(, $value)? }
            }
        }

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                $(let $value = self.$value;)?
                observe(self, x, |x| x.pad_with(&self.padding.0, $mode))
            }
        }
    )*};
}

padding! {
    ZeroPad1d, 2, "zeros", [] => PadMode::Constant(0.0);
    ZeroPad2d, 4, "zeros", [] => PadMode::Constant(0.0);
    ZeroPad3d, 6, "zeros", [] => PadMode::Constant(0.0);
    ConstantPad1d, 2, "one value", [value] => PadMode::Constant(value);
    ConstantPad2d, 4, "one value", [value] => PadMode::Constant(value);
    ConstantPad3d, 6, "one value", [value] => PadMode::Constant(value);
    ReflectionPad1d, 2, "the mirrored input", [] => PadMode::Reflect;
    ReflectionPad2d, 4, "the mirrored input", [] => PadMode::Reflect;
    ReflectionPad3d, 6, "the mirrored input", [] => PadMode::Reflect;
    ReplicationPad1d, 2, "the repeated border", [] => PadMode::Replicate;
    ReplicationPad2d, 4, "the repeated border", [] => PadMode::Replicate;
    ReplicationPad3d, 6, "the repeated border", [] => PadMode::Replicate;
    CircularPad1d, 2, "the opposite side", [] => PadMode::Circular;
    CircularPad2d, 4, "the opposite side", [] => PadMode::Circular;
    CircularPad3d, 6, "the opposite side", [] => PadMode::Circular;
}
