//! The types that operations compute in inside [`autocast`](tapegrad_tape::autocast).

use crate::normalization::is_half;
use std::borrow::Cow;
use tapegrad_tape::{DType, Var, autocast_dtype, without_autocast};

/// Calls an operation with its inputs in the type of autocast, if this thread is in one. F64 and integers stay as they are.
#[track_caller]
pub(crate) fn lowered<const N: usize>(inputs: [&Var; N], op: impl FnOnce([&Var; N]) -> Var) -> Var {
    let Some(dtype) = autocast_dtype() else { return op(inputs) };
    let cast = inputs.map(|v| lower(v, dtype));
    without_autocast(|| op(cast.each_ref()))
}

/// [`lowered`] for an operation whose last input may be absent.
#[track_caller]
pub(crate) fn lowered_with_bias(
    inputs: [&Var; 2],
    bias: Option<&Var>,
    op: impl FnOnce(&Var, &Var, Option<&Var>) -> Var,
) -> Var {
    let Some(dtype) = autocast_dtype() else { return op(inputs[0], inputs[1], bias) };
    let ([a, b], bias) = (inputs.map(|v| lower(v, dtype)), bias.map(|v| lower(v, dtype)));
    without_autocast(|| op(&a, &b, bias.as_ref()))
}

/// All inputs of an operation in the type of autocast.
pub(crate) fn lowered_list<'a>(inputs: impl Iterator<Item = &'a Var>) -> Vec<Var> {
    inputs.map(|v| autocast_dtype().map_or_else(|| v.clone(), |dtype| lower(v, dtype))).collect()
}

fn lower(v: &Var, dtype: DType) -> Var {
    if v.dtype() == DType::F32 || is_half(v.dtype()) { v.cast(dtype) } else { v.clone() }
}

/// An input of an operation that computes in F32 inside autocast.
pub(crate) fn in_f32(v: &Var) -> Cow<'_, Var> {
    if autocast_dtype().is_some() && is_half(v.dtype()) {
        Cow::Owned(v.cast(DType::F32))
    } else {
        Cow::Borrowed(v)
    }
}

/// Calls an operation whose kernels exist for F32 and F64 only: operands of F16 and BF16 are converted, and so is the result.
#[track_caller]
pub(crate) fn through_f32<const N: usize>(inputs: [&Var; N], op: impl FnOnce([&Var; N]) -> Var) -> Var {
    let dtype = inputs[0].dtype();
    if !is_half(dtype) {
        return op(inputs);
    }
    let wide = inputs.map(|v| if is_half(v.dtype()) { v.cast(DType::F32) } else { v.clone() });
    op(wide.each_ref()).cast(dtype)
}
