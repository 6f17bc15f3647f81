//! Convolutions in groups of few channels, depthwise ones first of all, of channels-last images.
//!
//! The lanes of a vector are channels of the output. With one channel on either side of a group, an output pixel is a
//! sum over the taps of input vectors times weight vectors, all read in place. With more channels in a group, the
//! input is first spread, a few rows at a time: for each channel of a group one vector whose lanes hold it once for
//! each output channel of its group. Then a tap is as many products as a group has input channels.
//!
//! Any stride, padding and dilation is computed by the same loops. The gradient for the input is a convolution of the
//! same kind: with a stride, one for each residue of the pixel's position. The gradient for the weight has a sum for
//! each tap in registers.

mod axis;
mod rows;
mod spread;
mod weight_grad;

#[cfg(test)]
mod tests;

use super::direct_conv::run_tasks;
use super::geometry::Conv2dShape;
use super::scratch::with_scratch;
use axis::Axis;
use rows::Rows;
use spread::Spread;
use std::ops::Range;
use tapegrad_tape::kernels::arch::{InstructionSet, MAX_LANES, instruction_set, run_with};
use tapegrad_tape::kernels::shared::SharedSlice;

/// The most channels of a group on either side with which these kernels are the fastest.
const MAX_CHANNELS: usize = 3;

/// Operations of a task, unless a row has more.
const TASK_FLOPS: usize = 1 << 19;

/// Whether these kernels are the fastest choice for a convolution.
pub fn wins(s: &Conv2dShape) -> bool {
    s.groups > 1 && s.c_in > 0 && (s.c_in / s.groups).max(s.c_out / s.groups) <= MAX_CHANNELS
}

/// Convolution: `y = conv(x, w) + bias`, with `x` and `y` channels-last, `w` as `[c_out, c_in / groups, kh, kw]`.
///
/// # Panics
/// If the length of a slice does not match the shape.
#[track_caller]
pub fn forward(s: &Conv2dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    s.check(x, w, bias, y);
    forward_at(instruction_set(), s, x, w, bias, y);
}

/// The gradient of a convolution's input, from that of its output.
///
/// # Panics
/// If the length of a slice does not match the shape.
#[track_caller]
pub fn input_grad(s: &Conv2dShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    s.check(dx, w, None, dy);
    input_grad_at(instruction_set(), s, dy, w, dx);
}

/// The gradient of a convolution's weight, from its input and the gradient of its output.
///
/// # Panics
/// If the length of a slice does not match the shape.
#[track_caller]
pub fn weight_grad(s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    s.check(x, dw, None, dy);
    weight_grad_at(instruction_set(), s, x, dy, dw);
}

fn forward_at(
    set: InstructionSet,
    s: &Conv2dShape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    if y.is_empty() {
        return;
    }
    let taps = s.kh * s.kw;
    let job = Job {
        n: s.n,
        axes: [Axis::forward(s, 0), Axis::forward(s, 1)],
        channels: Channels { groups: s.groups, source: s.c_in, target: s.c_out },
        target: [s.out_h(), s.out_w()],
        kernel_columns: s.kw,
    };
    let per_group = job.channels.per_group();
    // The weight of a channel of the output for a channel of its group.
    job.run(set, x, |o, r, t| w[(o * per_group + r) * taps + t], bias, y);
}

fn input_grad_at(set: InstructionSet, s: &Conv2dShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    if dx.is_empty() {
        return;
    }
    let (taps, from, to) = (s.kh * s.kw, s.c_out / s.groups, s.c_in / s.groups);
    for rows in Axis::input_grads(s, 0) {
        for columns in Axis::input_grads(s, 1) {
            let job = Job {
                n: s.n,
                axes: [rows.clone(), columns],
                channels: Channels { groups: s.groups, source: s.c_out, target: s.c_in },
                target: [s.h, s.w],
                kernel_columns: s.kw,
            };
            let weight = |i: usize, r: usize, t: usize| w[((i / to * from + r) * to + i % to) * taps + t];
            job.run(set, dy, weight, None, dx);
        }
    }
}

fn weight_grad_at(set: InstructionSet, s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    if x.is_empty() || dy.is_empty() || dw.is_empty() {
        dw.fill(0.0);
    } else {
        weight_grad::run(set, s, x, dy, dw);
    }
}

/// The channels of both sides of a correlation.
#[derive(Clone, Copy)]
struct Channels {
    groups: usize,
    source: usize,
    target: usize,
}

impl Channels {
    /// Channels of the source in a group.
    fn per_group(&self) -> usize {
        self.source / self.groups
    }

    /// Whether the source is read in place: each of its channels belongs to the target channel with its number.
    fn in_place(&self) -> bool {
        self.source == self.target && self.groups == self.source
    }

    /// How many channels of the target are computed at once.
    fn block(&self) -> usize {
        if self.in_place() { self.target } else { MAX_LANES }
    }

    fn blocks(&self) -> usize {
        self.target.div_ceil(self.block())
    }
}

/// A correlation of images in groups, for some or all pixels of the target.
struct Job {
    n: usize,
    /// Rows and columns.
    axes: [Axis; 2],
    channels: Channels,
    /// Rows and columns of a target image.
    target: [usize; 2],
    kernel_columns: usize,
}

