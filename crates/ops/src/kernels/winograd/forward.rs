//! The forward pass and, with rotated weights, the input gradient.
//!
//! There are two loop orders. With many tiles, a block of them stays in the cache and the transformed weights are
//! streamed: transform, products and inverse transform of a block are one task. With more channels than tiles the
//! weights dominate: a task transforms one panel of them at a time, uses it for all tiles, and discards it.

use super::scheme::Scheme;
use super::tiles::{Finish, Frequencies, Grid};
use super::weights::Weights;
use crate::kernels::microkernel::{COLUMNS, Left, Product};
use crate::kernels::scratch::Scratch;
use std::marker::PhantomData;
use tapegrad_tape::kernels::arch::InstructionSet;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;

/// Floats in a cache line, by which power-of-two strides are padded.
const LINE: usize = 16;

/// One convolution, ready to run.
pub(super) struct Job<'a, S> {
    pub(super) grid: Grid,
    pub(super) x: &'a [f32],
    pub(super) weights: Weights<'a>,
    pub(super) finish: Finish<'a>,
    pub(super) scheme: PhantomData<S>,
}

/// How the tiles are split: into `parts` of `tiles` each.
#[derive(Clone, Copy)]
struct Cut {
    tiles: usize,
    parts: usize,
    weights_outermost: bool,
}

impl Cut {
    /// The partition for a number of tiles and channels. It determines the order of sums, so it must depend on nothing
    /// else.
    fn new<S: Scheme>(tiles: usize, c_in: usize, c_out: usize) -> Self {
        let frequencies = S::SIDE * S::SIDE;
        let weights_outermost = tiles < c_out;
        let most = if weights_outermost {
            // The products of all tiles with a panel stay in the cache.
            180 * 1024 / (frequencies * COLUMNS)
        } else {
            // A few register tiles of rows, or one where more would leave the cache too little room.
            let most = 256 * 1024 / (frequencies * (c_in.next_multiple_of(LINE) + COLUMNS));
            most.clamp(13, if S::SIDE == 3 { 104 } else { 26 })
        };
        let parts = tiles.div_ceil(most);
        let parts = if parts > 1 && !weights_outermost { parts.next_multiple_of(2) } else { parts };
        let tiles = tiles.div_ceil(parts.max(1)).max(1);
        Cut { tiles, parts, weights_outermost }
    }
}

impl<S: Scheme> Job<'_, S> {
    const WEIGHTS: usize = S::WEIGHTS * S::WEIGHTS;

    pub(super) fn run(&self, set: InstructionSet) {
        let cut = Cut::new::<S>(self.grid.count, self.weights.steps, self.weights.columns);
        if cut.weights_outermost {
            for part in 0..cut.parts {
                self.run_panels(set, cut, part);
            }
        } else {
            self.run_blocks(set, cut);
        }
    }

    /// Tiles outermost.
    fn run_blocks(&self, set: InstructionSet, cut: Cut) {
        let steps = self.weights.steps;
        let frequency = steps * COLUMNS + LINE;
        let panel = Self::WEIGHTS * frequency;
        let mut u = Scratch::new(self.weights.panels() * panel);
        let u = SharedSlice::new(&mut u);
        let chunk = 32;
        let chunks = steps.div_ceil(chunk);
        parallel_for(self.weights.panels() * chunks, |i| {
            let (p, from) = (i / chunks, i % chunks * chunk);
            let out = Frequencies { data: u.at(p * panel + from * COLUMNS), frequency, tile: COLUMNS };
            arch::run_with(
                set,
                TransformWeights { job: self, panel: p, steps: (from, steps.min(from + chunk)), out },
            )
        });
        parallel_for(cut.parts, |part| {
            let to = self.grid.count.min((part + 1) * cut.tiles);
            let from = (part * cut.tiles).min(to);
            let u = Frequencies { data: u.at(0), frequency, tile: COLUMNS };
            arch::run_with(set, Block { job: self, tiles: (from, to), u })
        });
    }

    /// Panels of weights outermost, over the tiles of one part.
    fn run_panels(&self, set: InstructionSet, cut: Cut, part: usize) {
        let to = self.grid.count.min((part + 1) * cut.tiles);
        let from = (part * cut.tiles).min(to);
        let chunks = Chunks::new::<S>(self.weights.steps, to - from);
        let mut v = Scratch::new(chunks.count * chunks.size);
        let v = SharedSlice::new(&mut v);
        let group = 4;
        parallel_for((to - from).div_ceil(group), |i| {
            let first = from + i * group;
            let tiles = (first, to.min(first + group));
            arch::run_with(set, TransformChunks { job: self, tiles, offset: i * group, v: v.at(0), chunks })
        });
        parallel_for(self.weights.panels(), |panel| {
            arch::run_with(set, Panel { job: self, tiles: (from, to), panel, v: v.at(0), chunks })
        });
    }
}

