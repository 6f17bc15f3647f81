//! `+ - * /` and unary minus between variables, references to them, and scalars.
//!
//! Scalars are `f64` or `i64`, one type of each kind, so that the type of a literal is inferred.

use crate::elementwise::borrowed;
use crate::promote::Side;
use crate::var::Var;
use std::ops::{Add, Div, Mul, Neg, Sub};

macro_rules! operator {
    ($($trait:ident $method:ident;)*) => {$(
        operator!(@pair $trait $method, &Var, &Var);
        operator!(@pair $trait $method, &Var, Var);
        operator!(@pair $trait $method, Var, &Var);
        operator!(@pair $trait $method, Var, Var);
        operator!(@scalar $trait $method, f64 i64);
    )*};
    (@pair $trait:ident $method:ident, $a:ty, $b:ty) => {
        impl $trait<$b> for $a {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: $b) -> Var {
                borrowed::$method(Side::Var(&self), Side::Var(&other))
            }
        }
    };
    (@scalar $trait:ident $method:ident, $($ty:ty)*) => {$(
        impl $trait<$ty> for &Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: $ty) -> Var {
                borrowed::$method(Side::Var(self), Side::Scalar(other.into()))
            }
        }
        impl $trait<$ty> for Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: $ty) -> Var {
                borrowed::$method(Side::Var(&self), Side::Scalar(other.into()))
            }
        }
        impl $trait<&Var> for $ty {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: &Var) -> Var {
                borrowed::$method(Side::Scalar(self.into()), Side::Var(other))
            }
        }
        impl $trait<Var> for $ty {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: Var) -> Var {
                self.$method(&other)
            }
        }
    )*};
}
operator! {
    Add add;
    Sub sub;
    Mul mul;
    Div div;
}

impl Neg for &Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        Var::neg(self)
    }
}

impl Neg for Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        Var::neg(&self)
    }
}
