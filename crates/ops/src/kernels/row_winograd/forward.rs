//! The forward pass: a block's input is transformed; then, for a few tiles of one row at a time, products and the
//! inverse transform alternate in the L1 cache.

use super::Conv2dShape;
use super::lines::{Block, Cut};
use super::scheme::{OUT, SIDE, TAPS, output, weight};
use crate::kernels::direct_conv::run_tasks;
use crate::kernels::microkernel::{COLUMNS, Left, Product};
use crate::kernels::scratch::Scratch;
use tapegrad_tape::kernels::arch::InstructionSet;
use tapegrad_tape::kernels::arch::{self, Kernel, MAX_LANES, Vector, prefetch_write};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::unroll;

/// Tiles of a line, about two register tiles of rows.
const TILES: usize = 26;

/// One convolution, ready to run.
struct Job<'a> {
    cut: Cut,
    x: &'a [f32],
    /// Transformed: `[panel][frequency][tap of a column][input channel][output channel]`.
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    y: SharedSlice<'a, f32>,
}

/// Computes the convolution.
pub(super) fn run(
    set: InstructionSet,
    shape: &Conv2dShape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let steps = shape.kh * shape.c_in;
    let panels = shape.c_out.div_ceil(COLUMNS);
    let mut weights = Scratch::new(panels * SIDE * steps * COLUMNS);
    for (panel, out) in weights.chunks_exact_mut((SIDE * steps * COLUMNS).max(1)).enumerate() {
        let channels = (panel * COLUMNS, shape.c_out.min((panel + 1) * COLUMNS));
        arch::run_with(set, TransformWeights { shape, w, channels, out });
    }
    let cut = Cut::new(shape, TILES);
    let job = Job { cut, x, weights: &weights, bias, y: SharedSlice::new(y) };
    run_tasks(cut.blocks(), shape.flops(), |i| arch::run_with(set, Task { job: &job, block: cut.block(i) }));
}

/// Task: transforms a panel of weights, in `f64`.
struct TransformWeights<'a> {
    shape: &'a Conv2dShape,
    w: &'a [f32],
    channels: (usize, usize),
    out: &'a mut [f32],
}

impl Kernel for TransformWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let s = self.shape;
        let steps = s.kh * s.c_in;
        for step in 0..steps {
            let (ky, ci) = (step / s.c_in, step % s.c_in);
            for column in 0..COLUMNS {
                let co = self.channels.0 + column;
                let mut taps = [0.0; TAPS];
                if co < self.channels.1 {
                    let w = &self.w[((co * s.c_in + ci) * s.kh + ky) * TAPS..][..TAPS];
                    for (tap, &w) in taps.iter_mut().zip(w) {
                        *tap = f64::from(w);
                    }
                }
                for (f, u) in weight(taps).into_iter().enumerate() {
                    self.out[(f * steps + step) * COLUMNS + column] = u as f32;
                }
            }
        }
    }
}

/// Task: a block of outputs.
struct Task<'a> {
    job: &'a Job<'a>,
    block: Block<'a>,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Task { job, block } = self;
        let s = &job.cut.shape;
        let steps = s.kh * s.c_in;
        let frequency = block.frequency();
        let groups = block.length.div_ceil(TILES);
        let m_size = block.length.div_ceil(groups) * COLUMNS + MAX_LANES;
        let mut scratch = Scratch::new(SIDE * (m_size + frequency) + block.scratch());
        let (m, scratch) = scratch.split_at_mut(SIDE * m_size);
        let (v, scratch) = scratch.split_at_mut(SIDE * frequency);
        let (m, v) = (m.as_mut_ptr(), v.as_mut_ptr());
        // SAFETY: the scratch has room for the lines.
        unsafe { block.transform::<V>(job.x, scratch, v) };
        for row in block.rows.0..block.rows.1 {
            let ((first, end), line) = block.taps(row);
            for group in 0..groups {
                let tiles = (block.length * group / groups, block.length * (group + 1) / groups);
                for panel in 0..s.c_out.div_ceil(COLUMNS) {
                    let weights = job.weights[panel * SIDE * steps * COLUMNS..].as_ptr();
                    let cols = COLUMNS.min(s.c_out - panel * COLUMNS);
                    for f in 0..SIDE {
                        let b = weights.wrapping_add((f * steps + first * s.c_in) * COLUMNS);
                        let product = Product {
                            rows: tiles.1 - tiles.0,
                            cols,
                            steps: (end - first) * s.c_in,
                            a: v.wrapping_add(f * frequency + line + tiles.0),
                            left: Left::Columns(block.length),
                            a_stride: block.length,
                            b,
                            b_stride: COLUMNS,
                            c: m.wrapping_add(f * m_size),
                            c_stride: COLUMNS,
                            add: false,
                            next: b.wrapping_add(steps * COLUMNS),
                        };
                        // SAFETY: the taps see lines of the block; panels and products have whole vectors.
                        unsafe { product.run::<V>() };
                        // The outputs are prefetched for the inverse transform.
                        block.prefetch(prefetch_write, job.y.at(0), row, tiles, panel, f);
                    }
                    let output = Output { job, block, row, tiles, panel, m, m_size };
                    // SAFETY: V is in use, so the CPU supports it.
                    unsafe { V::call(output) };
                }
            }
        }
    }
}

/// The inverse transform of some tiles of a row, for one panel of channels. A separate function, for the sake of the
/// register allocator.
struct Output<'a> {
    job: &'a Job<'a>,
    block: Block<'a>,
    row: usize,
    tiles: (usize, usize),
    panel: usize,
    m: *const f32,
    m_size: usize,
}

impl Kernel for Output<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Output { job, block, row, tiles, panel, m, m_size } = self;
        let s = &job.cut.shape;
        let channels = s.c_out;
        let zero = V::splat(0.0);
        let last = channels.min((panel + 1) * COLUMNS);
        for channel in (panel * COLUMNS..last).step_by(V::LANES) {
            let lanes = (last - channel).min(V::LANES);
            let bias = match job.bias {
                // SAFETY: there is a bias for each channel.
                Some(bias) => unsafe { V::load_part(bias.as_ptr().wrapping_add(channel), lanes) },
                None => zero,
            };
            for tile in tiles.0..tiles.1 {
                let (pixel, columns) = block.place(row, tile);
                let y = job.y.at(pixel * channels + channel);
                let from = m.wrapping_add((tile - tiles.0) * COLUMNS + channel - panel * COLUMNS);
                let mut x = [zero; SIDE];
                unroll!(f of 13 < SIDE, {
                    // SAFETY: the products of the tile are there.
                    x[f] = unsafe { V::load(from.wrapping_add(f * m_size)) };
                });
                let outputs = output(x);
                unroll!(i of 10 < OUT, {
                    let value = outputs[i].add(bias);
                    let y = y.wrapping_add(i * channels);
                    if lanes == V::LANES && columns == OUT {
                        // SAFETY: the pixel lies in the image and has as many channels.
                        unsafe { value.store(y) };
                    } else if i < columns {
                        // SAFETY: as above.
                        unsafe { value.store_part(y, lanes) };
                    }
                });
            }
        }
    }
}
