//! Functions of three operands: `lerp`, `addcmul`, `addcdiv`.

use super::binary::constant;
use super::clamp::record_operands;
use crate::dtype::{DType, Scalar};
use crate::kernels::strided;
use crate::promote::{Operand, broadcast_operands, result_type};
use crate::var::Var;

impl Var {
    /// Linear interpolation: `self + weight * (end - self)` (`torch.lerp`); the weight is a scalar or a variable.
    ///
    /// # Panics
    /// If the shapes do not broadcast, or the types are not one floating-point type.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(1.0).lerp(&Var::from(3.0), 0.25).item(), 1.5);
    /// ```
    #[track_caller]
    pub fn lerp(&self, end: &Var, weight: impl Into<Operand>) -> Var {
        let operands: [Operand; 3] = [self.into(), end.into(), weight.into()];
        let dtype = self.dtype();
        let types_fit = operands.iter().all(|o| match o {
            Operand::Var(v) => v.dtype() == dtype,
            Operand::Scalar(_) => true,
        });
        assert!(
            types_fit && dtype.is_float(),
            "lerp: start, end and weight have to be of one floating-point type, not {dtype} and {}",
            end.dtype()
        );
        // The result is exact at both ends.
        macro_rules! between {
            ($T:ident, $a:ident, $b:ident, $w:ident) => {
                if $w < 0.5 as $T { $a + $w * ($b - $a) } else { $b - ($b - $a) * (1.0 as $T - $w) }
            };
        }
        let shape = broadcast_operands("lerp", &[&operands[0], &operands[1], &operands[2]]);
        let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
        let value = crate::dispatch!(float: wide, "lerp", T => {
            let [a, b] = [&operands[0], &operands[1]].map(|o| o.tensor(wide));
            match &operands[2] {
                Operand::Scalar(w) => {
                    let w = w.to::<T>();
                    strided::zip(&shape, &a, &b, |a: T, b: T| between!(T, a, b, w))
                }
                w => strided::zip3(&shape, &a, &b, &w.tensor(wide), |a: T, b: T, w: T| between!(T, a, b, w)),
            }
        });
        let saved = operands.each_ref().map(|o| constant(o, dtype));
        record_operands("lerp", &operands, value.cast(dtype), move |g, i| {
            let [a, b, w] = &saved;
            match i {
                0 => g * (1.0 - w),
                1 => g * w,
                _ => g * (b - a),
            }
        })
    }

    /// `self + value * a * b` (`torch.addcmul`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let (x, a, b) = (Var::from(1.0), Var::from(2.0), Var::from(3.0));
    /// assert_eq!(x.addcmul_with(&a, &b, 0.5).item(), 4.0);
    /// ```
    #[track_caller]
    pub fn addcmul(&self, a: &Var, b: &Var) -> Var {
        self.addcmul_with(a, b, 1)
    }

    /// [`Var::addcmul`] with a factor.
    ///
    /// # Panics
    /// Same as [`Var::addcmul`].
    #[track_caller]
    pub fn addcmul_with(&self, a: &Var, b: &Var, value: impl Into<Scalar>) -> Var {
        self.addc("addcmul", a, b, value.into(), false)
    }

    /// `self + value * a / b` (`torch.addcdiv`).
    ///
    /// # Panics
    /// If the shapes do not broadcast, or all are integers.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let (x, a, b) = (Var::from(1.0), Var::from(2.0), Var::from(4.0));
    /// assert_eq!(x.addcdiv_with(&a, &b, 0.5).item(), 1.25);
    /// ```
    #[track_caller]
    pub fn addcdiv(&self, a: &Var, b: &Var) -> Var {
        self.addcdiv_with(a, b, 1)
    }

    /// [`Var::addcdiv`] with a factor.
    ///
    /// # Panics
    /// Same as [`Var::addcdiv`].
    #[track_caller]
    pub fn addcdiv_with(&self, a: &Var, b: &Var, value: impl Into<Scalar>) -> Var {
        self.addc("addcdiv", a, b, value.into(), true)
    }

    #[track_caller]
    fn addc(&self, op: &'static str, a: &Var, b: &Var, value: Scalar, divide: bool) -> Var {
        let operands = [self, a, b].map(Operand::from);
        let dtype = result_type(&[&operands[0], &operands[1], &operands[2]]);
        let shape = broadcast_operands(op, &[&operands[0], &operands[1], &operands[2]]);
        if !matches!(dtype, DType::F32 | DType::F64) {
            assert!(
                !divide || dtype.is_float(),
                "{op}: not defined for {dtype}; cast to floating point first"
            );
            let scaled = a.mul(value);
            return self.add(&if divide { scaled.div(b) } else { scaled.mul(b) });
        }
        let [x, y, z] = operands.each_ref().map(|o| o.tensor(dtype));
        let sum = crate::dispatch!(float: dtype, op, T => {
            let v = value.to::<T>();
            strided::zip3(&shape, &x, &y, &z, |x: T, y: T, z: T| x + if divide { v * y / z } else { v * y * z })
        });
        let (a, b, v) = (a.saved(), b.saved(), value.to_f64());
        record_operands(op, &operands, sum, move |g, i| match (i, divide) {
            (0, _) => g.clone(),
            (1, false) => g * &b * v,
            (2, false) => g * &a * v,
            (1, true) => g * v / &b,
            _ => -(g * v) * (&a / &b / &b),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, Var, gradcheck, gradgradcheck};

    #[test]
    fn integers_stay_integers() {
        let n = |list: [i64; 2]| Var::from_vec(list.to_vec(), 2);
        let y = n([1, 2]).addcmul(&n([3, 4]), &n([5, 6]).cast(DType::U8));
        assert_eq!((y.dtype(), y.to_vec::<i64>()), (DType::I64, vec![16, 26]));
    }

    #[test]
    fn derivatives() {
        let leaf = |n: usize, at: f64| {
            let data = (0..n).map(|i| at + 0.3 * i as f64).collect();
            Var::parameter(Tensor::from_vec(data, &[n]))
        };
        let v = [leaf(3, 0.4), leaf(1, 0.9), leaf(3, 0.2)];
        for f in [
            (|v| v[0].lerp(&v[1], &v[2])) as fn(&[Var]) -> Var,
            |v| v[0].lerp(&v[1], 0.7),
            |v| v[0].addcmul_with(&v[1], &v[2], 2),
            |v| v[0].addcdiv_with(&v[1], &v[2], 0.5),
        ] {
            gradcheck(f, &v).unwrap();
            gradgradcheck(f, &v).unwrap();
        }
    }
}
