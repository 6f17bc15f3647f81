//! One-dimensional Winograd convolution: kernels seven taps wide with stride 1, by ten products instead of 28.
//!
//! With few input channels a two-dimensional transform would cost more than it saves. Here only the rows are
//! transformed (Winograd 1980, *Arithmetic Complexity of Computations*; Lavin and Gray 2016, *Fast Algorithms for
//! Convolutional Neural Networks*): a tile is four neighboring outputs, and for each of its ten frequencies the products
//! of all input channels and rows of the kernel are one matrix product.
//!
//! Rounding errors are larger than those of the direct method: on random data with up to four input channels at most 4e-6
//! of the largest value of the result, forward and for the gradient of the weight. Results do not depend on the number of
//! threads.

mod forward;
mod lines;
mod scheme;
mod weight_grad;

#[cfg(test)]
mod tests;

use super::geometry::Conv2dShape;
use tapegrad_tape::kernels::arch::{InstructionSet, instruction_set};

/// Whether these kernels can compute a convolution: one group, seven taps wide, stride 1 and dilation 1.
pub fn supports(s: &Conv2dShape) -> bool {
    s.groups == 1 && s.kw == scheme::TAPS && s.c_in > 0 && s.stride == [1, 1] && s.dilation == [1, 1]
}

/// Whether these kernels are the fastest choice for a convolution, as measured with few input channels: at
/// least two tiles in a row and a vector of output channels, and enough products to pay for the transforms.
pub fn wins(s: &Conv2dShape) -> bool {
    let products = s.kh * s.c_in >= 7 && s.flops() >= 4_000_000;
    supports(s) && s.c_in <= 8 && s.c_out >= 16 && s.out_w() >= 8 && products
}

/// Convolution: `y = conv(x, w) + bias`, with `x` and `y` channels-last, `w` as `[c_out, c_in, kh, 7]`.
///
/// # Panics
/// If the shape is not one that [`supports`] names, or a slice has another length than the shape asks for.
#[track_caller]
pub fn forward(s: &Conv2dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    check(s, x, w, bias, y);
    forward_at(instruction_set(), s, x, w, bias, y);
}

/// The gradient of a convolution's weight, from its input and the gradient of its output.
///
/// # Panics
/// Same as `forward`.
#[track_caller]
pub fn weight_grad(s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    check(s, x, dw, None, dy);
    weight_grad_at(instruction_set(), s, x, dy, dw);
}

#[track_caller]
fn check(s: &Conv2dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &[f32]) {
    assert!(supports(s), "convolution: {s:?} is not seven taps wide with stride 1 and dilation 1");
    s.check(x, w, bias, y);
}

fn forward_at(
    set: InstructionSet,
    s: &Conv2dShape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    if !y.is_empty() {
        forward::run(set, s, x, w, bias, y);
    }
}

fn weight_grad_at(set: InstructionSet, s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    if x.is_empty() || dy.is_empty() {
        dw.fill(0.0);
    } else {
        weight_grad::run(set, s, x, dy, dw);
    }
}
