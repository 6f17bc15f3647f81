//! `conv2d`.

use super::{ConvOptions, conv_nd};
use tapegrad_tape::Var;

/// Cross-correlation in two dimensions (`torch.nn.functional.conv2d`).
///
/// Input `[N, C, H, W]` or `[C, H, W]`, weight `[O, C / groups, KH, KW]`, bias `[O]`; the result is `[N, O, H', W']`
/// with `H' = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1`, and likewise `W'`. In F32 without groups the
/// result is stored channels-last, the fastest layout for most operations that follow.
///
/// # Panics
/// If shapes, types and options do not fit.
///
/// ```
/// use tapegrad_ops::{ConvOptions, conv2d, conv2d_with};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let x = Var::from(Tensor::ones_with(&[8, 3, 32, 32], DType::F32));
/// let w = Var::from(Tensor::ones_with(&[16, 3, 3, 3], DType::F32));
/// let y = conv2d_with(&x, &w, None, ConvOptions::new().padding(1));
/// assert_eq!(y.shape(), [8, 16, 32, 32]);
/// ```
#[track_caller]
pub fn conv2d<'a>(input: &Var, weight: &Var, bias: impl Into<Option<&'a Var>>) -> Var {
    conv2d_with(input, weight, bias, Default::default())
}

/// [`conv2d`] with stride, padding, dilation and groups.
///
/// # Panics
/// Same as [`conv2d`].
#[track_caller]
pub fn conv2d_with<'a>(
    input: &Var,
    weight: &Var,
    bias: impl Into<Option<&'a Var>>,
    options: ConvOptions<2>,
) -> Var {
    let bias = bias.into();
    conv_nd("conv2d", input, weight, bias, &options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::{DType, Tensor};

    #[test]
    #[should_panic(
        expected = "conv2d: input [8, 3, 32, 32] has 3 channels but weight [16, 4, 3, 3] expects 4 (groups = 1)"
    )]
    fn channels_that_do_not_fit() {
        let x = Var::from(Tensor::zeros_with(&[8, 3, 32, 32], DType::F32));
        let w = Var::from(Tensor::zeros_with(&[16, 4, 3, 3], DType::F32));
        conv2d(&x, &w, None);
    }

    #[test]
    #[should_panic(
        expected = "the kernel (with dilation, 5) is larger than the padded input (4) in spatial dimension 1"
    )]
    fn a_kernel_that_does_not_fit() {
        let x = Var::from(Tensor::zeros_with(&[1, 1, 8, 4], DType::F32));
        let w = Var::from(Tensor::zeros_with(&[1, 1, 3, 3], DType::F32));
        conv2d_with(&x, &w, None, ConvOptions::new().dilation(2));
    }
}
