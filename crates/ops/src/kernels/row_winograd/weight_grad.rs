//! The weight gradient: for each frequency, products over the tiles of a row, accumulated over rows and images.

use super::Conv2dShape;
use super::lines::{Block, Cut};
use super::scheme::{OUT, SIDE, TAPS, output_grad, weight_grad};
use crate::kernels::direct_conv::run_tasks;
use crate::kernels::microkernel::{COLUMNS, Left, Product};
use crate::kernels::scratch::Scratch;
use tapegrad_tape::kernels::arch::InstructionSet;
use tapegrad_tape::kernels::arch::{self, Kernel, MAX_LANES, Vector, prefetch};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::unroll;

/// Tiles of a line: enough to outweigh loading and storing the accumulators.
const TILES: usize = 48;

/// Partial sums, at most.
const GROUPS: usize = 16;

/// Computes the gradient.
pub(super) fn run(set: InstructionSet, shape: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let cut = Cut::new(shape, TILES);
    let groups = cut.blocks().min(GROUPS);
    let columns = shape.c_out.next_multiple_of(COLUMNS);
    let size = shape.kh * shape.c_in * TAPS * columns;
    let mut partial = Scratch::new(groups * size);
    let sums = SharedSlice::new(&mut partial);
    run_tasks(groups, shape.flops(), |group| {
        let blocks = (cut.blocks() * group / groups, cut.blocks() * (group + 1) / groups);
        // SAFETY: each group has a part of its own.
        let out = unsafe { sums.part(group * size, size) };
        arch::run_with(set, Task { cut: &cut, x, dy, blocks, out });
    });
    arch::run_with(set, Reduce { shape, columns, partial: &partial, dw });
}

/// Task: the gradient over some blocks.
struct Task<'a> {
    cut: &'a Cut,
    x: &'a [f32],
    dy: &'a [f32],
    blocks: (usize, usize),
    /// `[tap of a column][input channel][tap of a row][output channel]`.
    out: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Task { cut, x, dy, blocks, out } = self;
        let s = &cut.shape;
        let rows = s.kh * s.c_in;
        let columns = s.c_out.next_multiple_of(COLUMNS);
        let panels = columns / COLUMNS;
        let u_size = rows * COLUMNS + MAX_LANES;
        let mut u = Scratch::new(panels * SIDE * u_size);
        u.fill(0.0);
        for block in blocks.0..blocks.1 {
            let block = cut.block(block);
            let frequency = block.frequency();
            let chunks = block.length.div_ceil(TILES);
            let z_size = block.length.div_ceil(chunks) * COLUMNS + MAX_LANES;
            let mut scratch = Scratch::new(SIDE * (z_size + frequency) + block.scratch());
            let (z, scratch) = scratch.split_at_mut(SIDE * z_size);
            let (v, scratch) = scratch.split_at_mut(SIDE * frequency);
            let (z, v) = (z.as_mut_ptr(), v.as_mut_ptr());
            // SAFETY: the scratch has room for the lines.
            unsafe { block.transform::<V>(x, scratch, v) };
            for (panel, u) in u.chunks_exact_mut(SIDE * u_size).enumerate() {
                let u = u.as_mut_ptr();
                for row in block.rows.0..block.rows.1 {
                    let ((first, end), line) = block.taps(row);
                    for chunk in 0..chunks {
                        let tiles = (block.length * chunk / chunks, block.length * (chunk + 1) / chunks);
                        let transform =
                            TransformGrad { channels: s.c_out, dy, block, row, tiles, panel, z, z_size };
                        // SAFETY: V is in use, so the CPU supports it.
                        unsafe { V::call(transform) };
                        for f in 0..SIDE {
                            let product = Product {
                                rows: (end - first) * s.c_in,
                                cols: COLUMNS.min(s.c_out - panel * COLUMNS),
                                steps: tiles.1 - tiles.0,
                                a: v.wrapping_add(f * frequency + line + tiles.0),
                                left: Left::Rows,
                                a_stride: block.length,
                                b: z.wrapping_add(f * z_size),
                                b_stride: COLUMNS,
                                c: u.wrapping_add(f * u_size + first * s.c_in * COLUMNS),
                                c_stride: COLUMNS,
                                add: true,
                                next: z.wrapping_add((f + 1) * z_size),
                            };
                            // SAFETY: the taps see lines of the block; `z` and `u` have whole vectors.
                            unsafe { product.run::<V>() };
                            // The next row is prefetched meanwhile.
                            if row + 1 < block.rows.1 {
                                block.prefetch(prefetch, dy.as_ptr(), row + 1, tiles, panel, f);
                            }
                        }
                    }
                }
            }
        }
        for row in 0..rows {
            for column in (0..columns).step_by(V::LANES) {
                let (panel, at) = (column / COLUMNS, row * COLUMNS + column % COLUMNS);
                let from = u[panel * SIDE * u_size + at..].as_ptr();
                let mut sums = [V::splat(0.0); SIDE];
                unroll!(f of 13 < SIDE, {
                    // SAFETY: each panel has all frequencies.
                    sums[f] = unsafe { V::load(from.wrapping_add(f * u_size)) };
                });
                let taps = weight_grad(sums);
                let out = out[row * TAPS * columns + column..].as_mut_ptr();
                unroll!(k of 10 < TAPS, {
                    // SAFETY: each row has all taps.
                    unsafe { taps[k].store(out.wrapping_add(k * columns)) };
                });
            }
        }
    }
}

