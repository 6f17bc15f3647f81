//! `where`: elementwise selection between two operands.

use crate::dtype::DType;
use crate::kernels::strided;
use crate::node::{RecordOptions, record_with};
use crate::promote::{Operand, broadcast_operands, result_type};
use crate::tensor::Tensor;
use crate::var::Var;

/// The elements of `a` where the condition is true, else those of `b` (`torch.where`). All three broadcast, and
/// `a` and `b` are promoted to one type.
///
/// # Panics
/// If the shapes do not broadcast, or the condition is not made of booleans.
///
/// ```
/// let x = tapegrad_tape::Var::from_vec(vec![-1f32, 2.0], &[2]);
/// assert_eq!(tapegrad_tape::where_(&x.gt(0.0), &x, 0.0).to_vec::<f32>(), [0.0, 2.0]);
/// ```
#[track_caller]
pub fn where_(condition: &Var, a: impl Into<Operand>, b: impl Into<Operand>) -> Var {
    choose(condition, &a.into(), &b.into())
}

#[track_caller]
fn choose(condition: &Var, a: &Operand, b: &Operand) -> Var {
    assert!(
        matches!(condition.dtype(), DType::Bool | DType::U8),
        "where: the condition has to be bool, not {}",
        condition.dtype()
    );
    let dtype = result_type(&[a, b]);
    let shape = broadcast_operands("where", &[&Operand::Var(condition.clone()), a, b]);
    let mask = condition.tensor().cast(DType::Bool);
    let value = select(&shape, &mask, &a.tensor(dtype), &b.tensor(dtype));
    let mask = Var::from(mask);
    record_with("where", [a.input(), b.input()], value, RecordOptions::new().pointwise(), move |c| {
        [c.wants(0).then(|| where_(&mask, c.grad(), 0.0)), c.wants(1).then(|| where_(&mask, 0.0, c.grad()))]
    })
}

/// Only the size of an element matters here, but one loop for each type is simpler.
fn select(shape: &[usize], mask: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
    crate::dispatch!(all: a.dtype(), "where", T => strided::zip3_rows::<bool, T, T, T>(
        shape, mask, a, b, strided::GRAIN, &|out, mask, a, b| {
            for (((o, &m), &x), &y) in out.iter_mut().zip(mask).zip(a).zip(b) {
                *o = if m { x } else { y };
            }
        }
    ))
}

impl Var {
    /// The elements of this where the condition is true, else those of `other` (`torch.Tensor.where`).
    ///
    /// # Panics
    /// Same as [`where_`].
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![-1f32, 2.0], &[2]);
    /// assert_eq!(x.where_(&x.gt(0.0), 0.0).to_vec::<f32>(), [0.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn where_(&self, condition: &Var, other: impl Into<Operand>) -> Var {
        where_(condition, self, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_go_where_the_elements_came_from() {
        let a = Var::parameter(Tensor::from_vec(vec![1f64, 2.0], &[2, 1]));
        let b = Var::parameter(Tensor::from_vec(vec![3f64, 4.0, 5.0], &[3]));
        let mask = Var::from_vec(vec![true, false, false, true, true, false], &[2, 3]);
        let y = where_(&mask, &a, &b);
        assert_eq!(y.to_vec::<f64>(), [1.0, 4.0, 5.0, 2.0, 2.0, 5.0]);
        y.sum_all().backward();
        assert_eq!(a.grad().unwrap().to_vec::<f64>(), [1.0, 2.0]);
        assert_eq!(b.grad().unwrap().to_vec::<f64>(), [0.0, 1.0, 2.0]);
        let c = Var::parameter(Tensor::scalar(7.0));
        where_(&mask, 1.0, &c).sum_all().backward();
        assert_eq!(c.grad().unwrap().item(), 3.0);
    }

    #[test]
    #[should_panic(expected = "where: the condition has to be bool")]
    fn a_condition_of_numbers() {
        where_(&Var::from(1.0), 1.0, 2.0);
    }
}