/// Task: transforms some steps of a panel of weights.
struct TransformWeights<'a, S> {
    job: &'a Job<'a, S>,
    panel: usize,
    steps: (usize, usize),
    out: Frequencies,
}

impl<S: Scheme> Kernel for TransformWeights<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: the creator of this task provides an `out` with room for its steps, and no other task writes them.
        unsafe { self.job.weights.transform::<V, S>(self.panel, self.steps, self.out) }
    }
}

/// Task: a block of tiles, all channels.
struct Block<'a, S> {
    job: &'a Job<'a, S>,
    tiles: (usize, usize),
    u: Frequencies,
}

impl<S: Scheme> Kernel for Block<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Job { grid, x, weights, finish, .. } = self.job;
        let tiles = self.tiles.1 - self.tiles.0;
        let frequencies = S::SIDE * S::SIDE;
        let steps = weights.steps;
        let row = steps.next_multiple_of(LINE);
        let v_size = tiles * row + LINE;
        let m_size = tiles * COLUMNS + LINE;
        let mut scratch = Scratch::new(row + frequencies * (v_size + m_size));
        let (zeros, scratch) = scratch.split_at_mut(row);
        let (v, m) = scratch.split_at_mut(frequencies * v_size);
        zeros.fill(0.0);
        let v = Frequencies { data: v.as_mut_ptr(), frequency: v_size, tile: row };
        let m = Frequencies { data: m.as_mut_ptr(), frequency: m_size, tile: COLUMNS };
        let source = (x.as_ptr(), zeros.as_ptr());
        // SAFETY: the buffers have the sizes that the layouts name; this block alone writes its tiles.
        unsafe {
            grid.transform_input::<V, S>(source, self.tiles, (0, steps), v);
            for panel in 0..weights.panels() {
                for f in 0..frequencies {
                    let u = self.u.of(panel * Job::<S>::WEIGHTS + S::weight_of(f).0);
                    let product = Product {
                        rows: tiles,
                        cols: COLUMNS.min(weights.columns - panel * COLUMNS),
                        steps,
                        a: v.of(f),
                        left: Left::Rows,
                        a_stride: row,
                        b: u,
                        b_stride: COLUMNS,
                        c: m.of(f),
                        c_stride: COLUMNS,
                        add: false,
                        next: u.wrapping_add(self.u.frequency),
                    };
                    product.run::<V>();
                }
                finish.transform_output::<V, S>(grid, self.tiles, panel, m);
            }
        }
    }
}

/// How the inner dimension is split if weights are outermost: `[chunk][frequency][tile][step]`.
#[derive(Clone, Copy)]
struct Chunks {
    steps: usize,
    count: usize,
    /// Distance between frequencies.
    frequency: usize,
    /// Distance between chunks.
    size: usize,
}

