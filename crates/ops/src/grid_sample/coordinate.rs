//! Coordinates along one dimension of an image: the pixels around each, and their weights.

use super::{GridPadding, GridSampleMode, GridSampleOptions};
use crate::kernels::grid_sample::{AxisTaps, NONE};
use tapegrad_tape::{Float, Tensor, Var, multiversion};

/// The parameter of the cubic kernel.
const A: f64 = -0.75;

/// The same as [`AxisTaps`], for a whole batch and with differentiable weights.
pub(super) struct Coordinates {
    pub(super) index: Vec<Vec<u32>>,
    pub(super) weight: Vec<Var>,
}

/// A coordinate in pixels, and its derivative for the point.
#[inline(always)]
fn in_pixels<T: Float>(x: T, size: usize, align_corners: bool) -> (T, T) {
    let (n, half) = (T::from_f64(size as f64), T::from_f64(0.5));
    if align_corners {
        let slope = (n - T::ONE) * half;
        ((x + T::ONE) * slope, slope)
    } else {
        ((x + T::ONE) * (n * half) - half, n * half)
    }
}

/// A coordinate brought inside the image, and its derivative, as PyTorch has them.
#[inline(always)]
fn padded<T: Float>(x: T, size: usize, o: GridSampleOptions) -> (T, T) {
    let last = T::from_f64(size as f64 - 1.0);
    let clip = |x: T, slope: T| {
        if x <= T::ZERO || x.is_nan() {
            (T::ZERO, T::ZERO)
        } else if x >= last {
            (last, T::ZERO)
        } else {
            (x, slope)
        }
    };
    match o.padding_mode {
        GridPadding::Zeros => (x, T::ONE),
        GridPadding::Border => clip(x, T::ONE),
        GridPadding::Reflection => {
            let (low, span) =
                if o.align_corners { (T::ZERO, last) } else { (T::from_f64(-0.5), T::from_f64(size as f64)) };
            if span == T::ZERO {
                return (T::ZERO, T::ZERO);
            }
            let (distance, slope) = if x - low < T::ZERO { (low - x, -T::ONE) } else { (x - low, T::ONE) };
            let flips = (distance / span).floor();
            let extra = distance - flips * span;
            let even = (flips * T::from_f64(0.5)).floor() * T::from_f64(2.0) == flips;
            let (x, slope) = if even { (extra + low, slope) } else { (span - extra + low, -slope) };
            clip(x, slope)
        }
    }
}

/// The index of a pixel, if it is inside.
#[inline(always)]
fn inside<T: Float>(x: T, size: usize) -> u32 {
    if x >= T::ZERO && x < T::from_f64(size as f64) { x.to_f64() as u32 } else { NONE }
}

/// To the nearest integer, halves to the even one.
#[inline(always)]
fn round<T: Float>(x: T) -> T {
    T::from_f64(x.to_f64().round_ties_even())
}

/// The pixels around a point: calls `put` with index, weight and derivative of the weight for the coordinate. Returns
/// the offset from the first pixel that the weights are functions of, and its derivative for the point.
#[inline(always)]
fn taps<T: Float>(point: T, size: usize, o: GridSampleOptions, mut put: impl FnMut(u32, T, T)) -> (T, T) {
    let (x, slope) = in_pixels(point, size, o.align_corners);
    match o.mode {
        GridSampleMode::Nearest => {
            let (x, _) = padded(x, size, o);
            put(inside(round(x), size), T::ONE, T::ZERO);
            (T::ZERO, T::ZERO)
        }
        GridSampleMode::Bilinear => {
            let (x, inner) = padded(x, size, o);
            let low = x.floor();
            let (t, slope) = (x - low, slope * inner);
            put(inside(low, size), T::ONE - t, -slope);
            put(inside(low + T::ONE, size), t, slope);
            (t, slope)
        }
        GridSampleMode::Bicubic => {
            let low = x.floor();
            let t = x - low;
            let (weights, slopes) = cubic(t);
            for k in 0..4 {
                let (at, _) = padded(low + T::from_f64(k as f64 - 1.0), size, o);
                put(inside(round(at), size), weights[k], slopes[k] * slope);
            }
            (t, slope)
        }
    }
}

/// The weights of the four pixels around a point that lies `t` after the second, and their derivatives.
#[inline(always)]
fn cubic<T: Float>(t: T) -> ([T; 4], [T; 4]) {
    let c = T::from_f64;
    let near = |x: T| {
        ((c(A + 2.0) * x - c(A + 3.0)) * x * x + T::ONE, (c(3.0 * (A + 2.0)) * x - c(2.0 * (A + 3.0))) * x)
    };
    let far = |x: T| {
        (
            ((c(A) * x - c(5.0 * A)) * x + c(8.0 * A)) * x - c(4.0 * A),
            (c(3.0 * A) * x - c(10.0 * A)) * x + c(8.0 * A),
        )
    };
    let parts = [far(t + T::ONE), near(t), near(T::ONE - t), far(c(2.0) - t)];
    let sign = [T::ONE, T::ONE, -T::ONE, -T::ONE];
    (parts.map(|p| p.0), std::array::from_fn(|k| sign[k] * parts[k].1))
}

