//! Pooling loops over channels-last memory `[n, pixel, c]`, with the channels in vector lanes.
//!
//! A max pooling keeps, for each output, which element of its window it took; the gradient goes there.

use super::shared::SharedSlice;
use crate::pool::Windows;
use tape::kernels::parallel::parallel_chunks;
use tape::{Element, Float};

/// Elements that one task writes at the least.
const GRAIN: usize = 16 * 1024;

/// Output pixels of a task: whole images while they are small.
fn pixels_per_task(w: &Windows, pixels: usize) -> usize {
    GRAIN.div_ceil(w.c.max(1)).min((w.n * pixels).max(1))
}

/// The number of an element within its window, in row-major order: one byte where the windows are small.
pub(crate) trait Tap: Element {
    fn new(tap: usize) -> Self;
    fn number(self) -> usize;
}

impl Tap for u8 {
    fn new(tap: usize) -> u8 {
        tap as u8
    }
    fn number(self) -> usize {
        usize::from(self)
    }
}

impl Tap for i64 {
    fn new(tap: usize) -> i64 {
        tap as i64
    }
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
        let mut tallest = vec![T::ZERO; line];
        let mut from_row = vec![I::new(0); line];
        let mut best_row = vec![I::new(0); c];
        for (k, (y, taps)) in y.chunks_exact_mut(row).zip(taps.chunks_exact_mut(row)).enumerate() {
            let r = task * rows + k;
            let (n, od, oh) = (r / (d * h), r / h % d, r % h);
            let mut number = 0;
            for z in w.axes[0].taps(od) {
                for v in w.axes[1].taps(oh) {
                    let start = ((n * w.axes[0].input + z) * w.axes[1].input + v) * line;
                    let source = &x[start..start + line];
                    if number == 0 {
                        tallest.copy_from_slice(source);
                        from_row.fill(I::new(0));
                    } else {
                        max_rows(&mut tallest, &mut from_row, source, I::new(number));
                    }
                    number += 1;
                }
            }
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

tape::multiversion! {
    fn max_rows<T: Float, I: Tap>(best: &mut [T], from: &mut [I], row: &[T], number: I) {
        for ((b, f), &v) in best.iter_mut().zip(from).zip(row) {
            let better = v > *b || v.is_nan();
            *b = if better { v } else { *b };
            *f = if better { number } else { *f };
        }
    }
}

tape::multiversion! {
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
    parallel_chunks(dx, w.input_size() * c, |n, dx| {
        dx.fill(T::ZERO);
        let range = n * pixels * c..(n + 1) * pixels * c;
        for (p, (dy, taps)) in dy[range.clone()].chunks_exact(c).zip(taps[range].chunks_exact(c)).enumerate()
        {
            let mut number = 0;
            w.for_each_tap(p, |pixel| {
                put_row(&mut dx[pixel * c..][..c], dy, taps, I::new(number));
                number += 1;
            });
        }
    });
}

tape::multiversion! {
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

tape::multiversion! {
    fn add_row<T: Float>(y: &mut [T], x: &[T], scale: T) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x * scale;
        }
    }
}
