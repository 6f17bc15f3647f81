//! Pooling loops over channels-last memory `[n, pixel, c]`, with the channels in vector lanes.
//!
//! With few channels each pixel is still a [whole vector](super::pixels).
//!
//! Max pooling saves, for each output, the element of its window that was the maximum; the gradient goes there.

use super::pixels::{MAX_CHANNELS, lanes, put_lanes};
use super::windows::{Axis, Windows};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::parallel::parallel_chunks;
use tapegrad_tape::kernels::shared::SharedSlice;

/// The fewest elements that one task writes.
const GRAIN: usize = 16 * 1024;

/// The index of an element within its window, in row-major order: one byte where the windows are small.
pub(crate) trait Tap: Copy + PartialOrd + Send + Sync + 'static {
    fn new(tap: usize) -> Self;
    fn number(self) -> usize;
    fn plus(self, other: Self) -> Self;
}

impl Tap for u8 {
    #[inline]
    fn new(tap: usize) -> u8 {
        tap as u8
    }
    #[inline]
    fn number(self) -> usize {
        usize::from(self)
    }
    #[inline]
    fn plus(self, other: Self) -> Self {
        self + other
    }
}

impl Tap for u32 {
    #[inline]
    fn new(tap: usize) -> u32 {
        tap as u32
    }
    #[inline]
    fn number(self) -> usize {
        self as usize
    }
    #[inline]
    fn plus(self, other: Self) -> Self {
        self + other
    }
}

impl Tap for i64 {
    #[inline]
    fn new(tap: usize) -> i64 {
        tap as i64
    }
    #[inline]
    fn number(self) -> usize {
        self as usize
    }
    #[inline]
    fn plus(self, other: Self) -> Self {
        self + other
    }
}

/// The largest element of each window, and which of the window's elements it is. The first of equal elements
/// is taken, and the last NaN.
///
/// First the rows of a window are compared, over the whole width of the input, then the columns: the inner
/// loops are as long as a row of the input, also for few channels.
pub(crate) fn max_forward<T: Float, I: Tap>(w: &Windows, x: &[T], y: &mut [T], taps: &mut [I]) {
    let [d, h, width] = [0, 1, 2].map(|a| w.axes[a].output());
    let (c, row) = (w.c, width * w.c);
    let line = w.axes[2].input * c;
    let rows = GRAIN.div_ceil(row.max(1)).min((w.n * d * h).max(1));
    let all_taps = SharedSlice::new(taps);
    parallel_chunks(y, rows * row, |task, y| {
        // SAFETY: each task takes the part that belongs to its own chunk of `y`.
        let taps = unsafe { all_taps.part(task * rows * row, y.len()) };
        if c <= MAX_CHANNELS {
            let (mut starts, mut taken, mut padded) = (Vec::new(), vec![0u32; row], Vec::new());
            for (k, (y, taps)) in y.chunks_exact_mut(row).zip(taps.chunks_exact_mut(row)).enumerate() {
                starts.clear();
                starts.extend(rows_under(w, task * rows + k));
                let mut x = x;
                if starts.last().is_some_and(|last| last + line + MAX_CHANNELS > x.len()) {
                    // The last vector of the last row would extend beyond the input.
                    let first = starts[0];
                    padded.clear();
                    padded.extend_from_slice(&x[first..]);
                    padded.extend([T::ZERO; MAX_CHANNELS]);
                    starts.iter_mut().for_each(|start| *start -= first);
                    x = &padded;
                }
                max_line(y, &mut taken, x, c, &starts, &w.axes[2]);
                taps.iter_mut().zip(&taken).for_each(|(tap, &taken)| *tap = I::new(taken as usize));
            }
            return;
        }
        let widest = w.axes[2].windows.iter().map(|w| w.1).max().unwrap_or(0);
        let (mut tallest, mut from) = (vec![T::ZERO; line], vec![I::new(0); line]);
        for (k, (y, taps)) in y.chunks_exact_mut(row).zip(taps.chunks_exact_mut(row)).enumerate() {
            tallest_of_rows(w, task * rows + k, widest, x, &mut tallest, &mut from);
            max_columns(y, taps, &tallest, &from, c, widest, &w.axes[2]);
        }
    });
}

