//! Comparisons and logic: results are booleans, without gradient.

use crate::dtype::{DType, Float, Number};
use crate::kernels::strided::{GRAIN, map_rows, zip_rows};
use crate::promote::{Operand, broadcast_operands, result_type};
use crate::var::Var;

/// A comparison as loops over dense slices.
struct Comparison {
    name: &'static str,
    f32: fn(&mut [bool], &[f32], &[f32]),
    f64: fn(&mut [bool], &[f64], &[f64]),
    i64: fn(&mut [bool], &[i64], &[i64]),
}

impl Comparison {
    #[track_caller]
    fn apply(&self, a: &Operand, b: &Operand) -> Var {
        let dtype = match result_type(&[a, b]) {
            DType::F16 | DType::BF16 => DType::F32,
            DType::Bool | DType::U8 => DType::I64,
            other => other,
        };
        let shape = broadcast_operands(self.name, &[a, b]);
        let (a, b) = (a.tensor(dtype), b.tensor(dtype));
        Var::from(match dtype {
            DType::F32 => zip_rows(&shape, &a, &b, GRAIN, &self.f32),
            DType::F64 => zip_rows(&shape, &a, &b, GRAIN, &self.f64),
            _ => zip_rows(&shape, &a, &b, GRAIN, &self.i64),
        })
    }
}

