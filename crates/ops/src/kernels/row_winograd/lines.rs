//! How a convolution is cut into blocks, and the transform of a block's input.
//!
//! A line is what one row of the input has in one channel, of one frequency: the tiles of all images of the block,
//! side by side. So the taps of a kernel's column are lines at equal distances, and tiles neighbors.

use super::scheme::{OUT, SIDE, input};
use crate::kernels::geometry::Conv2dShape;
use crate::kernels::microkernel::COLUMNS;
use tapegrad_tape::kernels::arch::{MAX_LANES, Vector};
use tapegrad_tape::kernels::transpose::transpose_to;
use tapegrad_tape::unroll;

/// Floats of the lines of a block, which stay in the L2 cache.
const LINES: usize = 64 << 10;

/// A convolution, split into blocks of some rows of some images.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) shape: Conv2dShape,
    /// Rows and columns of the output, and tiles in a row.
    out: [usize; 2],
    across: usize,
    /// Groups of images of nearly equal size, and bands of rows.
    groups: usize,
    bands: usize,
}

impl Cut {
    /// Blocks of lines of about `tiles` tiles. The shape alone decides on the order of sums.
    pub(super) fn new(shape: &Conv2dShape, tiles: usize) -> Self {
        let s = *shape;
        let out = [s.out_h(), s.out_w()];
        let across = out[1].div_ceil(OUT);
        let images = (tiles / across.max(1)).clamp(1, s.n.max(1));
        // An even number divides evenly between two threads.
        let groups = s.n.div_ceil(images).next_multiple_of(2).min(s.n);
        let length = s.n.div_ceil(groups.max(1)) * across;
        let fit = (LINES / (SIDE * s.c_in * length).max(1)).saturating_sub(s.kh);
        // With few images, rows are split so that there are tasks for several threads.
        let shared = out[0].div_ceil(8usize.div_ceil(groups.max(1)));
        let bands = out[0].div_ceil(fit.min(shared).max(4));
        Cut { shape: s, out, across, groups, bands }
    }

    pub(super) fn blocks(&self) -> usize {
        self.groups * self.bands
    }

    pub(super) fn block(&self, i: usize) -> Block<'_> {
        let (s, (group, band)) = (&self.shape, (i / self.bands, i % self.bands));
        let part = |len: usize, i: usize, parts: usize| (len * i / parts, len * (i + 1) / parts);
        let images = part(s.n, group, self.groups);
        let rows = part(self.out[0], band, self.bands);
        let first = rows.0.saturating_sub(s.padding[0]).min(s.h);
        let last = (rows.1 + s.kh - 1).saturating_sub(s.padding[0]).clamp(first, s.h);
        Block { cut: self, images, rows, source: (first, last), length: (images.1 - images.0) * self.across }
    }
}

/// Some rows of the output of some images.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    cut: &'a Cut,
    pub(super) images: (usize, usize),
    pub(super) rows: (usize, usize),
    /// The rows of the input that these read.
    source: (usize, usize),
    /// Tiles of a line.
    pub(super) length: usize,
}

