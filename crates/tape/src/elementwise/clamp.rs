//! `clamp`, `clamp_min`, `clamp_max`.

use super::binary::constant;
use super::select::where_;
use crate::dtype::DType;
use crate::kernels::strided::{GRAIN, zip_rows, zip3_rows};
use crate::node::{RecordOptions, record_with};
use crate::promote::{Operand, broadcast_operands, result_type};
use crate::tensor::Tensor;
use crate::var::Var;

crate::pointwise! {
    mod by_numbers: simd;

    hidden clamp(x, low, high) = lower(higher(x, low), high);
        input(x, g) fused if x > low && x < high { g } else { T::ZERO };
        rule where_(&x.gt(low).logical_and(&x.lt(high)), g, 0.0); on -2.0, 2.0, -0.7, 0.6;
    hidden clamp_min(x, low) = higher(x, low); input(x, g) fused if x > low { g } else { T::ZERO };
        rule where_(&x.gt(low), g, 0.0); on -2.0, 2.0, -0.7;
    hidden clamp_max(x, high) = lower(x, high); input(x, g) fused if x < high { g } else { T::ZERO };
        rule where_(&x.lt(high), g, 0.0); on -2.0, 2.0, 0.6;
}

/// Which bounds there are.
#[derive(Clone, Copy)]
enum Side {
    Below,
    Above,
}

impl Var {
    /// Clamps elements between two bounds, scalars or variables that broadcast (`torch.clamp`); where `min` is above
    /// `max`, the result is `max`. NaN stays. The gradient goes to what was taken; at a tie of an element and a bound
    /// each gets half of it if the bounds are variables; if they are scalars, the element gets none. For one bound see
    /// [`Var::clamp_min`] and [`Var::clamp_max`].
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![-1f32, 0.5, 3.0], &[3]);
    /// assert_eq!(x.clamp(0.0, 1.0).to_vec::<f32>(), [0.0, 0.5, 1.0]);
    /// ```
    #[track_caller]
    pub fn clamp(&self, min: impl Into<Operand>, max: impl Into<Operand>) -> Var {
        let (x, min, max): (Operand, Operand, Operand) = (self.into(), min.into(), max.into());
        if let (Some(low), Some(high)) = (number_for(&x, &min), number_for(&x, &max)) {
            return by_numbers::clamp.apply(self, [low, high, 0.0, 0.0]);
        }
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
            let tie = |bound: &Var| x.eq(bound).logical_and(&low.lt(high));
            let taken = match i {
                0 => x.lt(low).logical_or(&x.gt(high)).logical_not(),
                1 => x.lt(low).logical_and(&low.le(high)),
                _ => x.gt(high).logical_and(&low.le(high)).logical_or(&high.lt(low)),
            };
            let tie = match i {
                0 => tie(low).logical_or(&tie(high)),
                1 => tie(low),
                _ => tie(high),
            };
            where_(&tie, &(g * 0.5), &where_(&taken, g, 0.0))
        })
    }

    /// Clamps elements from below by a scalar or a variable (`torch.clamp_min`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(-1.0).clamp_min(0.0).item(), 0.0);
    /// ```
    #[track_caller]
    pub fn clamp_min(&self, min: impl Into<Operand>) -> Var {
        clamp_side("clamp_min", self.into(), min.into(), Side::Below)
    }

    /// Clamps elements from above by a scalar or a variable (`torch.clamp_max`).
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(2.0).clamp_max(1.0).item(), 1.0);
    /// ```
    #[track_caller]
    pub fn clamp_max(&self, max: impl Into<Operand>) -> Var {
        clamp_side("clamp_max", self.into(), max.into(), Side::Above)
    }
}

#[track_caller]
fn clamp_side(op: &'static str, x: Operand, bound: Operand, side: Side) -> Var {
    if let (Operand::Var(v), Some(bound)) = (&x, number_for(&x, &bound)) {
        let row = match side {
            Side::Below => &by_numbers::clamp_min,
            Side::Above => &by_numbers::clamp_max,
        };
        return row.apply(v, [bound, 0.0, 0.0, 0.0]);
    }
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
        let (own, other) = if i == 0 { (x, bound) } else { (bound, x) };
        let taken = |a: &Var, b: &Var| match side {
            Side::Below => a.gt(b),
            Side::Above => a.lt(b),
        };
        // As of `maximum` and `minimum`: half of it at a tie, and all of it to both where one is NaN.
        where_(&own.eq(other), &(g * 0.5), &where_(&taken(other, own), 0.0, g))
    })
}

