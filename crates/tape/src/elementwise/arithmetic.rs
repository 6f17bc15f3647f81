//! `+ - * /`.

use super::binary::{record_sides, table};
use crate::Var;
use crate::dtype::{DType, Scalar};
use crate::promote::{Operand, Side, result_type, type_of_result};

#[track_caller]
fn add(a: Side, b: Side) -> Var {
    let dtype = common_type(a, b);
    let value = if dtype == DType::Bool {
        binary_value!(all, dtype, "add", a, b, |x: T, y| -> bool { x != T::default() || y != T::default() })
    } else {
        arithmetic_value(dtype, "add", a, b, 0)
    };
    record_sides("add", a, b, value, |c, _| c.grad().clone())
}

#[track_caller]
fn sub(a: Side, b: Side) -> Var {
    difference("sub", a, b)
}

#[track_caller]
fn difference(op: &'static str, a: Side, b: Side) -> Var {
    let dtype = common_type(a, b);
    assert!(dtype != DType::Bool, "{op}: subtraction is not defined for bool; use logical_xor or cast first");
    let value = arithmetic_value(dtype, op, a, b, 1);
    record_sides(op, a, b, value, |c, i| if i == 0 { c.grad().clone() } else { -c.grad() })
}

#[track_caller]
fn mul(a: Side, b: Side) -> Var {
    let dtype = common_type(a, b);
    let value = if dtype == DType::Bool {
        binary_value!(all, dtype, "mul", a, b, |x: T, y| -> bool { x != T::default() && y != T::default() })
    } else {
        arithmetic_value(dtype, "mul", a, b, 2)
    };
    // Each operand is the other's derivative; it is saved only if that derivative is required.
    let saved = [b.requires_grad().then(|| a.saved()), a.requires_grad().then(|| b.saved())];
    record_sides("mul", a, b, value, move |c, i| {
        mul(Side::Var(c.grad()), saved[1 - i].as_ref().expect("saved for the required gradient").into())
    })
}

#[track_caller]
fn div(a: Side, b: Side) -> Var {
    let dtype = common_type(a, b).to_float();
    let value = arithmetic_value(dtype, "div", a, b, 3);
    let (x, y) = (a.saved(), b.saved());
    record_sides("div", a, b, value, move |c, i| {
        let (x, y) = (Side::from(&x), Side::from(&y));
        if i == 0 {
            div(Side::Var(c.grad()), y)
        } else {
            // In PyTorch's order, so that F32 is rounded alike where gradients cancel.
            mul(Side::Var(&-c.grad()), Side::Var(&div(Side::Var(&div(x, y)), y)))
        }
    })
}

fn common_type(a: Side, b: Side) -> DType {
    type_of_result([a, b].into_iter())
}

/// One of the four operations on integers or floats. F16, BF16 and U8 are computed in a wider type.
#[track_caller]
fn arithmetic_value(dtype: DType, op: &'static str, a: Side, b: Side, which: u8) -> crate::Tensor {
    let wide = match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        DType::U8 => DType::I64,
        other => other,
    };
    let value = match which {
        0 => binary_value!(number, wide, op, a, b, |x: T, y| -> T { x + y }),
        1 => binary_value!(number, wide, op, a, b, |x: T, y| -> T { x - y }),
        2 => binary_value!(number, wide, op, a, b, |x: T, y| -> T { x * y }),
        _ => binary_value!(float, wide, op, a, b, |x: T, y| -> T { x / y }),
    };
    value.into_type(dtype)
}

/// Arithmetic on borrowed operands, also with the scalar on the left: `2.0 - &x`.
pub(crate) mod borrowed {
    use super::*;

    macro_rules! borrowed {
        ($($name:ident)*) => {$(
            #[track_caller]
            pub(crate) fn $name(a: Side, b: Side) -> Var {
                super::$name(a, b)
            }
        )*};
    }
    borrowed!(add sub mul div);
}

impl Var {
    /// The sum, with broadcasting and type promotion (`torch.add`, with `alpha = 1`). Also `&a + &b`.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let a = Var::from_vec(vec![1f32, 2.0], &[2, 1]);
    /// let b = Var::from_vec(vec![10f32, 20.0], &[2]);
    /// assert_eq!(a.add(&b).to_vec::<f32>(), [11.0, 21.0, 12.0, 22.0]);
    /// ```
    #[track_caller]
    pub fn add(&self, other: impl Into<Operand>) -> Var {
        add(Side::Var(self), (&other.into()).into())
    }

