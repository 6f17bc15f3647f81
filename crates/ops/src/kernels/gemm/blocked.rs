//! Large products: both operands are packed, in blocks for the caches.
//!
//! A block of the right operand is packed once for all tasks. A task packs some rows of the left operand for its core's
//! second-level cache, and multiplies them by one panel after the other. Packed, the rows of a tile are neighbors in
//! memory: rows far apart would share sets of the first-level cache, or take a page each.
//!
//! With AVX-512 (Zen 4) the products of transformers reach 102 to 112 GFLOP/s of 117.5, before 84 to 106. A tile begins
//! and ends in some hundred cycles, the smaller part of which its stores take, so blocks are deep: with 256 steps the same
//! products reach 94 to 100, with 512 up to 3 less than with 1,024. Tiles of 13 rows gained nothing over 12 (116.1 and
//! 116.0 in the cache).

use super::Finish;
use super::sgemm::{Operands, prefetch_rows};
use crate::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile, strided_rows};
use crate::kernels::scratch::with_scratch;
use std::ops::Range;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector, prefetch, prefetch_write};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::kernels::transpose::transpose;
use tapegrad_tape::unroll;

/// The most steps of a block: panels of 128 KiB.
const DEPTH: usize = 1024;

/// The most elements of a packed block of the right operand: 4 MiB, a part of the third-level cache.
const BLOCK: usize = 1 << 20;

/// Rows of a task: at most 384 KiB of packed elements.
const HEIGHT: usize = 8 * ROWS;

/// The number of tasks from which all threads are busy.
const TASKS: usize = 16;

/// Panels that a task packs together, so that memory is read in long runs.
const PANELS: usize = 4;

/// How many steps ahead packing prefetches.
const AHEAD: usize = 8;

/// A vector of packed rows is stored whole: the next step overwrites what exceeds its tile.
const EXCESS: usize = 16 - ROWS;

