//! Products of a vector and a matrix, which are bound by memory bandwidth.

use super::View;
use crate::kernels::scratch::with_scratch;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector};
use tapegrad_tape::kernels::parallel::{parallel_chunks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::multiversion;

/// The fewest elements of a matrix for which a second thread pays off.
const MIN_PARALLEL_ELEMENTS: usize = 1 << 17;

/// `y[j] = sum over i of x[i * step] * w[i][j]`, where `w` has `rows` rows and `y.len()` columns.
pub(super) fn times_matrix(x: &[f32], step: usize, w: View<f32>, rows: usize, y: &mut [f32]) {
    let columns = y.len();
    with_scratch(rows, |packed| {
        let x = if step == 1 {
            &x[..rows]
        } else {
            // The step of an expanded vector is zero.
            packed.iter_mut().take(rows).enumerate().for_each(|(i, p)| *p = x[i * step]);
            packed
        };
        // Blocks that depend on the sizes alone; each y is summed by one task.
        let blocks = if rows * columns < MIN_PARALLEL_ELEMENTS { 1 } else { (columns / 256).clamp(1, 16) };
        let out = SharedSlice::new(y);
        parallel_for(blocks, |task| {
            let (start, end) = (columns * task / blocks, columns * (task + 1) / blocks);
            // SAFETY: each task writes its own part of y.
            let y = unsafe { out.part(start, end - start) };
            let w = View { data: &w.data[(start * w.column).min(w.data.len())..], ..w };
            if w.row == 1 { arch::run(Dots { x, w, y }) } else { combine(x, w, y) }
        });
    });
}

/// `c[i][j] = x[i * step] * y[j]`: the weight gradient of a single sample. The rows of `c` are `row` apart.
pub(super) fn outer(x: &[f32], step: usize, y: &[f32], c: &mut [f32], row: usize) {
    // Blocks of rows that depend on the sizes alone.
    let block = (MIN_PARALLEL_ELEMENTS / 4 / y.len().max(1)).max(1);
    parallel_chunks(c, block * row, |task, c| {
        for (i, c) in c.chunks_mut(row).enumerate() {
            scaled(&mut c[..y.len()], y, x[(task * block + i) * step]);
        }
    });
}

multiversion! {
    fn scaled(c: &mut [f32], y: &[f32], x: f32) {
        for (c, y) in c.iter_mut().zip(y) {
            *c = x * y;
        }
    }
}

/// For a matrix whose columns are contiguous: one dot product each, four at a time.
struct Dots<'a> {
    x: &'a [f32],
    w: View<'a, f32>,
    y: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Dots { x, w, y } = self;
        let count = x.len();
        let whole = count / V::LANES * V::LANES;
        if let [y] = y {
            // SAFETY: both have `count` elements.
            *y = unsafe { dot::<V>(x.as_ptr(), w.data[..count].as_ptr(), count) };
            return;
        }
        for (i, y) in y.chunks_mut(4).enumerate() {
            // Past the last column the last one is read again.
            let column = |j: usize| w.data[(i * 4 + j.min(y.len() - 1)) * w.column..][..count].as_ptr();
            let columns = [column(0), column(1), column(2), column(3)];
            // SAFETY: x and the columns have `count` elements.
            let sums = unsafe {
                let mut sums = [V::splat(0.0); 4];
                for k in (0..whole).step_by(V::LANES) {
                    let x = V::load(x.as_ptr().add(k));
                    for j in 0..4 {
                        sums[j] = V::load(columns[j].add(k)).mul_add(x, sums[j]);
                    }
                }
                if whole < count {
                    let x = V::load_part(x.as_ptr().add(whole), count - whole);
                    for j in 0..4 {
                        sums[j] = V::load_part(columns[j].add(whole), count - whole).mul_add(x, sums[j]);
                    }
                }
                sums
            };
            for (y, sum) in y.iter_mut().zip(sums) {
                let mut lanes = [0.0f32; 16];
                // SAFETY: a vector has at most 16 lanes.
                unsafe { sum.store(lanes.as_mut_ptr()) };
                *y = lanes.iter().sum();
            }
        }
    }
}

/// The product of two vectors, in eight sums, so that one addition need not wait for the one before.
///
/// # Safety
/// Both have `count` readable elements.
#[inline(always)]
unsafe fn dot<V: Vector>(x: *const f32, y: *const f32, count: usize) -> f32 {
    const SUMS: usize = 8;
    let mut sums = [V::splat(0.0); SUMS];
    let mut k = 0;
    // SAFETY: whole vectors below `count`, and the part of one that is left.
    unsafe {
        while k + SUMS * V::LANES <= count {
            for j in 0..SUMS {
                let at = k + j * V::LANES;
                sums[j] = V::load(x.add(at)).mul_add(V::load(y.add(at)), sums[j]);
            }
            k += SUMS * V::LANES;
        }
        while k < count {
            let n = V::LANES.min(count - k);
            sums[0] = V::load_part(x.add(k), n).mul_add(V::load_part(y.add(k), n), sums[0]);
            k += n;
        }
    }
    let mut width = SUMS / 2;
    while width > 0 {
        for j in 0..width {
            sums[j] = sums[j].add(sums[j + width]);
        }
        width /= 2;
    }
    sums[0].sum()
}

multiversion! {
    /// For any matrix; fast where rows are contiguous: a linear combination of its rows, four at a time.
    fn combine(x: &[f32], w: View<f32>, y: &mut [f32]) {
        y.fill(0.0);
        if w.column != 1 {
            for (i, x) in x.iter().enumerate() {
                for (j, y) in y.iter_mut().enumerate() {
                    *y += x * w.data[i * w.row + j * w.column];
                }
            }
            return;
        }
        let n = y.len();
        let (xs, rest) = x.as_chunks::<4>();
        for (i, x) in xs.iter().enumerate() {
            let row = |r: usize| &w.data[(i * 4 + r) * w.row..][..n];
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            for j in 0..n {
                y[j] += (x[0] * a[j] + x[1] * b[j]) + (x[2] * c[j] + x[3] * d[j]);
            }
        }
        for (i, x) in rest.iter().enumerate() {
            let row = &w.data[(xs.len() * 4 + i) * w.row..][..n];
            for j in 0..n {
                y[j] += x * row[j];
            }
        }
    }
}
