//! Softmax along one dimension of `[outer, length, inner]`, and its gradient.

use super::fold::{LANES, fold};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::parallel::parallel_blocks;
use tapegrad_tape::kernels::shared::SharedSlice;

/// The fewest elements in a task.
const GRAIN: usize = 1 << 13;

/// Sizes before, along and after the dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Along {
    /// The product of the sizes before.
    pub outer: usize,
    /// The size along which is summed.
    pub length: usize,
    /// The product of the sizes after.
    pub inner: usize,
}

/// Which function of the exponentials and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Their quotient.
    Plain,
    /// The quotient, or zero where all elements are minus infinity.
    Safe,
    /// The logarithm of the quotient.
    Log,
}

/// The exponentials divided by their sum, or the logarithm of that.
pub fn softmax<T: Float>(out: &mut [T], x: &[T], along: Along, kind: Kind) {
    slabs(out, [x, x], along, |out, [x, _]| match along.inner {
        1 => softmax_rows(out, x, along.length, kind),
        inner => softmax_columns(out, x, inner, kind),
    });
}

/// The softmax of each row of `length` elements, and the logarithm of each row's sum of exponentials.
pub(crate) fn softmax_and_logs<T: Float>(out: &mut [T], logs: &mut [T], x: &[T], length: usize) {
    assert!(out.len() == x.len() && out.len() == logs.len() * length);
    let (out, shared) = (SharedSlice::new(out), SharedSlice::new(logs));
    parallel_blocks(x.len() / length.max(1), GRAIN.div_ceil(length.max(1)), |start, end| {
        let range = start * length..end * length;
        // SAFETY: each row belongs to one task.
        let (out, logs) = unsafe { (out.part(range.start, range.len()), shared.part(start, end - start)) };
        rows_and_logs(out, logs, &x[range], length);
    });
}

/// The gradient from the result `y` and its gradient `g`.
pub fn softmax_backward<T: Float>(out: &mut [T], y: &[T], g: &[T], along: Along, kind: Kind) {
    slabs(out, [y, g], along, |out, [y, g]| match along.inner {
        1 => gradient_rows(out, y, g, along.length, kind),
        inner => gradient_columns(out, y, g, inner, kind),
    });
}

/// Hands parts of the operands to tasks: several rows at once, or one `[length, inner]` at a time.
fn slabs<T: Float>(out: &mut [T], operands: [&[T]; 2], along: Along, f: impl Fn(&mut [T], [&[T]; 2]) + Sync) {
    let slab = along.length.saturating_mul(along.inner);
    assert!(out.len() == along.outer.saturating_mul(slab) && operands.iter().all(|o| o.len() == out.len()));
    if out.is_empty() {
        return;
    }
    let out = SharedSlice::new(out);
    parallel_blocks(along.outer, GRAIN.div_ceil(slab), |start, end| {
        let at_once = if along.inner == 1 { end - start } else { 1 };
        for i in (start..end).step_by(at_once) {
            let range = i * slab..(i + at_once) * slab;
            // SAFETY: each slab belongs to one task.
            let out = unsafe { out.part(range.start, range.len()) };
            f(out, operands.map(|o| &o[range.clone()]));
        }
    });
}

/// The larger one; NaN is passed on later, by the sum.
#[inline(always)]
fn larger<T: Float>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

