//! Powers.

use super::binary::table;
use crate::dtype::{DType, Scalar};
use crate::node::{RecordOptions, record_with};
use crate::promote::{Operand, result_type};
use crate::var::Var;

crate::pointwise! {
    mod constant: scalar;
    // The exponent is a scalar; the derivative of x^0 is zero everywhere, also at zero.
    hidden pow(x, e) = raise(x, e);
        input(x, g) fused if e == T::ZERO { T::ZERO } else { g * (e * raise(x, e - T::ONE)) };
        rule if e == 0.0 { g.zeros_like() } else { g * (x.pow(e - 1.0) * e) }; on 0.3, 2.0, 2.7;
    hidden cube(x) = x * x * x;
        input(x, g) fused g * (T::c(3.0) * (x * x));
        rule g * (x.square() * 3.0); on -2.0, 2.0;
}

#[inline(always)]
fn raise<T: crate::Float>(x: T, e: T) -> T {
    if e == T::ONE { x } else { x.powf(e) }
}

/// `base^exponent` of elements (`torch.pow`), where either may be a scalar.
///
/// # Panics
/// If the shapes do not broadcast, or integers are raised to a negative number.
///
/// ```
/// use tapegrad_tape::{Var, pow};
/// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
/// assert_eq!(pow(2.0, &x).to_vec::<f32>(), [2.0, 4.0, 8.0]);
/// ```
#[track_caller]
pub fn pow(base: impl Into<Operand>, exponent: impl Into<Operand>) -> Var {
    let (base, exponent) = (base.into(), exponent.into());
    let dtype = result_type(&[&base, &exponent]);
    if let (Operand::Var(x), Operand::Scalar(e)) = (&base, &exponent) {
        if dtype.is_float() {
            return to_constant(&x.cast(dtype), e.to_f64());
        }
        assert!(
            e.to_i64() >= 0,
            "pow: integers cannot be raised to the negative power {}; cast them to floating point",
            e.to_i64()
        );
    }
    assert!(dtype != DType::Bool, "pow: not defined for bool");
    table::pow.apply(&base, &exponent)
}

/// `base^exponent` of elements in F64, whatever their types (`torch.float_power`); either may be a scalar.
///
/// # Panics
/// If the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::{DType, Var, float_power};
/// let y = float_power(&Var::from(2), -1);
/// assert_eq!((y.dtype(), y.item()), (DType::F64, 0.5));
/// ```
#[track_caller]
pub fn float_power(base: impl Into<Operand>, exponent: impl Into<Operand>) -> Var {
    let wide = |operand: Operand| match operand {
        Operand::Var(v) => Operand::Var(v.cast(DType::F64)),
        Operand::Scalar(s) => Operand::Scalar(Scalar::Float(s.to_f64())),
    };
    pow(wide(base.into()), wide(exponent.into()))
}

/// Powers for which there is a cheaper operation.
#[track_caller]
fn to_constant(x: &Var, e: f64) -> Var {
    match e {
        2.0 => x.square(),
        0.5 => x.sqrt(),
        -0.5 => x.rsqrt(),
        -1.0 => x.reciprocal(),
        3.0 => constant::cube.apply(x, [0.0; 4]),
        _ => constant::pow.apply(x, [e, 0.0, 0.0, 0.0]),
    }
}

impl Var {
    /// Elements raised to a power, a scalar or a variable (`torch.pow`). Integers raised to integers stay integers. At
    /// zero, gradients follow PyTorch: that of `x^0` is zero, that of `0^y` for `y >= 0` too.
    ///
    /// # Panics
    /// If the shapes do not broadcast, or integers are raised to a negative number.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
    /// assert_eq!(x.pow(2).to_vec::<f32>(), [1.0, 4.0, 9.0]);
    /// ```
    #[track_caller]
    pub fn pow(&self, exponent: impl Into<Operand>) -> Var {
        pow(self, exponent)
    }

    /// [`float_power`] with this as the base (`torch.float_power`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(4).float_power(0.5).item(), 2.0);
    /// ```
    #[track_caller]
    pub fn float_power(&self, exponent: impl Into<Operand>) -> Var {
        float_power(self, exponent)
    }

    /// `self * 2^exponent` (`torch.ldexp`); two tensors of integers give F32.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(1.5).ldexp(&Var::from(3)).item(), 12.0);
    /// ```
    #[track_caller]
    pub fn ldexp(&self, exponent: &Var) -> Var {
        crate::promote::broadcast_operands("ldexp", &[&self.into(), &exponent.into()]);
        let value = self.detach().mul(pow(Scalar::Float(2.0), exponent.detach())).into_tensor();
        let saved = exponent.saved();
        let options = RecordOptions::new().pointwise().keep_output(true);
        record_with("ldexp", [self, exponent], value, options, move |c| {
            let of_self = || c.grad() * pow(Scalar::Float(2.0), &saved);
            [c.wants(0).then(of_self), c.wants(1).then(|| c.grad() * c.output() * std::f64::consts::LN_2)]
        })
    }

    /// Like [`Var::pow`] with a scalar exponent, for places where its type could not be inferred.
    #[track_caller]
    pub fn powf(&self, exponent: f64) -> Var {
        pow(self, Scalar::Float(exponent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn gradients_at_zero_are_pytorchs() {
        let x = Var::parameter(Tensor::from_vec(vec![0f64, 2.0], &[2]));
        x.pow(0.0).sum_all().backward();
        assert_eq!(x.take_grad().unwrap().to_vec::<f64>(), [0.0, 0.0]);
        let e = Var::parameter(Tensor::from_vec(vec![2f64, 0.0], &[2]));
        x.pow(&e).sum_all().backward();
        assert_eq!(x.take_grad().unwrap().to_vec::<f64>(), [0.0, 0.0]);
        assert_eq!(e.take_grad().unwrap().to_vec::<f64>(), [0.0, 2f64.ln()]);
        pow(0.0, &e).sum_all().backward();
        assert_eq!(e.take_grad().unwrap().to_vec::<f64>(), [0.0, 0.0]);
    }

    #[test]
    fn two_to_a_variable() {
        for seed in 0..5 {
            crate::test_views::check2([&[2, 3], &[3]], seed, |x, y| x.ldexp(y));
        }
    }

    #[test]
    fn integers() {
        let x = Var::from_vec(vec![-2i64, 3], &[2]);
        assert_eq!(x.pow(3).to_vec::<i64>(), [-8, 27]);
        assert_eq!(x.pow(3).dtype(), DType::I64);
        assert_eq!(x.pow(2.0).dtype(), DType::F32);
        assert_eq!(x.pow(Var::from(-1)).to_vec::<i64>(), [0, 0]);
    }

    #[test]
    #[should_panic(expected = "pow: integers cannot be raised to the negative power -1")]
    fn a_negative_power_of_integers() {
        Var::from(2).pow(-1);
    }
}
