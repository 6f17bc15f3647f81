//! The `f64` product: both operands in packed panels, and a register tile for each instruction set.
//!
//! It follows the usual cut of Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008): some
//! steps of B, packed, stay in the outer caches, a block of A's rows in the second, and a panel of B in the first.

use super::{Bias, Finish, View};
use crate::kernels::lanes::unroll;
use crate::kernels::scratch::with_scratch;
use crate::kernels::shared::SharedPointer;
use std::ops::Range;
use tape::kernels::parallel::parallel_for;
use tape::kernels::simd::{SimdLevel, simd_level};

/// Steps of the inner dimension that are packed and multiplied at once.
const DEPTH: usize = 256;

/// The most rows of A that are packed together: a multiple of every tile's rows.
const BLOCK: usize = 96;

/// The largest tile, in elements.
const LARGEST: usize = 8 * 16;

/// Operations from which a second thread is worth its call.
const WORTH_A_THREAD: usize = 2_000_000;

/// A register tile: the product of `k` steps of `rows` values of A, packed, and `columns` values of B, each step `b_step`
/// behind the last. It is written to `out`, row by row.
struct Kernel {
    rows: usize,
    columns: usize,
    run: unsafe fn(k: usize, a: *const f64, b: *const f64, b_step: usize, out: *mut f64),
}

/// Defines a tile of `rows` rows and two vectors.
macro_rules! tile {
    ($name:ident, $rows:literal, $lanes:literal, $features:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $fma:path) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name(k: usize, mut a: *const f64, mut b: *const f64, b_step: usize, out: *mut f64) {
            use std::arch::x86_64::*;
            // SAFETY: the caller vouches for k steps of both operands and for the room of the tile.
            unsafe {
                let mut acc = [[$zero(); 2]; $rows];
                for _ in 0..k {
                    let right = [$load(b), $load(b.add($lanes))];
                    unroll!(i of 9 < $rows, {
                        let left = $splat(*a.add(i));
                        acc[i][0] = $fma(left, right[0], acc[i][0]);
                        acc[i][1] = $fma(left, right[1], acc[i][1]);
                    });
                    a = a.add($rows);
                    b = b.wrapping_add(b_step);
                }
                unroll!(i of 9 < $rows, {
                    $store(out.add(i * 2 * $lanes), acc[i][0]);
                    $store(out.add((i * 2 + 1) * $lanes), acc[i][1]);
                });
            }
        }
    };
}

tile!(
    avx512,
    8,
    8,
    "avx512f",
    _mm512_setzero_pd,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_fmadd_pd
);
tile!(
    avx2,
    6,
    4,
    "avx2,fma",
    _mm256_setzero_pd,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_fmadd_pd
);

/// The tile in plain Rust.
unsafe fn portable(k: usize, a: *const f64, b: *const f64, b_step: usize, out: *mut f64) {
    let mut acc = [[0.0; 4]; 4];
    for k in 0..k {
        // SAFETY: the caller vouches for k steps of both operands.
        let (a, b) = unsafe {
            (
                a.add(4 * k).cast::<[f64; 4]>().read_unaligned(),
                b.wrapping_add(k * b_step).cast::<[f64; 4]>().read_unaligned(),
            )
        };
        for i in 0..4 {
            for j in 0..4 {
                acc[i][j] += a[i] * b[j];
            }
        }
    }
    // SAFETY: the caller vouches for the room of the tile.
    unsafe { out.cast::<[[f64; 4]; 4]>().write_unaligned(acc) };
}

impl Kernel {
    fn at(level: SimdLevel) -> Kernel {
        match level {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => Kernel { rows: 8, columns: 16, run: avx512 },
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => Kernel { rows: 6, columns: 8, run: avx2 },
            _ => Kernel { rows: 4, columns: 4, run: portable },
        }
    }
}

/// Packs steps of some rows of a matrix: `width` rows side by side for each step, zeros past the last, and the next
/// `width` rows behind them.
///
/// # Safety
/// The rows and steps must be inside the matrix, and `to` must have room.
unsafe fn pack(from: View<f64>, rows: Range<usize>, steps: Range<usize>, width: usize, mut to: *mut f64) {
    for first in rows.clone().step_by(width) {
        let count = width.min(rows.end - first);
        for step in steps.clone() {
            let line = from.data.as_ptr().wrapping_add(first * from.row + step * from.column);
            for i in 0..width {
                // SAFETY: by the caller's promise.
                unsafe { *to.add(i) = if i < count { *line.add(i * from.row) } else { 0.0 } };
            }
            to = to.wrapping_add(width);
        }
    }
}