macro_rules! comparisons {
    ($($(#[$meta:meta])* $name:ident $symbol:tt;)*) => {
        impl Var {$(
            $(#[$meta])*
            ///
            /// Operands broadcast and are promoted to one type; the result has no gradient.
            ///
            /// # Panics
            /// If the shapes do not broadcast.
            #[track_caller]
            pub fn $name(&self, other: impl Into<Operand>) -> Var {
                fn row<T: PartialOrd>(out: &mut [bool], a: &[T], b: &[T]) {
                    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                        *o = a $symbol b;
                    }
                }
                const OP: Comparison =
                    Comparison { name: stringify!($name), f32: row::<f32>, f64: row::<f64>, i64: row::<i64> };
                OP.apply(&self.into(), &other.into())
            }
        )*}
    };
}

comparisons! {
    /// True where the elements are equal (`torch.eq`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![1, 2i64], &[2]).eq(2).to_vec::<bool>(), [false, true]);
    /// ```
    eq ==;

    /// True where the elements differ (`torch.ne`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![1, 2i64], &[2]).ne(2).to_vec::<bool>(), [true, false]);
    /// ```
    ne !=;

    /// True where the element is less than the other (`torch.lt`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![1, 2i64], &[2]).lt(2).to_vec::<bool>(), [true, false]);
    /// ```
    lt <;

    /// True where the element is at most the other (`torch.le`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![1, 2i64], &[2]).le(1.5).to_vec::<bool>(), [true, false]);
    /// ```
    le <=;

    /// True where the element is greater than the other (`torch.gt`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![1, 2i64], &[2]).gt(1).to_vec::<bool>(), [false, true]);
    /// ```
    gt >;

    /// True where the element is at least the other (`torch.ge`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![1, 2i64], &[2]).ge(2).to_vec::<bool>(), [false, true]);
    /// ```
    ge >=;
}

macro_rules! logic {
    ($($(#[$meta:meta])* $name:ident(|$a:ident, $b:ident| $f:expr);)*) => {
        impl Var {$(
            $(#[$meta])*
            ///
            /// Nonzero elements are true. The operands broadcast; the result has no gradient.
            ///
            /// # Panics
            /// If the shapes do not broadcast.
            #[track_caller]
            pub fn $name(&self, other: &Var) -> Var {
                let operands = [Operand::from(self), Operand::from(other)];
                let shape = broadcast_operands(stringify!($name), &[&operands[0], &operands[1]]);
                let (a, b) = (operands[0].tensor(DType::Bool), operands[1].tensor(DType::Bool));
                Var::from(zip_rows::<bool, bool, bool>(&shape, &a, &b, GRAIN, &|out, a, b| {
                    for ((o, &$a), &$b) in out.iter_mut().zip(a).zip(b) {
                        *o = $f;
                    }
                }))
            }
        )*}
    };
}

logic! {
    /// True where both elements are nonzero (`torch.logical_and`).
    ///
    /// ```
    /// let (a, b) = (tapegrad_tape::Var::from(2.0), tapegrad_tape::Var::from(0));
    /// assert_eq!(a.logical_and(&b).to_vec::<bool>(), [false]);
    /// ```
    logical_and(|a, b| a & b);

    /// True where either element is nonzero (`torch.logical_or`).
    ///
    /// ```
    /// let (a, b) = (tapegrad_tape::Var::from(2.0), tapegrad_tape::Var::from(0));
    /// assert_eq!(a.logical_or(&b).to_vec::<bool>(), [true]);
    /// ```
    logical_or(|a, b| a | b);

    /// True where exactly one of the elements is nonzero (`torch.logical_xor`).
    ///
    /// ```
    /// let (a, b) = (tapegrad_tape::Var::from(2.0), tapegrad_tape::Var::from(3));
    /// assert_eq!(a.logical_xor(&b).to_vec::<bool>(), [false]);
    /// ```
    logical_xor(|a, b| a ^ b);
}

impl Var {
    /// True where an element is zero (`torch.logical_not`); without gradient.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![0f32, 2.0], &[2]).logical_not().to_vec::<bool>(), [true, false]);
    /// ```
    pub fn logical_not(&self) -> Var {
        let flags = self.tensor().cast(DType::Bool);
        Var::from(map_rows::<bool, bool>(&flags, GRAIN, &|out, a| {
            out.iter_mut().zip(a).for_each(|(o, &a)| *o = !a);
        }))
    }
}

#[inline(always)]
fn is_close<T: Float>(a: T, b: T, rtol: f64, atol: f64) -> bool {
    let off = (a - b).abs();
    off.is_finite() && off <= T::c(atol) + (T::c(rtol) * b).abs()
}

#[inline(always)]
fn step<T: Number>(x: T, at_zero: T) -> T {
    if x == T::ZERO {
        at_zero
    } else if x > T::ZERO {
        T::ONE
    } else {
        T::ZERO
    }
}

impl Var {
    /// True where `|a - b| <= atol + rtol * |b|`, and where both are equal (`torch.isclose`); where both are NaN if
    /// `equal_nan` asks for it. PyTorch's defaults are 1e-5 and 1e-8. Without gradient.
    ///
    /// # Panics
    /// If the shapes do not broadcast, the types differ, or a tolerance is negative.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let (a, b) = (Var::from(1.0), Var::from(1.000001));
    /// assert_eq!(a.isclose(&b).to_vec::<bool>(), [true]);
    /// ```
    #[track_caller]
    pub fn isclose(&self, other: &Var) -> Var {
        self.isclose_with(other, 1e-5, 1e-8, false)
    }

    /// [`Var::isclose`] with other tolerances, or equal NaN.
    ///
    /// # Panics
    /// Same as [`Var::isclose`].
    #[track_caller]
    pub fn isclose_with(&self, other: &Var, rtol: f64, atol: f64, equal_nan: bool) -> Var {
        assert_eq!(
            self.dtype(),
            other.dtype(),
            "isclose: expected operands of one type, not {} and {}",
            self.dtype(),
            other.dtype()
        );
        assert!(
            rtol >= 0.0 && atol >= 0.0,
            "isclose: rtol ({rtol}) and atol ({atol}) must be greater than or equal to zero"
        );
        let equal = self.eq(other);
        let (a, b) = (self.detach().to_float(), other.detach().to_float());
        let dtype = if a.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let (a, b) = (Operand::from(a), Operand::from(b));
        let close = binary_value!(float, dtype, "isclose", &a, &b, |x: T, y| -> bool {
            is_close(x, y, rtol, atol) || (equal_nan && x.is_nan() && y.is_nan())
        });
        equal.logical_or(&Var::from(close))
    }

    /// 0 where an element is negative, 1 where it is positive, and that of `values` where it is zero
    /// (`torch.heaviside`); 0 for NaN. Without gradient.
    ///
    /// # Panics
    /// If the shapes do not broadcast, or the types differ.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![-2f32, 0.0, 3.0], &[3]);
    /// assert_eq!(x.heaviside(&Var::from(0.5)).to_vec::<f32>(), [0.0, 0.5, 1.0]);
    /// ```
    #[track_caller]
    pub fn heaviside(&self, values: &Var) -> Var {
        assert_eq!(
            self.dtype(),
            values.dtype(),
            "heaviside: expected input and values of one type, not {} and {}",
            self.dtype(),
            values.dtype()
        );
        let dtype = match self.dtype() {
            DType::F16 | DType::BF16 => DType::F32,
            DType::Bool | DType::U8 => DType::I64,
            other => other,
        };
        let (a, b) = (Operand::from(self), Operand::from(values));
        let value = binary_value!(number, dtype, "heaviside", &a, &b, |x: T, y| -> T { step(x, y) });
        Var::from(value.cast(self.dtype()))
    }
}

#[cfg(test)]
mod tests {
    use crate::Var;

    #[test]
    fn promotion_and_nan() {
        let x = Var::from_vec(vec![1f32, f32::NAN], &[2]);
        assert_eq!(x.eq(&x).to_vec::<bool>(), [true, false]);
        assert_eq!(x.ne(&x).to_vec::<bool>(), [false, true]);
        let i = Var::from_vec(vec![1i64 << 60, (1 << 60) + 1], &[2]);
        assert_eq!(i.eq(1i64 << 60).to_vec::<bool>(), [true, false]);
        assert_eq!(Var::from(true).lt(2).to_vec::<bool>(), [true]);
        assert_eq!(Var::from(3).lt(3.5).to_vec::<bool>(), [true]);
    }
}