    /// The difference, with broadcasting and type promotion (`torch.sub`). Also `&a - &b`.
    ///
    /// # Panics
    /// If the shapes do not broadcast, or both are booleans.
    #[track_caller]
    pub fn sub(&self, other: impl Into<Operand>) -> Var {
        sub(Side::Var(self), (&other.into()).into())
    }

    /// The product of elements, with broadcasting and type promotion (`torch.mul`). Also `&a * &b`.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    #[track_caller]
    pub fn mul(&self, other: impl Into<Operand>) -> Var {
        mul(Side::Var(self), (&other.into()).into())
    }

    /// The quotient of elements, with broadcasting; integers are divided as floats (`torch.div`). Also `&a / &b`.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    #[track_caller]
    pub fn div(&self, other: impl Into<Operand>) -> Var {
        div(Side::Var(self), (&other.into()).into())
    }

    /// The same as [`Var::div`] (`torch.true_divide`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    #[track_caller]
    pub fn true_divide(&self, other: impl Into<Operand>) -> Var {
        self.div(other)
    }

    /// The quotient of elements, rounded to an integer (`torch.div` with `rounding_mode`). Its gradient is zero.
    /// Integers stay integers.
    ///
    /// # Panics
    /// If the shapes do not broadcast, or an integer is divided by zero.
    ///
    /// ```
    /// use tapegrad_tape::{RoundingMode, Var};
    /// assert_eq!(Var::from(-7).div_rounded(2, RoundingMode::Floor).item(), -4.0);
    /// assert_eq!(Var::from(-7).div_rounded(2, RoundingMode::Trunc).item(), -3.0);
    /// ```
    #[track_caller]
    pub fn div_rounded(&self, other: impl Into<Operand>, mode: RoundingMode) -> Var {
        let (a, b): (Operand, Operand) = (self.into(), other.into());
        check_divisor("div", &a, &b);
        match mode {
            RoundingMode::Trunc => table::div_trunc.apply(&a, &b),
            RoundingMode::Floor => table::div_floor.apply(&a, &b),
        }
    }

    /// The quotient of elements, rounded down (`torch.floor_divide`): [`Var::div_rounded`] with [`RoundingMode::Floor`].
    ///
    /// # Panics
    /// If the shapes do not broadcast, or an integer is divided by zero.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(-7).floor_divide(2).item(), -4.0);
    /// ```
    #[track_caller]
    pub fn floor_divide(&self, other: impl Into<Operand>) -> Var {
        let (a, b): (Operand, Operand) = (self.into(), other.into());
        check_divisor("floor_divide", &a, &b);
        // PyTorch gives it no derivative at all.
        table::div_floor.apply(&a.detach(), &b.detach())
    }

    /// What is left of [`Var::div_rounded`] toward zero: it has the sign of the dividend (`torch.fmod`). Integers stay
    /// integers.
    ///
    /// # Panics
    /// If the shapes do not broadcast, or an integer is divided by zero.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(-7).fmod(3).item(), -1.0);
    /// ```
    #[track_caller]
    pub fn fmod(&self, other: impl Into<Operand>) -> Var {
        let (a, b): (Operand, Operand) = (self.into(), other.into());
        check_divisor("fmod", &a, &b);
        table::fmod.apply(&a, &b)
    }

    /// What is left of the quotient rounded down: it has the sign of the divisor, as Python's `%`
    /// (`torch.remainder`). Integers stay integers.
    ///
    /// # Panics
    /// If the shapes do not broadcast, or an integer is divided by zero.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(-7).remainder(3).item(), 2.0);
    /// ```
    #[track_caller]
    pub fn remainder(&self, other: impl Into<Operand>) -> Var {
        let (a, b): (Operand, Operand) = (self.into(), other.into());
        check_divisor("remainder", &a, &b);
        table::remainder.apply(&a, &b)
    }

    /// `self + alpha * other` (`torch.add` with `alpha`).
    ///
    /// # Panics
    /// If the shapes do not broadcast, or `alpha` is not an integer but the operands are.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(1.0).add_scaled(3.0, 2).item(), 7.0);
    /// ```
    #[track_caller]
    pub fn add_scaled(&self, other: impl Into<Operand>, alpha: impl Into<Scalar>) -> Var {
        let (a, b): (Operand, Operand) = (self.into(), other.into());
        add((&a).into(), (&scaled("add", &a, b, alpha.into())).into())
    }

