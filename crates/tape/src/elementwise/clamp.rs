//! `clamp`, `clamp_min`, `clamp_max`.

use super::binary::constant;
use super::select::where_;
use crate::dtype::DType;
use crate::kernels::strided::{GRAIN, zip_rows, zip3_rows};
use crate::node::record_slice;
use crate::promote::{Operand, broadcast_operands, result_type};
use crate::tensor::Tensor;
use crate::var::Var;

/// Which bounds there are.
#[derive(Clone, Copy)]
enum Side {
    Below,
    Above,
}

impl Var {
    /// Keeps elements between two bounds, numbers or variables that broadcast (`torch.clamp`); where `min` is
    /// above `max`, the result is `max`. NaN stays. Elements at a bound have gradient; a bound has it where it
    /// was taken. For one bound see [`Var::clamp_min`] and [`Var::clamp_max`].
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// let x = tape::Var::from_vec(vec![-1f32, 0.5, 3.0], &[3]);
    /// assert_eq!(x.clamp(0.0, 1.0).to_vec::<f32>(), [0.0, 0.5, 1.0]);
    /// ```
    #[track_caller]
    pub fn clamp(&self, min: impl Into<Operand>, max: impl Into<Operand>) -> Var {
        let (x, min, max): (Operand, Operand, Operand) = (self.into(), min.into(), max.into());
        let dtype = result_type(&[&x, &min, &max]);
        let wide = wide(dtype);
        let shape = broadcast_operands("clamp", &[&x, &min, &max]);
        let (t, low, high) = (x.tensor(wide), min.tensor(wide), max.tensor(wide));
        let value = crate::dispatch!(number: wide, "clamp", T => {
            zip3_rows::<T, T, T, T>(&shape, &t, &low, &high, GRAIN, &|out, x, low, high| {
                for (((o, &x), &low), &high) in out.iter_mut().zip(x).zip(low).zip(high) {
                    *o = lower(higher(x, low), high);
                }
            })
        });
        let saved = [&x, &min, &max].map(|o| constant(o, dtype));
        let operands = [x, min, max];
        record_operands("clamp", &operands, value.cast(dtype), move |g, i| {
            let [x, low, high] = &saved;
            match i {
                0 => where_(&x.ge(low).logical_and(&x.le(high)), g, 0.0),
                1 => where_(&x.lt(low).logical_and(&low.lt(high)), g, 0.0),
                _ => where_(&x.gt(high).logical_or(&high.lt(low)), g, 0.0),
            }
        })
    }

    /// Raises elements below a bound, a number or a variable, to it (`torch.clamp_min`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// assert_eq!(tape::Var::from(-1.0).clamp_min(0.0).item(), 0.0);
    /// ```
    #[track_caller]
    pub fn clamp_min(&self, min: impl Into<Operand>) -> Var {
        clamp_side("clamp_min", self.into(), min.into(), Side::Below)
    }

    /// Lowers elements above a bound, a number or a variable, to it (`torch.clamp_max`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// assert_eq!(tape::Var::from(2.0).clamp_max(1.0).item(), 1.0);
    /// ```
    #[track_caller]
    pub fn clamp_max(&self, max: impl Into<Operand>) -> Var {
        clamp_side("clamp_max", self.into(), max.into(), Side::Above)
    }
}

#[track_caller]
fn clamp_side(op: &'static str, x: Operand, bound: Operand, side: Side) -> Var {
    let dtype = result_type(&[&x, &bound]);
    let wide = wide(dtype);
    let shape = broadcast_operands(op, &[&x, &bound]);
    let (t, b) = (x.tensor(wide), bound.tensor(wide));
    let value = crate::dispatch!(number: wide, op, T => {
        zip_rows::<T, T, T>(&shape, &t, &b, GRAIN, &|out, x, b| match side {
            Side::Below => out.iter_mut().zip(x).zip(b).for_each(|((o, &x), &b)| *o = higher(x, b)),
            Side::Above => out.iter_mut().zip(x).zip(b).for_each(|((o, &x), &b)| *o = lower(x, b)),
        })
    });
    let saved = [&x, &bound].map(|o| constant(o, dtype));
    record_operands(op, &[x, bound], value.cast(dtype), move |g, i| {
        let [x, bound] = &saved;
        match (side, i) {
            (Side::Below, 0) => where_(&x.ge(bound), g, 0.0),
            (Side::Below, _) => where_(&x.lt(bound), g, 0.0),
            (Side::Above, 0) => where_(&x.le(bound), g, 0.0),
            (Side::Above, _) => where_(&x.gt(bound), g, 0.0),
        }
    })
}

/// The type that an operation on integers, truth values and short floats is computed in.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        DType::U8 | DType::Bool => DType::I64,
        other => other,
    }
}

/// The higher of two; NaN if either is.
#[inline(always)]
fn higher<T: crate::Number>(a: T, b: T) -> T {
    if a > b || a.is_nan() { a } else { b }
}

/// The lower of two; NaN if either is.
#[inline(always)]
fn lower<T: crate::Number>(a: T, b: T) -> T {
    if a < b || a.is_nan() { a } else { b }
}

/// Records an operation some of whose operands may be numbers; the rule counts all operands.
#[track_caller]
pub(crate) fn record_operands(
    op: &'static str,
    operands: &[Operand],
    value: Tensor,
    rule: impl Fn(&Var, usize) -> Var + Send + Sync + 'static,
) -> Var {
    let (positions, inputs): (Vec<usize>, Vec<&Var>) = operands
        .iter()
        .enumerate()
        .filter_map(|(i, o)| match o {
            Operand::Var(v) => Some((i, v)),
            Operand::Scalar(_) => None,
        })
        .unzip();
    record_slice(op, &inputs, value, move |c| {
        positions.iter().enumerate().map(|(k, &i)| c.wants(k).then(|| rule(c.grad(), i))).collect()
    })
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, Var};

    #[test]
    fn gradients_follow_what_was_taken() {
        let x = Var::parameter(Tensor::from_vec(vec![-1f64, 0.0, 0.5, 1.0, 2.0], &[5]));
        let low = Var::parameter(Tensor::scalar(0.0));
        let high = Var::parameter(Tensor::scalar(1.0));
        x.clamp(&low, &high).sum_all().backward();
        assert_eq!(x.grad().unwrap().to_vec::<f64>(), [0.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!((low.grad().unwrap().item(), high.grad().unwrap().item()), (1.0, 1.0));
    }

    #[test]
    fn integers_nan_and_crossed_bounds() {
        let i = Var::from_vec(vec![1i64, 5], &[2]);
        assert_eq!(i.clamp_max(3).dtype(), DType::I64);
        assert_eq!(i.clamp_max(3.5).to_vec::<f32>(), [1.0, 3.5]);
        assert!(Var::from(f64::NAN).clamp(0.0, 1.0).item().is_nan());
        assert_eq!(Var::from(5.0).clamp(3.0, 2.0).item(), 2.0);
    }
}
