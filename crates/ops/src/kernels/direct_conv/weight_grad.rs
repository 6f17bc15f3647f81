//! The weight gradient: for each tap, a matrix product over the pixels.
//!
//! The rows of a tile are channels of one side and its columns channels of the other; both are read in place, pixel by
//! pixel. The pixels are split into groups, each with its own partial sums; the number of groups depends on the shape
//! alone, and they are added in order.

use super::{Conv2dShape, Image, check, planar_weight_grad, pointwise, run_tasks};
use crate::kernels::gemm::{Finish, View, matmul};
use crate::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile};
use crate::kernels::scratch::with_scratch;
use std::ops::Range;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::kernels::transpose::transpose_to;

/// The most channels with which images are copied with zero padding, so that the taps of a kernel row become one run of
/// channels.
const MAX_CHANNELS: usize = 12;

/// Output channels whose sums are added at once.
const CHANNELS: usize = 16;

/// The fewest output columns with which the pixels of a tap are read in place; shorter lines are packed.
const LONG_LINE: usize = 12;

/// The gradient of a convolution with respect to its weight: `dw` (c_out, c_in, kh, kw) from the input `x`
/// (n, h, w, c_in) and the output's gradient `dy` (n, out_h, out_w, c_out).
///
/// # Panics
/// If the length of a slice does not match the shape.
pub fn weight_grad(s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    check(s, x, dw, None, dy);
    if dw.is_empty() || dy.is_empty() {
        dw.fill(0.0);
        return;
    }
    if let Some(pixels) = pointwise(s) {
        let (dy, x) = (View::rows(dy, s.c_out).transposed(), View::rows(x, s.c_in));
        return matmul([s.c_out, s.c_in, pixels], dy, x, dw, s.c_in, Finish::default());
    }
    if planar_weight_grad::weight_grad(s, x, dy, dw) {
        return;
    }
    let plan = Plan::new(s);
    with_scratch(plan.groups * dw.len(), |partial| {
        let out = SharedSlice::new(partial);
        let taps = if plan.packed { plan.runs.len() } else { 1 };
        run_tasks(plan.groups * taps * plan.splits, s.flops(), |task| {
            let (group, tap, split) =
                (task / plan.splits / taps, task / plan.splits % taps, task % plan.splits);
            plan.blocks(group, |images, lines, first| {
                plan.with_source(x, images, lines, |source| {
                    // SAFETY: the sums of a group are `weight_len` elements of their own, and each of its
                    // panels (and taps, if they are apart) is in one task.
                    unsafe {
                        let sums = out.at(group * s.weight_len());
                        if plan.packed {
                            plan.packed_block(&source, dy, &plan.runs[tap], split, first, sums);
                        } else {
                            plan.block(&source, dy, split, first, sums);
                        }
                    }
                });
            });
        });
        plan.reduce(partial, dw);
    });
}

/// Taps that read neighboring channels of the source.
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
    /// Whether the pixels of a tap are packed first, and each tap has its own tasks.
    packed: bool,
    /// A block is this many images and output rows.
    images: usize,
    lines: usize,
}

