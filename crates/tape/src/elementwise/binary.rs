//! Functions of two operands.

use super::arithmetic::RoundingMode;
use super::select::where_;
use crate::dtype::{DType, Float};
use crate::kernels::remainder::{near_rest, with_divisors_sign};
use crate::kernels::strided::{GRAIN, zip_rows};
use crate::node::{RecordOptions, record_with};
use crate::promote::{Operand, Side, broadcast_operands, result_type};
use crate::tensor::Tensor;
use crate::var::Var;

/// Records a binary operation; a scalar operand is not an input of the node.
#[track_caller]
pub(crate) fn record_binary(
    op: &'static str,
    a: &Operand,
    b: &Operand,
    value: crate::Tensor,
    rule: impl Fn(&crate::Cotangent, usize) -> Var + Send + Sync + 'static,
) -> Var {
    record_sides(op, a.into(), b.into(), value, rule)
}

/// [`record_binary`] of borrowed operands.
#[track_caller]
pub(crate) fn record_sides(
    op: &'static str,
    a: Side,
    b: Side,
    value: crate::Tensor,
    rule: impl Fn(&crate::Cotangent, usize) -> Var + Send + Sync + 'static,
) -> Var {
    record_with(op, [a.input(), b.input()], value, RecordOptions::new().pointwise(), move |c| {
        // The second first, as in PyTorch: the order in which second derivatives are added depends on it.
        let second = c.wants(1).then(|| rule(&c, 1));
        [c.wants(0).then(|| rule(&c, 0)), second]
    })
}

/// `a^2 + b^2`, or 1 at the origin.
fn squared_radius(a: &Var, b: &Var) -> Var {
    let square = a * a + b * b;
    square.masked_fill(&square.eq(0.0), 1.0)
}

/// A row function over two dense slices.
pub(crate) type Row<T> = fn(&mut [T], &[T], &[T]);

/// A function of two operands as loops over dense slices, and its derivative.
pub(crate) struct Binary {
    pub(crate) name: &'static str,
    pub(crate) f32: Row<f32>,
    pub(crate) f64: Row<f64>,
    /// The loop for integers; without one they are converted to F32.
    pub(crate) i64: Option<Row<i64>>,
    /// The gradient for operand `i`, of both operands and the incoming gradient.
    pub(crate) rule: fn(&Var, &Var, &Var, usize) -> Var,
}

impl Binary {
    #[track_caller]
    pub(crate) fn apply(&'static self, a: &Operand, b: &Operand) -> Var {
        let common = result_type(&[a, b]);
        let dtype = if self.i64.is_some() { common } else { common.to_float() };
        let value = self.value(dtype, a, b);
        let (x, y) = (constant(a, dtype), constant(b, dtype));
        record_binary(self.name, a, b, value, move |c, i| (self.rule)(&x, &y, c.grad(), i))
    }

    #[track_caller]
    fn value(&self, dtype: DType, a: &Operand, b: &Operand) -> Tensor {
        let wide = match dtype {
            DType::F16 | DType::BF16 => DType::F32,
            DType::U8 | DType::Bool => DType::I64,
            other => other,
        };
        let shape = broadcast_operands(self.name, &[a, b]);
        let (a, b) = (a.tensor(wide), b.tensor(wide));
        let value = match (wide, &self.i64) {
            (DType::F32, _) => zip_rows(&shape, &a, &b, GRAIN / 4, &self.f32),
            (DType::F64, _) => zip_rows(&shape, &a, &b, GRAIN / 4, &self.f64),
            (_, Some(row)) => zip_rows(&shape, &a, &b, GRAIN / 4, row),
            _ => unreachable!("{}: {dtype} is no floating-point type", self.name),
        };
        value.cast(dtype)
    }
}

/// An operand for capture by a rule; a scalar becomes a constant of the result's type.
pub(crate) fn constant(operand: &Operand, dtype: DType) -> Var {
    match operand {
        Operand::Var(v) => v.saved(),
        Operand::Scalar(s) => Var::from(Tensor::full_with((), *s, dtype)),
    }
}

