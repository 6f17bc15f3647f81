//! Pooling loops over channels-last memory `[n, pixel, c]`, with the channels in vector lanes.
//!
//! With few channels the vectors run along a line of pixels, as if there were a window at every element; then those
//! that there are get picked out.
//!
//! A max pooling keeps, for each output, which element of its window it took; the gradient goes there.

use super::shared::SharedSlice;
use crate::pool::Windows;
use tape::Float;
use tape::kernels::parallel::parallel_chunks;

/// Elements that one task writes at the least.
const GRAIN: usize = 16 * 1024;

/// Output pixels of a task: whole images while they are small.
fn pixels_per_task(w: &Windows, pixels: usize) -> usize {
    GRAIN.div_ceil(w.c.max(1)).min((w.n * pixels).max(1))
}

/// Whether the channels of a pixel fill less than a vector.
fn few_channels<T>(w: &Windows) -> bool {
    w.c * size_of::<T>() < 64
}

/// The number of an element within its window, in row-major order: one byte where the windows are small.
pub(crate) trait Tap: Copy + PartialOrd + Send + Sync + 'static {
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

impl Tap for u32 {
    fn new(tap: usize) -> u32 {
        tap as u32
    }
    fn number(self) -> usize {
        self as usize
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
    let narrow = if few_channels::<T>(w) { Narrow::new(w) } else { None };
    let rows = GRAIN.div_ceil(row.max(1)).min((w.n * d * h).max(1));
    let all_taps = SharedSlice::new(taps);
    parallel_chunks(y, rows * row, |task, y| {
        // SAFETY: each task takes the part that belongs to its own chunk of `y`.
        let taps = unsafe { all_taps.part(task * rows * row, y.len()) };
        let mut tallest = vec![T::ZERO; line];
        if let Some(narrow) = &narrow {
            let mut from_row = vec![0u32; line];
            let every = line - (narrow.count - 1) * c;
            let (mut best, mut all) = (vec![T::ZERO; every], vec![I::new(0); every]);
            let (mut best_row, mut column) = (vec![0u32; every], vec![0u32; every]);
            for (k, (y, taps)) in y.chunks_exact_mut(row).zip(taps.chunks_exact_mut(row)).enumerate() {
                tallest_of_rows(w, task * rows + k, x, &mut tallest, &mut from_row);
                best.copy_from_slice(&tallest[..every]);
                best_row.copy_from_slice(&from_row[..every]);
                column.fill(0);
                for j in 1..narrow.count {
                    let (x, rows) = (&tallest[j * c..][..every], &from_row[j * c..][..every]);
                    max_columns(&mut best, &mut best_row, &mut column, x, rows, j as u32);
                }
                join_taps(&mut all, &best_row, &column, narrow.count as u32);
                copy_pixels(c, &best, y, narrow.picks());
                copy_pixels(c, &all, taps, narrow.picks());
            }
            return;
        }
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

/// The largest element of each column of the input rows under a row of windows, and in which of the rows it is.
fn tallest_of_rows<T: Float, I: Tap>(
    w: &Windows,
    row: usize,
    x: &[T],
    tallest: &mut [T],
    from_row: &mut [I],
) {
    let [d, h] = [0, 1].map(|a| w.axes[a].output());
    let (n, od, oh) = (row / (d * h), row / h % d, row % h);
    let line = tallest.len();
    let mut number = 0;
    for z in w.axes[0].taps(od) {
        for v in w.axes[1].taps(oh) {
            let start = ((n * w.axes[0].input + z) * w.axes[1].input + v) * line;
            let source = &x[start..start + line];
            if number == 0 {
                tallest.copy_from_slice(source);
                from_row.fill(I::new(0));
            } else {
                max_rows(tallest, from_row, source, I::new(number));
            }
            number += 1;
        }
    }
}

/// A row of windows of equal width over pixels of few channels.
struct Narrow {
    /// The first pixel of each window.
    first: Vec<usize>,
    /// The columns of each window.
    count: usize,
    /// Channels.
    c: usize,
}

impl Narrow {
    /// None where the windows differ in width or have holes.
    fn new(w: &Windows) -> Option<Narrow> {
        let axis = &w.axes[2];
        let count = axis.windows.first()?.1;
        let even = axis.step == 1 && count > 0 && axis.windows.iter().all(|w| w.1 == count);
        even.then(|| Narrow { first: axis.windows.iter().map(|w| w.0).collect(), count, c: w.c })
    }

    /// Where the first pixel of each window begins in the line of the input, and the window in that of the output.
    fn picks(&self) -> impl Iterator<Item = (usize, usize)> {
        self.first.iter().enumerate().map(|(o, first)| (first * self.c, o * self.c))
    }
}

/// Copies pixels of `c` channels, each from and to where `places` says, in the order of memory: more than a pixel
/// at once, since a constant number of elements is a move or two. The next pixel overwrites what was too much.
fn copy_pixels<T: Copy>(c: usize, from: &[T], to: &mut [T], places: impl Iterator<Item = (usize, usize)>) {
    fn copy<T: Copy, const N: usize>(
        c: usize,
        from: &[T],
        to: &mut [T],
        places: impl Iterator<Item = (usize, usize)>,
    ) {
        for (at, place) in places {
            match (from[at..].first_chunk::<N>(), to[place..].first_chunk_mut::<N>()) {
                (Some(from), Some(to)) => *to = *from,
                _ => to[place..place + c].copy_from_slice(&from[at..at + c]),
            }
        }
    }
    debug_assert!(c <= 16);
    match c {
        0..=4 => copy::<T, 4>(c, from, to, places),
        5..=8 => copy::<T, 8>(c, from, to, places),
        _ => copy::<T, 16>(c, from, to, places),
    }
}

tape::multiversion! {
    fn join_taps<I: Tap>(taps: &mut [I], row: &[u32], column: &[u32], count: u32) {
        for ((t, r), c) in taps.iter_mut().zip(row).zip(column) {
            *t = I::new((r * count + c) as usize);
        }
    }
}

tape::multiversion! {
    vectors of T;
    fn max_rows<T: Float, I: Tap>(best: &mut [T], from: &mut [I], row: &[T], number: I) {
        for ((b, f), &v) in best.iter_mut().zip(from).zip(row) {
            let better = v > *b || v.is_nan();
            *b = if better { v } else { *b };
            *f = if better { number } else { *f };
        }
    }
}

tape::multiversion! {
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
    // Where each pixel has its one window, it is written without having been cleared.
    let whole = apart && w.axes.iter().all(|a| a.windows.iter().map(|w| w.1).sum::<usize>() == a.input);
    let narrow = if apart && few_channels::<T>(w) { Apart::new(w) } else { None };
    parallel_chunks(dx, w.input_size() * c, |n, dx| {
        if !whole {
            dx.fill(T::ZERO);
        }
        let range = n * pixels * c..(n + 1) * pixels * c;
        if let Some(narrow) = &narrow {
            return narrow.put(w, &dy[range.clone()], &taps[range], dx);
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

/// Whether each pixel is in one window at the most.
fn are_apart(w: &Windows) -> bool {
    w.axes.iter().all(|axis| {
        let mut taps: Vec<usize> = (0..axis.output()).flat_map(|o| axis.taps(o)).collect();
        taps.sort_unstable();
        taps.windows(2).all(|pair| pair[0] != pair[1])
    })
}

/// Windows of equal width that are [apart](are_apart), over pixels of few channels.
struct Apart {
    windows: Narrow,
    /// The column of its window that each element of the input line is in; no column where it is in none.
    column: Vec<u32>,
}

impl Apart {
    /// None where the windows differ in width or have holes.
    fn new(w: &Windows) -> Option<Apart> {
        let windows = Narrow::new(w)?;
        let mut column = vec![u32::MAX; w.axes[2].input * w.c];
        for first in &windows.first {
            for j in 0..windows.count {
                column[(first + j) * w.c..][..w.c].fill(j as u32);
            }
        }
        Some(Apart { windows, column })
    }

    /// The gradient of one image; `dx` is zero where no window is.
    fn put<T: Float, I: Tap>(&self, w: &Windows, dy: &[T], taps: &[I], dx: &mut [T]) {
        let (line, row) = (self.column.len(), w.axes[2].output() * w.c);
        let (c, count, h) = (w.c, self.windows.count, w.axes[1].output());
        // Each pixel of the output line, at all columns of its window.
        let places =
            || self.windows.picks().flat_map(|(first, o)| (0..count).map(move |j| (o, first + j * c)));
        let mut wide = vec![0u32; row];
        let (mut gradient, mut taken) = (vec![T::ZERO; line], vec![0u32; line]);
        for (r, (dy, taps)) in dy.chunks_exact(row).zip(taps.chunks_exact(row)).enumerate() {
            wide.iter_mut().zip(taps).for_each(|(wide, t)| *wide = t.number() as u32);
            copy_pixels(c, dy, &mut gradient, places());
            copy_pixels(c, &wide, &mut taken, places());
            let mut number = 0;
            for z in w.axes[0].taps(r / h) {
                for v in w.axes[1].taps(r % h) {
                    let dx = &mut dx[(z * w.axes[1].input + v) * line..][..line];
                    put_line(dx, &gradient, &taken, &self.column, number);
                    number += count as u32;
                }
            }
        }
    }
}

tape::multiversion! {
    vectors of T;
    /// `dx = dy` where `column` of the row whose taps begin with `number` was taken, else 0.
    fn put_line<T: Float>(dx: &mut [T], dy: &[T], taps: &[u32], column: &[u32], number: u32) {
        for (((x, &g), &t), &c) in dx.iter_mut().zip(dy).zip(taps).zip(column) {
            let taken = c != u32::MAX && t == number.wrapping_add(c);
            *x = if taken { g } else { T::ZERO };
        }
    }
}

tape::multiversion! {
    vectors of T;
    fn set_row<T: Float, I: Tap>(dx: &mut [T], dy: &[T], taps: &[I], number: I) {
        for ((x, &g), &t) in dx.iter_mut().zip(dy).zip(taps) {
            *x = if t == number { g } else { T::ZERO };
        }
    }
}

tape::multiversion! {
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

tape::multiversion! {
    fn add_row<T: Float>(y: &mut [T], x: &[T], scale: T) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x * scale;
        }
    }
}
