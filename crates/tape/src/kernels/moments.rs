//! Mean and variance of contiguous rows, each row read while it is in the cache.

use crate::dtype::Float;
use crate::kernels::parallel::parallel_blocks;
use crate::kernels::shared::SharedSlice;

/// The longest row: its sums are those of one block of a longer sum.
pub(crate) const MAX_ROW: usize = 4096;
/// The largest ratio, squared, of the distance of the first element from the mean to the root mean square of the
/// elements, with which differences from the first element are summed. The ratio is never larger than the count.
const MAX_RATIO: f64 = 64.0;
/// The fewest elements that one task reduces.
const GRAIN: usize = 32 * 1024;

/// The mean of each row of `n` elements, and the sum of squared distances from it divided by `freedom`.
pub(crate) fn row_moments<T: Float>(
    data: &[T],
    n: usize,
    freedom: f64,
    mean: &mut [f64],
    variance: &mut [T],
) {
    assert!(n > 0 && n <= MAX_ROW && data.len() == n * mean.len() && mean.len() == variance.len());
    let (all_mean, all_variance) = (SharedSlice::new(mean), SharedSlice::new(variance));
    parallel_blocks(data.len() / n, GRAIN.div_ceil(n), |start, end| {
        // SAFETY: blocks of rows do not overlap.
        let (mean, variance) =
            unsafe { (all_mean.part(start, end - start), all_variance.part(start, end - start)) };
        rows(&data[start * n..end * n], n, freedom, mean, variance);
    });
}

crate::multiversion! {
    vectors of T;
    fn rows<T: Float>(data: &[T], n: usize, freedom: f64, mean: &mut [f64], variance: &mut [T]) {
        for ((row, mean), variance) in data.chunks_exact(n).zip(mean).zip(variance) {
            (*mean, *variance) = moments(row, freedom);
        }
    }
}

#[inline(always)]
fn moments<T: Float>(row: &[T], freedom: f64) -> (f64, T) {
    let n = row.len() as f64;
    let first = row[0];
    // Differences from one of the elements are accurate, and so is their mean.
    let mut mean = first.to_f64() + sum(row, |x| x - first).to_f64() * (1.0 / n);
    let mut squares = squares(row, mean);
    if !near(first, mean, squares, n) {
        mean = row.iter().map(|x| x.to_f64()).sum::<f64>() / n;
        squares = self::squares(row, mean);
    }
    (mean, variance(squares, mean, n, freedom))
}

/// Whether differences from the first element gave an accurate mean: not if it is an outlier, or they overflow.
#[inline(always)]
fn near<T: Float>(first: T, mean: f64, squares: T, n: f64) -> bool {
    let off = first.to_f64() - mean;
    mean.is_finite() & ((n <= MAX_RATIO) | (off * off <= MAX_RATIO * (squares.to_f64() / n + mean * mean)))
}

crate::multiversion! {
    vectors of T;
    /// Whether differences from the first elements gave accurate means.
    pub(crate) fn all_near<T: Float>(first: &[T], mean: &[f64], squares: &[T], n: f64) -> bool {
        first.iter().zip(mean).zip(squares).fold(true, |all, ((&c, &m), &s)| all & near(c, m, s, n))
    }
}

/// The sum of squared distances from the mean as rounded to the type. Where it is near the elements the distances are
/// exact, and by how much they are off is known.
#[inline(always)]
fn squares<T: Float>(row: &[T], mean: f64) -> T {
    let mean = T::from_f64(mean);
    sum(row, |x| (x - mean) * (x - mean))
}

/// The variance from the sum of squared distances from the rounded mean.
#[inline(always)]
pub(crate) fn variance<T: Float>(squares: T, mean: f64, n: f64, freedom: f64) -> T {
    let off = mean - T::from_f64(mean).to_f64();
    let s = squares.to_f64() - n * off * off;
    // Rounding may make it negative; a NaN stays.
    T::from_f64(if s < 0.0 { 0.0 } else { s } / freedom)
}

#[inline(always)]
fn sum<T: Float>(row: &[T], term: impl Fn(T) -> T) -> T {
    let (wide, rest) = row.as_chunks::<64>();
    let (narrow, rest) = rest.as_chunks::<8>();
    let last = rest.iter().fold(T::ZERO, |sum, &x| sum + term(x));
    let mut sum = last;
    if !narrow.is_empty() {
        sum += sum_chunks(narrow, &term);
    }
    if !wide.is_empty() {
        sum += sum_chunks(wide, &term);
    }
    sum
}

#[inline(always)]
fn sum_chunks<T: Float, const LANES: usize>(chunks: &[[T; LANES]], term: &impl Fn(T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += term(chunk[i]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_length() {
        for n in (1..140).chain([1000, MAX_ROW]) {
            let data: Vec<f64> = (0..3 * n).map(|i| 1e4 + (i * 7 % 31) as f64).collect();
            let (mut mean, mut variance) = ([0.0; 3], [0.0; 3]);
            row_moments(&data, n, n as f64, &mut mean, &mut variance);
            for (row, (m, v)) in data.chunks_exact(n).zip(mean.iter().zip(&variance)) {
                let exact = row.iter().sum::<f64>() / n as f64;
                let spread = row.iter().map(|x| (x - exact).powi(2)).sum::<f64>() / n as f64;
                assert!((m - exact).abs() < 1e-9 && (v - spread).abs() < 1e-9 * (1.0 + spread), "{n}");
            }
        }
    }
}
