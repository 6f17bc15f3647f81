//! Pooling loops over channels-last memory `[n, pixel, c]`, with the channels in vector lanes.
//!
//! A max pooling keeps, for each output, the flat index of the input pixel that it took; the gradient goes
//! there. One image is one task, or a stretch of its output pixels where no two windows overlap.

use crate::pool::Windows;
use tape::Float;
use tape::kernels::parallel::parallel_chunks;

/// Elements that one task writes at the least.
const GRAIN: usize = 16 * 1024;

/// Output pixels of a task: whole images while they are small.
fn pixels_per_task(w: &Windows, pixels: usize) -> usize {
    GRAIN.div_ceil(w.c.max(1)).min((w.n * pixels).max(1))
}

/// The largest element of each window, and the index of the input pixel that holds it. The first of equal
/// elements wins, and a NaN wins over all.
pub(crate) fn max_forward<T: Float>(w: &Windows, x: &[T], y: &mut [T], index: &mut [i64]) {
    let (pixels, c) = (w.output_size(), w.c);
    let chunk = pixels_per_task(w, pixels);
    let index = std::sync::Mutex::new(index.chunks_mut(chunk * c).map(Some).collect::<Vec<_>>());
    parallel_chunks(y, chunk * c, |task, y| {
        let index = index.lock().expect("no task panics")[task].take().expect("each task is run once");
        for (k, (y, index)) in y.chunks_exact_mut(c).zip(index.chunks_exact_mut(c)).enumerate() {
            let p = task * chunk + k;
            let image = &x[p / pixels * w.input_size() * c..][..w.input_size() * c];
            let mut first = true;
            w.for_each_tap(p % pixels, |tap| {
                let row = &image[tap * c..][..c];
                if first {
                    y.copy_from_slice(row);
                    index.fill(tap as i64);
                    first = false;
                } else {
                    max_row(y, index, row, tap as i64);
                }
            });
        }
    });
}

tape::multiversion! {
    fn max_row<T: Float>(y: &mut [T], index: &mut [i64], row: &[T], tap: i64) {
        for ((y, i), &v) in y.iter_mut().zip(index).zip(row) {
            // A NaN replaces a number, and nothing replaces a NaN.
            let better = v > *y || (v.is_nan() && !y.is_nan());
            *y = if better { v } else { *y };
            *i = if better { tap } else { *i };
        }
    }
}

/// Adds each gradient to the pixel that its output was taken from: the adjoint of [`take`].
pub(crate) fn put<T: Float>(w: &Windows, dy: &[T], index: &[i64], dx: &mut [T]) {
    let (pixels, c) = (w.output_size(), w.c);
    parallel_chunks(dx, w.input_size() * c, |n, dx| {
        dx.fill(T::ZERO);
        let range = n * pixels * c..(n + 1) * pixels * c;
        for (dy, index) in dy[range.clone()].chunks_exact(c).zip(index[range].chunks_exact(c)) {
            for (channel, (&g, &i)) in dy.iter().zip(index).enumerate() {
                dx[i as usize * c + channel] += g;
            }
        }
    });
}

/// The input pixel of each index.
pub(crate) fn take<T: Float>(w: &Windows, x: &[T], index: &[i64], y: &mut [T]) {
    let (pixels, c) = (w.output_size(), w.c);
    parallel_chunks(y, pixels * c, |n, y| {
        let x = &x[n * w.input_size() * c..][..w.input_size() * c];
        let index = &index[n * pixels * c..][..pixels * c];
        for (y, index) in y.chunks_exact_mut(c).zip(index.chunks_exact(c)) {
            for (channel, (y, &i)) in y.iter_mut().zip(index).enumerate() {
                *y = x[i as usize * c + channel];
            }
        }
    });
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
