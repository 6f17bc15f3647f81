//! Element types, chosen at run time, and PyTorch's rules for mixing them.

use crate::kernels::channels::{self, LANES};
use crate::kernels::{math, vector_math};
use half::{bf16, f16};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The type of a tensor's elements.
///
/// Arithmetic is in `F32` and `F64`; the other types can be stored, cast, compared and used as indices, and integers
/// can be added and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// `torch.bool`
    Bool,
    /// `torch.uint8`
    U8,
    /// `torch.int64`
    I64,
    /// `torch.float16`
    F16,
    /// `torch.bfloat16`
    BF16,
    /// `torch.float32`, the default
    F32,
    /// `torch.float64`
    F64,
}

/// The type of tensors made without one, an index into [`FLOATS`].
static DEFAULT: AtomicUsize = AtomicUsize::new(0);
const FLOATS: [DType; 2] = [DType::F32, DType::F64];

/// Sets the type in which makers such as [`Tensor::zeros`](crate::Tensor::zeros) and [`Var::randn`](crate::Var::randn) make
/// tensors in the whole program: F32, unless set (`torch.set_default_dtype`).
///
/// # Panics
/// If the type is not F32 or F64, in which networks are computed.
#[track_caller]
pub fn set_default_dtype(dtype: DType) {
    let index = FLOATS.iter().position(|&d| d == dtype);
    let index =
        index.unwrap_or_else(|| panic!("set_default_dtype: expected float32 or float64, got {dtype}"));
    DEFAULT.store(index, Ordering::Relaxed);
}

/// The type that [`set_default_dtype`] has set (`torch.get_default_dtype`).
pub fn default_dtype() -> DType {
    FLOATS[DEFAULT.load(Ordering::Relaxed)]
}

impl DType {
    /// Bytes an element takes.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 => 1,
            DType::F16 | DType::BF16 => 2,
            DType::F32 => 4,
            DType::F64 | DType::I64 => 8,
        }
    }

    /// True for the floating-point types, the only ones with gradients.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// PyTorch's name without the prefix: `float32`, `int64`, ...
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "uint8",
            DType::I64 => "int64",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::F32 => "float32",
            DType::F64 => "float64",
        }
    }

    /// The type that can hold both, by PyTorch's table (`torch.promote_types`).
    ///
    /// ```
    /// use tapegrad_tape::DType;
    /// assert_eq!(DType::F16.promote(DType::BF16), DType::F32);
    /// assert_eq!(DType::I64.promote(DType::F32), DType::F32);
    /// ```
    pub fn promote(self, other: DType) -> DType {
        match (self.min(other), self.max(other)) {
            (DType::F16, DType::BF16) => DType::F32,
            (_, larger) => larger,
        }
    }

    /// The type of `self op scalar`: a scalar changes the type only where it is of a higher kind
    /// (bool < integer < float), as in PyTorch.
    pub fn promote_scalar(self, scalar: Scalar) -> DType {
        match scalar {
            Scalar::Float(_) if !self.is_float() => DType::F32,
            Scalar::Int(_) if self == DType::Bool => DType::I64,
            _ => self,
        }
    }

    /// The type of a result that has to be floating point, such as a square root: `F32` for integers.
    pub fn to_float(self) -> DType {
        if self.is_float() { self } else { DType::F32 }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A scalar, as in `x + 1` or `x.pow(0.5)`; its kind takes part in type promotion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// A floating-point number.
    Float(f64),
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
}

impl Scalar {
    /// The value as `f64`.
    pub fn to_f64(self) -> f64 {
        match self {
            Scalar::Float(v) => v,
            Scalar::Int(v) => v as f64,
            Scalar::Bool(v) => f64::from(u8::from(v)),
        }
    }

    /// The value as `i64`, rounded toward zero.
    pub fn to_i64(self) -> i64 {
        match self {
            Scalar::Float(v) => v as i64,
            Scalar::Int(v) => v,
            Scalar::Bool(v) => i64::from(v),
        }
    }

    /// The type of a tensor made from this value alone: `F32`, `I64` or `Bool`.
    pub fn dtype(self) -> DType {
        match self {
            Scalar::Float(_) => DType::F32,
            Scalar::Int(_) => DType::I64,
            Scalar::Bool(_) => DType::Bool,
        }
    }

