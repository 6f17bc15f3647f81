//! Normalization of rows, each by its own mean and variance.
//!
//! Far from zero, rounding the mean to the element's type is an error as large as the differences of the elements.
//! Differences from one of the elements are exact there, so rows are centered at their first element, or at their mean
//! where that is an outlier, and the mean of the differences corrects the variance and each element.

use super::fold::difference;
use tapegrad_tape::Float;
use tapegrad_tape::kernels::channels::{Pairs, Powers, Run, lanes, row_sums};
use tapegrad_tape::kernels::parallel::{parallel_blocks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;

/// The fewest elements in a task.
const GRAIN: usize = 1 << 14;
/// The number of rows whose weight gradients are summed in their own type.
const CHUNK: usize = 64;
/// The most elements, and the most rows, of a batch of rows.
const BATCH_ELEMENTS: usize = 4096;
const MAX_BATCH: usize = 64;
/// The largest ratio of the squared distance of a row's first element from the mean to the variance, with which the row
/// is centered at it: one element differs from the mean by no more than 4 standard deviations as a rule.
const MAX_RATIO: f64 = 16.0;

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

/// The rows whose sums are computed before the first is normalized: they stay in the cache.
fn batch_of(width: usize) -> usize {
    (BATCH_ELEMENTS / width).clamp(1, MAX_BATCH)
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn forward_rows<T: Float>(out: &mut [T], x: &[T], norm: RowNorm<T>, bias: &[T], statistics: &mut [T]) {
        let RowNorm { width, weight, eps, centered } = norm;
        let (weight, bias, n) = (&weight[..width], &bias[..width], width as f64);
        let batch = batch_of(width);
        let (mut sums, mut squares) = ([0.0; MAX_BATCH], [0.0; MAX_BATCH]);
        let batches = out.chunks_mut(batch * width).zip(x.chunks(batch * width));
        for ((out, x), statistics) in batches.zip(statistics.chunks_mut(batch * STATISTICS)) {
            let n_rows = x.len() / width;
            let first = |r: usize| if centered { x[r * width] } else { T::ZERO };
            let row = |r: usize| Run::new(Powers, &x[r * width..(r + 1) * width], first(r));
            row_sums(row, &mut sums[..n_rows], &mut squares[..n_rows]);
            for r in 0..n_rows {
                let range = r * width..(r + 1) * width;
                let (out, x) = (&mut out[range.clone()], &x[range]);
                let (mut center, mut means) = (first(r), [sums[r] / n, squares[r] / n]);
                if centered && means[0] * means[0] > MAX_RATIO * (means[1] - means[0] * means[0]) {
                    center = T::from_f64(center.to_f64() + means[0]);
                    let (sum, square) = (&mut sums[r..r + 1], &mut squares[r..r + 1]);
                    row_sums(|_| Run::new(Powers, x, center), sum, square);
                    means = [sums[r] / n, squares[r] / n];
                }
                let off = if centered { means[0] } else { 0.0 };
                let rstd = 1.0 / (difference(means[1], off * off) + eps).sqrt();
                let (rstd, rest) = (T::from_f64(rstd), T::from_f64(off * rstd));
                statistics[r * STATISTICS..(r + 1) * STATISTICS].copy_from_slice(&[center, rstd, rest]);
                for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                    *out = ((x - center) * rstd - rest) * w + b;
                }
            }
        }
    }
}

/// `g w` and `g w` times the normalized element.
struct Products<'a, T> {
    x: &'a [T],
    g: &'a [T],
    weight: &'a [T],
    /// Of the row.
    statistics: [T; STATISTICS],
}

impl<T: Float> Pairs<T> for Products<'_, T> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    fn pairs<const L: usize>(&self, at: usize) -> [[T; L]; 2] {
        let [center, rstd, rest] = self.statistics;
        let (x, g, w) =
            (lanes::<T, L>(self.x, at), lanes::<T, L>(self.g, at), lanes::<T, L>(self.weight, at));
        let mut out = [[T::ZERO; L]; 2];
        for l in 0..L {
            let g = g[l] * w[l];
            (out[0][l], out[1][l]) = (g, g * ((x[l] - center) * rstd - rest));
        }
        out
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
        let weight = &weight[..width];
        let batch = batch_of(width);
        let (mut dw, mut db) = (vec![T::ZERO; width], vec![T::ZERO; width]);
        let (sum_w, sum_b) = sums.split_at_mut(width);
        let mut rows_left = x.len() / width;
        let (mut across, mut along) = ([0.0; MAX_BATCH], [0.0; MAX_BATCH]);
        let batches = x.chunks(batch * width).zip(g.chunks(batch * width));
        let batches = out.chunks_mut(batch * width).zip(batches).zip(statistics.chunks(batch * STATISTICS));
        for ((out, (x, g)), statistics) in batches {
            let n_rows = x.len() / width;
            let row = |r: usize| {
                let range = r * width..(r + 1) * width;
                let statistics = *lanes(statistics, r * STATISTICS);
                Products { x: &x[range.clone()], g: &g[range], weight, statistics }
            };
            row_sums(row, &mut across[..n_rows], &mut along[..n_rows]);
            for (r, out) in out.chunks_exact_mut(width).enumerate() {
                let Products { x, g, statistics: [center, rstd, rest], .. } = row(r);
                let across = if norm.centered { T::from_f64(across[r] / n) } else { T::ZERO };
                let along = T::from_f64(along[r] / n);
                let (dw, db) = (&mut dw[..width], &mut db[..width]);
                for i in 0..width {
                    let unit = (x[i] - center) * rstd - rest;
                    out[i] = (g[i] * weight[i] - across - unit * along) * rstd;
                    dw[i] += g[i] * unit;
                    db[i] += g[i];
                }
                rows_left -= 1;
                if rows_left.is_multiple_of(CHUNK) {
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
}
