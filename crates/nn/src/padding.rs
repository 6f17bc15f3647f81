//! Padding of the spatial dimensions.

use crate::fields::Field;
use crate::module::Forward;
use crate::summary::observe;
use tapegrad_tape::{Int, PadMode, Var};

/// How much is added before and after each dimension, the last dimension first: one number applies to all sides. Made by
/// `into()` from an integer of any type, an array or a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides<const N: usize>(pub [isize; N]);

impl<const N: usize> Field for Sides<N> {}

impl<T: Int, const N: usize> From<[T; N]> for Sides<N> {
    fn from(n: [T; N]) -> Self {
        Sides(n.map(Int::to_isize))
    }
}

macro_rules! from_integers {
    ($($t:ty),*) => {$(
        impl<const N: usize> From<$t> for Sides<N> {
            fn from(n: $t) -> Self {
                Sides([n.to_isize(); N])
            }
        }
    )*};
}
from_integers!(i32, i64, isize, u32, usize);

macro_rules! from_tuples {
    ($($sides:literal: $($t:ident $i:tt),*;)*) => {$(
        impl<$($t: Int),*> From<($($t,)*)> for Sides<$sides> {
            fn from(n: ($($t,)*)) -> Self {
                Sides([$(n.$i.to_isize()),*])
            }
        }
    )*};
}
from_tuples! {
    2: A 0, B 1;
    4: A 0, B 1, C 2, D 3;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
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