/// Where the rows of the input under a row of windows begin.
#[inline]
fn rows_under(w: &Windows, row: usize) -> impl Iterator<Item = usize> {
    let (d, h) = (w.axes[0].output(), w.axes[1].output());
    let (n, od, oh) = (row / (d * h), row / h % d, row % h);
    let start =
        move |z: usize, v: usize| ((n * w.axes[0].input + z) * w.axes[1].input + v) * w.axes[2].input * w.c;
    w.axes[0].taps(od).flat_map(move |z| w.axes[1].taps(oh).map(move |v| start(z, v)))
}

/// The largest element of each column of the input rows under a row of windows, and in which of the rows it is, times
/// `widest`.
fn tallest_of_rows<T: Float, I: Tap>(
    w: &Windows,
    row: usize,
    widest: usize,
    x: &[T],
    tallest: &mut [T],
    from: &mut [I],
) {
    for (number, start) in rows_under(w, row).enumerate() {
        let source = &x[start..start + tallest.len()];
        if number == 0 {
            tallest.copy_from_slice(source);
            from.fill(I::new(0));
        } else {
            max_rows(tallest, from, source, I::new(number * widest));
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// A row of windows over pixels of few channels; its input rows begin at `starts`.
    fn max_line<T: Float>(y: &mut [T], taken: &mut [u32], x: &[T], c: usize, starts: &[usize], axis: &Axis) {
        for (o, &(first, count)) in axis.windows.iter().enumerate() {
            let (mut best, mut tap) = ([-T::INFINITY; MAX_CHANNELS], [0u32; MAX_CHANNELS]);
            let mut number = 0;
            for start in starts {
                for j in 0..count {
                    let x = lanes(&x[start + (first + j * axis.step) * c..]);
                    for i in 0..MAX_CHANNELS {
                        let better = x[i] > best[i] || x[i].is_nan();
                        best[i] = if better { x[i] } else { best[i] };
                        tap[i] = if better { number } else { tap[i] };
                    }
                    number += 1;
                }
            }
            put_lanes(&mut y[o * c..], c, best);
            put_lanes(&mut taken[o * c..], c, tap);
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn max_rows<T: Float, I: Tap>(best: &mut [T], from: &mut [I], row: &[T], number: I) {
        let n = best.len();
        let (from, row) = (&mut from[..n], &row[..n]);
        for i in 0..n {
            let better = (row[i] > best[i]) | row[i].is_nan();
            best[i] = if better { row[i] } else { best[i] };
            from[i] = if better { number } else { from[i] };
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// A row of windows over the largest elements of its columns.
    fn max_columns<T: Float, I: Tap>(
        y: &mut [T], taps: &mut [I], tallest: &[T], from: &[I], c: usize, widest: usize, axis: &Axis,
    ) {
        let outputs = y.chunks_exact_mut(c).zip(taps.chunks_exact_mut(c));
        for (&(start, count), (y, taps)) in axis.windows.iter().zip(outputs) {
            let (y, taps) = (&mut y[..c], &mut taps[..c]);
            y.copy_from_slice(&tallest[start * c..][..c]);
            taps.copy_from_slice(&from[start * c..][..c]);
            for j in 1..count {
                let at = (start + j * axis.step) * c;
                let (x, from, j) = (&tallest[at..][..c], &from[at..][..c], I::new(j));
                for i in 0..c {
                    let tap = from[i].plus(j);
                    // Of equal elements the one in the earlier row comes first.
                    let better = (x[i] > y[i]) | x[i].is_nan() | ((x[i] == y[i]) & (tap < taps[i]));
                    y[i] = if better { x[i] } else { y[i] };
                    taps[i] = if better { tap } else { taps[i] };
                }
            }
            if count != widest {
                for tap in taps {
                    *tap = I::new(tap.number() / widest * count + tap.number() % widest);
                }
            }
        }
    }
}

/// Adds each gradient to the pixel that its output was taken from: the adjoint of [`take`].
pub(crate) fn put<T: Float, I: Tap>(w: &Windows, dy: &[T], taps: &[I], dx: &mut [T]) {
    let (pixels, c) = (w.output_size(), w.c);
    let apart = are_apart(w);
    // Where each pixel has its one window, it is written without being cleared first.
    let whole = apart && w.axes.iter().all(|a| a.windows.iter().map(|w| w.1).sum::<usize>() == a.input);
    // Where every pixel of a line is in a window, the lanes after a pixel are written later.
    let narrow = whole && c <= MAX_CHANNELS && w.axes[2].step == 1;
    parallel_chunks(dx, w.input_size() * c, |n, dx| {
        if !whole {
            dx.fill(T::ZERO);
        }
        let range = n * pixels * c..(n + 1) * pixels * c;
        if narrow {
            let row = w.axes[2].output() * c;
            // A vector longer, so that the last pixel is a whole one.
            let (mut g, mut taken) = (vec![T::ZERO; row + MAX_CHANNELS], vec![0u32; row + MAX_CHANNELS]);
            let lines = dy[range.clone()].chunks_exact(row).zip(taps[range].chunks_exact(row));
            for (r, (dy, taps)) in lines.enumerate() {
                g[..row].copy_from_slice(dy);
                taken.iter_mut().zip(taps).for_each(|(taken, tap)| *taken = tap.number() as u32);
                for (number, start) in rows_under(w, r).enumerate() {
                    let line = w.axes[2].input * c;
                    put_line(&mut dx[start..start + line], &g, &taken, c, number as u32, &w.axes[2]);
                }
            }
            return;
        }
        put_pixels(w, &dy[range.clone()], &taps[range], dx, apart);
    });
}

/// Whether each pixel is in one window at most.
fn are_apart(w: &Windows) -> bool {
    w.axes.iter().all(|axis| {
        let mut taps: Vec<usize> = (0..axis.output()).flat_map(|o| axis.taps(o)).collect();
        taps.sort_unstable();
        taps.windows(2).all(|pair| pair[0] != pair[1])
    })
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// The gradient for one row of the input, the one of this number under its windows, which leave no pixel out.
    fn put_line<T: Float>(dx: &mut [T], dy: &[T], taken: &[u32], c: usize, number: u32, axis: &Axis) {
        for (o, &(first, count)) in axis.windows.iter().enumerate() {
            let (g, taken) = (lanes(&dy[o * c..]), lanes(&taken[o * c..]));
            for j in 0..count {
                let tap = number * count as u32 + j as u32;
                let mut x = [T::ZERO; MAX_CHANNELS];
                for i in 0..MAX_CHANNELS {
                    x[i] = if taken[i] == tap { g[i] } else { T::ZERO };
                }
                put_lanes(&mut dx[(first + j) * c..], c, x);
            }
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// The gradient for one image.
    fn put_pixels<T: Float, I: Tap>(w: &Windows, dy: &[T], taps: &[I], dx: &mut [T], apart: bool) {
        let c = w.c;
        for (p, (dy, taps)) in dy.chunks_exact(c).zip(taps.chunks_exact(c)).enumerate() {
            let (dy, taps) = (&dy[..c], &taps[..c]);
            let mut number = 0;
            w.for_each_tap(p, |pixel| {
                let (dx, tap) = (&mut dx[pixel * c..][..c], I::new(number));
                for i in 0..c {
                    let g = if taps[i] == tap { dy[i] } else { T::ZERO };
                    dx[i] = if apart { g } else { dx[i] + g };
                }
                number += 1;
            });
        }
    }
}

/// The input pixel of each tap.
pub(crate) fn take<T: Float, I: Tap>(w: &Windows, x: &[T], taps: &[I], y: &mut [T]) {
    let (pixels, c) = (w.output_size(), w.c);
    parallel_chunks(y, pixels * c, |n, y| {
        let x = &x[n * w.input_size() * c..][..w.input_size() * c];
        let taps = &taps[n * pixels * c..][..pixels * c];
        for (p, (y, taps)) in y.chunks_exact_mut(c).zip(taps.chunks_exact(c)).enumerate() {
            let mut number = 0;
            w.for_each_tap(p, |pixel| {
                for ((y, &x), &t) in y.iter_mut().zip(&x[pixel * c..][..c]).zip(taps) {
                    if t == I::new(number) {
                        *y = x;
                    }
                }
                number += 1;
            });
        }
    });
}

/// The flat index of the input pixel of each tap.
pub(crate) fn flat_indices<I: Tap>(w: &Windows, taps: &[I], index: &mut [i64]) {
    let (pixels, c) = (w.output_size(), w.c);
    for (p, (index, taps)) in index.chunks_exact_mut(c).zip(taps.chunks_exact(c)).enumerate() {
        let mut window = Vec::new();
        w.for_each_tap(p % pixels, |pixel| window.push(pixel as i64));
        for (i, t) in index.iter_mut().zip(taps) {
            *i = window[t.number()];
        }
    }
}

/// The sum of each window times the output pixel's `scale`.
pub(crate) fn sum_forward<T: Float>(w: &Windows, scale: &[f64], x: &[T], y: &mut [T]) {
    let width = w.axes[2].output();
    let (row, lines) = (width * w.c, w.n * w.axes[0].output() * w.axes[1].output());
    // A line reads its windows and writes a row.
    let work = (x.len() / lines.max(1)).max(row);
    let rows = GRAIN.div_ceil(work.max(1)).min(lines.max(1));
    parallel_chunks(y, rows * row, |task, y| {
        let mut starts = Vec::new();
        for (k, y) in y.chunks_exact_mut(row).enumerate() {
            let line = task * rows + k;
            starts.clear();
            starts.extend(rows_under(w, line));
            let scale = &scale[line * width % scale.len()..][..width];
            sum_line(y, x, w.c, &starts, &w.axes[2], scale);
        }
    });
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// A row of windows, whose input rows begin at `starts`.
    fn sum_line<T: Float>(y: &mut [T], x: &[T], c: usize, starts: &[usize], axis: &Axis, scale: &[f64]) {
        for o in 0..scale.len() {
            let (window, scale) = (axis.windows[o], T::from_f64(scale[o]));
            let y = &mut y[o * c..][..c];
            let mut from = 0;
            while c - from >= 32 {
                sum_channels::<T, 32>(&mut y[from..], x, c, from, starts, window, axis.step, scale);
                from += 32;
            }
            while c - from >= 8 {
                sum_channels::<T, 8>(&mut y[from..], x, c, from, starts, window, axis.step, scale);
                from += 8;
            }
            while from < c {
                sum_channels::<T, 1>(&mut y[from..], x, c, from, starts, window, axis.step, scale);
                from += 1;
            }
        }
    }
}

/// `N` channels of a window from channel `from` on: its sum stays in registers.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn sum_channels<T: Float, const N: usize>(
    y: &mut [T],
    x: &[T],
    c: usize,
    from: usize,
    starts: &[usize],
    (first, count): (usize, usize),
    step: usize,
    scale: T,
) {
    let mut sum = [T::ZERO; N];
    for start in starts {
        for j in 0..count {
            let x = &x[start + (first + j * step) * c + from..][..N];
            for i in 0..N {
                sum[i] += x[i];
            }
        }
    }
    for i in 0..N {
        y[i] = sum[i] * scale;
    }
}

/// Spreads each gradient times `scale` over its window: the adjoint of [`sum_forward`].
pub(crate) fn sum_backward<T: Float>(w: &Windows, scale: &[f64], dy: &[T], dx: &mut [T]) {
    let (pixels, c) = (w.output_size(), w.c);
    parallel_chunks(dx, w.input_size() * c, |n, dx| {
        dx.fill(T::ZERO);
        for p in 0..pixels {
            let dy = &dy[(n * pixels + p) * c..][..c];
            let scale = T::from_f64(scale[p]);
            w.for_each_tap(p, |tap| add_row(&mut dx[tap * c..][..c], dy, scale));
        }
    });
}

tapegrad_tape::multiversion! {
    fn add_row<T: Float>(y: &mut [T], x: &[T], scale: T) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn sums_of_any_number_of_channels() {
        for c in [1, 3, 8, 13, 32, 77] {
            let sliding = |input| Axis::sliding("pool", input, 3, 2, 1, 2, false);
            let w = Windows::new(&[2, c, 9, 8], vec![sliding(9), sliding(8)]);
            let pixels = w.output_size();
            let x = numbers(2 * w.input_size() * c, 1);
            let scale: Vec<f64> = (0..pixels).map(|p| 1.0 / (1.0 + p as f64)).collect();
            let mut y = vec![f64::NAN; 2 * pixels * c];
            sum_forward(&w, &scale, &x, &mut y);
            for (at, &y) in y.iter().enumerate() {
                let (n, p, channel) = (at / (pixels * c), at / c % pixels, at % c);
                let mut sum = 0.0;
                w.for_each_tap(p, |tap| sum += x[(n * w.input_size() + tap) * c + channel]);
                assert_eq!(y, sum * scale[p], "{c} channels, output pixel {p}");
            }
        }
    }
}