    /// `self - alpha * other` (`torch.sub` with `alpha`).
    ///
    /// # Panics
    /// Same as [`Var::add_scaled`].
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(1.0).sub_scaled(3.0, 2).item(), -5.0);
    /// ```
    #[track_caller]
    pub fn sub_scaled(&self, other: impl Into<Operand>, alpha: impl Into<Scalar>) -> Var {
        let (a, b): (Operand, Operand) = (self.into(), other.into());
        sub((&a).into(), (&scaled("sub", &a, b, alpha.into())).into())
    }

    /// `other - alpha * self` (`torch.rsub`).
    ///
    /// # Panics
    /// Same as [`Var::add_scaled`].
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(1.0).rsub_with(3.0, 2).item(), 1.0);
    /// ```
    #[track_caller]
    pub fn rsub(&self, other: impl Into<Operand>) -> Var {
        self.rsub_with(other, 1)
    }

    /// [`Var::rsub`] with a factor.
    ///
    /// # Panics
    /// Same as [`Var::rsub`].
    #[track_caller]
    pub fn rsub_with(&self, other: impl Into<Operand>, alpha: impl Into<Scalar>) -> Var {
        let b = other.into();
        difference("rsub", (&b).into(), (&scaled("rsub", &b, self.into(), alpha.into())).into())
    }
}

/// # Panics
/// If integers are divided by zero.
#[track_caller]
fn check_divisor(op: &str, a: &Operand, b: &Operand) {
    if !result_type(&[a, b]).is_float() {
        let divisors = b.tensor(DType::I64).to_vec::<i64>();
        assert!(!divisors.contains(&0), "{op}: an integer is divided by zero");
    }
}

/// How [`Var::div_rounded`] rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundingMode {
    /// Toward zero, as integer division in Rust and C.
    Trunc,
    /// Toward minus infinity, as `//` in Python.
    Floor,
}

/// `alpha * b`, in the promoted type of `b` and the other operand.
#[track_caller]
fn scaled(op: &str, a: &Operand, b: Operand, alpha: Scalar) -> Operand {
    let dtype = result_type(&[a, &b]);
    let fits = match alpha {
        Scalar::Float(_) => dtype.is_float(),
        Scalar::Int(_) => dtype != DType::Bool,
        Scalar::Bool(_) => true,
    };
    assert!(fits, "{op}: alpha = {alpha:?} cannot scale operands of type {dtype}");
    match b {
        b if alpha.to_f64() == 1.0 => b,
        Operand::Scalar(b) if dtype.is_float() => Operand::from(b.to_f64() * alpha.to_f64()),
        Operand::Scalar(b) => Operand::from(b.to_i64() * alpha.to_i64()),
        Operand::Var(b) => Operand::from(b.mul(alpha)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, Var};

    #[test]
    fn gradients_are_summed_over_what_was_broadcast() {
        let a = Var::parameter(Tensor::from_vec(vec![1f64, 2.0], &[2, 1]));
        let b = Var::parameter(Tensor::from_vec(vec![3f64, 4.0, 5.0], &[3]));
        (&a * &b - &a / &b).sum_all().backward();
        let inverse = 1.0 / 3.0 + 0.25 + 0.2;
        assert_eq!(a.grad().unwrap().to_vec::<f64>(), [12.0 - inverse, 12.0 - inverse]);
        assert_eq!(b.grad().unwrap().to_vec::<f64>(), [3.0 + 3.0 / 9.0, 3.0 + 3.0 / 16.0, 3.0 + 3.0 / 25.0]);
    }

    #[test]
    fn numbers_on_either_side() {
        let x = Var::parameter(Tensor::scalar(4.0));
        assert_eq!((1.0 - &x).item(), -3.0);
        assert_eq!((2 / &x).item(), 0.5);
        let y = 2.0 * &x + 1;
        y.backward();
        assert_eq!(x.grad().unwrap().item(), 2.0);
    }

    #[test]
    #[should_panic(expected = "rsub: the size of tensor a (3) must match the size of tensor b (2)")]
    fn rsub_says_its_own_name() {
        Var::from(Tensor::zeros_with(&[2], DType::F32)).rsub(Var::from(Tensor::zeros_with(&[3], DType::F32)));
    }

    #[test]
    fn integers_and_booleans() {
        let a = Var::from_vec(vec![3i64, 4], &[2]);
        assert_eq!((&a + &a).dtype(), DType::I64);
        assert_eq!((&a / 2).to_vec::<f32>(), [1.5, 2.0]);
        let t = Var::from_vec(vec![true, false], &[2]);
        assert_eq!(t.add(true).to_vec::<bool>(), [true, true]);
        assert_eq!((&t * &t).dtype(), DType::Bool);
    }

    #[test]
    #[should_panic(expected = "add: the size of tensor a (2) must match the size of tensor b (3)")]
    fn shapes_that_do_not_fit() {
        let _ =
            Var::from(Tensor::zeros_with(&[2], DType::F32)) + Var::from(Tensor::zeros_with(&[3], DType::F32));
    }
}
