//! The gradient for the weight: a sum over the pixels for each tap and channel.

use super::axis::Axis;
use super::rows::load;
use super::{Channels, Job, View};
use crate::kernels::direct_conv::run_tasks;
use crate::kernels::geometry::Conv2dShape;
use crate::kernels::scratch::with_scratch;
use std::ops::Range;
use tapegrad_tape::kernels::arch::{InstructionSet, Kernel, Vector, run_with};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::unroll;

/// Partial sums: a fixed number, so that results do not depend on the number of threads.
const PARTS: usize = 16;

/// Rows that are spread at once.
const BAND: usize = 8;

pub(super) fn run(set: InstructionSet, s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let job = Job {
        n: s.n,
        axes: [Axis::forward(s, 0), Axis::forward(s, 1)],
        channels: Channels { groups: s.groups, source: s.c_in, target: s.c_out },
        target: [s.out_h(), s.out_w()],
        kernel_columns: s.kw,
    };
    let (channels, grid) = (job.channels, job.axes[0].grid);
    let (block, blocks, from) = (channels.block(), channels.blocks(), channels.per_group());
    let taps = s.kh * s.kw;
    let panel = taps * from * block;
    let parts = PARTS.min(s.n * grid);
    with_scratch(parts * blocks * panel, |partial| {
        let out = SharedSlice::new(partial);
        run_tasks(parts * blocks, s.flops(), |task| {
            let (part, number) = (task / blocks, task % blocks);
            let first = number * block;
            // SAFETY: each task has sums of its own.
            let sums = unsafe { out.part(task * panel, panel) };
            sums.fill(0.0);
            let (mut row, end) = (s.n * grid * part / parts, s.n * grid * (part + 1) / parts);
            while row < end {
                let (image, top) = (row / grid, row % grid);
                let rows = top..grid.min(top + BAND).min(top + end - row);
                row += rows.len();
                job.with_source(set, x, image, &rows, number, |source| {
                    let dy = &dy[image * grid * s.out_w() * s.c_out..][..grid * s.out_w() * s.c_out];
                    let count = block.min(s.c_out - first);
                    let (gradient, pixel) = (dy[first..].as_ptr(), s.c_out);
                    let sums = &mut *sums;
                    run_with(
                        set,
                        Sums {
                            rows: rows.clone(),
                            axes: &job.axes,
                            source,
                            gradient,
                            pixel,
                            channels: count,
                            block,
                            sums,
                        },
                    );
                });
            }
        });
        for (i, dw) in dw.iter_mut().enumerate() {
            let (o, r, t) = (i / taps / from, i / taps % from, i % taps);
            let at = o / block * panel + (t * from + r) * block + o % block;
            *dw = partial[at..].iter().step_by(blocks * panel).sum();
        }
    });
}

/// Adds the products of some rows of an image to the sums of a block of channels.
struct Sums<'a> {
    rows: Range<usize>,
    axes: &'a [Axis; 2],
    source: View,
    /// The first pixel of the image, and the distance between pixels.
    gradient: *const f32,
    pixel: usize,
    channels: usize,
    /// Distance between the sums of taps.
    block: usize,
    sums: &'a mut [f32],
}

/// Sums in registers at once.
const TAPS: usize = 9;

/// Output columns after which the next channels follow: their pixels stay in the nearest cache.
const COLUMNS: usize = 16;

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let right = &self.axes[1];
        let interior = right.interior();
        let (mut all, mut some) = (Vec::new(), Vec::new());
        for row in self.rows.clone() {
            all.clear();
            self.source.products(self.axes, row, self.block, &mut all, |_| true);
            let gradient = self.gradient.wrapping_add(row * right.grid * self.pixel);
            let inside =
                interior.clone().step_by(COLUMNS).map(|column| (column, COLUMNS.min(interior.end - column)));
            let border = (0..interior.start).chain(interior.end..right.grid).map(|column| (column, 1));
            // One call for both: the sums of all numbers of taps are compiled into it.
            for (column, count) in inside.chain(border) {
                let products = if interior.contains(&column) {
                    &all
                } else {
                    some.clear();
                    let reads = |at| right.read(column, at).is_some();
                    self.source.products(self.axes, row, self.block, &mut some, reads);
                    &some
                };
                self.columns::<V>(products, gradient, column, count);
            }
        }
    }
}

impl Sums<'_> {
    /// Some adjacent columns of all channels.
    #[inline(always)]
    fn columns<V: Vector>(
        &mut self,
        products: &[(isize, usize)],
        gradient: *const f32,
        column: usize,
        count: usize,
    ) {
        let source = self.source.start.wrapping_add(column * self.axes[1].source_step * self.source.pixel);
        let gradient = gradient.wrapping_add(column * self.pixel);
        for c in (0..self.channels).step_by(V::LANES) {
            let n = V::LANES.min(self.channels - c);
            let (source, gradient) = (source.wrapping_add(c), gradient.wrapping_add(c));
            for products in products.chunks(TAPS) {
                macro_rules! by_count {
                    ($($count:literal)*) => {
                        match (products.len(), n == V::LANES) {
                            $(($count, true) => self.taps::<V, $count, true>(products, source, gradient, c, n, count),
                            ($count, false) => self.taps::<V, $count, false>(products, source, gradient, c, n, count),)*
                            _ => unreachable!("1 to {TAPS} taps"),
                        }
                    };
                }
                by_count!(1 2 3 4 5 6 7 8 9);
            }
        }
    }

    /// Some taps of a vector of `n` channels.
    #[inline(always)]
    fn taps<V: Vector, const N: usize, const WHOLE: bool>(
        &mut self,
        products: &[(isize, usize)],
        source: *const f32,
        gradient: *const f32,
        c: usize,
        n: usize,
        count: usize,
    ) {
        let mask = V::mask(n);
        // `n` channels of a pixel inside the image or of a sum.
        macro_rules! load {
            ($p:expr) => {
                // SAFETY: as said above.
                unsafe { load::<V, WHOLE>($p, mask) }
            };
        }
        let step = self.axes[1].source_step * self.source.pixel;
        let mut x = [source; N];
        let mut sums = [V::splat(0.0); N];
        unroll!(t of 10 < N, {
            x[t] = source.wrapping_offset(products[t].0);
        });
        for i in 0..count {
            let g = load!(gradient.wrapping_add(i * self.pixel));
            unroll!(t of 10 < N, {
                sums[t] = load!(x[t].wrapping_add(i * step)).mul_add(g, sums[t]);
            });
        }
        unroll!(t of 10 < N, {
            let to = self.sums[products[t].1 + c..].as_mut_ptr();
            let sum = sums[t].add(load!(to));
            // SAFETY: `n` channels of a sum.
            unsafe { if WHOLE { sum.store(to) } else { sum.store_masked(to, mask) } }
        });
    }
}
