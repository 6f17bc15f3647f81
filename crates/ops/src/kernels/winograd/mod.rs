//! Winograd convolution: 3x3 kernels with a quarter of the products for stride 1, and 9 of 16 for stride 2; 4x4 kernels with
//! stride 2, the layers of DCGAN and U-Nets that halve and double an image, with 25 of 64.
//!
//! Images are split into tiles of 4x4 outputs. A tile and the kernel are transformed into 36 frequencies, where the
//! convolution is one product for each: 36 instead of 144. Over all tiles and channels the products are 36 matrix
//! products, and the transforms cost little where there are enough channels. A stride of two splits the kernel into
//! even and odd taps, and needs 81 products with three taps, 100 with four.
//!
//! Rounding errors are larger than those of the direct method: on random data at most some 5e-6 of the largest value of
//! the result, forward and backward. With few channels, where the direct method is faster anyway, stride 1 takes tiles
//! of 2x2 outputs, 16 products instead of 36, with a third of the error. Results do not depend on the number of
//! threads.

mod forward;
mod scheme;
mod stride2;
mod tiles;
mod weight_grad;
mod weights;

#[cfg(test)]
mod tests;

use super::geometry::Conv2dShape;
use scheme::{F2, F4, Scheme, WeightScheme, Whole2};
use std::marker::PhantomData;
use stride2::{Stride2, Stride2Taps4, Stride2Taps4Transposed, Stride2Transposed};
use tapegrad_tape::kernels::arch::{InstructionSet, instruction_set};
use tapegrad_tape::kernels::shared::SharedSlice;
use tiles::{Finish, Grid};
use weights::Weights;

/// The fewest channels on either side for which these kernels are the fastest.
const CHANNELS: usize = 16;

/// Whether these kernels can compute a convolution: one group, dilation 1, and 3x3 with stride 1 and padding at most 2, or 3x3
/// or 4x4 with stride 2 and padding 1.
pub fn supports(s: &Conv2dShape) -> bool {
    let steps = match s.stride {
        [1, 1] => [s.kh, s.kw] == [3, 3] && s.padding.iter().all(|&p| p <= 2),
        [2, 2] => matches!([s.kh, s.kw], [3, 3] | [4, 4]) && s.padding == [1, 1],
        _ => false,
    };
    s.groups == 1 && s.dilation == [1, 1] && steps
}

/// Whether these kernels are the fastest choice for a convolution, as measured: with at least 16 channels on
/// either side, where they save enough products to pay for the transforms.
pub fn wins(s: &Conv2dShape) -> bool {
    if !supports(s) || few_channels(s) {
        return false;
    }
    // The direct kernels skip the taps that fall into the padding; tiles at the border compute outputs that are
    // discarded.
    let direct = taps(s, s.h, s.out_h(), 0) * taps(s, s.w, s.out_w(), 1);
    let tile = match (s.stride, s.kh) {
        ([1, 1], _) => 36,
        (_, 3) => 81,
        _ => 100,
    };
    let products = if whole2(s) { 9 } else { tile * s.out_h().div_ceil(4) * s.out_w().div_ceil(4) };
    let gain = direct as f64 / products as f64;
    gain >= if s.c_in.min(s.c_out) < 32 { 1.6 } else { 1.3 }
}

/// Whether there are too few channels to be faster. Then tiles are chosen for accuracy: [`F2`].
fn few_channels(s: &Conv2dShape) -> bool {
    s.c_in.min(s.c_out) < CHANNELS
}

/// Pairs of an output and a tap that fall inside the image, in one dimension.
fn taps(s: &Conv2dShape, size: usize, out: usize, axis: usize) -> usize {
    let (stride, padding) = (s.stride[axis], s.padding[axis]);
    let inside = |o: usize| {
        (0..[s.kh, s.kw][axis]).filter(|tap| (padding..padding + size).contains(&(o * stride + tap))).count()
    };
    (0..out).map(inside).sum()
}