/// The product; the arguments are those of [`matmul`](super::matmul), already checked there.
///
/// # Panics
/// If C is too short.
pub(super) fn product(
    size: [usize; 3],
    a: View<f64>,
    b: View<f64>,
    c: &mut [f64],
    row: usize,
    finish: Finish<f64>,
) {
    let [m, n, k] = size;
    assert!(m == 0 || n == 0 || c.len() >= (m - 1) * row + n, "matrix product: C is too short");
    if m == 1 {
        return row_times_matrix([n, k], a, b, &mut c[..n], finish);
    }
    if n == 1 && row == 1 {
        let finish = finish.transposed();
        return row_times_matrix([m, k], b.transposed(), a.transposed(), &mut c[..m], finish);
    }
    let kernel = Kernel::at(simd_level());
    let panels = n.div_ceil(kernel.columns);
    // The cut follows from the sizes alone: bits do not depend on the number of threads.
    let worth = 2 * m * n * k >= WORTH_A_THREAD;
    let each = |tasks: usize, f: &(dyn Fn(usize) + Sync)| {
        if worth { parallel_for(tasks, f) } else { (0..tasks).for_each(f) }
    };
    let block_rows = m.div_ceil(m.div_ceil(BLOCK)).next_multiple_of(kernel.rows);
    let blocks = m.div_ceil(block_rows);
    // Each group of panels packs the rows of A again: no more of them than the work asks for.
    let tasks = (2 * m * n * k / 3_000_000).clamp(2, 8);
    let groups = if worth { tasks.div_ceil(blocks).min(panels) } else { 1 };
    // For a few rows it does not pay to pack more of B than what its last columns need.
    let direct = if b.column == 1 && m <= 2 * kernel.rows { n / kernel.columns } else { 0 };
    let out = SharedPointer::new(c);
    // Without a step there is still a C to finish.
    for start in (0..k.max(1)).step_by(DEPTH) {
        let steps = start..k.min(start + DEPTH);
        let panel_len = kernel.columns * steps.len();
        with_doubles((panels - direct) * panel_len, |packed| {
            let to = SharedPointer::new(packed);
            each(panels - direct, &|task| {
                let first = (direct + task) * kernel.columns;
                let columns = first..n.min(first + kernel.columns);
                // SAFETY: B was checked; each task writes its own panel.
                unsafe {
                    pack(b.transposed(), columns, steps.clone(), kernel.columns, to.at(task * panel_len))
                };
            });
            each(blocks * groups, &|task| {
                let (block, group) = (task / groups, task % groups);
                let rows = block * block_rows..m.min((block + 1) * block_rows);
                let columns = panels * group / groups..panels * (group + 1) / groups;
                with_doubles(rows.len().next_multiple_of(kernel.rows) * steps.len(), |left| {
                    let slab =
                        Slab { kernel: &kernel, steps: steps.clone(), last: steps.end == k, size, row };
                    // SAFETY: A was checked; there is room for the rows, up to a whole tile.
                    unsafe { pack(a, rows.clone(), steps.clone(), kernel.rows, left.as_mut_ptr()) };
                    for panel in columns {
                        let (right, b_step) = match panel < direct {
                            true => {
                                (b.data.as_ptr().wrapping_add(start * b.row + panel * kernel.columns), b.row)
                            }
                            false => (to.at((panel - direct) * panel_len).cast_const(), kernel.columns),
                        };
                        // SAFETY: a panel holds the steps; each task has its own rows and columns of C, which was
                        // checked.
                        unsafe { slab.tiles(&rows, panel, left, (right, b_step), &out, finish) };
                    }
                });
            });
        });
    }
}

/// Some steps of a product.
struct Slab<'a> {
    kernel: &'a Kernel,
    steps: Range<usize>,
    last: bool,
    size: [usize; 3],
    row: usize,
}