impl Operands<'_> {
    /// Whether the product is large enough for packing both operands, and fills its panels.
    pub(super) fn is_large(&self) -> bool {
        let waste = self.n.next_multiple_of(COLUMNS / 2) - self.n;
        self.m.min(self.n) >= 128
            && self.k >= 32
            && self.m * self.n * self.k >= 1 << 22
            && waste * 16 <= self.n
    }

    pub(super) fn run_blocked(&self, c: &mut [f32], row: usize, finish: Finish<f32>) {
        let depth = self.k.div_ceil(self.k.div_ceil(DEPTH));
        let panels = self.n.div_ceil(COLUMNS);
        let together = (BLOCK / (depth * COLUMNS)).min(panels);
        let out = SharedSlice::new(c);
        with_scratch(together * depth * COLUMNS, |packed| {
            for start in (0..self.k).step_by(depth) {
                let steps = start..self.k.min(start + depth);
                for first in (0..panels).step_by(together) {
                    let group = first..panels.min(first + together);
                    let to = SharedSlice::new(packed);
                    let chunks = group.len().div_ceil(PANELS);
                    parallel_for(chunks, |chunk| {
                        let start = group.start + chunk * PANELS;
                        let panels = start..group.end.min(start + PANELS);
                        // SAFETY: each task writes its own panels.
                        unsafe {
                            self.pack(panels, steps.clone(), to.at(chunk * PANELS * steps.len() * COLUMNS))
                        };
                    });
                    self.rows_of_block(steps.clone(), group, packed, out, row, finish);
                }
            }
        });
    }

    /// The product of all rows with a packed block.
    fn rows_of_block(
        &self,
        steps: Range<usize>,
        group: Range<usize>,
        packed: &[f32],
        out: SharedSlice<f32>,
        row: usize,
        finish: Finish<f32>,
    ) {
        let heights = self.m.div_ceil(HEIGHT);
        // Wide blocks are divided if there are few rows.
        let widths = TASKS.div_ceil(heights).min(group.len().div_ceil(8));
        parallel_for(heights * widths, |task| {
            let (height, width) = (task % heights, task / heights);
            let rows = height * HEIGHT..self.m.min((height + 1) * HEIGHT);
            let panels = group.len() * width / widths..group.len() * (width + 1) / widths;
            with_scratch(HEIGHT * steps.len() + EXCESS, |left| {
                self.pack_left(rows.clone(), &steps, left);
                for panel in panels {
                    let b = packed[panel * steps.len() * COLUMNS..].as_ptr();
                    let column = (group.start + panel) * COLUMNS;
                    // SAFETY: the operands were packed, and each task has its own rows and columns of C.
                    unsafe { self.panel(rows.clone(), &steps, left, b, column, out.at(0), row, finish) };
                }
            });
        });
    }

    /// The product of packed rows and one packed panel.
    ///
    /// # Safety
    /// C must have room for the rows, `row` apart, and no other task may access them.
    #[allow(clippy::too_many_arguments)]
    unsafe fn panel(
        &self,
        rows: Range<usize>,
        steps: &Range<usize>,
        left: &[f32],
        b: *const f32,
        column: usize,
        c: *mut f32,
        row: usize,
        finish: Finish<f32>,
    ) {
        let (first, last) = (steps.start == 0, steps.end == self.k);
        for (tile, from) in rows.clone().step_by(ROWS).enumerate() {
            let a = left[tile * ROWS * steps.len()..].as_ptr();
            let epilogue = finish.epilogue(first, last, from, column);
            let c = c.wrapping_add(from * row + column);
            let (m, n) = (ROWS.min(rows.end - from), COLUMNS.min(self.n - column));
            if m == ROWS && n == COLUMNS && epilogue.row_bias.is_null() {
                arch::run(Whole { steps: steps.len(), a, b, c, row, epilogue });
                continue;
            }
            let tile = Tile {
                m,
                n,
                segments: &[Segment::whole(steps.len())],
                left: Left::Columns(ROWS),
                rows: &[strided_rows(a, 1)],
                b,
                b_step: COLUMNS,
                ahead: 0,
                c,
                output: Output::Strided(row),
                epilogue,
            };
            prefetch_rows(&tile, row);
            // SAFETY: as promised.
            unsafe { tile.run() };
        }
    }

    /// Packs some steps of some rows, one tile after the other: its rows for each step.
    fn pack_left(&self, rows: Range<usize>, steps: &Range<usize>, to: &mut [f32]) {
        let left = &self.left;
        let (size, tiles) = (steps.len() * ROWS, rows.len().div_ceil(ROWS));
        assert!(to.len() >= tiles * size + EXCESS);
        let to = to.as_mut_ptr();
        let from = left.data[rows.start * left.row + steps.start * left.column..].as_ptr();
        // Tiles for which there are enough rows to fill a vector.
        let full = if rows.start + tiles * ROWS + EXCESS <= self.m { tiles } else { tiles.saturating_sub(2) };
        // SAFETY: the rows and steps are inside the operand, whose size was checked, and there is room for each tile and
        // the excess of its last step.
        unsafe {
            let mut done = 0;
            if left.row == 1 {
                // All tiles of a step together, since they are contiguous.
                for k in 0..steps.len() {
                    for line in (0..full * ROWS).step_by(16) {
                        prefetch(from.wrapping_add((k + AHEAD) * left.column + line));
                    }
                    // The last step must leave the next tile as it is.
                    let last = k + 1 == steps.len();
                    for tile in 0..full {
                        let line = from.add(k * left.column + tile * ROWS);
                        let to = to.add(tile * size + k * ROWS);
                        if last {
                            to.cast::<[f32; ROWS]>()
                                .write_unaligned(line.cast::<[f32; ROWS]>().read_unaligned());
                        } else {
                            to.cast::<[f32; 16]>().write_unaligned(line.cast::<[f32; 16]>().read_unaligned());
                        }
                    }
                }
                done = full;
            } else if left.column == 1 {
                for tile in 0..tiles {
                    let height = if tile < full { 16 } else { ROWS.min(rows.len() - tile * ROWS) };
                    let to = to.wrapping_add(tile * size);
                    let from = from.wrapping_add(tile * ROWS * left.row);
                    transpose(height, steps.len(), from, left.row, |k| to.wrapping_add(k * ROWS));
                }
                return;
            }
            for tile in done..tiles {
                for k in 0..steps.len() {
                    for i in 0..ROWS.min(rows.len() - tile * ROWS) {
                        let from = from.add(k * left.column + (tile * ROWS + i) * left.row);
                        *to.add(tile * size + k * ROWS + i) = *from;
                    }
                }
            }
        }
    }
}