#[inline(always)]
fn divide<T: Float>(out: &mut [T], by: T) {
    let scale = T::ONE / by;
    for o in out.iter_mut() {
        *o = *o * scale;
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn softmax_rows<T: Float>(out: &mut [T], x: &[T], length: usize, kind: Kind) {
        for (out, x) in out.chunks_exact_mut(length).zip(x.chunks_exact(length)) {
            let max = fold(x, -T::INFINITY, |_, x| x, larger);
            if kind == Kind::Safe && max == -T::INFINITY {
                out.fill(T::ZERO);
                continue;
            }
            let sum = T::exponentials(out, x, max);
            if kind == Kind::Log {
                let ln = sum.ln();
                for (o, &x) in out.iter_mut().zip(x) {
                    *o = x - max - ln;
                }
            } else {
                divide(out, sum);
            }
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn rows_and_logs<T: Float>(out: &mut [T], logs: &mut [T], x: &[T], length: usize) {
        for ((out, x), log) in out.chunks_exact_mut(length).zip(x.chunks_exact(length)).zip(logs) {
            let max = fold(x, -T::INFINITY, |_, x| x, larger);
            let sum = T::exponentials(out, x, max);
            *log = max + sum.ln();
            divide(out, sum);
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn softmax_columns<T: Float>(out: &mut [T], x: &[T], inner: usize, kind: Kind) {
        for start in (0..inner).step_by(LANES) {
            let n = LANES.min(inner - start);
            let (mut max, mut sum) = ([-T::INFINITY; LANES], [T::ZERO; LANES]);
            for row in x.chunks_exact(inner) {
                for (m, &x) in max.iter_mut().zip(&row[start..start + n]) {
                    *m = larger(*m, x);
                }
            }
            if kind == Kind::Safe {
                // With any finite center the exponentials of minus infinity are zero, and so is their softmax.
                for (m, s) in max.iter_mut().zip(&mut sum) {
                    if *m == -T::INFINITY {
                        (*m, *s) = (T::ZERO, T::ONE);
                    }
                }
            }
            for (row, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(inner)) {
                let (row, out) = (&row[start..start + n], &mut out[start..start + n]);
                for l in 0..n {
                    out[l] = (row[l] - max[l]).exp();
                    sum[l] += out[l];
                }
            }
            for s in &mut sum {
                *s = if kind == Kind::Log { s.ln() } else { T::ONE / *s };
            }
            for (row, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(inner)) {
                let (row, out) = (&row[start..start + n], &mut out[start..start + n]);
                for l in 0..n {
                    out[l] = if kind == Kind::Log { row[l] - max[l] - sum[l] } else { out[l] * sum[l] };
                }
            }
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn gradient_rows<T: Float>(out: &mut [T], y: &[T], g: &[T], length: usize, kind: Kind) {
        let rows = y.chunks_exact(length).zip(g.chunks_exact(length));
        for (out, (y, g)) in out.chunks_exact_mut(length).zip(rows) {
            if kind == Kind::Log {
                let sum = fold(g, T::ZERO, |_, g| g, |a, b| a + b);
                for ((o, &y), &g) in out.iter_mut().zip(y).zip(g) {
                    *o = g - y.exp() * sum;
                }
            } else {
                let sum = fold(g, T::ZERO, |i, g| g * y[i], |a, b| a + b);
                for ((o, &y), &g) in out.iter_mut().zip(y).zip(g) {
                    *o = y * (g - sum);
                }
            }
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn gradient_columns<T: Float>(out: &mut [T], y: &[T], g: &[T], inner: usize, kind: Kind) {
        for start in (0..inner).step_by(LANES) {
            let n = LANES.min(inner - start);
            let mut sum = [T::ZERO; LANES];
            for (y, g) in y.chunks_exact(inner).zip(g.chunks_exact(inner)) {
                let (y, g) = (&y[start..start + n], &g[start..start + n]);
                for l in 0..n {
                    sum[l] += if kind == Kind::Log { g[l] } else { g[l] * y[l] };
                }
            }
            let rows = y.chunks_exact(inner).zip(g.chunks_exact(inner));
            for (out, (y, g)) in out.chunks_exact_mut(inner).zip(rows) {
                let (out, y, g) = (&mut out[start..start + n], &y[start..start + n], &g[start..start + n]);
                for l in 0..n {
                    out[l] = if kind == Kind::Log { g[l] - y[l].exp() * sum[l] } else { y[l] * (g[l] - sum[l]) };
                }
            }
        }
    }
}
