//! `conv3d`.

use super::{ConvOptions, conv_nd};
use tapegrad_tape::Var;

/// Cross-correlation in three dimensions (`torch.nn.functional.conv3d`).
///
/// Input `[N, C, D, H, W]` or without `N`, weight `[O, C / groups, KD, KH, KW]`, bias `[O]`; sizes as for
/// [`conv2d`](crate::conv2d).
///
/// # Panics
/// If shapes, types and options do not fit.
///
/// ```
/// use tapegrad_ops::{ConvOptions, conv3d_with};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let x = Var::from(Tensor::ones_with(&[1, 2, 4, 4, 4], DType::F32));
/// let w = Var::from(Tensor::ones_with(&[3, 2, 2, 2, 2], DType::F32));
/// let y = conv3d_with(&x, &w, None, ConvOptions::new().stride(2));
/// assert_eq!((y.shape(), y.to_vec::<f32>()[0]), (&[1, 3, 2, 2, 2][..], 16.0));
/// ```
#[track_caller]
pub fn conv3d<'a>(input: &Var, weight: &Var, bias: impl Into<Option<&'a Var>>) -> Var {
    conv3d_with(input, weight, bias, Default::default())
}

/// [`conv3d`] with stride, padding, dilation and groups.
///
/// # Panics
/// Same as [`conv3d`].
#[track_caller]
pub fn conv3d_with<'a>(
    input: &Var,
    weight: &Var,
    bias: impl Into<Option<&'a Var>>,
    options: ConvOptions<3>,
) -> Var {
    let bias = bias.into();
    conv_nd("conv3d", input, weight, bias, &options)
}