impl<'a> Plan<'a> {
    fn new(s: &'a Conv2dShape) -> Self {
        let out = Image { h: s.out_h(), w: s.out_w(), c: s.c_out };
        let padded = s.c_in <= MAX_CHANNELS && s.dilation[1] == 1;
        let per_row = if padded { 1 } else { s.kw };
        let run_len = if padded { s.kw * s.c_in } else { s.c_in };
        let mut runs = Vec::with_capacity(s.kh * per_row);
        for i in 0..s.kh {
            for j in 0..per_row {
                let start = (i * per_row + j) * run_len * s.c_out;
                runs.push(Run { at: [i * s.dilation[0], j * s.dilation[1]], len: run_len, start });
            }
        }
        // A tile costs its rows times its vectors; a single vector leaves the FMA units half idle.
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
        let packed = !padded && out.w < LONG_LINE && s.c_in >= 2 * ROWS && columns >= 2 * COLUMNS;
        let groups = 1 << by_memory.min(units).min(s.flops() / 2_000_000 + 1).min(16).ilog2();
        let tasks = groups * if packed { runs.len() } else { 1 };
        let splits =
            16usize.div_ceil(tasks).min(columns.div_ceil(COLUMNS) / if packed { 4 } else { 1 }).max(1);
        Plan { s, out, runs, padded, swapped, groups, splits, packed, images, lines }
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

    /// Calls `f` with the part of `x` that the output rows read, zero-padded if the plan says so.
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

    /// The two sides of a product: (left, its channels, distance between its pixels), the same of the right.
    fn sides<'b>(&self, source: &Source<'b>, run: &Run, dy: &'b [f32]) -> [(&'b [f32], usize, usize); 2] {
        let x = (source.x, run.len, self.s.stride[1] * self.s.c_in);
        let dy = (dy, self.s.c_out, self.s.c_out);
        if self.swapped { [dy, x] } else { [x, dy] }
    }

    /// Adds the products of a block to the sums; the first block stores them.
    ///
    /// # Safety
    /// `sums` must hold `weight_len` elements, and no other thread may use the panels of this split.
    unsafe fn block(&self, source: &Source, dy: &[f32], split: usize, first: bool, sums: *mut f32) {
        let mut segments = Vec::with_capacity(source.images.len() * source.lines.len());
        for run in &self.runs {
            self.segments(source, run, &mut segments);
            let [(left, rows, left_step), (right, columns, right_step)] = self.sides(source, run, dy);
            for panel in self.panels(columns, split) {
                let column = panel * COLUMNS;
                for (row, end) in tiles(rows) {
                    let tile = Tile {
                        m: end - row,
                        n: COLUMNS.min(columns - column),
                        segments: &segments,
                        left: Left::Columns(left_step),
                        rows: &[[left.as_ptr().wrapping_add(row); ROWS]],
                        b: right.as_ptr().wrapping_add(column),
                        b_step: right_step,
                        ahead: 0,
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

    /// [`Self::block`] for one run, which first packs the pixels of the left side for each tile and those of the right
    /// side for each panel: with short lines and pixels far apart, this is faster.
    ///
    /// # Safety
    /// As for `block`, for this run.
    unsafe fn packed_block(
        &self,
        source: &Source,
        dy: &[f32],
        run: &Run,
        split: usize,
        first: bool,
        sums: *mut f32,
    ) {
        let mut segments = Vec::with_capacity(source.images.len() * source.lines.len());
        self.segments(source, run, &mut segments);
        let [(left, rows, left_step), (right, columns, right_step)] = self.sides(source, run, dy);
        let pixels: usize = segments.iter().map(|s| s.len).sum();
        let whole = [Segment::whole(pixels)];
        with_scratch((rows + COLUMNS) * pixels, |scratch| {
            let (left_packed, right_packed) = scratch.split_at_mut(rows * pixels);
            // The rows of a tile lie together, pixel after pixel.
            for (row, end) in tiles(rows) {
                let to = &mut left_packed[row * pixels..end * pixels];
                let runs = segments.iter().map(|s| (s.a + row, s.len));
                arch::run(CopyPixels { from: left, step: left_step, runs, to, width: end - row });
            }
            for panel in self.panels(columns, split) {
                let column = panel * COLUMNS;
                let n = COLUMNS.min(columns - column);
                let to = &mut right_packed[..n * pixels];
                let runs = segments.iter().map(|s| (s.b + column, s.len));
                arch::run(CopyPixels { from: right, step: right_step, runs, to, width: n });
                for (row, end) in tiles(rows) {
                    let tile = Tile {
                        m: end - row,
                        n,
                        segments: &whole[..usize::from(pixels > 0)],
                        left: Left::Columns(end - row),
                        rows: &[[left_packed.as_ptr().wrapping_add(row * pixels); ROWS]],
                        b: right_packed.as_ptr(),
                        b_step: n,
                        ahead: 0,
                        c: sums.wrapping_add(run.start + row * columns + column),
                        output: Output::Strided(columns),
                        epilogue: if first { Epilogue::STORE } else { Epilogue::ADD },
                    };
                    // SAFETY: both sides were packed for as many pixels; the sums are the caller's promise.
                    unsafe { tile.run() };
                }
            }
        });
    }

    /// The panels of one split.
    fn panels(&self, columns: usize, split: usize) -> Range<usize> {
        let panels = columns.div_ceil(COLUMNS);
        panels * split / self.splits..panels * (split + 1) / self.splits
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

    /// Sixteen output channels of the weight, from the columns of the sums.
    ///
    /// # Safety
    /// No other thread may write these channels of `dw`.
    unsafe fn reduce_channels(&self, partial: &[f32], channel: usize, dw: SharedSlice<f32>) {
        const INPUTS: usize = 64;
        let (c_in, c_out, taps) = (self.s.c_in, self.s.c_out, self.runs.len());
        let size = INPUTS * taps * CHANNELS;
        with_scratch(2 * size, |scratch| {
            let (sums, transposed) = scratch.split_at_mut(size);
            for first in (0..c_in).step_by(INPUTS) {
                let inputs = INPUTS.min(c_in - first);
                // (tap, input channel) by output channel ...
                for (i, sums) in sums.as_chunks_mut::<CHANNELS>().0.iter_mut().take(taps * inputs).enumerate()
                {
                    let at = self.runs[i / inputs].start + (first + i % inputs) * c_out + channel;
                    *sums = *partial[at..].first_chunk().expect("16 channels");
                    for group in partial.chunks_exact(taps * c_in * c_out).skip(1) {
                        let group: &[f32; CHANNELS] = group[at..].first_chunk().expect("16 channels");
                        sums.iter_mut().zip(group).for_each(|(sum, x)| *sum += x);
                    }
                }
                // ... output channel by (tap, input channel) ...
                let (rows, to) = (taps * inputs, transposed.as_mut_ptr());
                // SAFETY: both scratch halves hold `rows` times 16 elements; the channels of dw are the caller's promise.
                unsafe {
                    transpose_to([rows, CHANNELS], sums.as_ptr(), CHANNELS, to, rows);
                    // ... and (input channel, tap) in each output channel.
                    for o in 0..CHANNELS {
                        let to = dw.at(((channel + o) * c_in + first) * taps);
                        let from = transposed[o * rows..].as_ptr();
                        transpose_to([taps, inputs], from, inputs, to, taps);
                    }
                }
            }
        });
    }

    /// Adds the groups' sums and brings them into the order of the weight.
    fn reduce(&self, partial: &[f32], dw: &mut [f32]) {
        let s = self.s;
        let len = dw.len();
        let kernel = s.kh * s.kw;
        let out = SharedSlice::new(dw);
        let cost = (self.groups + 1) * len * 10;
        run_tasks(s.c_out.div_ceil(CHANNELS), cost, |task| {
            let channels = task * CHANNELS..s.c_out.min((task + 1) * CHANNELS);
            if !self.padded && !self.swapped && channels.len() == CHANNELS {
                // SAFETY: each output channel is in one task.
                unsafe { self.reduce_channels(partial, channels.start, out) };
                return;
            }
            // Taps innermost: each output channel's part of the weight is then written from start to end.
            for i in 0..self.runs[0].len {
                for (r, run) in self.runs.iter().enumerate() {
                    let (step_o, step_i) = if self.swapped { (run.len, 1) } else { (1, s.c_out) };
                    let first = run.start + channels.start * step_o + i * step_i;
                    let mut sums = [0.0f32; CHANNELS];
                    for group in partial.chunks_exact(len) {
                        if step_o == 1 && channels.len() == CHANNELS {
                            let group: &[f32; CHANNELS] = group[first..].first_chunk().expect("16 channels");
                            sums.iter_mut().zip(group).for_each(|(sum, x)| *sum += x);
                        } else {
                            let group = group[first..].iter().step_by(step_o).take(channels.len());
                            sums.iter_mut().zip(group).for_each(|(sum, x)| *sum += x);
                        }
                    }
                    // Within a run the channels of one tap follow those of the one before.
                    let (tap, i) = if self.padded { (r * s.kw + i / s.c_in, i % s.c_in) } else { (r, i) };
                    for (o, sum) in channels.clone().zip(sums) {
                        // SAFETY: the index is inside dw, and each output channel is in one task.
                        unsafe { *out.at((o * s.c_in + i) * kernel + tap) = sum };
                    }
                }
            }
        });
    }
}

/// The rows of each tile, cut evenly.
fn tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(ROWS);
    (0..tiles).map(move |tile| (rows * tile / tiles, rows * (tile + 1) / tiles))
}

/// Copies `width` channels of the pixels in some runs, `step` apart, one pixel after the other.
struct CopyPixels<'a, I> {
    from: &'a [f32],
    step: usize,
    /// Start and length of each run.
    runs: I,
    to: &'a mut [f32],
    width: usize,
}

impl<I: Iterator<Item = (usize, usize)>> Kernel for CopyPixels<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let CopyPixels { from, step, runs, to, width } = self;
        let mut at = 0;
        let (whole, rest) = (width / V::LANES * V::LANES, width % V::LANES);
        for (start, len) in runs {
            assert!(len > 0 && start + (len - 1) * step + width <= from.len());
            assert!(at + len * width <= to.len());
            for i in 0..len {
                // SAFETY: all pixels of the run are inside both sides, as checked.
                unsafe {
                    let from = from.as_ptr().add(start + i * step);
                    let to = to.as_mut_ptr().add(at);
                    for j in (0..whole).step_by(V::LANES) {
                        V::load(from.add(j)).store(to.add(j));
                    }
                    if rest > 0 {
                        V::load_part(from.add(whole), rest).store_part(to.add(whole), rest);
                    }
                }
                at += width;
            }
        }
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