/// The bound as a number, if it is one and the elements are floating-point numbers, whose type it does not change.
fn number_for(x: &Operand, bound: &Operand) -> Option<f64> {
    match (x, bound) {
        (Operand::Var(x), Operand::Scalar(s)) if x.dtype().is_float() => Some(s.to_f64()),
        _ => None,
    }
}

/// The type that an operation on integers, booleans and short floats is computed in.
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

/// Records an operation whose operands may be scalars; the rule numbers all operands.
#[track_caller]
pub(crate) fn record_operands(
    op: &'static str,
    operands: &[Operand],
    value: Tensor,
    rule: impl Fn(&Var, usize) -> Var + Send + Sync + 'static,
) -> Var {
    let inputs: Vec<Option<&Var>> = operands.iter().map(Operand::input).collect();
    let count = inputs.len();
    record_with(op, &inputs, value, RecordOptions::new().pointwise(), move |c| {
        (0..count).map(|i| c.wants(i).then(|| rule(c.grad(), i))).collect()
    })
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, Var};

    /// The values are those of PyTorch 2.15.
    #[test]
    fn gradients_follow_what_was_taken() {
        let parameter = |v: &[f64]| Var::parameter(Tensor::from_vec(v.to_vec(), &[v.len()]));
        let gradient = |v: &Var| v.grad().map_or(vec![], |g| g.to_vec::<f64>());
        let x = parameter(&[-1.0, 0.0, 0.5, 1.0, 2.0]);
        x.clamp(0, 1).sum_all().backward();
        assert_eq!(gradient(&x), [0.0, 0.0, 1.0, 0.0, 0.0]);
        // Elements, the bounds, and the gradients of all three.
        let cases: [(&[f64], f64, f64, &[f64], f64, f64); 4] = [
            (&[-1.0, 0.0, 0.5, 1.0, 2.0], 0.0, 1.0, &[0.0, 0.5, 1.0, 0.5, 0.0], 1.5, 1.5),
            (&[0.0, 1.0, 2.0, 3.0], 2.0, 1.0, &[0.0; 4], 0.0, 4.0),
            (&[0.0, 1.0, 2.0], 1.0, 1.0, &[0.0, 1.0, 0.0], 1.0, 1.0),
            (&[f64::NAN, 1.0], 0.0, 1.0, &[1.0, 0.5], 0.0, 0.5),
        ];
        for (elements, min, max, dx, dmin, dmax) in cases {
            let (x, low, high) = (parameter(elements), parameter(&[min]), parameter(&[max]));
            x.clamp(&low, &high).sum_all().backward();
            let found = (gradient(&x), gradient(&low), gradient(&high));
            assert_eq!(found, (dx.to_vec(), vec![dmin], vec![dmax]), "{elements:?} between {min} and {max}");
        }
    }

    #[test]
    fn one_bound_shares_as_maximum_and_minimum_do() {
        let elements = [-1.0, 0.0, 1.0, f64::NAN];
        for (below, by_number, by_variable, bound) in [
            (true, [0.0, 0.0, 1.0, 0.0], [0.0, 0.5, 1.0, 1.0], 2.5),
            (false, [1.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.0, 1.0], 2.5),
        ] {
            let x = Var::parameter(Tensor::from_vec(elements.to_vec(), &[4]));
            let zero = Var::parameter(Tensor::scalar(0.0));
            let y = if below { x.clamp_min(0) } else { x.clamp_max(0) };
            y.sum_all().backward();
            assert_eq!(x.take_grad().unwrap().to_vec::<f64>(), by_number);
            let y = if below { x.clamp_min(&zero) } else { x.clamp_max(&zero) };
            y.sum_all().backward();
            assert_eq!(x.grad().unwrap().to_vec::<f64>(), by_variable);
            assert_eq!(zero.grad().unwrap().item(), bound);
        }
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
