//! Normalization of rows, each by its own mean and variance.
//!
//! Far from zero, rounding the mean to the element's type is an error as large as the differences of the elements.
//! Differences from the rounded mean are exact there, so their mean is that error, and corrects the variance and each
//! element.

use super::fold::{difference, sum, sum_pair};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::parallel::{parallel_blocks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;

/// The fewest elements in a task.
const GRAIN: usize = 1 << 14;
/// The number of rows whose weight gradients are summed in their own type.
const CHUNK: usize = 64;

/// The parameters of all rows.
#[derive(Clone, Copy)]
pub struct RowNorm<'a, T> {
    /// Length of a row.
    pub width: usize,
    /// Factor of each element of a row.
    pub weight: &'a [T],
    /// Added to the variance.
    pub eps: f64,
    /// Whether the mean is subtracted; without it, rows are divided by the root of their mean square.
    pub centered: bool,
}

/// The statistics of a row: a normalized element is `(x - center) rstd - rest`.
const STATISTICS: usize = 3;

/// `(x - mean) / sqrt(var + eps) * weight + bias` for each row. Returns each row's center (its mean as rounded, or 0
/// where that is not subtracted), `rstd = 1 / sqrt(var + eps)`, and `(mean - center) rstd`, side by side.
pub fn forward<T: Float>(out: &mut [T], x: &[T], norm: RowNorm<T>, bias: &[T]) -> Vec<T> {
    let width = norm.width;
    assert!(out.len() == x.len() && norm.weight.len() == width && bias.len() == width);
    let rows = x.len() / width;
    let mut statistics = vec![T::ZERO; STATISTICS * rows];
    let (out, shared) = (SharedSlice::new(out), SharedSlice::new(&mut statistics));
    parallel_blocks(rows, GRAIN.div_ceil(width), |start, end| {
        // SAFETY: each row, and its statistics, belongs to one task.
        let (out, statistics) = unsafe {
            (
                out.part(start * width, (end - start) * width),
                shared.part(STATISTICS * start, STATISTICS * (end - start)),
            )
        };
        forward_rows(out, &x[start * width..end * width], norm, bias, statistics);
    });
    statistics
}

/// The gradients for the input (into `out`), the weight and the bias, from the statistics that [`forward`] returned.
pub fn backward<T: Float>(
    out: &mut [T],
    x: &[T],
    g: &[T],
    norm: RowNorm<T>,
    statistics: &[T],
) -> (Vec<f64>, Vec<f64>) {
    let width = norm.width;
    assert!(out.len() == x.len() && g.len() == x.len() && norm.weight.len() == width);
    let rows = x.len() / width;
    let tasks = (x.len() / GRAIN).clamp(1, 32).min(rows);
    let length = rows.div_ceil(tasks.max(1));
    let mut parts = vec![0.0; tasks * 2 * width];
    let (out, shared) = (SharedSlice::new(out), SharedSlice::new(&mut parts));
    parallel_for(tasks, |i| {
        let (start, end) = ((i * length).min(rows), ((i + 1) * length).min(rows));
        let range = start * width..end * width;
        // SAFETY: each task has its own part, and its own rows.
        let (part, out) =
            unsafe { (shared.part(i * 2 * width, 2 * width), out.part(range.start, range.len())) };
        backward_rows(
            out,
            &x[range.clone()],
            &g[range],
            norm,
            &statistics[STATISTICS * start..STATISTICS * end],
            part,
        );
    });
    let mut sums = vec![0.0; 2 * width];
    for part in parts.chunks_exact(2 * width) {
        for (s, p) in sums.iter_mut().zip(part) {
            *s += p;
        }
    }
    let bias = sums.split_off(width);
    (sums, bias)
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn forward_rows<T: Float>(out: &mut [T], x: &[T], norm: RowNorm<T>, bias: &[T], statistics: &mut [T]) {
        let (width, weight) = (norm.width, norm.weight);
        let n = width as f64;
        for ((out, x), s) in
            out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(statistics.chunks_exact_mut(STATISTICS))
        {
            let (center, off, square) = if norm.centered {
                let first = x[0];
                let center = T::from_f64(first.to_f64() + sum(x, |_, x| x - first) / n);
                let (off, square) = sum_pair(x, |_, x| (x - center, (x - center) * (x - center)));
                (center, off / n, square / n)
            } else {
                (T::ZERO, 0.0, sum(x, |_, x| x * x) / n)
            };
            let rstd = 1.0 / (difference(square, off * off) + norm.eps).sqrt();
            s.copy_from_slice(&[center, T::from_f64(rstd), T::from_f64(off * rstd)]);
            let (rstd, rest) = (s[1], s[2]);
            for i in 0..width {
                out[i] = ((x[i] - center) * rstd - rest) * weight[i] + bias[i];
            }
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn backward_rows<T: Float>(
        out: &mut [T],
        x: &[T],
        g: &[T],
        norm: RowNorm<T>,
        statistics: &[T],
        sums: &mut [f64],
    ) {
        let (width, weight) = (norm.width, norm.weight);
        let n = width as f64;
        let (mut dw, mut db) = (vec![T::ZERO; width], vec![T::ZERO; width]);
        let (sum_w, sum_b) = sums.split_at_mut(width);
        let rows = x.chunks_exact(width).zip(g.chunks_exact(width)).zip(statistics.chunks_exact(STATISTICS));
        let last = statistics.len() / STATISTICS;
        for (r, (out, ((x, g), s))) in out.chunks_exact_mut(width).zip(rows).enumerate() {
            let (center, rstd, rest) = (s[0], s[1], s[2]);
            let (across, along) = sum_pair(g, |i, g| {
                let g = g * weight[i];
                (g, g * ((x[i] - center) * rstd - rest))
            });
            let across = if norm.centered { across / n } else { 0.0 };
            let (along, across) = (T::from_f64(along / n), T::from_f64(across));
            for i in 0..width {
                let unit = (x[i] - center) * rstd - rest;
                out[i] = (g[i] * weight[i] - across - unit * along) * rstd;
                dw[i] += g[i] * unit;
                db[i] += g[i];
            }
            if (r + 1).is_multiple_of(CHUNK) || r + 1 == last {
                for i in 0..width {
                    sum_w[i] += dw[i].to_f64();
                    sum_b[i] += db[i].to_f64();
                }
                dw.fill(T::ZERO);
                db.fill(T::ZERO);
            }
        }
    }
}