impl Block<'_> {
    /// Distance between the lines of two frequencies: with room after them for the rest of a vector.
    pub(super) fn frequency(&self) -> usize {
        let lines = (self.source.1 - self.source.0) * self.cut.shape.c_in;
        (lines * self.length).next_multiple_of(MAX_LANES) + MAX_LANES
    }

    /// Distance between two phases of a row, see `transform`: there are zeros on both sides of the pixels.
    fn phase(&self) -> usize {
        self.before()
            + self.cut.shape.w.div_ceil(OUT).max(self.cut.across.next_multiple_of(MAX_LANES))
            + MAX_LANES
    }

    /// Groups of four pixels that begin in the padding.
    fn before(&self) -> usize {
        self.cut.shape.padding[1].div_ceil(OUT)
    }

    /// Floats that `transform` needs besides.
    pub(super) fn scratch(&self) -> usize {
        (self.images.1 - self.images.0) * OUT * self.cut.shape.c_in * self.phase()
    }

    /// Where a tile of a row lies: its first pixel of all outputs, and how many of its columns are inside the image.
    #[inline(always)]
    pub(super) fn place(&self, row: usize, tile: usize) -> (usize, usize) {
        let ([height, width], across) = (self.cut.out, self.cut.across);
        let (image, column) = (self.images.0 + tile / across, tile % across * OUT);
        ((image * height + row) * width + column, (width - column).min(OUT))
    }

    /// Calls `ask`, which prefetches a cache line, for the `part`th of [`SIDE`] parts of some tiles of a row: what `y`,
    /// the outputs of all images or their gradient, holds for one panel of channels.
    #[inline(always)]
    pub(super) fn prefetch(
        &self,
        ask: fn(*const f32),
        y: *const f32,
        row: usize,
        tiles: (usize, usize),
        panel: usize,
        part: usize,
    ) {
        let (channels, count) = (self.cut.shape.c_out, tiles.1 - tiles.0);
        let lines = COLUMNS.min(channels - panel * COLUMNS).div_ceil(MAX_LANES);
        for tile in tiles.0 + count * part / SIDE..tiles.0 + count * (part + 1) / SIDE {
            let (pixel, columns) = self.place(row, tile);
            for column in 0..columns {
                let at = (pixel + column) * channels + panel * COLUMNS;
                for line in 0..lines {
                    ask(y.wrapping_add(at + line * MAX_LANES));
                }
            }
        }
    }

    /// The rows of the kernel that see the input from this row of the output, and the first line that they see.
    #[inline(always)]
    pub(super) fn taps(&self, row: usize) -> ((usize, usize), usize) {
        let s = &self.cut.shape;
        let first = s.padding[0].saturating_sub(row).min(s.kh);
        let end = (s.h + s.padding[0]).saturating_sub(row).clamp(first, s.kh);
        let line = (row + first).saturating_sub(s.padding[0] + self.source.0) * s.c_in;
        ((first, end), line * self.length)
    }

    /// `B^T x` to `out[frequency][row][channel][tile]`.
    ///
    /// # Safety
    /// `x` holds all images, and `out` has room for all frequencies.
    #[inline(always)]
    pub(super) unsafe fn transform<V: Vector>(&self, x: &[f32], scratch: &mut [f32], out: *mut f32) {
        let (s, across) = (&self.cut.shape, self.cut.across);
        let (c, phase, frequency) = (s.c_in, self.phase(), self.frequency());
        // Input `j` of a tile is in this phase, and this many groups of pixels from the start of the phase.
        let mut inputs = [0; SIDE];
        for (j, input) in inputs.iter_mut().enumerate() {
            let column = self.before() * OUT + j - s.padding[1];
            *input = column % OUT * c * phase + column / OUT;
        }
        scratch.fill(0.0);
        let (whole, rest) = (s.w / OUT, s.w % OUT * c);
        let mut out = out;
        for y in self.source.0..self.source.1 {
            // The pixels of a row become four phases, where the same pixel of all tiles is contiguous.
            for (image, phases) in
                (self.images.0..self.images.1).zip(scratch.chunks_exact_mut(OUT * c * phase))
            {
                let pixels = x[(image * s.h + y) * s.w * c..].as_ptr();
                let to = phases[self.before()..].as_mut_ptr();
                // SAFETY: the row has as many pixels, and each phase room for one of each group.
                unsafe {
                    transpose_to([whole, OUT * c], pixels, OUT * c, to, phase);
                    for i in 0..rest {
                        *to.add(i * phase + whole) = *pixels.add(whole * OUT * c + i);
                    }
                }
            }
            for channel in 0..c {
                let channel = scratch.as_ptr().wrapping_add(channel * phase);
                for image in 0..self.images.1 - self.images.0 {
                    let phases = channel.wrapping_add(image * OUT * c * phase);
                    for tile in (0..across).step_by(V::LANES) {
                        let mut x = [V::splat(0.0); SIDE];
                        unroll!(j of 13 < SIDE, {
                            // SAFETY: a phase ends more than a vector after the last tile.
                            x[j] = unsafe { V::load(phases.wrapping_add(inputs[j] + tile)) };
                        });
                        let v = input(x);
                        unroll!(f of 13 < SIDE, {
                            // SAFETY: excess lanes are overwritten next, or are in the room after the last line.
                            unsafe { v[f].store(out.wrapping_add(f * frequency + tile)) };
                        });
                    }
                    out = out.wrapping_add(across);
                }
            }
        }
    }
}
