//! Distances of all pairs of vectors, and their gradients.

use tapegrad_tape::Float;
use tapegrad_tape::kernels::parallel::parallel_chunks;

/// The pairs of a row that are summed at once.
const PAIRS: usize = 64;
/// The fewest differences of a task for another thread.
const GRAIN: usize = 1 << 14;

/// Two lists of `rows` and `columns` vectors of `size` elements, in each of several batches.
#[derive(Clone, Copy)]
pub(crate) struct Pairs {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) size: usize,
}

impl Pairs {
    /// Rows of a task.
    fn rows_per_task(&self) -> usize {
        GRAIN.div_ceil((self.columns * self.size).max(1)).clamp(1, self.rows.max(1))
    }
}

/// The `p`-norms of all differences `x[i] - y[j]`; `y` is transposed in each batch: `[size, columns]`.
pub(crate) fn distances<T: Float>(s: Pairs, p: f64, x: &[T], y: &[T], out: &mut [T]) {
    let rows = s.rows_per_task();
    let (x_batch, y_batch, batch) = (s.rows * s.size, s.size * s.columns, s.rows * s.columns);
    if batch == 0 {
        return;
    }
    for (b, out) in out.chunks_exact_mut(batch).enumerate() {
        parallel_chunks(out, rows * s.columns, |task, out| {
            for (r, out) in out.chunks_exact_mut(s.columns).enumerate() {
                let x = &x[b * x_batch + (task * rows + r) * s.size..][..s.size];
                let y = &y[b * y_batch..][..y_batch];
                row(p, x, y, out);
            }
        });
    }
}

/// One row of distances.
fn row<T: Float>(p: f64, x: &[T], y: &[T], out: &mut [T]) {
    let columns = out.len();
    for (start, out) in (0..columns).step_by(PAIRS).zip(out.chunks_mut(PAIRS)) {
        out.fill(T::ZERO);
        for (m, &x) in x.iter().enumerate() {
            let y = &y[m * columns + start..][..out.len()];
            match p {
                0.0 => add_different(out, x, y),
                1.0 => add_sizes(out, x, y),
                2.0 => add_squares(out, x, y),
                f64::INFINITY => take_largest(out, x, y),
                _ => add_powers(out, x, y, T::from_f64(p)),
            }
        }
        if p == 2.0 {
            out.iter_mut().for_each(|d| *d = d.sqrt());
        } else if p != 0.0 && p != 1.0 && p.is_finite() {
            let root = T::from_f64(1.0 / p);
            out.iter_mut().for_each(|d| *d = d.powf(root));
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_different<T: Float>(out: &mut [T], x: T, y: &[T]) {
        for (d, &y) in out.iter_mut().zip(y) {
            *d += if x == y { T::ZERO } else { T::ONE };
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_sizes<T: Float>(out: &mut [T], x: T, y: &[T]) {
        for (d, &y) in out.iter_mut().zip(y) {
            *d += (x - y).abs();
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_squares<T: Float>(out: &mut [T], x: T, y: &[T]) {
        for (d, &y) in out.iter_mut().zip(y) {
            *d += (x - y) * (x - y);
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn take_largest<T: Float>(out: &mut [T], x: T, y: &[T]) {
        for (d, &y) in out.iter_mut().zip(y) {
            *d = d.maximum((x - y).abs());
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_powers<T: Float>(out: &mut [T], x: T, y: &[T], p: T) {
        for (d, &y) in out.iter_mut().zip(y) {
            *d += (x - y).abs().powf(p);
        }
    }
}

/// The gradient for `x`: for each row the sum over all `j` of `weights[i, j]` times the derivative of the `p`-norm, up to
/// its power of the distance. `y` is `[columns, size]` in each batch.
pub(crate) fn gradient<T: Float>(
    s: Pairs,
    p: f64,
    [x, y]: [&[T]; 2],
    [weights, distances]: [&[T]; 2],
    out: &mut [T],
) {
    let rows = s.rows_per_task();
    let batch = s.rows * s.size;
    if batch == 0 {
        return;
    }
    for (b, out) in out.chunks_exact_mut(batch).enumerate() {
        parallel_chunks(out, rows * s.size, |task, out| {
            for (r, out) in out.chunks_exact_mut(s.size).enumerate() {
                let i = b * s.rows + task * rows + r;
                let x = &x[i * s.size..][..s.size];
                let pairs = i * s.columns..(i + 1) * s.columns;
                let (weights, distances) = (&weights[pairs.clone()], &distances[pairs]);
                out.fill(T::ZERO);
                for (j, (&w, &d)) in weights.iter().zip(distances).enumerate() {
                    let y = &y[(b * s.columns + j) * s.size..][..s.size];
                    match p {
                        1.0 => add_signs(out, x, y, w),
                        2.0 => add_scaled(out, x, y, w),
                        f64::INFINITY => add_extremes(out, x, y, w, d),
                        _ => add_signed_powers(out, x, y, w, T::from_f64(p - 1.0)),
                    }
                }
            }
        });
    }
}

#[inline]
fn sign<T: Float>(d: T) -> T {
    if d > T::ZERO {
        T::ONE
    } else if d < T::ZERO {
        -T::ONE
    } else {
        T::ZERO
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_signs<T: Float>(out: &mut [T], x: &[T], y: &[T], w: T) {
        for ((o, &x), &y) in out.iter_mut().zip(x).zip(y) {
            *o += sign(x - y) * w;
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_scaled<T: Float>(out: &mut [T], x: &[T], y: &[T], w: T) {
        for ((o, &x), &y) in out.iter_mut().zip(x).zip(y) {
            *o += (x - y) * w;
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_extremes<T: Float>(out: &mut [T], x: &[T], y: &[T], w: T, distance: T) {
        for ((o, &x), &y) in out.iter_mut().zip(x).zip(y) {
            *o += if (x - y).abs() == distance { sign(x - y) * w } else { T::ZERO };
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_signed_powers<T: Float>(out: &mut [T], x: &[T], y: &[T], w: T, power: T) {
        for ((o, &x), &y) in out.iter_mut().zip(x).zip(y) {
            let d = x - y;
            *o += if d == T::ZERO { T::ZERO } else { sign(d) * d.abs().powf(power) * w };
        }
    }
}