impl Job {
    fn flops_of_row(&self) -> usize {
        let [rows, columns] = &self.axes;
        let taps = (rows.taps.len() * columns.taps.len()).max(1);
        (2 * columns.grid * taps * self.channels.per_group()).saturating_mul(self.channels.target)
    }

    /// `weight(o, r, t)` is the weight of tap t of channel r of the group of target channel o.
    fn run(
        &self,
        set: InstructionSet,
        source: &[f32],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: Option<&[f32]>,
        target: &mut [f32],
    ) {
        let (block, blocks, from) =
            (self.channels.block(), self.channels.blocks(), self.channels.per_group());
        let taps = self.taps();
        let panel = taps.len() * from * block;
        with_scratch(blocks * panel + block, |weights| {
            weights.fill(0.0);
            for (i, weights) in weights[..blocks * panel].chunks_exact_mut(block).enumerate() {
                let (first, t, r) = (i / (taps.len() * from) * block, i / from % taps.len(), i % from);
                let count = block.min(self.channels.target - first);
                for (c, to) in weights[..count].iter_mut().enumerate() {
                    *to = weight(first + c, r, taps[t]);
                }
            }
            let (weights, target) = (&*weights, SharedSlice::new(target));
            let grid = self.axes[0].grid;
            // Spreading repeats the rows that two bands read.
            let least = if self.channels.in_place() { 1 } else { 4 };
            let band = (TASK_FLOPS / (self.flops_of_row() / blocks).max(1)).clamp(least, grid.max(least));
            let bands = grid.div_ceil(band);
            let flops = self.flops_of_row().saturating_mul(self.n * grid);
            run_tasks(self.n * bands * blocks, flops, |task| {
                let (image, band_number, number) =
                    (task / bands / blocks, task / blocks % bands, task % blocks);
                let rows = band_number * band..grid.min((band_number + 1) * band);
                let first = number * block;
                let count = block.min(self.channels.target - first);
                self.with_source(set, source, image, &rows, number, |view| {
                    let place = (image * self.target[0] * self.target[1]) * self.channels.target + first;
                    let rows = Rows {
                        rows: rows.clone(),
                        axes: &self.axes,
                        source: view,
                        channels: count,
                        weights: weights[number * panel..].as_ptr(),
                        weight_step: block,
                        bias: bias.map_or(std::ptr::null(), |b| b[first..].as_ptr()),
                        target: target.at(place),
                        target_pixel: self.channels.target,
                        target_row: self.target[1] * self.channels.target,
                    };
                    // SAFETY: the image has a source and a target of the sizes that the axes name; each band and
                    // block of channels is in one task.
                    run_with(set, rows);
                });
            });
        });
    }

    /// The indices in the kernel of all taps, row by row.
    fn taps(&self) -> Vec<usize> {
        let [rows, columns] = &self.axes;
        let columns_of = |i: usize| columns.taps.iter().map(move |&(_, j)| i * self.kernel_columns + j);
        rows.taps.iter().flat_map(|&(_, i)| columns_of(i)).collect()
    }

    /// Calls `f` with what some rows of a block of target channels read.
    fn with_source(
        &self,
        set: InstructionSet,
        source: &[f32],
        image: usize,
        rows: &Range<usize>,
        block: usize,
        f: impl FnOnce(View),
    ) {
        let (channels, [down, right]) = (self.channels, &self.axes);
        let (height, width) = (down.source, right.source);
        let source = &source[image * height * width * channels.source..][..height * width * channels.source];
        let from = channels.per_group();
        if channels.in_place() || from == 0 {
            let pixel = channels.source;
            return f(View { start: source.as_ptr(), row: width * pixel, pixel, per_group: from });
        }
        let lines = down.reads(rows);
        let pixel = from * MAX_LANES;
        // The last vector may reach past the end.
        with_scratch(lines.len() * width * pixel + MAX_LANES, |copy| {
            run_with(
                set,
                Spread::new(channels, block, &source[lines.start * width * channels.source..], copy),
            );
            let row = width * pixel;
            // As if the lines before were there, too.
            f(View { start: copy.as_ptr().wrapping_sub(lines.start * row), row, pixel, per_group: from });
        });
    }
}

/// Where the vectors of a source image are.
#[derive(Clone, Copy)]
struct View {
    /// The first pixel of the image.
    start: *const f32,
    /// Distances between rows and between pixels.
    row: usize,
    pixel: usize,
    /// Vectors of a pixel: [`MAX_LANES`] apart.
    per_group: usize,
}

/// What a window adds up: elements of the source, relative to its first pixel, and the places of their weights.
type Products = Vec<(isize, usize)>;

impl View {
    /// The products of the windows of a row, with those columns of the kernel that `keep` names by where they read. The
    /// weights of a channel of a group are `step` apart.
    #[inline(always)]
    fn products(
        &self,
        [down, right]: &[Axis; 2],
        row: usize,
        step: usize,
        products: &mut Products,
        keep: impl Fn(isize) -> bool,
    ) {
        for (i, &(at, _)) in down.taps.iter().enumerate() {
            let Some(y) = down.read(row, at) else { continue };
            for (j, &(at, _)) in right.taps.iter().enumerate() {
                if !keep(at) {
                    continue;
                }
                let place = (y * self.row) as isize + at * self.pixel as isize;
                let weight = (i * right.taps.len() + j) * self.per_group;
                for r in 0..self.per_group {
                    products.push((place + (r * MAX_LANES) as isize, (weight + r) * step));
                }
            }
        }
    }
}
