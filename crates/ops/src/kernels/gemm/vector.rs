//! Products of a vector and a matrix, which are bound by the reading of the matrix.

use super::View;
use crate::kernels::scratch::{Shared, with_scratch};
use tape::kernels::parallel::parallel_for;
use tape::multiversion;

/// Elements of a matrix from which a second thread is worth its call.
const WORTH_A_THREAD: usize = 1 << 20;

/// `y[j] = sum over i of x[i * step] * w[i][j]`, where `w` has `rows` rows and `y.len()` columns.
pub(super) fn times_matrix(x: &[f32], step: usize, w: View<f32>, rows: usize, y: &mut [f32]) {
    let columns = y.len();
    with_scratch(rows, |packed| {
        let x = if step == 1 {
            &x[..rows]
        } else {
            packed.iter_mut().zip(x.iter().step_by(step)).for_each(|(p, x)| *p = *x);
            packed
        };
        // Blocks that depend on the sizes alone; each y is summed by one task.
        let blocks = if rows * columns < WORTH_A_THREAD { 1 } else { (columns / 256).clamp(1, 16) };
        let out = Shared(y.as_mut_ptr());
        parallel_for(blocks, |task| {
            let (start, end) = (columns * task / blocks, columns * (task + 1) / blocks);
            // SAFETY: each task writes its own part of y.
            let y = unsafe { std::slice::from_raw_parts_mut(out.get().add(start), end - start) };
            let w = View { data: &w.data[(start * w.column).min(w.data.len())..], ..w };
            if w.row == 1 { dots(x, w, y) } else { combine(x, w, y) }
        });
    });
}

multiversion! {
    /// For a matrix whose columns are contiguous: one dot product each, four at a time.
    fn dots(x: &[f32], w: View<f32>, y: &mut [f32]) {
        let mut column = 0;
        for y in y.chunks_mut(4) {
            let start = |i: usize| w.data[(column + i.min(y.len() - 1)) * w.column..].as_chunks::<16>().0;
            let (xs, rest) = x.as_chunks::<16>();
            let ws = [start(0), start(1), start(2), start(3)].map(|w| &w[..xs.len()]);
            let mut sums = [[0.0f32; 16]; 4];
            for (i, x) in xs.iter().enumerate() {
                for (sum, w) in sums.iter_mut().zip(&ws) {
                    for ((sum, w), x) in sum.iter_mut().zip(&w[i]).zip(x) {
                        *sum += w * x;
                    }
                }
            }
            for (i, y) in y.iter_mut().enumerate() {
                let tail = &w.data[(column + i) * w.column + xs.len() * 16..];
                *y = sums[i].iter().sum::<f32>() + rest.iter().zip(tail).map(|(x, w)| x * w).sum::<f32>();
            }
            column += y.len();
        }
    }
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
