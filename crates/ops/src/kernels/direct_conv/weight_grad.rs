//! The weight gradient: for each tap, a matrix product over the pixels.
//!
//! The rows of a tile are channels of one side and its columns channels of the other; both are read where
//! they lie, pixel by pixel. The pixels are cut into groups, each of which has partial sums of its own; the
//! number of groups follows from the shape alone, and they are added in order.

use super::{Conv2dShape, Image, check, run_tasks};
use crate::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile};
use crate::kernels::scratch::{Shared, with_scratch};
use std::ops::Range;

/// Channels up to which images are copied with the zeros around them, so that the taps of a kernel
/// row become one run of channels.
const FEW_CHANNELS: usize = 12;

/// The gradient of a convolution with respect to its weight: `dw` (c_out, c_in, kh, kw) from the input `x`
/// (n, h, w, c_in) and the output's gradient `dy` (n, out_h, out_w, c_out).
///
/// # Panics
/// If a slice has not the length that the shape asks for.
pub fn weight_grad(s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    check(s, x.len(), dw.len(), dy.len());
    if dw.is_empty() || dy.is_empty() {
        dw.fill(0.0);
        return;
    }
    let plan = Plan::new(s);
    with_scratch(plan.groups * dw.len(), |partial| {
        let out = Shared(partial.as_mut_ptr());
        run_tasks(plan.groups * plan.splits, s.flops(), |task| {
            let (group, split) = (task / plan.splits, task % plan.splits);
            plan.blocks(group, |images, lines, first| {
                plan.with_source(x, images, lines, |source| {
                    // SAFETY: the sums of a group are `weight_len` elements of their own, and each of its
                    // panels is in one task.
                    unsafe { plan.block(&source, dy, split, first, out.get().add(group * s.weight_len())) }
                });
            });
        });
        plan.reduce(partial, dw);
    });
}

/// Taps that read neighbouring channels of the source.
struct Run {
    at: [usize; 2],
    /// Channels in the run.
    len: usize,
    /// Where its sums start, in elements.
    start: usize,
}

struct Plan<'a> {
    s: &'a Conv2dShape,
    out: Image,
    runs: Vec<Run>,
    /// Whether images are copied with zeros around them.
    padded: bool,
    /// Whether the rows of a tile are output channels.
    swapped: bool,
    /// Sets of partial sums.
    groups: usize,
    /// Tasks that share a group's panels.
    splits: usize,
    /// A block is this many images and output rows.
    images: usize,
    lines: usize,
}

impl<'a> Plan<'a> {
    fn new(s: &'a Conv2dShape) -> Self {
        let out = Image { h: s.out_h(), w: s.out_w(), c: s.c_out };
        let padded = s.c_in <= FEW_CHANNELS && s.dilation[1] == 1;
        let per_row = if padded { 1 } else { s.kw };
        let run_len = if padded { s.kw * s.c_in } else { s.c_in };
        let mut runs = Vec::with_capacity(s.kh * per_row);
        for i in 0..s.kh {
            for j in 0..per_row {
                let start = (i * per_row + j) * run_len * s.c_out;
                runs.push(Run { at: [i * s.dilation[0], j * s.dilation[1]], len: run_len, start });
            }
        }
        // A tile costs its rows times its vectors; one vector alone keeps the units half busy.
        let cost = |rows: usize, columns: usize| {
            let vectors = columns.div_ceil(16);
            rows.max(4) * (2 * vectors + vectors % 2)
        };
        let swapped = cost(s.c_out, run_len) < cost(run_len, s.c_out);
        let columns = if swapped { run_len } else { s.c_out };

        let pixels = out.h * out.w;
        let images = (512 / pixels).clamp(1, s.n);
        let bytes = 4 * s.c_in * s.stride[0] * s.stride[1] * out.w;
        let lines =
            if images > 1 { out.h } else { ((512 << 10) / bytes).clamp(1, out.h).min(512 / out.w + 1) };
        let units = if images > 1 { s.n.div_ceil(images) } else { s.n * out.h.div_ceil(lines) };
        let by_memory = ((4 << 20) / (4 * s.weight_len())).max(1);
        let groups = 1 << by_memory.min(units).min(s.flops() / 2_000_000 + 1).min(16).ilog2();
        let splits = (16 / groups).clamp(1, columns.div_ceil(COLUMNS));
        Plan { s, out, runs, padded, swapped, groups, splits, images, lines }
    }

    /// Calls `f(images, output rows, whether it is the first)` for each block of a group.
    fn blocks(&self, group: usize, mut f: impl FnMut(Range<usize>, Range<usize>, bool)) {
        let per_image = self.out.h.div_ceil(self.lines);
        let units = self.s.n.div_ceil(self.images) * per_image;
        for (i, unit) in (units * group / self.groups..units * (group + 1) / self.groups).enumerate() {
            let (images, lines) = (unit / per_image * self.images, unit % per_image * self.lines);
            f(images..self.s.n.min(images + self.images), lines..self.out.h.min(lines + self.lines), i == 0);
        }
    }

