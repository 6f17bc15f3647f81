//! Sums of two terms of every element for each of several rows.

use crate::dtype::Float;
use crate::kernels::arch::{self, Kernel, Vector};

/// The number of lanes.
pub const LANES: usize = 32;
/// The number of rows that are summed in the element's type.
pub(super) const CHUNK: usize = 64;

/// `L` elements starting at `at`.
#[inline(always)]
pub fn lanes<T, const L: usize>(p: &[T], at: usize) -> &[T; L] {
    p[at..at + L].try_into().expect("as many as lanes")
}

/// Two terms of each element of a row.
#[allow(clippy::len_without_is_empty)]
pub trait Pairs<T> {
    /// The number of elements.
    fn len(&self) -> usize;
    /// The terms of `L` elements starting at `at`. Implementations are `#[inline(always)]`.
    fn pairs<const L: usize>(&self, at: usize) -> [[T; L]; 2];
}

/// The sums of the two terms of rows of one length: in the element's type over chunks, in `f64` over their sums.
///
/// The lanes of several rows are written to memory before they are added up: from a sum of lanes in registers compilers make
/// worse code than from all of the rest.
#[inline(always)]
pub fn row_sums<T: Float, R: Pairs<T>>(row: impl Fn(usize) -> R, first: &mut [f64], second: &mut [f64]) {
    const BATCH: usize = 16;
    /// Vectors that lie in two cache lines would take twice as long.
    #[repr(align(64))]
    struct Aligned<T>(T);
    let mut lanes = Aligned([[[T::ZERO; LANES]; BATCH]; 2]);
    let mut sums = [0.0; BATCH];
    for start in (0..first.len()).step_by(BATCH) {
        let n = BATCH.min(first.len() - start);
        let length = row(start).len();
        for from in (0..length.max(1)).step_by(CHUNK * LANES) {
            let end = length.min(from + CHUNK * LANES);
            let [s, q] = &mut lanes.0;
            for (i, (s, q)) in s.iter_mut().zip(q).enumerate().take(n) {
                sum_chunk(&row(start + i), from, end, s, q);
            }
            for (out, lanes) in [&mut *first, &mut *second].into_iter().zip(&lanes.0) {
                T::sum_lanes(&lanes[..n], &mut sums[..n]);
                for (out, sum) in out[start..start + n].iter_mut().zip(&sums) {
                    *out = if from == 0 { *sum } else { *out + *sum };
                }
            }
        }
    }
}

/// The sums of the terms of the elements from `from` to `end`, in so many lanes.
#[inline(always)]
fn sum_chunk<T: Float>(row: &impl Pairs<T>, from: usize, end: usize, s: &mut [T; LANES], q: &mut [T; LANES]) {
    let (mut first, mut second) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    let mut at = from;
    while at + LANES <= end {
        let [a, b] = row.pairs::<LANES>(at);
        for l in 0..LANES {
            first[l] += a[l];
            second[l] += b[l];
        }
        at += LANES;
    }
    (*s, *q) = (first, second);
    for i in at..end {
        let [[a], [b]] = row.pairs::<1>(i);
        s[i - at] += a;
        q[i - at] += b;
    }
}

/// The sum of each list of lanes.
pub(crate) fn sum_f32_lanes(lists: &[[f32; LANES]], out: &mut [f64]) {
    struct Sums<'a>(&'a [[f32; LANES]], &'a mut [f64]);
    impl Kernel for Sums<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            for (list, out) in self.0.iter().zip(self.1) {
                // SAFETY: the list has whole vectors.
                let vector = |i: usize| unsafe { V::load(list[i * V::LANES..].as_ptr()) };
                let mut sum = vector(0);
                for i in 1..LANES / V::LANES {
                    sum = sum.add(vector(i));
                }
                *out = f64::from(sum.sum());
            }
        }
    }
    arch::run(Sums(lists, out));
}

/// The sum of each list of lanes.
pub(crate) fn sum_f64_lanes(lists: &[[f64; LANES]], out: &mut [f64]) {
    for (list, out) in lists.iter().zip(out) {
        *out = (0..8).map(|l| (list[l] + list[l + 8]) + (list[l + 16] + list[l + 24])).sum();
    }
}