    /// The value as an element of type `T`.
    pub fn to<T: Element>(self) -> T {
        match self {
            Scalar::Float(v) => T::from_f64(v),
            Scalar::Int(v) => T::from_i64(v),
            Scalar::Bool(v) => T::from_i64(i64::from(v)),
        }
    }
}

macro_rules! scalar_from {
    ($($ty:ty => $variant:ident as $to:ty),* $(,)?) => {$(
        impl From<$ty> for Scalar {
            fn from(v: $ty) -> Scalar {
                Scalar::$variant(v as $to)
            }
        }
    )*};
}
scalar_from!(f32 => Float as f64, f64 => Float as f64, i32 => Int as i64, i64 => Int as i64, usize => Int as i64, u8 => Int as i64, bool => Bool as bool);

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that a tensor can hold. The trait is sealed: memory is read as what [`DTYPE`](Self::DTYPE) says.
pub trait Element:
    Copy + Send + Sync + PartialEq + PartialOrd + Default + fmt::Debug + sealed::Sealed + 'static
{
    /// Its run-time name.
    const DTYPE: DType;
    /// Whether kernels on it are compiled for vector instructions. The 64-bit types serve for checks and counts, where
    /// one version is enough.
    #[doc(hidden)]
    const VECTORIZED: bool = !matches!(Self::DTYPE, DType::F64 | DType::I64 | DType::Bool);
    /// The nearest value to `v`.
    fn from_f64(v: f64) -> Self;
    /// The nearest value to `v`.
    fn from_i64(v: i64) -> Self;
    /// The value as `f64`.
    fn to_f64(self) -> f64;
    /// The value as `i64`, rounded toward zero.
    fn to_i64(self) -> i64;
}

macro_rules! element {
    ($($ty:ty, $dtype:ident, |$f:ident| $from_f64:expr, |$i:ident| $from_i64:expr, |$x:ident| $to_f64:expr, |$y:ident| $to_i64:expr;)*) => {$(
        impl sealed::Sealed for $ty {}

        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn from_f64($f: f64) -> Self { $from_f64 }
            #[inline(always)]
            fn from_i64($i: i64) -> Self { $from_i64 }
            #[inline(always)]
            fn to_f64(self) -> f64 { let $x = self; $to_f64 }
            #[inline(always)]
            fn to_i64(self) -> i64 { let $y = self; $to_i64 }
        }
    )*};
}
element! {
    f32, F32, |v| v as f32, |v| v as f32, |x| x as f64, |x| x as i64;
    f64, F64, |v| v, |v| v as f64, |x| x, |x| x as i64;
    f16, F16, |v| f16::from_f64(v), |v| f16::from_f64(v as f64), |x| x.to_f64(), |x| x.to_f64() as i64;
    bf16, BF16, |v| bf16::from_f64(v), |v| bf16::from_f64(v as f64), |x| x.to_f64(), |x| x.to_f64() as i64;
    i64, I64, |v| v as i64, |v| v, |x| x as f64, |x| x;
    u8, U8, |v| v as i64 as u8, |v| v as u8, |x| x as f64, |x| x as i64;
    bool, Bool, |v| v != 0.0, |v| v != 0, |x| u8::from(x) as f64, |x| i64::from(x);
}

/// A type that can be added, multiplied and compared: the integers and the floats with arithmetic.
pub trait Number:
    Element
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::AddAssign
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// True where the value is not a number.
    fn is_nan(self) -> bool;
}

macro_rules! number {
    ($($ty:ty, $zero:literal, $one:literal, |$x:ident| $nan:expr;)*) => {$(
        impl Number for $ty {
            const ZERO: Self = $zero;
            const ONE: Self = $one;
            #[inline(always)]
            fn is_nan(self) -> bool { let $x = self; $nan }
        }
    )*};
}
number! {
    f32, 0.0, 1.0, |x| x.is_nan();
    f64, 0.0, 1.0, |x| x.is_nan();
    i64, 0, 1, |_x| false;
}