/// Whether all of an image is one tile of [`Whole2`].
fn whole2(s: &Conv2dShape) -> bool {
    [s.h, s.w] == [2, 2] && s.padding == [1, 1] && s.stride == [1, 1]
}

/// Convolution: `y = conv(x, w) + bias`, with `x` and `y` channels-last, `w` as `[c_out, c_in, kh, kw]`.
///
/// # Panics
/// If the shape is not one that [`supports`] names, or a slice has another length than the shape asks for.
#[track_caller]
pub fn forward(s: &Conv2dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    check(s, x, w, bias, y);
    forward_at(instruction_set(), s, x, w, bias, y);
}

/// The gradient of a convolution's input, from that of its output.
///
/// # Panics
/// Same as `forward`.
#[track_caller]
pub fn input_grad(s: &Conv2dShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    check(s, dx, w, None, dy);
    input_grad_at(instruction_set(), s, dy, w, dx);
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
    assert!(
        supports(s),
        "winograd: {s:?} is not a 3x3 convolution with stride 1 and padding up to 2, or one of 3x3 or 4x4 with stride 2 and padding 1"
    );
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
    let weights = Weights::new(s, w);
    if whole2(s) {
        convolve::<Whole2>(set, Grid::new::<Whole2>(s), x, weights, bias, y);
    } else if s.kh == 4 {
        convolve::<Stride2Taps4>(set, Grid::new::<Stride2Taps4>(s), x, weights, bias, y);
    } else if s.stride == [2, 2] {
        convolve::<Stride2>(set, Grid::new::<Stride2>(s), x, weights, bias, y);
    } else if few_channels(s) {
        convolve::<F2>(set, Grid::new::<F2>(s), x, weights, bias, y);
    } else {
        convolve::<F4>(set, Grid::new::<F4>(s), x, weights, bias, y);
    }
}

fn input_grad_at(set: InstructionSet, s: &Conv2dShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let weights = Weights::transposed(s, w);
    if whole2(s) {
        convolve::<Whole2>(set, Grid::transposed::<Whole2>(s), dy, weights, None, dx);
    } else if s.kh == 4 {
        let grid = Grid::transposed::<Stride2Taps4Transposed>(s);
        convolve::<Stride2Taps4Transposed>(set, grid, dy, weights, None, dx);
    } else if s.stride == [2, 2] {
        let grid = Grid::transposed::<Stride2Transposed>(s);
        convolve::<Stride2Transposed>(set, grid, dy, weights, None, dx);
    } else if few_channels(s) {
        convolve::<F2>(set, Grid::transposed::<F2>(s), dy, weights, None, dx);
    } else {
        convolve::<F4>(set, Grid::transposed::<F4>(s), dy, weights, None, dx);
    }
}

fn weight_grad_at(set: InstructionSet, s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    fn run<S: WeightScheme>(set: InstructionSet, s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        weight_grad::Job::<S> { grid: Grid::new::<S>(s), x, dy, scheme: PhantomData }.run(set, dw);
    }
    if x.is_empty() || dy.is_empty() {
        dw.fill(0.0);
    } else if whole2(s) {
        run::<Whole2>(set, s, x, dy, dw);
    } else if s.kh == 4 {
        run::<Stride2Taps4>(set, s, x, dy, dw);
    } else if s.stride == [2, 2] {
        run::<Stride2>(set, s, x, dy, dw);
    } else if few_channels(s) {
        run::<F2>(set, s, x, dy, dw);
    } else {
        run::<F4>(set, s, x, dy, dw);
    }
}

fn convolve<S: Scheme>(
    set: InstructionSet,
    grid: Grid,
    x: &[f32],
    weights: Weights,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let finish = Finish { y: SharedSlice::new(y), bias };
    forward::Job::<S> { grid, x, weights, finish, scheme: PhantomData }.run(set);
}