/// Makes the table, and methods that take another variable (`method`) or nothing (`hidden`).
macro_rules! binary {
    ($($(#[$meta:meta])* $kind:ident $speed:ident $name:ident($a:ident, $b:ident) = $f:expr; $(integers $i:expr;)?
        rule($g:ident) $first:expr, $second:expr; on $domain:expr;)*) => {
        #[allow(non_upper_case_globals, unused_variables)]
        pub(crate) mod table {
            use super::*;
            $(pub(crate) static $name: Binary = {
                #[inline(always)]
                fn value<T: Float>($a: T, $b: T) -> T { $f }
                fn rule($a: &Var, $b: &Var, $g: &Var, i: usize) -> Var {
                    if i == 0 { $first } else { $second }
                }
                Binary {
                    name: stringify!($name),
                    f32: binary!(@row $speed f32 value),
                    f64: binary!(@row scalar f64 value),
                    i64: binary!(@integers $($i, $a, $b)?),
                    rule,
                }
            };)*
            /// All rows, and the ranges from which tests draw operands.
            #[cfg(test)]
            pub(crate) static ALL: &[(&Binary, (f64, f64))] = &[$((&$name, $domain)),*];
        }
        $(binary!(@$kind $(#[$meta])* $name);)*
    };
    (@row simd $T:ident $value:ident) => {{
        crate::multiversion! {
            fn row(out: &mut [$T], a: &[$T], b: &[$T]) {
                for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    *o = $value(a, b);
                }
            }
        }
        row
    }};
    // Rows with kernels of their own.
    (@row fmod f32 $value:ident) => { crate::kernels::remainder::fmod };
    (@row atan2 f32 $value:ident) => { crate::kernels::trigonometric::atan2 };
    (@row logaddexp f32 $value:ident) => { crate::kernels::fused::logaddexp };
    (@row remainder f32 $value:ident) => { crate::kernels::remainder::remainder };
    (@row scalar $T:ident $value:ident) => {{
        fn row(out: &mut [$T], a: &[$T], b: &[$T]) {
            for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *o = $value(a, b);
            }
        }
        row
    }};
    (@integers) => { None };
    (@integers $i:expr, $a:ident, $b:ident) => {{
        fn row(out: &mut [i64], a: &[i64], b: &[i64]) {
            for ((o, &$a), &$b) in out.iter_mut().zip(a).zip(b) {
                *o = $i;
            }
        }
        Some(row)
    }};
    (@hidden $(#[$meta:meta])* $name:ident) => {};
    (@method $(#[$meta:meta])* $name:ident) => {
        impl Var {
            $(#[$meta])*
            #[track_caller]
            pub fn $name(&self, other: &Var) -> Var {
                table::$name.apply(&self.into(), &other.into())
            }
        }
    };
}

/// Like [`shared`] where a NaN loses: `won` says where this operand was taken.
fn shared_unless_nan(won: Var, tied: Var, g: &Var) -> Var {
    where_(&tied, g * 0.5, where_(&won, g, 0.0))
}

/// The gradient goes to the operand that was taken; where two elements are equal, each gets half of it.
fn shared(lost: Var, tied: Var, g: &Var) -> Var {
    where_(&lost, 0.0, where_(&tied, g * 0.5, g))
}

binary! {
    /// The larger of two elements; NaN if either is (`torch.maximum`). Where they are equal, each gets half of
    /// the gradient. Integers stay integers.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 5.0], &[2]);
    /// assert_eq!(x.maximum(&Var::from(3.0)).to_vec::<f32>(), [3.0, 5.0]);
    /// ```
    method simd maximum(a, b) = a.maximum(b); integers a.max(b);
        rule(g) shared(a.lt(b), a.eq(b), g), shared(b.lt(a), a.eq(b), g); on (-2.0, 2.0);

    /// The smaller of two elements; NaN if either is (`torch.minimum`). Where they are equal, each gets half of
    /// the gradient. Integers stay integers.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 5.0], &[2]);
    /// assert_eq!(x.minimum(&Var::from(3.0)).to_vec::<f32>(), [1.0, 3.0]);
    /// ```
    method simd minimum(a, b) = a.minimum(b); integers a.min(b);
        rule(g) shared(a.gt(b), a.eq(b), g), shared(b.gt(a), a.eq(b), g); on (-2.0, 2.0);

    /// The larger of two elements; a NaN is ignored if the other is a number (`torch.fmax`). Where they are equal, each
    /// gets half of the gradient. Integers stay integers.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(f64::NAN).fmax(&Var::from(3.0)).item(), 3.0);
    /// ```
    method simd fmax(a, b) = if b > a || a.is_nan() { b } else { a }; integers a.max(b);
        rule(g) shared_unless_nan(a.gt(b).logical_or(&b.isnan()), a.eq(b), g),
            shared_unless_nan(a.gt(b).logical_or(&b.isnan()).logical_not(), a.eq(b), g);
        on (-2.0, 2.0);

    /// The smaller of two elements; a NaN is ignored if the other is a number (`torch.fmin`). Where they are equal,
    /// each gets half of the gradient. Integers stay integers.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(f64::NAN).fmin(&Var::from(3.0)).item(), 3.0);
    /// ```
    method simd fmin(a, b) = if b < a || a.is_nan() { b } else { a }; integers a.min(b);
        rule(g) shared_unless_nan(a.lt(b).logical_or(&b.isnan()), a.eq(b), g),
            shared_unless_nan(a.lt(b).logical_or(&b.isnan()).logical_not(), a.eq(b), g);
        on (-2.0, 2.0);

    /// The angle of the point `(other, self)`, in `[-pi, pi]` (`torch.atan2`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(0.0).atan2(&Var::from(2.0)).item(), 0.0);
    /// ```
    method atan2 atan2(a, b) = a.atan2(b);
        // At the origin the gradient is zero, as in PyTorch.
        rule(g) g * (b / squared_radius(a, b)), -(g * (a / squared_radius(a, b))); on (0.3, 2.0);

    /// `sqrt(x^2 + y^2)` without overflow (`torch.hypot`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(3.0).hypot(&Var::from(4.0)).item(), 5.0);
    /// ```
    method scalar hypot(a, b) = a.hypot(b);
        rule(g) g * (a / a.hypot(b)), g * (b / a.hypot(b)); on (0.3, 2.0);

    /// `ln(e^x + e^y)` without overflow (`torch.logaddexp`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from(1000.0);
    /// assert_eq!(x.logaddexp(&x).item(), (1000.0 + 2f64.ln()) as f32 as f64);
    /// ```
    method logaddexp logaddexp(a, b) = if a == b && a.is_infinite() { a } else {
            // A comparison that NaN makes false, so that it stays.
            let high = a.maximum(b);
            high + (-(a - b).abs()).exp().ln_1p()
        };
        rule(g) g / ((b - a).exp() + 1.0), g / ((a - b).exp() + 1.0); on (-2.0, 2.0);

    hidden simd xlogy(a, b) = if b.is_nan() { b } else if a == T::ZERO { T::ZERO } else { a * b.ln() };
        rule(g) where_(&a.eq(0.0).logical_and(&b.le(0.0)), 0.0, table::xlogy.apply(&g.into(), &b.into())),
            g * a / b; on (0.3, 2.0);

    hidden scalar pow(a, b) = a.powf(b); integers integer_power(a, b);
        rule(g) where_(&b.eq(0.0), 0.0, g * (b * a.pow(b - 1.0))),
            g * where_(&a.eq(0.0).logical_and(&b.ge(0.0)), 0.0, a.pow(b) * a.log()); on (0.3, 2.0);

    // The quotient rounded toward zero, and toward minus infinity.
    hidden simd div_trunc(a, b) = (a / b).trunc(); integers a.wrapping_div(b);
        rule(g) g.zeros_like(), g.zeros_like(); on (0.3, 0.5);
    hidden simd div_floor(a, b) = floor_quotient(a, b); integers integer_floor_quotient(a, b);
        rule(g) g.zeros_like(), g.zeros_like(); on (0.6, 0.9);
    // What is left of these quotients.
    hidden fmod fmod(a, b) = rest(a, b); integers a.wrapping_rem(b);
        rule(g) g.clone(), -(g * a.div_rounded(b, RoundingMode::Trunc)); on (0.6, 0.9);
    hidden remainder remainder(a, b) = with_divisors_sign(rest(a, b), b);
        integers a.wrapping_sub(integer_floor_quotient(a, b).wrapping_mul(b));
        rule(g) g.clone(), -(g * a.div_rounded(b, RoundingMode::Floor)); on (0.6, 0.9);

    hidden simd copysign(a, b) = T::from_f64(a.to_f64().copysign(b.to_f64()));
        // As in PyTorch, zero at zero.
        rule(g) g * where_(&a.eq(0.0), 0.0, a.copysign(b) / a), g.zeros_like(); on (0.3, 2.0);

    /// `log2(2^x + 2^y)` without overflow (`torch.logaddexp2`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from(1000.0);
    /// assert_eq!(x.logaddexp2(&x).item(), 1001.0);
    /// ```
    method simd logaddexp2(a, b) = if a == b && a.is_infinite() { a } else {
            let high = a.maximum(b);
            high + (-(a - b).abs()).exp2().ln_1p() * T::c(std::f64::consts::LOG2_E)
        };
        rule(g) g / ((b - a).exp2() + 1.0), g / ((a - b).exp2() + 1.0); on (-2.0, 2.0);

    hidden simd xlog1py(a, b) = if b.is_nan() { b } else if a == T::ZERO { T::ZERO } else { a * b.ln_1p() };
        rule(g) where_(&a.eq(0.0).logical_and(&b.le(-1.0)), 0.0, table::xlog1py.apply(&g.into(), &b.into())),
            g * a / (b + 1.0); on (0.3, 2.0);
}

/// Integer powers; negative ones are zero but for the bases 1 and -1.
fn integer_power(base: i64, exponent: i64) -> i64 {
    match (base, u32::try_from(exponent)) {
        (_, Ok(e)) => base.wrapping_pow(e),
        (1, _) => 1,
        (-1, _) => 1 - 2 * (exponent & 1),
        _ => 0,
    }
}

fn integer_floor_quotient(a: i64, b: i64) -> i64 {
    let (q, r) = (a.wrapping_div(b), a.wrapping_rem(b));
    if r != 0 && (r < 0) != (b < 0) { q - 1 } else { q }
}

/// What is left of the quotient rounded toward zero, exactly.
#[inline(always)]
fn rest<T: Float>(a: T, b: T) -> T {
    let (x, y) = (a.to_f64(), b.to_f64());
    if T::DTYPE == DType::F32 {
        let (rest, exact) = near_rest(x, y);
        if exact {
            return T::from_f64(rest);
        }
    }
    T::from_f64(x % y)
}

/// The floor of the exact quotient: dividing first could round up to an integer.
fn floor_quotient<T: Float>(a: T, b: T) -> T {
    if b == T::ZERO {
        return a / b;
    }
    let rest = rest(a, b);
    let mut quotient = (a - rest) / b;
    if (rest != T::ZERO) & ((rest < T::ZERO) != (b < T::ZERO)) {
        quotient = quotient - T::ONE;
    }
    if quotient == T::ZERO {
        return T::from_f64(0f64.copysign((a / b).to_f64()));
    }
    let floor = quotient.floor();
    if quotient - floor > T::c(0.5) { floor + T::ONE } else { floor }
}

/// `x ln(y)`, and zero where `x` is zero, unless `y` is NaN (`torch.xlogy`). Either may be a scalar.
///
/// # Panics
/// If the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::{Var, xlogy};
/// assert_eq!(xlogy(0.0, &Var::from(0.0)).item(), 0.0);
/// ```
#[track_caller]
pub fn xlogy(x: impl Into<Operand>, y: impl Into<Operand>) -> Var {
    table::xlogy.apply(&x.into(), &y.into())
}

/// `x ln(1 + y)`, and zero where `x` is zero, unless `y` is NaN (`torch.special.xlog1py`). Either may be a scalar.
///
/// # Panics
/// If the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::{Var, xlog1py};
/// assert_eq!(xlog1py(0.0, &Var::from(-1.0)).item(), 0.0);
/// ```
#[track_caller]
pub fn xlog1py(x: impl Into<Operand>, y: impl Into<Operand>) -> Var {
    table::xlog1py.apply(&x.into(), &y.into())
}

impl Var {
    /// The absolute value of this with the sign of the other, be it that of a zero (`torch.copysign`). Integers are
    /// computed as F32.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(2.0).copysign(-0.0).item(), -2.0);
    /// ```
    #[track_caller]
    pub fn copysign(&self, other: impl Into<Operand>) -> Var {
        table::copysign.apply(&self.into(), &other.into())
    }

    /// `x ln(1 + y)`, and zero where `x` is zero, unless `y` is NaN (`torch.special.xlog1py`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(0.0).xlog1py(-1.0).item(), 0.0);
    /// ```
    #[track_caller]
    pub fn xlog1py(&self, other: impl Into<Operand>) -> Var {
        xlog1py(self, other)
    }

    /// `x ln(y)`, and zero where `x` is zero, unless `y` is NaN (`torch.xlogy`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from(0.0).xlogy(0.0).item(), 0.0);
    /// ```
    #[track_caller]
    pub fn xlogy(&self, other: impl Into<Operand>) -> Var {
        xlogy(self, other)
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, Var};

    #[test]
    fn ties_share_the_gradient() {
        let a = Var::parameter(Tensor::from_vec(vec![1f64, 2.0, 3.0], &[3]));
        let b = Var::parameter(Tensor::from_vec(vec![3f64, 2.0, 1.0], &[3]));
        a.maximum(&b).sum_all().backward();
        assert_eq!(a.take_grad().unwrap().to_vec::<f64>(), [0.0, 0.5, 1.0]);
        assert_eq!(b.take_grad().unwrap().to_vec::<f64>(), [1.0, 0.5, 0.0]);
        a.minimum(&b).sum_all().backward();
        assert_eq!(a.take_grad().unwrap().to_vec::<f64>(), [1.0, 0.5, 0.0]);
        a.fmax(&b).sum_all().backward();
        assert_eq!(a.take_grad().unwrap().to_vec::<f64>(), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn integers_and_nan() {
        let i = Var::from_vec(vec![1i64, 5], &[2]);
        assert_eq!(i.maximum(&Var::from(3)).dtype(), DType::I64);
        assert_eq!(i.atan2(&i).dtype(), DType::F32);
        let x = Var::from_vec(vec![f64::NAN, 1.0], &[2]);
        assert!(x.maximum(&Var::from(3.0)).to_vec::<f64>()[0].is_nan());
        assert_eq!(x.fmin(&Var::from(3.0)).to_vec::<f64>(), [3.0, 1.0]);
        let infinite = Var::from(f64::NEG_INFINITY);
        assert_eq!(infinite.logaddexp(&infinite).item(), f64::NEG_INFINITY);
    }

    #[test]
    fn remainders_are_exact() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let list =
            [-inf, -7.5, -3.0, -1e-40, -0.0, 0.0, 0.1, 0.3, 1.0, 3.0, 1e10, 16_777_217.0, 3e38, inf, nan];
        let n = list.len();
        let (a, b) = (Var::from_vec(list.to_vec(), &[n, 1]), Var::from_vec(list.to_vec(), &[n]));
        let (found, wide) =
            (a.fmod(&b).to_vec::<f32>(), a.cast(DType::F64).fmod(b.cast(DType::F64)).to_vec::<f64>());
        for (i, (x, y)) in found.iter().zip(&wide).enumerate() {
            let (p, q) = (list[i / n], list[i % n]);
            assert!(f64::from(*x) == *y || (x.is_nan() && y.is_nan()), "fmod({p}, {q}) is {x}, not {y}");
        }
        assert_eq!(Var::from(-7.0).remainder(f64::INFINITY).item(), f64::INFINITY);
        assert_eq!(Var::from(-7.0).floor_divide(f64::INFINITY).item(), -1.0);
    }

    #[test]
    fn a_number_keeps_its_precision_in_the_gradient() {
        let y = Var::parameter(Tensor::from_vec(vec![2f64], &[1]));
        super::xlogy(0.1, &y).sum_all().backward();
        assert_eq!(y.grad().unwrap().item(), 0.1 / 2.0);
    }
}