/// The floating-point types with arithmetic, and the functions that kernels need.
pub trait Float:
    Number + std::ops::Neg<Output = Self> + std::ops::Div<Output = Self> + std::iter::Sum
{
    /// Machine epsilon.
    const EPSILON: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Not a number.
    const NAN: Self;
    /// The smallest normal number.
    const MIN_POSITIVE: Self;
    /// `self * a + b` in one rounding where the hardware can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The larger of two values; a NaN in either is the result.
    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        if self > other || self.is_nan() { self } else { other }
    }
    /// The smaller of two values; a NaN in either is the result.
    #[inline(always)]
    fn minimum(self, other: Self) -> Self {
        if self < other || self.is_nan() { self } else { other }
    }
    /// Flushes subnormal numbers to zero.
    #[inline(always)]
    fn flushed(self) -> Self {
        if self.abs() < Self::MIN_POSITIVE { Self::ZERO } else { self }
    }
    /// The error function.
    fn erf(self) -> Self;
    /// 1 - erf, accurate where erf is near 1.
    fn erfc(self) -> Self;
    /// Rounds to the nearest integer, halves to even.
    fn round_even(self) -> Self;
    /// The sum of each list of lanes.
    #[doc(hidden)]
    fn sum_lanes(lists: &[[Self; LANES]], out: &mut [f64]);
    /// Sets `out` to `e^(x - less)`, and returns the sum of these.
    #[doc(hidden)]
    fn exponentials(out: &mut [Self], x: &[Self], less: Self) -> Self {
        for (o, &x) in out.iter_mut().zip(x) {
            *o = (x - less).exp();
        }
        out.iter().copied().sum()
    }
    /// A constant in this type.
    #[inline(always)]
    fn c(v: f64) -> Self {
        Self::from_f64(v)
    }
    /// `e^x`
    fn exp(self) -> Self;
    /// `e^x - 1`
    fn exp_m1(self) -> Self;
    /// `2^x`
    fn exp2(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// `ln(1 + x)`
    fn ln_1p(self) -> Self;
    /// Base-2 logarithm.
    fn log2(self) -> Self;
    /// Base-10 logarithm.
    fn log10(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// `self^e`
    fn powf(self, e: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The largest integer not above the value.
    fn floor(self) -> Self;
    /// The smallest integer not below the value.
    fn ceil(self) -> Self;
    /// Integer part.
    fn trunc(self) -> Self;
    /// Sine.
    fn sin(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// Tangent.
    fn tan(self) -> Self;
    /// Arc sine.
    fn asin(self) -> Self;
    /// Arc cosine.
    fn acos(self) -> Self;
    /// Arc tangent.
    fn atan(self) -> Self;
    /// Hyperbolic sine.
    fn sinh(self) -> Self;
    /// Hyperbolic cosine.
    fn cosh(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Inverse hyperbolic sine.
    fn asinh(self) -> Self;
    /// Inverse hyperbolic cosine.
    fn acosh(self) -> Self;
    /// Inverse hyperbolic tangent.
    fn atanh(self) -> Self;
    /// The angle of the point `(other, self)`.
    fn atan2(self, other: Self) -> Self;
    /// `sqrt(self^2 + other^2)` without overflow.
    fn hypot(self, other: Self) -> Self;
    /// True for neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// True for plus or minus infinity.
    fn is_infinite(self) -> bool;
}

macro_rules! float {
    ($($ty:ident, sum_lanes = $sum_lanes:path $(, exponentials = $exponentials:path)? { $($name:ident = $path:path),* $(,)? })*) => {$(
        impl Float for $ty {
            const EPSILON: Self = $ty::EPSILON;
            const INFINITY: Self = $ty::INFINITY;
            const NAN: Self = $ty::NAN;
            const MIN_POSITIVE: Self = $ty::MIN_POSITIVE;
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self { self * a + b }
            #[inline(always)]
            fn round_even(self) -> Self { self.round_ties_even() }
            #[inline(always)]
            fn atan2(self, other: Self) -> Self { $ty::atan2(self, other) }
            #[inline(always)]
            fn hypot(self, other: Self) -> Self { $ty::hypot(self, other) }
            fn sum_lanes(lists: &[[Self; LANES]], out: &mut [f64]) { $sum_lanes(lists, out) }
            $(#[inline(always)]
            fn exponentials(out: &mut [Self], x: &[Self], less: Self) -> Self { $exponentials(out, x, less) })?
            #[inline(always)]
            fn powf(self, e: Self) -> Self { $ty::powf(self, e) }
            #[inline(always)]
            fn is_finite(self) -> bool { $ty::is_finite(self) }
            #[inline(always)]
            fn is_infinite(self) -> bool { $ty::is_infinite(self) }
            $(#[inline(always)]
            fn $name(self) -> Self { $path(self) })*
            float!(@unary $ty sqrt abs floor ceil trunc sin cos tan asin acos atan sinh cosh);
        }
    )*};
    (@unary $ty:ident $($name:ident)*) => {$(
        #[inline(always)]
        fn $name(self) -> Self { $ty::$name(self) }
    )*};
}
float! {
    f32, sum_lanes = channels::sum_f32_lanes, exponentials = vector_math::exponentials {
        exp = math::exp, exp_m1 = math::exp_m1, exp2 = math::exp2, ln = math::ln, ln_1p = math::ln_1p,
        log2 = math::log2, log10 = math::log10, tanh = math::tanh, erf = math::erf, erfc = libm::erfcf,
        asinh = libm::asinhf, acosh = libm::acoshf, atanh = libm::atanhf,
    }
    f64, sum_lanes = channels::sum_f64_lanes {
        exp = f64::exp, exp_m1 = f64::exp_m1, exp2 = f64::exp2, ln = f64::ln, ln_1p = f64::ln_1p,
        log2 = f64::log2, log10 = f64::log10, tanh = f64::tanh, erf = libm::erf, erfc = libm::erfc,
        asinh = libm::asinh, acosh = libm::acosh, atanh = libm::atanh,
    }
}

/// Runs a block with a type parameter bound to the Rust type of a [`DType`].
///
/// `dispatch!(float: dtype, "op", T => expr)` covers F32 and F64, `number:` adds I64, `all:` covers every
/// type. A type outside the group panics with the operation's name.
#[macro_export]
macro_rules! dispatch {
    (@go $dtype:expr, $op:expr, $T:ident, $body:expr, $group:literal, $($variant:ident => $ty:ty),*) => {
        match $dtype {
            $($crate::DType::$variant => { type $T = $ty; $body })*
            #[allow(unreachable_patterns)]
            other => panic!("{}: not defined for {}; it takes {}", $op, other, $group),
        }
    };
    (float: $dtype:expr, $op:expr, $T:ident => $body:expr) => {
        $crate::dispatch!(@go $dtype, $op, $T, $body, "float32 or float64", F32 => f32, F64 => f64)
    };
    (number: $dtype:expr, $op:expr, $T:ident => $body:expr) => {
        $crate::dispatch!(@go $dtype, $op, $T, $body, "float32, float64 or int64", F32 => f32, F64 => f64, I64 => i64)
    };
    (all: $dtype:expr, $op:expr, $T:ident => $body:expr) => {
        $crate::dispatch!(@go $dtype, $op, $T, $body, "any type", F32 => f32, F64 => f64, I64 => i64, U8 => u8,
            Bool => bool, F16 => $crate::f16, BF16 => $crate::bf16)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_is_pytorchs() {
        assert_eq!(DType::Bool.promote(DType::U8), DType::U8);
        assert_eq!(DType::U8.promote(DType::I64), DType::I64);
        assert_eq!(DType::I64.promote(DType::F16), DType::F16);
        assert_eq!(DType::F32.promote(DType::F64), DType::F64);
        assert_eq!(DType::BF16.promote(DType::F16), DType::F32);
        assert_eq!(DType::F32.promote_scalar(Scalar::Float(1.0)), DType::F32);
        assert_eq!(DType::I64.promote_scalar(Scalar::Float(1.0)), DType::F32);
        assert_eq!(DType::Bool.promote_scalar(Scalar::Int(1)), DType::I64);
        assert_eq!(DType::U8.promote_scalar(Scalar::Int(300)), DType::U8);
    }

    #[test]
    fn maximum_and_minimum_pass_nan_on() {
        assert!(f32::NAN.maximum_test(1.0) && 1f32.maximum_test(f32::NAN));
    }

    trait Nan {
        fn maximum_test(self, other: Self) -> bool;
    }
    impl Nan for f32 {
        fn maximum_test(self, other: Self) -> bool {
            Float::maximum(self, other).is_nan() && Float::minimum(self, other).is_nan()
        }
    }
}
