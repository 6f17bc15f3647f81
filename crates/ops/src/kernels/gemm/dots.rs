//! Products of two matrices that are both contiguous along the inner dimension, if that is long: a linear layer with
//! many inputs and few samples.
//!
//! Each result is a dot product whose lanes are consecutive steps: nothing is transposed, and no lane is idle if there
//! are few rows. The operand with fewer rows is copied once, in blocks of steps that stay in the cache; the other one
//! is streamed, read in place. Lanes are added at the end.

use super::{Bias, Finish, View};
use crate::kernels::scratch::with_scratch;
use std::ops::Range;
use tapegrad_tape::kernels::arch::{self, Kernel, MAX_LANES, Vector, prefetch};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::unroll;

/// Rows of either operand in a tile with 32 registers: 25 sums, and a vector for each of five rows.
const MAX_ROWS: usize = 5;

/// The most elements of the copied rows of a block: 400 KB.
const BLOCK: usize = 100_000;

/// Inner dimension from which this pays off.
const MIN_DEPTH: usize = 1024;

/// A product `C = finish(A B)`, where the rows of A and the columns of B are contiguous.
pub(super) struct Dots<'a> {
    /// The operand with fewer rows.
    few: View<'a, f32>,
    few_rows: usize,
    /// The other one.
    many: View<'a, f32>,
    many_rows: usize,
    k: usize,
    /// Distances in C between results of neighboring rows of either operand.
    few_step: usize,
    many_step: usize,
    finish: Finish<'a, f32>,
}

impl<'a> Dots<'a> {
    /// The product of `a` (m, k) and `b` (k, n), if it can be computed this way.
    pub(super) fn new(
        [m, n, k]: [usize; 3],
        a: View<'a, f32>,
        b: View<'a, f32>,
        row: usize,
        finish: Finish<'a, f32>,
    ) -> Option<Self> {
        if a.column != 1 || b.row != 1 || k < MIN_DEPTH || m.min(n) < MAX_ROWS {
            return None;
        }
        let b = b.transposed();
        Some(if m <= n {
            Dots { few: a, few_rows: m, many: b, many_rows: n, k, few_step: row, many_step: 1, finish }
        } else {
            let finish = finish.transposed();
            Dots { few: b, few_rows: n, many: a, many_rows: m, k, few_step: 1, many_step: row, finish }
        })
    }

    /// Estimated cycles, on the scale of the other products' `cost`.
    pub(super) fn cost(&self) -> f64 {
        let whole = |rows: usize| rows.next_multiple_of(MAX_ROWS) as f64;
        let results = whole(self.few_rows) * whole(self.many_rows);
        results * (0.55 * self.k.div_ceil(MAX_LANES) as f64 + 8.0) + 0.15 * (self.few_rows * self.k) as f64
    }

    /// Computes the product into `c`.
    pub(super) fn run(&self, c: &mut [f32]) {
        let rows = self.few_rows.next_multiple_of(MAX_ROWS);
        let steps = (BLOCK / rows).clamp(MAX_LANES, 2048).next_multiple_of(MAX_LANES);
        let blocks = self.k.div_ceil(steps);
        // Without a cache line in between, all rows would share one set of the cache.
        let stride = steps + MAX_LANES;
        let tiles = self.many_rows.div_ceil(MAX_ROWS);
        let tasks = (tiles / 8).max(1).next_multiple_of(2);
        let out = SharedSlice::new(c);
        with_scratch(blocks * rows * stride, |copy| {
            let to = SharedSlice::new(copy);
            parallel_for(blocks, |block| {
                for row in 0..rows {
                    let start = block * steps;
                    let len = steps.min(self.k - start);
                    // SAFETY: each block and row has `stride` elements of its own.
                    let to = unsafe { to.part((block * rows + row) * stride, stride) };
                    if row < self.few_rows {
                        let (steps, rest) = to.split_at_mut(len);
                        steps.copy_from_slice(&self.few.data[row * self.few.row + start..][..len]);
                        rest.fill(0.0);
                    } else {
                        to.fill(0.0);
                    }
                }
            });
            let copy = &*copy;
            parallel_for(tasks, |task| {
                let range = tiles * task / tasks * MAX_ROWS..tiles * (task + 1) / tasks * MAX_ROWS;
                let many = range.start.min(self.many_rows)..range.end.min(self.many_rows);
                with_scratch(many.len() * rows * MAX_LANES, |sums| {
                    sums.fill(0.0);
                    for (block, copy) in copy.chunks_exact(rows * stride).enumerate() {
                        let start = block * steps;
                        let range = start..self.k.min(start + steps);
                        arch::run(Block { dots: self, many: many.clone(), steps: range, copy, stride, sums });
                    }
                    // SAFETY: the results of these rows belong to this task.
                    unsafe { self.store(many.clone(), sums, rows, out.at(0)) };
                });
            });
        });
    }

