//! Reductions of slices, several lanes at a time.

use tapegrad_tape::Float;

/// The number of lanes.
pub(crate) const LANES: usize = 16;

/// `f` of all elements joined by `join`, `LANES` at a time.
#[inline(always)]
pub(crate) fn fold<T: Float>(x: &[T], start: T, f: impl Fn(usize, T) -> T, join: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; LANES];
    let whole = x.len() / LANES * LANES;
    for (chunk, x) in x[..whole].chunks_exact(LANES).enumerate() {
        for l in 0..LANES {
            lanes[l] = join(lanes[l], f(chunk * LANES + l, x[l]));
        }
    }
    for i in whole..x.len() {
        lanes[i - whole] = join(lanes[i - whole], f(i, x[i]));
    }
    join_lanes(lanes, join)
}

/// All lanes joined, in halves.
#[inline(always)]
fn join_lanes<T: Float>(mut lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let mut n = LANES / 2;
    while n > 0 {
        for l in 0..n {
            lanes[l] = join(lanes[l], lanes[l + n]);
        }
        n /= 2;
    }
    lanes[0]
}

/// `a - b` where only rounding can make it negative, then zero; a NaN stays.
#[inline(always)]
pub(crate) fn difference(a: f64, b: f64) -> f64 {
    if a < b { 0.0 } else { a - b }
}
