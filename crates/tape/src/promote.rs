//! The type of a result from mixed operands (`torch.result_type`).

use crate::dtype::{DType, Scalar};
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;

/// An operand of a binary operation: a variable or a scalar. Made by `into()` from `&Var` and from numbers.
#[derive(Clone)]
pub enum Operand {
    /// A variable.
    Var(Var),
    /// A scalar, which takes part in type promotion only by its kind.
    Scalar(Scalar),
}

impl From<&Var> for Operand {
    fn from(v: &Var) -> Operand {
        Operand::Var(v.clone())
    }
}

impl From<&&Var> for Operand {
    fn from(v: &&Var) -> Operand {
        Operand::Var((*v).clone())
    }
}

impl From<Var> for Operand {
    fn from(v: Var) -> Operand {
        Operand::Var(v)
    }
}

impl From<&Operand> for Operand {
    fn from(o: &Operand) -> Operand {
        o.clone()
    }
}

impl<T: Into<Scalar>> From<T> for Operand {
    fn from(v: T) -> Operand {
        Operand::Scalar(v.into())
    }
}

/// A borrowed [`Operand`].
#[derive(Clone, Copy)]
pub(crate) enum Side<'a> {
    Var(&'a Var),
    Scalar(Scalar),
}

impl<'a> From<&'a Operand> for Side<'a> {
    fn from(o: &'a Operand) -> Side<'a> {
        match o {
            Operand::Var(v) => Side::Var(v),
            Operand::Scalar(s) => Side::Scalar(*s),
        }
    }
}

impl<'a> Side<'a> {
    /// The variable as an input of [`record`](crate::record).
    pub(crate) fn input(self) -> Option<&'a Var> {
        match self {
            Side::Var(v) => Some(v),
            Side::Scalar(_) => None,
        }
    }

    /// The operand as a constant of a type.
    pub(crate) fn tensor(self, dtype: DType) -> Tensor {
        match self {
            Side::Var(v) => v.tensor().into_type(dtype),
            Side::Scalar(s) => Tensor::full_with((), s, dtype),
        }
    }

    pub(crate) fn requires_grad(self) -> bool {
        self.input().is_some_and(Var::requires_grad)
    }

    /// The operand for capture by a derivative rule.
    pub(crate) fn saved(self) -> Operand {
        match self {
            Side::Var(v) => Operand::Var(v.saved()),
            Side::Scalar(s) => Operand::Scalar(s),
        }
    }

    fn shape(self) -> &'a [usize] {
        self.input().map_or(&[], Var::shape)
    }
}

impl Operand {
    /// The operand as a variable; a scalar becomes a constant without dimensions.
    pub fn var(&self) -> Var {
        match self {
            Operand::Var(v) => v.clone(),
            Operand::Scalar(s) => Var::from(Tensor::scalar(*s)),
        }
    }

    /// The variable as an input of [`record`](crate::record); a scalar has no place in the graph.
    pub fn input(&self) -> Option<&Var> {
        match self {
            Operand::Var(v) => Some(v),
            Operand::Scalar(_) => None,
        }
    }

    /// The sizes; none for a scalar.
    pub fn shape(&self) -> &[usize] {
        match self {
            Operand::Var(v) => v.shape(),
            Operand::Scalar(_) => &[],
        }
    }

    /// The operand as a constant of a type.
    pub(crate) fn tensor(&self, dtype: DType) -> Tensor {
        Side::from(self).tensor(dtype)
    }

    /// The operand without its graph.
    pub(crate) fn detach(&self) -> Operand {
        match self {
            Operand::Var(v) => Operand::Var(v.detach()),
            Operand::Scalar(s) => Operand::Scalar(*s),
        }
    }

    /// The operand for capture by a derivative rule.
    pub fn saved(&self) -> Operand {
        match self {
            Operand::Var(v) => Operand::Var(v.saved()),
            Operand::Scalar(s) => Operand::Scalar(*s),
        }
    }
}

/// 0 for booleans, 1 for integers, 2 for floating point.
fn kind(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 0,
        DType::U8 | DType::I64 => 1,
        _ => 2,
    }
}

/// The type that PyTorch gives a result of these operands: tensors with dimensions decide; those without, and scalars,
/// count only if they are of a higher kind (bool < integer < float).
pub fn result_type(operands: &[&Operand]) -> DType {
    type_of_result(operands.iter().map(|o| Side::from(*o)))
}

/// [`result_type`] of borrowed operands.
pub(crate) fn type_of_result<'a>(operands: impl Iterator<Item = Side<'a>>) -> DType {
    let mut groups: [Option<DType>; 3] = [None; 3];
    for operand in operands {
        let (group, dtype) = match operand {
            Side::Var(v) if v.ndim() > 0 => (0, v.dtype()),
            Side::Var(v) => (1, v.dtype()),
            Side::Scalar(s) => (2, s.dtype()),
        };
        groups[group] = Some(groups[group].map_or(dtype, |d| d.promote(dtype)));
    }
    let combined = groups.into_iter().flatten().reduce(|high, low| match kind(high) >= kind(low) {
        true => high,
        false => high.promote(low),
    });
    combined.unwrap_or(DType::F32)
}

/// The common shape of operands.
///
/// # Panics
/// If they do not broadcast, with the operation's name.
#[track_caller]
pub(crate) fn broadcast_operands(op: &str, operands: &[&Operand]) -> Dims {
    let [first, rest @ ..] = operands else { return Dims::new() };
    rest.iter().fold(Dims::from_slice(first.shape()), |shape, o| {
        if shape.as_slice() == o.shape() { shape } else { shape::broadcast_for(op, &shape, o.shape()) }
    })
}

/// [`broadcast_operands`] of two borrowed ones.
#[track_caller]
pub(crate) fn broadcast_sides(op: &str, a: Side, b: Side) -> Dims {
    let (a, b) = (a.shape(), b.shape());
    if a == b { Dims::from_slice(a) } else { shape::broadcast_for(op, a, b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_and_kinds_decide() {
        let var = |shape: &[usize], dtype| Operand::Var(Var::from(Tensor::zeros_with(shape, dtype)));
        let f32x = var(&[2], DType::F32);
        let f64x0 = var(&[], DType::F64);
        let i64x = var(&[2], DType::I64);
        assert_eq!(result_type(&[&f32x, &f64x0]), DType::F32);
        assert_eq!(result_type(&[&i64x, &f64x0]), DType::F64);
        assert_eq!(result_type(&[&i64x, &2.5.into()]), DType::F32);
        assert_eq!(result_type(&[&f64x0, &2.into()]), DType::F64);
        assert_eq!(result_type(&[&true.into(), &2.into()]), DType::I64);
        assert_eq!(result_type(&[&f32x, &var(&[1], DType::F64)]), DType::F64);
    }
}
