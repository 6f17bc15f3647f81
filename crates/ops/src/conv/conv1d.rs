//! `conv1d`.

use super::{ConvOptions, conv_nd};
use tapegrad_tape::Var;

/// Cross-correlation in one dimension (`torch.nn.functional.conv1d`).
///
/// Input `[N, C, L]` or `[C, L]`, weight `[O, C / groups, K]`, bias `[O]`; the result is `[N, O, L']` with
/// `L' = (L + 2 padding - dilation (K - 1) - 1) / stride + 1`.
///
/// # Panics
/// If shapes, types and options do not fit.
///
/// ```
/// use tapegrad_ops::{ConvOptions, conv1d, conv1d_with};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[1, 1, 4]);
/// let w = Var::from_vec(vec![1f32, -1.0], &[1, 1, 2]);
/// assert_eq!(conv1d(&x, &w, None).to_vec::<f32>(), [-1.0, -1.0, -1.0]);
/// ```
#[track_caller]
pub fn conv1d<'a>(input: &Var, weight: &Var, bias: impl Into<Option<&'a Var>>) -> Var {
    conv1d_with(input, weight, bias, Default::default())
}

/// [`conv1d`] with stride, padding, dilation and groups.
///
/// # Panics
/// Same as [`conv1d`].
#[track_caller]
pub fn conv1d_with<'a>(
    input: &Var,
    weight: &Var,
    bias: impl Into<Option<&'a Var>>,
    options: ConvOptions<1>,
) -> Var {
    let bias = bias.into();
    conv_nd("conv1d", input, weight, bias, &options)
}
