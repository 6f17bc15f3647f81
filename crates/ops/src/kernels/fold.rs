//! Reductions of slices, several lanes at a time.

use tapegrad_tape::Float;

/// The number of lanes.
pub(crate) const LANES: usize = 16;
/// The number of elements that are summed in their own type.
const CHUNK: usize = 2048;

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
    let mut result = start;
    for l in lanes {
        result = join(result, l);
    }
    result
}

/// The sum of `f` of all elements: in the element's type over chunks, in `f64` over their sums.
#[inline(always)]
pub(crate) fn sum<T: Float>(x: &[T], f: impl Fn(usize, T) -> T) -> f64 {
    let mut total = 0.0;
    for (i, x) in x.chunks(CHUNK).enumerate() {
        total += fold(x, T::ZERO, |l, x| f(i * CHUNK + l, x), |a, b| a + b).to_f64();
    }
    total
}

/// The sums of two terms of all elements, each as [`sum`].
#[inline(always)]
pub(crate) fn sum_pair<T: Float>(x: &[T], f: impl Fn(usize, T) -> (T, T)) -> (f64, f64) {
    let (mut first, mut second) = (0.0, 0.0);
    for (i, x) in x.chunks(CHUNK).enumerate() {
        let (mut a, mut b) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        let whole = x.len() / LANES * LANES;
        for (chunk, x) in x[..whole].chunks_exact(LANES).enumerate() {
            for l in 0..LANES {
                let (s, t) = f(i * CHUNK + chunk * LANES + l, x[l]);
                a[l] += s;
                b[l] += t;
            }
        }
        for l in whole..x.len() {
            let (s, t) = f(i * CHUNK + l, x[l]);
            a[l - whole] += s;
            b[l - whole] += t;
        }
        let (mut s, mut t) = ([T::ZERO; 4], [T::ZERO; 4]);
        for l in 0..LANES {
            s[l % 4] += a[l];
            t[l % 4] += b[l];
        }
        first += ((s[0] + s[1]) + (s[2] + s[3])).to_f64();
        second += ((t[0] + t[1]) + (t[2] + t[3])).to_f64();
    }
    (first, second)
}

/// `a - b` where only rounding can make it negative, then zero; a NaN stays.
#[inline(always)]
pub(crate) fn difference(a: f64, b: f64) -> f64 {
    if a < b { 0.0 } else { a - b }
}
