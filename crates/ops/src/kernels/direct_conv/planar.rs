//! Correlations with few output channels: the columns of a tile are neighboring pixels.
//!
//! With up to eight output channels a tile with channels as columns would leave most of its lanes idle. So the source
//! is copied into one plane for each channel, with the zeros around it, and the product is computed with the weight as
//! its left operand. Rows of the plane are contiguous: a tile extends over their ends, and the results between the rows
//! are discarded.

use super::{Correlation, pack, run_tasks};
use crate::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, Segment, Tile, strided_rows};
use crate::kernels::scratch::with_scratch;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::kernels::transpose::transpose_to;

/// Output channels up to which this pays off.
const MAX_CHANNELS: usize = 8;

/// Bytes of the planes of an image up to which this pays off.
const PLANE_BYTES: usize = 1 << 20;

pub(super) struct Planar {
    /// The taps form a grid of this many rows and columns.
    taps: [usize; 2],
    /// Distance between the columns of the grid of taps, in pixels.
    spacing: usize,
    /// The part of an image that the windows read: its origin in the image, its rows and columns.
    origin: [isize; 2],
    size: [usize; 2],
}

impl Planar {
    /// How to run a correlation this way, if it pays off.
    pub(super) fn new(c: &Correlation) -> Option<Planar> {
        let narrow = c.target.c <= MAX_CHANNELS && c.source_step == [1, 1] && c.target_step == [1, 1];
        if !narrow || c.source.c == 0 || c.grid[1] < 8 {
            return None;
        }
        let (first, last) = (c.taps.first()?, c.taps.last()?);
        let (columns, spacing) = c.tap_columns()?;
        let reach = |axis: usize| (last.at[axis] - first.at[axis]) as usize;
        let size = [c.grid[0] + reach(0), c.grid[1] + reach(1)];
        if size[0] * size[1] * c.source.c * 4 > PLANE_BYTES {
            return None;
        }
        Some(Planar { taps: [c.taps.len() / columns, columns], spacing, origin: first.at, size })
    }

    pub(super) fn run(
        &self,
        c: &Correlation,
        source: &[f32],
        weight: &pack::View,
        bias: Option<&[f32]>,
        target: &mut [f32],
    ) {
        let (channels, taps, m) = (c.source.c, c.taps.len(), c.target.c);
        let [height, width] = self.size;
        let plane = height * width;
        // The result has the rows of the grid, at the source's distance.
        let length = (c.grid[0] - 1) * width + c.grid[1];
        // The inner dimension runs over the channels of a tap, or over a row of taps of a channel, whichever is longer.
        let along_row = channels < self.taps[1];
        let segments = self.segments(c, along_row);
        let b_step = if along_row { self.spacing } else { plane };
        let images = c.images_per_task();
        let out = SharedSlice::new(target);
        with_scratch(m * taps * channels, |packed| {
            for (j, packed) in packed.chunks_exact_mut(taps * channels).enumerate() {
                for (i, packed) in packed.iter_mut().enumerate() {
                    let (t, channel) =
                        if along_row { (i % taps, i / taps) } else { (i / channels, i % channels) };
                    *packed = weight.data[channel * weight.row + j * weight.column + c.taps[t].index];
                }
            }
            let packed = &*packed;
            run_tasks(c.n.div_ceil(images), c.flops(), |task| {
                let rows = &[strided_rows(packed.as_ptr(), taps * channels)];
                with_scratch(channels * plane + m * length, |scratch| {
                    let (planes, result) = scratch.split_at_mut(channels * plane);
                    planes.fill(0.0);
                    for image in task * images..c.n.min((task + 1) * images) {
                        self.fill(c, &source[image * c.source.len()..][..c.source.len()], planes);
                        for at in (0..length).step_by(COLUMNS) {
                            let tile = Tile {
                                m,
                                n: COLUMNS.min(length - at),
                                segments: &segments,
                                left: Left::Rows,
                                rows,
                                b: planes.as_ptr().wrapping_add(at),
                                b_step,
                                ahead: 0,
                                c: result.as_mut_ptr().wrapping_add(at),
                                output: Output::Strided(length),
                                epilogue: Epilogue {
                                    row_bias: bias.map_or(std::ptr::null(), |b| b.as_ptr()),
                                    ..Epilogue::STORE
                                },
                            };
                            // SAFETY: the last window of the last column ends at the end of its plane; the result
                            // has `length` columns for each output channel.
                            unsafe { tile.run() };
                        }
                        for line in 0..c.grid[0] {
                            let start = image * c.target.len() + c.target_offset(line, 0);
                            let from = result[line * width..].as_ptr();
                            // SAFETY: the line is inside the result; each image of the target is in one task.
                            unsafe {
                                transpose_to([m, c.grid[1]], from, length, out.at(start), m);
                            }
                        }
                    }
                });
            });
        });
    }

    /// The runs of the inner dimension: a row of taps of a channel each if `along_row`, else the channels of a tap.
    fn segments(&self, c: &Correlation, along_row: bool) -> Vec<Segment> {
        let (channels, taps) = (c.source.c, c.taps.len());
        let plane = self.size[0] * self.size[1];
        let mut segments = Vec::new();
        if along_row {
            for channel in 0..channels {
                for row in 0..self.taps[0] {
                    let tap = row * self.taps[1];
                    let down = (c.taps[tap].at[0] - self.origin[0]) as usize;
                    segments.push(Segment {
                        table: 0,
                        a: channel * taps + tap,
                        b: channel * plane + down * self.size[1],
                        len: self.taps[1],
                    });
                }
            }
        } else {
            for (t, tap) in c.taps.iter().enumerate() {
                let down = (tap.at[0] - self.origin[0]) as usize;
                let right = (tap.at[1] - self.origin[1]) as usize;
                segments.push(Segment {
                    table: 0,
                    a: t * channels,
                    b: down * self.size[1] + right,
                    len: channels,
                });
            }
        }
        segments
    }

    /// Copies the part of an image that the windows read into the planes, which are already zero around it.
    fn fill(&self, c: &Correlation, image: &[f32], planes: &mut [f32]) {
        let [height, width] = self.size;
        let channels = c.source.c;
        // The part of each axis that lies in the image: its start in the image and in the plane, and its length.
        let part = |axis: usize, size: usize| {
            let (first, end) = (self.origin[axis], self.origin[axis] + self.size[axis] as isize);
            let (from, to) = (first.clamp(0, size as isize), end.clamp(0, size as isize));
            (from as usize, (from - first) as usize, (to - from).max(0) as usize)
        };
        let (y, down, lines) = part(0, c.source.h);
        let (x, right, pixels) = part(1, c.source.w);
        for line in 0..lines {
            let from = &image[((y + line) * c.source.w + x) * channels..][..pixels * channels];
            let start = (down + line) * width + right;
            if channels == 1 {
                planes[start..start + pixels].copy_from_slice(from);
                continue;
            }
            let to = planes.as_mut_ptr();
            // SAFETY: the line has `pixels` pixels of all channels; the same part of each plane receives them.
            unsafe {
                transpose_to([pixels, channels], from.as_ptr(), channels, to.add(start), height * width);
            }
        }
    }
}