/// `A dy` of some tiles of a row, for one panel of channels, to `z[frequency][tile][channel]`.
struct TransformGrad<'a> {
    channels: usize,
    dy: &'a [f32],
    block: Block<'a>,
    row: usize,
    tiles: (usize, usize),
    panel: usize,
    z: *mut f32,
    z_size: usize,
}

impl Kernel for TransformGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let TransformGrad { channels, dy, block, row, tiles, panel, z, z_size } = self;
        let zero = V::splat(0.0);
        let last = channels.min((panel + 1) * COLUMNS);
        for tile in tiles.0..tiles.1 {
            let (pixel, columns) = block.place(row, tile);
            for channel in (panel * COLUMNS..last).step_by(V::LANES) {
                let lanes = (last - channel).min(V::LANES);
                let from = dy.as_ptr().wrapping_add(pixel * channels + channel);
                let mut y = [zero; OUT];
                unroll!(i of 10 < OUT, {
                    let from = from.wrapping_add(i * channels);
                    if lanes == V::LANES && columns == OUT {
                        // SAFETY: the pixel lies in the image and has as many channels.
                        y[i] = unsafe { V::load(from) };
                    } else if i < columns {
                        // SAFETY: as above.
                        y[i] = unsafe { V::load_part(from, lanes) };
                    }
                });
                let out = output_grad(y);
                let to = z.wrapping_add((tile - tiles.0) * COLUMNS + channel - panel * COLUMNS);
                unroll!(f of 13 < SIDE, {
                    // SAFETY: `z` has room for these tiles.
                    unsafe { out[f].store(to.wrapping_add(f * z_size)) };
                });
            }
        }
    }
}

/// Task: adds up the groups' sums in their order, and brings them into the order of the weight.
struct Reduce<'a> {
    shape: &'a Conv2dShape,
    columns: usize,
    partial: &'a [f32],
    dw: &'a mut [f32],
}

impl Kernel for Reduce<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Reduce { shape: s, columns, partial, dw } = self;
        let size = s.kh * s.c_in * TAPS * columns;
        for row in 0..s.kh * s.c_in * TAPS {
            let (ky, ci, kx) = (row / TAPS / s.c_in, row / TAPS % s.c_in, row % TAPS);
            for channel in (0..s.c_out).step_by(V::LANES) {
                let mut sum = V::splat(0.0);
                for group in partial.chunks_exact(size) {
                    // SAFETY: rows have whole vectors.
                    sum = sum.add(unsafe { V::load(group[row * columns + channel..].as_ptr()) });
                }
                let mut lanes = [0.0; MAX_LANES];
                // SAFETY: the array has room for a vector.
                unsafe { sum.store(lanes.as_mut_ptr()) };
                for (co, &sum) in (channel..s.c_out.min(channel + V::LANES)).zip(&lanes) {
                    dw[((co * s.c_in + ci) * s.kh + ky) * TAPS + kx] = sum;
                }
            }
        }
    }
}