/// The taps of a point along one dimension.
pub(super) fn tap_count(mode: GridSampleMode) -> usize {
    match mode {
        GridSampleMode::Nearest => 1,
        GridSampleMode::Bilinear => 2,
        GridSampleMode::Bicubic => 4,
    }
}

multiversion! {
    vectors of T;
    /// The pixels along one dimension around each point, in lists that hold no pixels yet.
    pub(super) fn fill<T: Float>(all: &mut AxisTaps<T>, points: &[T], size: usize, o: GridSampleOptions) {
        // With constant options the loops have no branches.
        match (o.mode, o.padding_mode) {
            (GridSampleMode::Bilinear, GridPadding::Zeros) => {
                pairs(all, points, size, GridSampleOptions { padding_mode: GridPadding::Zeros, ..o });
            }
            (GridSampleMode::Bilinear, GridPadding::Border) => {
                pairs(all, points, size, GridSampleOptions { padding_mode: GridPadding::Border, ..o });
            }
            (GridSampleMode::Bilinear, GridPadding::Reflection) => {
                pairs(all, points, size, GridSampleOptions { padding_mode: GridPadding::Reflection, ..o });
            }
            _ => {
                for (j, &point) in points.iter().enumerate() {
                    let mut at = j;
                    taps(point, size, o, |i, w, s| {
                        (all.index[at], all.weight[at], all.slope[at]) = counted(i, w, s);
                        at += points.len();
                    });
                }
            }
        }
    }
}

/// Outside no weight counts, also where the point is NaN.
#[inline(always)]
fn counted<T: Float>(i: u32, w: T, s: T) -> (u32, T, T) {
    if i == NONE { (NONE, T::ZERO, T::ZERO) } else { (i, w, s) }
}

/// [`fill`] for linear interpolation: two taps a point.
#[inline(always)]
fn pairs<T: Float>(all: &mut AxisTaps<T>, points: &[T], size: usize, o: GridSampleOptions) {
    let (n, o) = (points.len(), GridSampleOptions { mode: GridSampleMode::Bilinear, ..o });
    let (i, j) = all.index.split_at_mut(n);
    let (u, v) = all.weight.split_at_mut(n);
    let (a, b) = all.slope.split_at_mut(n);
    let (j, v, b) = (&mut j[..n], &mut v[..n], &mut b[..n]);
    for k in 0..n {
        let (mut pair, mut tap) = ([(NONE, T::ZERO, T::ZERO); 2], 0);
        taps(points[k], size, o, |i, w, s| {
            pair[tap] = counted(i, w, s);
            tap += 1;
        });
        [(i[k], u[k], a[k]), (j[k], v[k], b[k])] = pair;
    }
}

/// The same for the points of a batch, `[N, count]`, as differentiable functions of them.
pub(super) fn coordinates(points: &Var, size: usize, o: GridSampleOptions) -> Coordinates {
    fn parts<T: Float>(points: &Var, size: usize, o: GridSampleOptions) -> (Vec<Vec<u32>>, Vec<T>, Vec<T>) {
        let mut index = vec![Vec::new(); tap_count(o.mode)];
        let (mut offset, mut slope) = (Vec::new(), Vec::new());
        for point in points.to_vec::<T>() {
            let mut k = 0;
            let (t, s) = taps(point, size, o, |i, _, _| {
                index[k].push(i);
                k += 1;
            });
            offset.push(t);
            slope.push(s);
        }
        (index, offset, slope)
    }
    let shape = points.shape();
    let (index, t) = tapegrad_tape::dispatch!(float: points.dtype(), "grid_sample", T => {
        let (index, offset, slope) = parts::<T>(points, size, o);
        let slope = Var::from(Tensor::from_vec(slope, shape));
        let offset = Var::from(Tensor::from_vec(offset, shape));
        (index, (points - points.detach()) * slope + offset)
    });
    let weight = match o.mode {
        GridSampleMode::Nearest => vec![t.ones_like()],
        GridSampleMode::Bilinear => vec![1.0 - &t, t],
        GridSampleMode::Bicubic => {
            let near = |x: &Var| (x * (A + 2.0) - (A + 3.0)) * x * x + 1.0;
            let far = |x: &Var| ((x * A - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
            vec![far(&(&t + 1.0)), near(&t), near(&(1.0 - &t)), far(&(2.0 - &t))]
        }
    };
    Coordinates { index, weight }
}