/// A whole tile of packed operands: without masks and segments it takes less time to begin and to end.
struct Whole {
    steps: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    row: usize,
    epilogue: Epilogue,
}

impl Kernel for Whole {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        if const { V::TILE_ROWS == ROWS } {
            self.part::<V, ROWS>();
            return;
        }
        for i in (0..ROWS).step_by(6) {
            for j in (0..COLUMNS).step_by(2 * V::LANES) {
                let mut epilogue = self.epilogue;
                if !epilogue.column_bias.is_null() {
                    epilogue.column_bias = epilogue.column_bias.wrapping_add(j);
                }
                let (a, b) = (self.a.wrapping_add(i), self.b.wrapping_add(j));
                let c = self.c.wrapping_add(i * self.row + j);
                Whole { a, b, c, epilogue, ..self }.part::<V, 6>();
            }
        }
    }
}

impl Whole {
    #[inline(always)]
    fn part<V: Vector, const M: usize>(self) {
        let Whole { steps, mut a, mut b, c, row, epilogue: e } = self;
        unroll!(i of 13 < M, {
            prefetch_write(c.wrapping_add(i * row));
            prefetch_write(c.wrapping_add(i * row + 16));
        });
        let mut sums = [[V::splat(0.0); 2]; M];
        macro_rules! step {
            ($k:literal) => {
                let right = [V::load(b.add($k * COLUMNS)), V::load(b.add($k * COLUMNS + V::LANES))];
                unroll!(i of 13 < M, {
                    let left = V::splat(*a.add($k * ROWS + i));
                    sums[i][0] = left.mul_add(right[0], sums[i][0]);
                    sums[i][1] = left.mul_add(right[1], sums[i][1]);
                });
            };
        }
        // SAFETY: the operands hold all steps of a whole tile, and C its rows.
        unsafe {
            for _ in 0..steps / 4 {
                step!(0);
                step!(1);
                step!(2);
                step!(3);
                (a, b) = (a.add(4 * ROWS), b.add(4 * COLUMNS));
            }
            for _ in 0..steps % 4 {
                step!(0);
                (a, b) = (a.add(ROWS), b.add(COLUMNS));
            }
            if e.alpha != 1.0 {
                let alpha = V::splat(e.alpha);
                unroll!(i of 13 < M, {
                    sums[i] = [sums[i][0].mul(alpha), sums[i][1].mul(alpha)];
                });
            }
            if !e.column_bias.is_null() {
                let bias = [V::load(e.column_bias), V::load(e.column_bias.add(V::LANES))];
                unroll!(i of 13 < M, {
                    sums[i] = [sums[i][0].add(bias[0]), sums[i][1].add(bias[1])];
                });
            }
            if e.beta != 0.0 {
                let beta = V::splat(e.beta);
                unroll!(i of 13 < M, {
                    let c = c.wrapping_add(i * row);
                    beta.mul_add(V::load(c), sums[i][0]).store(c);
                    beta.mul_add(V::load(c.add(V::LANES)), sums[i][1]).store(c.add(V::LANES));
                });
            } else {
                unroll!(i of 13 < M, {
                    let c = c.wrapping_add(i * row);
                    sums[i][0].store(c);
                    sums[i][1].store(c.add(V::LANES));
                });
            }
        }
    }
}
