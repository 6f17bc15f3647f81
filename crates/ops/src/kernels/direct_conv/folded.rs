//! Correlations of many channels with few output channels: the columns of a tile are the taps of a row.
//!
//! The input gradient of a layer after the first one is such a correlation, and a transposed convolution that makes an image.
//! For each row of the result the product of a row of the source with all taps of a row of the kernel is computed at once,
//! summed over the rows of the kernel in the accumulators. What remains is the fold: a pixel of the result is the sum of
//! one tap of each of its neighbors. Nothing is copied, and rows of the kernel outside the image cost nothing.

use super::{Correlation, pack, run_tasks};
use crate::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile, strided_rows};
use crate::kernels::pixels::{MAX_CHANNELS, lanes, put_lanes};
use crate::kernels::scratch::with_scratch;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::multiversion;

/// The fewest terms of a step of the product that outweigh the fold.
const MANY_CHANNELS: usize = 8;

pub(super) struct Folded {
    /// Where each row of taps reads, relative to a pixel.
    rows: Vec<isize>,
    /// Where each column of taps reads: pixel `x` of the result reads pixel `(x + at) / stride`, if there is one.
    columns: Vec<isize>,
    stride: usize,
    /// From one term of a pixel of the result to the next, in the product.
    step: usize,
}

impl Folded {
    /// How to run a correlation this way, if it pays off. With a stride the horizontal offsets of its taps are to be divided
    /// by it.
    pub(super) fn new(c: &Correlation, stride: usize) -> Option<Folded> {
        let (columns, spacing) = c.tap_columns()?;
        // Narrower kernels leave too many columns idle, narrower images too many rows. With a stride the other way has as
        // many idle columns for each of its residues.
        let fewest = if stride == 1 { COLUMNS / 2 + 1 } else { 1 };
        let fits = c.target.c <= MAX_CHANNELS && (fewest..=COLUMNS).contains(&(columns * c.target.c));
        let steps = c.source_step == [1, 1]
            && c.target_step[1] == 1
            && (stride == 1 || spacing == 1 && columns >= stride);
        let step = if stride == 1 { spacing * COLUMNS + c.target.c } else { COLUMNS + stride * c.target.c };
        (steps && fits && c.source.c >= MANY_CHANNELS && c.source.w >= ROWS / 2).then(|| Folded {
            rows: c.taps.iter().step_by(columns).map(|t| t.at[0]).collect(),
            columns: c.taps[..columns].iter().map(|t| t.at[1]).collect(),
            stride,
            step,
        })
    }

    pub(super) fn run(
        &self,
        c: &Correlation,
        source: &[f32],
        weight: &pack::View,
        bias: Option<&[f32]>,
        target: &mut [f32],
    ) {
        let (channels, m) = (c.source.c, c.target.c);
        // One panel for each row of taps: for each channel of the source, the taps, and for each tap its outputs.
        let panel = channels * COLUMNS;
        let images = c.images_per_task();
        let lines: Vec<Vec<Segment>> = (0..c.grid[0]).map(|y| self.segments(c, y)).collect();
        let reach = self.reach(c);
        let columns = self.columns.len();
        // Whole vectors of the widest machine.
        let width = (columns * m).next_multiple_of(COLUMNS / 2);
        let mut first = [0.0; MAX_CHANNELS];
        if let Some(bias) = bias {
            first[..m].copy_from_slice(bias);
        }
        let out = SharedSlice::new(target);
        with_scratch(self.rows.len() * panel, |packed| {
            packed.fill(0.0);
            for (t, tap) in c.taps.iter().enumerate() {
                let start = t / columns * panel + t % columns * m;
                for (channel, line) in packed[start..].chunks_mut(COLUMNS).take(channels).enumerate() {
                    for (j, packed) in line[..m].iter_mut().enumerate() {
                        *packed = weight.data[channel * weight.row + j * weight.column + tap.index];
                    }
                }
            }
            let packed = &*packed;
            run_tasks(c.n.div_ceil(images), c.flops(), |task| {
                // The vector of the last tap of the last pixel extends beyond it.
                with_scratch(c.source.w * COLUMNS + MAX_CHANNELS, |product| {
                    for image in task * images..c.n.min((task + 1) * images) {
                        let from = &source[image * c.source.len()..][..c.source.len()];
                        for (y, segments) in lines.iter().enumerate() {
                            multiply(c, from, packed, width, segments, product);
                            let start = image * c.target.len() + c.target_offset(y, 0);
                            // SAFETY: the line is inside the target, and each image is in one task.
                            let line = unsafe { out.part(start, c.grid[1] * m) };
                            fold(line, m, &reach, self.step, product, first);
                        }
                    }
                });
            });
        });
    }

    /// The rows of taps that a row of the result sees inside the source.
    fn segments(&self, c: &Correlation, y: usize) -> Vec<Segment> {
        let segment = |row: usize| {
            let line = y.checked_add_signed(self.rows[row]).filter(|&line| line < c.source.h)?;
            let (a, b) = (line * c.source.w * c.source.c, row * c.source.c * COLUMNS);
            Some(Segment { table: 0, a, b, len: c.source.c })
        };
        (0..self.rows.len()).filter_map(segment).collect()
    }

    /// For each pixel of a row of the result, where the product has its first tap inside the source, and how many taps are.
    fn reach(&self, c: &Correlation) -> Vec<(usize, usize)> {
        let stride = self.stride as isize;
        let reach = |x: usize| {
            let place = |tap: usize| {
                let at = x as isize + self.columns[tap];
                let inside = at >= 0 && at % stride == 0 && at / stride < c.source.w as isize;
                inside.then(|| (at / stride) as usize * COLUMNS + tap * c.target.c)
            };
            let mut places = (0..self.columns.len()).filter_map(place);
            places.next().map_or((0, 0), |first| (first, 1 + places.count()))
        };
        (0..c.grid[1]).map(reach).collect()
    }
}

/// The product of a row of the source with the taps, `width` of 32 columns for each pixel, summed over the rows of taps.
fn multiply(
    c: &Correlation,
    image: &[f32],
    packed: &[f32],
    width: usize,
    segments: &[Segment],
    product: &mut [f32],
) {
    let (channels, pixels) = (c.source.c, c.source.w);
    let parts = pixels.div_ceil(ROWS);
    for part in 0..parts {
        let (first, end) = (pixels * part / parts, pixels * (part + 1) / parts);
        let tile = Tile {
            m: end - first,
            n: width,
            segments,
            left: Left::Rows,
            rows: &[strided_rows(image.as_ptr().wrapping_add(first * channels), channels)],
            b: packed.as_ptr(),
            b_step: COLUMNS,
            ahead: 0,
            c: product.as_mut_ptr().wrapping_add(first * COLUMNS),
            output: Output::Strided(COLUMNS),
            epilogue: Epilogue::STORE,
        };
        // SAFETY: the segments name rows of the image and of the packed weight; the product has 32 columns for each
        // pixel of a row.
        unsafe { tile.run() };
    }
}

multiversion! {
    /// Sums the taps of each pixel of a row, which are `step` apart.
    fn fold(
        line: &mut [f32],
        m: usize,
        reach: &[(usize, usize)],
        step: usize,
        product: &[f32],
        bias: [f32; MAX_CHANNELS],
    ) {
        for (x, &(start, taps)) in reach.iter().enumerate() {
            let mut sum = bias;
            for tap in 0..taps {
                let terms = lanes(&product[start + tap * step..]);
                for i in 0..MAX_CHANNELS {
                    sum[i] += terms[i];
                }
            }
            put_lanes(&mut line[x * m..], m, sum);
        }
    }
}
