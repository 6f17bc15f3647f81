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

/// Output pixels of a task: whole images while they are small.
fn pixels_per_task(w: &Windows, pixels: usize) -> usize {
    GRAIN.div_ceil(w.c.max(1)).min((w.n * pixels).max(1))
}

/// The index of an element within its window, in row-major order: one byte where the windows are small.
pub(crate) trait Tap: Copy + PartialOrd + Send + Sync + 'static {
    fn new(tap: usize) -> Self;
    fn number(self) -> usize;
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
        let mut tallest = vec![T::ZERO; line];
        let mut from_row = vec![I::new(0); line];
        let mut best_row = vec![I::new(0); c];
        for (k, (y, taps)) in y.chunks_exact_mut(row).zip(taps.chunks_exact_mut(row)).enumerate() {
            tallest_of_rows(w, task * rows + k, x, &mut tallest, &mut from_row);
            for (ow, (y, taps)) in y.chunks_exact_mut(c).zip(taps.chunks_exact_mut(c)).enumerate() {
                let (start, count) = w.axes[2].windows[ow];
                y.copy_from_slice(&tallest[start * c..][..c]);
                best_row.copy_from_slice(&from_row[start * c..][..c]);
                taps.fill(I::new(0));
                for j in 1..count {
                    let at = (start + j * w.axes[2].step) * c;
                    max_columns(
                        y,
                        &mut best_row,
                        taps,
                        &tallest[at..at + c],
                        &from_row[at..at + c],
                        I::new(j),
                    );
                }
                for (tap, row) in taps.iter_mut().zip(&best_row) {
                    *tap = I::new(row.number() * count + tap.number());
                }
            }
        }
    });
}

/// Where the rows of the input under a row of windows begin.
#[inline]
fn rows_under(w: &Windows, row: usize) -> impl Iterator<Item = usize> {
    let [d, h] = [0, 1].map(|a| w.axes[a].output());
    let (n, od, oh) = (row / (d * h), row / h % d, row % h);
    let start =
        move |z: usize, v: usize| ((n * w.axes[0].input + z) * w.axes[1].input + v) * w.axes[2].input * w.c;
    w.axes[0].taps(od).flat_map(move |z| w.axes[1].taps(oh).map(move |v| start(z, v)))
}

/// The largest element of each column of the input rows under a row of windows, and in which of the rows it is.
fn tallest_of_rows<T: Float, I: Tap>(
    w: &Windows,
    row: usize,
    x: &[T],
    tallest: &mut [T],
    from_row: &mut [I],
) {
    for (number, start) in rows_under(w, row).enumerate() {
        let source = &x[start..start + tallest.len()];
        if number == 0 {
            tallest.copy_from_slice(source);
            from_row.fill(I::new(0));
        } else {
            max_rows(tallest, from_row, source, I::new(number));
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
        for ((b, f), &v) in best.iter_mut().zip(from).zip(row) {
            let better = v > *b || v.is_nan();
            *b = if better { v } else { *b };
            *f = if better { number } else { *f };
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn max_columns<T: Float, I: Tap>(best: &mut [T], row: &mut [I], column: &mut [I], x: &[T], x_row: &[I], number: I) {
        for ((((b, r), c), &v), &vr) in best.iter_mut().zip(row).zip(column).zip(x).zip(x_row) {
            // Of equal elements the one in the earlier row comes first.
            let better = v > *b || v.is_nan() || (v == *b && vr < *r);
            *b = if better { v } else { *b };
            *r = if better { vr } else { *r };
            *c = if better { number } else { *c };
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
        for (p, (dy, taps)) in dy[range.clone()].chunks_exact(c).zip(taps[range].chunks_exact(c)).enumerate()
        {
            let mut number = 0;
            w.for_each_tap(p, |pixel| {
                let dx = &mut dx[pixel * c..][..c];
                if apart {
                    set_row(dx, dy, taps, I::new(number))
                } else {
                    put_row(dx, dy, taps, I::new(number))
                }
                number += 1;
            });
        }
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
    fn set_row<T: Float, I: Tap>(dx: &mut [T], dy: &[T], taps: &[I], number: I) {
        for ((x, &g), &t) in dx.iter_mut().zip(dy).zip(taps) {
            *x = if t == number { g } else { T::ZERO };
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn put_row<T: Float, I: Tap>(dx: &mut [T], dy: &[T], taps: &[I], number: I) {
        for ((x, &g), &t) in dx.iter_mut().zip(dy).zip(taps) {
            *x += if t == number { g } else { T::ZERO };
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
    let (pixels, c) = (w.output_size(), w.c);
    let chunk = pixels_per_task(w, pixels);
    parallel_chunks(y, chunk * c, |task, y| {
        for (k, y) in y.chunks_exact_mut(c).enumerate() {
            let p = task * chunk + k;
            let image = &x[p / pixels * w.input_size() * c..][..w.input_size() * c];
            y.fill(T::ZERO);
            w.for_each_tap(p % pixels, |tap| add_row(y, &image[tap * c..][..c], T::ONE));
            let scale = T::from_f64(scale[p % pixels]);
            for y in y {
                *y = *y * scale;
            }
        }
    });
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