    /// Adds up the lanes and stores the results of some rows.
    ///
    /// # Safety
    /// `c` must be the start of C, and no other task may access these results.
    unsafe fn store(&self, many: Range<usize>, sums: &[f32], rows: usize, c: *mut f32) {
        let Finish { alpha, beta, bias } = self.finish;
        for (j, sums) in many.zip(sums.as_chunks::<MAX_LANES>().0.chunks_exact(rows)) {
            for (i, lanes) in sums[..self.few_rows].iter().enumerate() {
                let mut halves = *lanes;
                for width in [8, 4, 2, 1] {
                    for lane in 0..width {
                        halves[lane] += halves[lane + width];
                    }
                }
                // SAFETY: C holds the result of each pair of rows.
                unsafe {
                    let c = c.add(i * self.few_step + j * self.many_step);
                    let mut x = alpha * halves[0];
                    if beta != 0.0 {
                        x += beta * *c;
                    }
                    match bias {
                        Bias::None => {}
                        Bias::Columns(bias) => x += bias[j],
                        Bias::Rows(bias) => x += bias[i],
                    }
                    *c = x;
                }
            }
        }
    }
}

/// One block of steps of some rows.
struct Block<'a> {
    dots: &'a Dots<'a>,
    many: Range<usize>,
    steps: Range<usize>,
    copy: &'a [f32],
    stride: usize,
    /// For each of `many` rows and each of the few: a vector of partial sums.
    sums: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        // Where there are 16 registers, a tile has nine sums.
        if const { V::LANES == 16 } {
            self.tiles::<V, MAX_ROWS>();
        } else {
            self.tiles::<V, 3>();
        }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn tiles<V: Vector, const ROWS: usize>(self) {
        let Block { dots: &Dots { many_rows, many, k, .. }, steps, copy, stride, sums, .. } = self;
        let rows = copy.len() / stride;
        assert!(
            sums.len() == self.many.len() * rows * MAX_LANES && self.many.end <= many_rows && steps.end <= k
        );
        assert!(stride >= steps.len().next_multiple_of(MAX_LANES));
        let (whole, rest) = (steps.len() / V::LANES, steps.len() % V::LANES);
        let from = many.data.as_ptr().wrapping_add(steps.start);
        for first in self.many.clone().step_by(ROWS) {
            // Past the last row, the last one is computed again.
            let mut right = [from; ROWS];
            let mut next = [from; ROWS];
            unroll!(j of 10 < ROWS, {
                right[j] = from.wrapping_add((first + j).min(self.many.end - 1) * many.row);
                next[j] = from.wrapping_add((first + ROWS + j).min(self.many.end - 1) * many.row);
            });
            let mut row = 0;
            while row < rows {
                // The last rows overlap those before.
                let start = row.min(rows - ROWS);
                let left = copy.as_ptr().wrapping_add(start * stride);
                // The rows that come next are prefetched one by one.
                let ahead = next[(row / ROWS).min(ROWS - 1)];
                let mut acc = [[V::splat(0.0); ROWS]; ROWS];
                macro_rules! step {
                    ($k:expr, |$p:ident| $load:expr) => {
                        let mut b = [V::splat(0.0); ROWS];
                        unroll!(j of 10 < ROWS, {
                            let $p = right[j].wrapping_add($k);
                            b[j] = $load;
                        });
                        unroll!(i of 10 < ROWS, {
                            let a = V::load(left.wrapping_add(i * stride + $k));
                            unroll!(j of 10 < ROWS, {
                                acc[i][j] = a.mul_add(b[j], acc[i][j]);
                            });
                        });
                    };
                }
                // SAFETY: the rows have these steps; the copies are zero after the last, up to a whole vector.
                unsafe {
                    for k in 0..whole {
                        prefetch(ahead.wrapping_add(k * V::LANES));
                        step!(k * V::LANES, |p| V::load(p));
                    }
                    if rest > 0 {
                        step!(whole * V::LANES, |p| V::load_part(p, rest));
                    }
                    unroll!(j of 10 < ROWS, {
                        if first + j < self.many.end {
                            unroll!(i of 10 < ROWS, {
                                if start + i >= row {
                                    let at = ((first - self.many.start + j) * rows + start + i) * MAX_LANES;
                                    let sum = sums.as_mut_ptr().add(at);
                                    V::load(sum).add(acc[i][j]).store(sum);
                                }
                            });
                        }
                    });
                }
                row += ROWS;
            }
        }
    }
}