impl Slab<'_> {
    /// Adds the steps' part to the elements of C in these rows and in one panel's columns.
    ///
    /// # Safety
    /// `left` must hold the packed rows, `right` the panel, and no other task may touch the elements meanwhile.
    unsafe fn tiles(
        &self,
        rows: &Range<usize>,
        panel: usize,
        left: &[f64],
        (right, b_step): (*const f64, usize),
        out: &SharedPointer<f64>,
        finish: Finish<f64>,
    ) {
        let kernel = self.kernel;
        let first = panel * kernel.columns;
        let count = kernel.columns.min(self.size[1] - first);
        let mut tile = [0.0; LARGEST];
        for (at, start) in rows.clone().step_by(kernel.rows).enumerate() {
            let left = left[at * kernel.rows * self.steps.len()..].as_ptr();
            // SAFETY: by the caller's promise; the machine has the kernel's instructions; no tile is larger.
            unsafe { (kernel.run)(self.steps.len(), left, right, b_step, tile.as_mut_ptr()) };
            for (i, tile) in (start..rows.end.min(start + kernel.rows)).zip(tile.chunks_exact(kernel.columns))
            {
                // SAFETY: the row's part of this panel is inside C and this task's own.
                let line = unsafe { std::slice::from_raw_parts_mut(out.at(i * self.row + first), count) };
                self.finish(line, tile, i, first, finish);
            }
        }
    }

    /// What a row of a tile makes of the elements `[i, first..]` of C.
    fn finish(&self, line: &mut [f64], tile: &[f64], i: usize, first: usize, finish: Finish<f64>) {
        let Finish { alpha, beta, .. } = finish;
        let old = if self.steps.start == 0 { beta } else { 1.0 };
        let pairs = line.iter_mut().zip(tile);
        // Zero means that the old value is not read: it may be anything.
        if old == 0.0 {
            pairs.for_each(|(c, &x)| *c = alpha * x);
        } else {
            pairs.for_each(|(c, &x)| *c = alpha * x + old * *c);
        }
        if self.last {
            add_bias(line, i, first, finish);
        }
    }
}

/// Adds the bias to the elements `[i, first..]` of C.
fn add_bias(line: &mut [f64], i: usize, first: usize, finish: Finish<f64>) {
    match finish.bias {
        Bias::None => {}
        Bias::Rows(bias) => line.iter_mut().for_each(|c| *c += bias[i]),
        Bias::Columns(bias) => line.iter_mut().zip(&bias[first..]).for_each(|(c, &b)| *c += b),
    }
}

/// The product for a C of one row, without packing what is read once.
fn row_times_matrix([n, k]: [usize; 2], a: View<f64>, b: View<f64>, c: &mut [f64], finish: Finish<f64>) {
    let Finish { alpha, beta, .. } = finish;
    c.iter_mut().for_each(|c| *c = if beta == 0.0 { 0.0 } else { beta * *c });
    let left = |step: usize| alpha * a.data[step * a.column];
    if b.column == 1 {
        for step in 0..k {
            let (x, line) = (left(step), &b.data[step * b.row..][..n]);
            c.iter_mut().zip(line).for_each(|(c, &b)| *c += x * b);
        }
    } else {
        // Four columns at once: their sums do not wait for each other.
        for (group, c) in c.chunks_mut(4).enumerate() {
            let columns = [0, 1, 2, 3].map(|j| (4 * group + j.min(c.len() - 1)) * b.column);
            let mut sums = [0.0; 4];
            for step in 0..k {
                let x = left(step);
                (0..4).for_each(|j| sums[j] += x * b.data[columns[j] + step * b.row]);
            }
            c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum);
        }
    }
    add_bias(c, 0, 0, finish);
}

/// Calls `f` with scratch for so many numbers.
fn with_doubles<R>(len: usize, f: impl FnOnce(&mut [f64]) -> R) -> R {
    with_scratch(2 * len, |floats| {
        // SAFETY: scratch is aligned to a cache line and initialised, and any bits are an f64.
        f(unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), len) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_of_every_instruction_set_agree() {
        let numbers = |len: usize| (0..len).map(|i| (i * 7919 % 31) as f64 - 15.0).collect::<Vec<f64>>();
        for level in [SimdLevel::Portable, SimdLevel::Avx2, SimdLevel::Avx512] {
            if level > simd_level() {
                continue;
            }
            let Kernel { rows, columns, run } = Kernel::at(level);
            for (k, gap) in [(0, 0), (1, 3), (37, 0), (37, 5)] {
                let b_step = columns + gap;
                let (a, b) = (numbers(k * rows), numbers(k * b_step));
                let mut out = [f64::NAN; LARGEST];
                // SAFETY: both operands hold k steps, and no tile is larger than the output.
                unsafe { run(k, a.as_ptr(), b.as_ptr(), b_step, out.as_mut_ptr()) };
                for (at, &x) in out[..rows * columns].iter().enumerate() {
                    let (i, j) = (at / columns, at % columns);
                    let sum: f64 = (0..k).map(|k| a[k * rows + i] * b[k * b_step + j]).sum();
                    // Sums of whole numbers are exact.
                    assert_eq!(x, sum, "{level:?}, {k} steps: element ({i}, {j})");
                }
            }
        }
    }
}