    /// Calls `f` with the part of `x` that the output rows see, with zeros around it if the plan says so.
    fn with_source(&self, x: &[f32], images: Range<usize>, lines: Range<usize>, f: impl FnOnce(Source)) {
        let s = self.s;
        let no_padding = s.padding == [0, 0];
        if !self.padded || no_padding {
            return f(Source {
                x,
                images,
                lines,
                height: s.h,
                width: s.w,
                image: 0,
                top: 0,
                zeros: no_padding,
            });
        }
        let top = lines.start * s.stride[0];
        let height = (lines.len() - 1) * s.stride[0] + (s.kh - 1) * s.dilation[0] + 1;
        let width = s.w + 2 * s.padding[1];
        let (side, inside) = (s.padding[1] * s.c_in, s.w * s.c_in);
        with_scratch(images.len() * height * width * s.c_in, |copy| {
            for (i, to) in copy.chunks_exact_mut(width * s.c_in).enumerate() {
                let (image, y) = (images.start + i / height, (top + i % height).wrapping_sub(s.padding[0]));
                if y >= s.h {
                    to.fill(0.0);
                } else {
                    to[..side].fill(0.0);
                    to[side..side + inside].copy_from_slice(&x[(image * s.h + y) * inside..][..inside]);
                    to[side + inside..].fill(0.0);
                }
            }
            f(Source { x: copy, image: images.start, images, lines, height, width, top, zeros: true });
        });
    }

    /// Adds the products of a block to the sums; the first block stores them.
    ///
    /// # Safety
    /// `sums` must hold `weight_len` elements, and no other thread may use the panels of this split.
    unsafe fn block(&self, source: &Source, dy: &[f32], split: usize, first: bool, sums: *mut f32) {
        let s = self.s;
        let mut segments = Vec::with_capacity(source.images.len() * source.lines.len());
        for run in &self.runs {
            self.segments(source, run, &mut segments);
            let x_step = s.stride[1] * s.c_in;
            let (rows, columns) = if self.swapped { (s.c_out, run.len) } else { (run.len, s.c_out) };
            let (left, left_step) = if self.swapped { (dy, s.c_out) } else { (source.x, x_step) };
            let (right, right_step) = if self.swapped { (source.x, x_step) } else { (dy, s.c_out) };
            let panels = columns.div_ceil(COLUMNS);
            let tiles = rows.div_ceil(ROWS);
            for panel in panels * split / self.splits..panels * (split + 1) / self.splits {
                let column = panel * COLUMNS;
                for tile in 0..tiles {
                    let (row, end) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                    let tile = Tile {
                        m: end - row,
                        n: COLUMNS.min(columns - column),
                        segments: &segments,
                        left: Left::Columns(left_step),
                        rows: &[[left.as_ptr().wrapping_add(row); ROWS]],
                        b: right.as_ptr().wrapping_add(column),
                        b_step: right_step,
                        c: sums.wrapping_add(run.start + row * columns + column),
                        output: Output::Strided(columns),
                        epilogue: if first { Epilogue::STORE } else { Epilogue::ADD },
                    };
                    // SAFETY: the segments keep to pixels of the source and of dy; the tile's rows and
                    // columns are channels of the run and of dy; the sums are the caller's promise.
                    unsafe { tile.run() };
                }
            }
        }
    }

    /// The pixels that one run of taps multiplies: for each output row, those whose source is inside.
    fn segments(&self, source: &Source, run: &Run, segments: &mut Vec<Segment>) {
        let s = self.s;
        segments.clear();
        let padding = if source.zeros { [0, 0] } else { s.padding };
        // The first output column whose source is inside, and the first that is beyond.
        let first = padding[1].saturating_sub(run.at[1]).div_ceil(s.stride[1]);
        let end = match (s.w + padding[1]).checked_sub(run.at[1]) {
            _ if source.zeros => self.out.w,
            Some(room) => room.div_ceil(s.stride[1]).min(self.out.w),
            None => 0,
        };
        if first >= end {
            return;
        }
        for image in source.images.clone() {
            for line in source.lines.clone() {
                let y = (line * s.stride[0] + run.at[0]).wrapping_sub(padding[0] + source.top);
                if y >= source.height {
                    continue;
                }
                let x = first * s.stride[1] + run.at[1] - padding[1];
                let at_source = (((image - source.image) * source.height + y) * source.width + x) * s.c_in;
                let at_dy = ((image * self.out.h + line) * self.out.w + first) * s.c_out;
                let (a, b) = if self.swapped { (at_dy, at_source) } else { (at_source, at_dy) };
                segments.push(Segment { table: 0, a, b, len: end - first });
            }
        }
    }

    /// Adds the groups' sums and brings them into the order of the weight.
    fn reduce(&self, partial: &[f32], dw: &mut [f32]) {
        let s = self.s;
        let len = dw.len();
        let kernel = s.kh * s.kw;
        let out = Shared(dw.as_mut_ptr());
        const CHANNELS: usize = 16;
        let cost = (self.groups + 1) * len * 10;
        run_tasks(s.c_out.div_ceil(CHANNELS), cost, |task| {
            let channels = task * CHANNELS..s.c_out.min((task + 1) * CHANNELS);
            for (r, run) in self.runs.iter().enumerate() {
                let (step_o, step_i) = if self.swapped { (run.len, 1) } else { (1, s.c_out) };
                for i in 0..run.len {
                    // Within a run the channels of one tap follow those of the one before.
                    let tap = if self.padded { r * s.kw + i / s.c_in } else { r };
                    for o in channels.clone() {
                        let at = run.start + o * step_o + i * step_i;
                        let sum = partial[at..].iter().step_by(len).fold(0.0, |sum, x| sum + x);
                        // SAFETY: the index is inside dw, and each output channel is in one task.
                        unsafe { *out.get().add((o * s.c_in + i % s.c_in) * kernel + tap) = sum };
                    }
                }
            }
        });
    }
}

/// What a block reads of the input.
struct Source<'a> {
    x: &'a [f32],
    images: Range<usize>,
    /// Output rows of the block.
    lines: Range<usize>,
    height: usize,
    width: usize,
    /// The first image of `x`.
    image: usize,
    /// The padded row that the first line of each image is.
    top: usize,
    /// Whether every tap is inside, thanks to zeros around the images or because there is no padding.
    zeros: bool,
}
