//! The weight gradient: products over tiles, accumulated in the frequency domain.
//!
//! A task owns a rectangle of channels, whose accumulators for all frequencies stay in the caches, and a range of the
//! tiles. Tiles are processed in small blocks: both activations are transformed, multiplied, and discarded.

use super::scheme::WeightScheme;
use super::tiles::{Frequencies, Grid};
use super::weights::transform_weight_grad;
use crate::kernels::microkernel::{Left, Product};
use crate::kernels::scratch::Scratch;
use std::marker::PhantomData;
use tapegrad_tape::kernels::arch::InstructionSet;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector};
use tapegrad_tape::kernels::parallel::{parallel_blocks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;

const LINE: usize = 16;

/// Most channels of either side in a task. Each task transforms its channels of both sides again, so wide rectangles
/// save more than it costs to load their accumulators, up to 2.3 MB, from the L3 cache for each block of tiles.
const CHANNELS: usize = 128;

/// One weight gradient, ready to run.
pub(super) struct Job<'a, S> {
    pub(super) grid: Grid,
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) scheme: PhantomData<S>,
}

/// A dimension split into parts of equal size but for the last.
#[derive(Clone, Copy)]
struct Cut {
    len: usize,
    part: usize,
    parts: usize,
}

impl Cut {
    /// Parts of at most `most`, multiples of `unit`.
    fn new(len: usize, most: usize, unit: usize) -> Self {
        let part = len.div_ceil(len.div_ceil(most).max(1)).next_multiple_of(unit);
        Cut { len, part, parts: len.div_ceil(part) }
    }

    fn range(&self, i: usize) -> (usize, usize) {
        (i * self.part, self.len.min((i + 1) * self.part))
    }
}

impl<S: WeightScheme> Job<'_, S> {
    pub(super) fn run(&self, set: InstructionSet, dw: &mut [f32]) {
        let c_in = Cut::new(self.grid.input.c, CHANNELS, LINE);
        let c_out = Cut::new(self.grid.output.c, CHANNELS, 1);
        let rectangles = c_in.parts * c_out.parts;
        // Enough tasks to share between threads; each with enough tiles to pay for its inverse transform.
        let splits = 16usize.div_ceil(rectangles).min(self.grid.count.div_ceil(64)).max(1);
        let tiles = Cut::new(self.grid.count, self.grid.count.div_ceil(splits), 1);
        let task = |dw: *mut f32, i: usize| {
            let (split, rectangle) = (i / rectangles, i % rectangles);
            let task = Task {
                job: self,
                c_in: c_in.range(rectangle % c_in.parts),
                c_out: c_out.range(rectangle / c_in.parts),
                tiles: tiles.range(split),
                dw,
            };
            arch::run_with(set, task)
        };
        if tiles.parts == 1 {
            let dw = SharedSlice::new(dw);
            return parallel_for(rectangles, |i| task(dw.at(0), i));
        }
        let len = dw.len();
        let mut partial = Scratch::new(tiles.parts * len);
        let sums = SharedSlice::new(&mut partial);
        parallel_for(tiles.parts * rectangles, |i| task(sums.at(i / rectangles * len), i));
        let partial = &*partial;
        let dw = SharedSlice::new(dw);
        parallel_blocks(len, 4096, |from, to| {
            // SAFETY: the blocks do not overlap.
            let dw = unsafe { dw.part(from, to - from) };
            arch::run_with(set, Reduce { partial, len, from, dw })
        });
    }
}

/// Task: adds up partial gradients, in their order.
struct Reduce<'a> {
    partial: &'a [f32],
    len: usize,
    from: usize,
    dw: &'a mut [f32],
}

impl Kernel for Reduce<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for (i, partial) in self.partial.chunks_exact(self.len).enumerate() {
            let partial = &partial[self.from..self.from + self.dw.len()];
            if i == 0 {
                self.dw.copy_from_slice(partial);
            } else {
                for (dw, p) in self.dw.iter_mut().zip(partial) {
                    *dw += p;
                }
            }
        }
    }
}

/// Task: the gradient of a rectangle of channels over some tiles.
struct Task<'a, S> {
    job: &'a Job<'a, S>,
    c_in: (usize, usize),
    c_out: (usize, usize),
    tiles: (usize, usize),
    /// The whole gradient.
    dw: *mut f32,
}

impl<S: WeightScheme> Kernel for Task<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let grid = &self.job.grid;
        let (frequencies, weights) = (S::SIDE * S::SIDE, S::WEIGHTS * S::WEIGHTS);
        let (c_in, c_out) = (self.c_in.1 - self.c_in.0, self.c_out.1 - self.c_out.0);
        let (v_row, z_row) = (c_in.next_multiple_of(LINE), c_out.next_multiple_of(LINE));
        let block = match S::SIDE {
            3 => 128,
            6 => 64,
            _ => 32,
        };
        let block = block.min(self.tiles.1 - self.tiles.0);
        let (v_size, z_size, u_size) = (block * v_row + LINE, block * z_row + LINE, c_out * v_row + LINE);
        let zeros = grid.input.c.max(grid.output.c);
        let mut scratch =
            Scratch::new(zeros.next_multiple_of(LINE) + frequencies * (v_size + z_size) + weights * u_size);
        let (zeros, scratch) = scratch.split_at_mut(zeros.next_multiple_of(LINE));
        let (v, scratch) = scratch.split_at_mut(frequencies * v_size);
        let (z, u) = scratch.split_at_mut(frequencies * z_size);
        zeros.fill(0.0);
        let zeros = zeros.as_ptr();
        let v = Frequencies { data: v.as_mut_ptr(), frequency: v_size, tile: v_row };
        let z = Frequencies { data: z.as_mut_ptr(), frequency: z_size, tile: z_row };
        let u = Frequencies { data: u.as_mut_ptr(), frequency: u_size, tile: v_row };
        for from in (self.tiles.0..self.tiles.1).step_by(block) {
            let tiles = (from, self.tiles.1.min(from + block));
            // SAFETY: the buffers have the sizes that the layouts name.
            unsafe {
                grid.transform_input::<V, S>((self.job.x.as_ptr(), zeros), tiles, self.c_in, v);
                grid.transform_output_grad::<V, S>((self.job.dy.as_ptr(), zeros), tiles, self.c_out, z);
            }
            for f in 0..frequencies {
                let (weight, again) = S::weight_of(f);
                for column in (0..c_in).step_by(2 * V::LANES) {
                    let product = Product {
                        rows: c_out,
                        cols: (c_in - column).min(2 * V::LANES),
                        steps: tiles.1 - tiles.0,
                        a: z.of(f),
                        left: Left::Columns(z_row),
                        a_stride: z_row,
                        b: v.of(f).wrapping_add(column),
                        b_stride: v_row,
                        c: u.of(weight).wrapping_add(column),
                        c_stride: v_row,
                        add: again || from > self.tiles.0,
                        next: u.of(weight + 1).wrapping_add(column),
                    };
                    // SAFETY: as above.
                    unsafe { product.run::<V>() };
                }
            }
        }
        let taps = S::TAPS * S::TAPS;
        let dw_row = taps * grid.input.c;
        let dw = self.dw.wrapping_add(self.c_out.0 * dw_row + self.c_in.0 * taps);
        // SAFETY: this task alone writes these channels of its gradient.
        unsafe { transform_weight_grad::<V, S>(u, (c_out, c_in), dw, dw_row) };
    }
}