impl Chunks {
    fn new<S: Scheme>(steps: usize, tiles: usize) -> Self {
        let frequencies = S::SIDE * S::SIDE;
        // The transformed weights of a chunk stay in the cache together with the products of all tiles.
        let most = 144 * 1024 / (S::WEIGHTS * S::WEIGHTS * COLUMNS);
        let count = steps.div_ceil(most);
        let steps = steps.div_ceil(count).next_multiple_of(LINE);
        let frequency = tiles * steps + LINE;
        Chunks { steps, count, frequency, size: frequencies * frequency }
    }
}

/// Task: transforms some tiles, for weights outermost.
struct TransformChunks<'a, S> {
    job: &'a Job<'a, S>,
    tiles: (usize, usize),
    /// Of the first tile in its part.
    offset: usize,
    v: *mut f32,
    chunks: Chunks,
}

impl<S: Scheme> Kernel for TransformChunks<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Job { grid, x, weights, .. } = self.job;
        let Chunks { steps, count, frequency, size } = self.chunks;
        let mut zeros = Scratch::new(weights.steps);
        zeros.fill(0.0);
        for chunk in 0..count {
            let channels = (chunk * steps, weights.steps.min((chunk + 1) * steps));
            if channels.0 >= channels.1 {
                continue;
            }
            let data = self.v.wrapping_add(chunk * size + self.offset * steps);
            let out = Frequencies { data, frequency, tile: steps };
            let source = (x.as_ptr(), zeros.as_ptr());
            // SAFETY: the scratch holds all chunks, and each task writes its own tiles.
            unsafe { grid.transform_input::<V, S>(source, self.tiles, channels, out) };
        }
    }
}

/// Task: one panel of output channels, all tiles of a part.
struct Panel<'a, S> {
    job: &'a Job<'a, S>,
    tiles: (usize, usize),
    panel: usize,
    v: *mut f32,
    chunks: Chunks,
}

impl<S: Scheme> Kernel for Panel<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Job { grid, weights, finish, .. } = self.job;
        let Chunks { steps, count, frequency, size } = self.chunks;
        let tiles = self.tiles.1 - self.tiles.0;
        let frequencies = S::SIDE * S::SIDE;
        let u_size = steps * COLUMNS + LINE;
        let m_size = tiles * COLUMNS + LINE;
        let mut scratch = Scratch::new(Job::<S>::WEIGHTS * u_size + frequencies * m_size);
        let (u, m) = scratch.split_at_mut(Job::<S>::WEIGHTS * u_size);
        let u = Frequencies { data: u.as_mut_ptr(), frequency: u_size, tile: COLUMNS };
        let m = Frequencies { data: m.as_mut_ptr(), frequency: m_size, tile: COLUMNS };
        for chunk in 0..count {
            let from = chunk * steps;
            let to = weights.steps.min(from + steps);
            if from >= to {
                continue;
            }
            let transform = TransformWeights { job: self.job, panel: self.panel, steps: (from, to), out: u };
            // SAFETY: V is in use, so the CPU supports it; the scratch has room for a chunk.
            unsafe { V::call(transform) };
            for f in 0..frequencies {
                let a = self.v.wrapping_add(chunk * size + f * frequency);
                let product = Product {
                    rows: tiles,
                    cols: COLUMNS.min(weights.columns - self.panel * COLUMNS),
                    steps: to - from,
                    a,
                    left: Left::Rows,
                    a_stride: steps,
                    b: u.of(S::weight_of(f).0),
                    b_stride: COLUMNS,
                    c: m.of(f),
                    c_stride: COLUMNS,
                    add: chunk > 0,
                    next: a.wrapping_add(frequency),
                };
                // SAFETY: the transformed tiles and weights have the sizes that the layouts name.
                unsafe { product.run::<V>() };
            }
        }
        // SAFETY: this task alone writes its panel of these tiles.
        unsafe { finish.transform_output::<V, S>(grid, self.tiles, self.panel, m) };
    }
}
