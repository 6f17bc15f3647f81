//! Sums of two terms of every element for each channel, for tensors whose channels are contiguous or interleaved; mean
//! and variance of each channel by these.
//!
//! Memory is read once, in its order, a fixed number of lanes at a time. Sums are in the element's type over chunks and in
//! `f64` over their sums; chunks and tasks depend on the sizes alone, so results are bit-identical for any number of
//! threads.

use crate::dtype::Float;
use crate::kernels::arch::{self, Kernel, Vector};
use crate::kernels::parallel::parallel_for;
use crate::kernels::shared::SharedSlice;
use std::marker::PhantomData;

/// The number of lanes.
pub const LANES: usize = 32;
/// The number of lanes for long rows of channels.
const WIDE_LANES: usize = 128;
/// The number of rows that are summed in the element's type.
const CHUNK: usize = 64;
/// The fewest elements in a task.
const GRAIN: usize = 1 << 15;
/// The most tasks of a call.
const MAX_TASKS: usize = 64;
/// The largest ratio of a mean square to the variance computed from it: that of a center 8 standard deviations away.
const MAX_RATIO: f64 = 64.0;

/// The layout of a tensor's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, channels, size]`: each channel is a run of `size` elements.
    First {
        /// Number of samples, each with all channels.
        batch: usize,
        /// Number of channels.
        channels: usize,
        /// Length of a run.
        size: usize,
    },
    /// `[rows, channels]`: the channels of a row are contiguous.
    Last {
        /// Number of rows.
        rows: usize,
        /// Number of channels.
        channels: usize,
    },
}

impl Layout {
    /// The number of channels.
    pub fn channels(self) -> usize {
        match self {
            Layout::First { channels, .. } | Layout::Last { channels, .. } => channels,
        }
    }

    /// Elements of one channel.
    pub fn count(self) -> usize {
        match self {
            Layout::First { batch, size, .. } => batch.saturating_mul(size),
            Layout::Last { rows, .. } => rows,
        }
    }

    /// Elements of all channels.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        self.channels().saturating_mul(self.count())
    }
}

/// Two terms of an element that are summed for its channel.
pub trait Terms<T>: Copy + Send + Sync {
    /// Whether there is a second operand.
    const BINARY: bool;
    /// The terms, from the element, that of the second operand, and three parameters of the channel, of which the
    /// first is its center.
    fn terms(x: T, g: T, p: [T; 3]) -> (T, T);
}

/// The sums of the centered elements and of their squares.
#[derive(Clone, Copy)]
pub struct Powers;

impl<T: Float> Terms<T> for Powers {
    const BINARY: bool = false;
    #[inline(always)]
    fn terms(x: T, _: T, [center, ..]: [T; 3]) -> (T, T) {
        let d = x - center;
        (d, d * d)
    }
}

/// Mean and biased variance of each channel.
///
/// Differences from an element near the mean are accurate, so channels (or their runs) are centered at their first
/// elements. If one of these is an outlier, the mean replaces it.
pub fn moments<T: Float>(x: &[T], layout: Layout) -> (Vec<f64>, Vec<f64>) {
    let channels = layout.channels();
    // Each run of a channel is centered separately, then the runs are joined.
    let (runs, flat) = match layout {
        Layout::First { batch, channels, size } => {
            (batch, Layout::First { batch: 1, channels: batch * channels, size })
        }
        Layout::Last { .. } => (1, layout),
    };
    let mut centers: Vec<T> = match layout {
        Layout::First { size, .. } => x.iter().step_by(size).copied().collect(),
        Layout::Last { .. } => x[..channels].to_vec(),
    };
    let mut found = centered_moments(x, flat, runs, &centers);
    if found.far {
        // Differences may overflow where the mean does not.
        for (c, (&mean, center)) in found.means.iter().zip(&mut centers).enumerate() {
            *center = T::from_f64(if mean.is_finite() { mean } else { exact_mean(x, flat, c) });
        }
        found = centered_moments(x, flat, runs, &centers);
    }
    (found.mean, found.var)
}

/// The mean of a channel, summed in `f64`.
fn exact_mean<T: Float>(x: &[T], layout: Layout, channel: usize) -> f64 {
    let sum: f64 = match layout {
        Layout::First { size, .. } => x[channel * size..][..size].iter().map(|x| x.to_f64()).sum(),
        Layout::Last { channels, .. } => x[channel..].iter().step_by(channels).map(|x| x.to_f64()).sum(),
    };
    sum / layout.count() as f64
}

struct Moments {
    /// Of the runs.
    means: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
    /// A variance is so small compared to the squares that the rounding errors matter, or a mean is not finite.
    far: bool,
}

/// The moments of channels of `runs` runs each, from the distances of a run's elements from its center.
fn centered_moments<T: Float>(x: &[T], flat: Layout, runs: usize, centers: &[T]) -> Moments {
    let (s, q) = sums(Powers, x, x, flat, [centers; 3]);
    let (size, channels) = (flat.count() as f64, flat.channels() / runs);
    let means: Vec<f64> = centers.iter().zip(&s).map(|(c, s)| c.to_f64() + s / size).collect();
    let mut mean = means.clone();
    if runs > 1 {
        let rest = mean.split_off(channels);
        for row in rest.chunks_exact(channels) {
            mean.iter_mut().zip(row).for_each(|(m, r)| *m += r);
        }
        mean.iter_mut().for_each(|m| *m /= runs as f64);
    }
    let (mut var, mut far) = (vec![0.0; channels], false);
    for (c, var) in var.iter_mut().enumerate() {
        let (mut squares, mut about) = (0.0, 0.0);
        for run in (c..s.len()).step_by(channels) {
            let apart = means[run] - mean[c];
            squares += not_negative(q[run] - s[run] * s[run] / size) + size * apart * apart;
            about += q[run];
        }
        far |= about > MAX_RATIO * squares || !mean[c].is_finite();
        *var = squares / (runs as f64 * size);
    }
    Moments { means, mean, var, far }
}

/// The sums of two terms of all elements of each channel. A function of one operand is given it twice.
pub fn sums<T: Float, K: Terms<T>>(
    kind: K,
    x: &[T],
    g: &[T],
    layout: Layout,
    p: [&[T]; 3],
) -> (Vec<f64>, Vec<f64>) {
    assert!(x.len() == layout.len() && g.len() == x.len());
    assert!(p.iter().all(|p| p.len() == layout.channels()));
    let channels = layout.channels();
    match layout {
        Layout::First { batch, size, .. } => {
            let runs = batch * channels;
            let piece = piece_length(runs, size);
            let pieces = size.div_ceil(piece);
            let mut parts = [vec![0.0; runs * pieces], vec![0.0; runs * pieces]];
            let shared = parts.each_mut().map(|part| SharedSlice::new(part));
            if pieces == 1 {
                tasks(runs, size, |start, end| {
                    // SAFETY: each run belongs to one task.
                    let parts = shared.each_ref().map(|part| unsafe { part.part(start, end - start) });
                    let range = start * size..end * size;
                    sum_runs(kind, &x[range.clone()], &g[range], size, start, p, parts);
                });
            } else {
                parallel_for(runs * pieces, |i| {
                    let (run, from) = (i / pieces, i % pieces * piece);
                    let range = run * size + from..run * size + size.min(from + piece);
                    // SAFETY: each task has its own part.
                    let parts = shared.each_ref().map(|part| unsafe { part.part(i, 1) });
                    sum_runs(kind, &x[range.clone()], &g[range.clone()], range.len(), run, p, parts);
                });
            }
            if parts[0].len() == channels {
                return parts.into();
            }
            let totals = parts.map(|parts| {
                let mut total = vec![0.0; channels];
                for row in parts.chunks_exact(channels * pieces) {
                    for (t, pieces) in total.iter_mut().zip(row.chunks_exact(pieces)) {
                        *t += pieces.iter().sum::<f64>();
                    }
                }
                total
            });
            totals.into()
        }
        Layout::Last { rows, .. } => {
            let wide = Wide::new(rows, channels);
            let p = p.map(|p| wide.tile(p));
            let tiles = [&p[0][..], &p[1], &p[2]];
            let blocks = task_count(wide.rows, wide.width);
            let mut parts = vec![0.0; blocks.max(1) * 2 * wide.width];
            let shared = SharedSlice::new(&mut parts);
            let length = wide.rows.div_ceil(blocks.max(1));
            parallel_for(blocks, |i| {
                let (start, end) = ((i * length).min(wide.rows), ((i + 1) * length).min(wide.rows));
                // SAFETY: each task has its own part.
                let part = unsafe { shared.part(i * 2 * wide.width, 2 * wide.width) };
                let range = start * wide.width..end * wide.width;
                sum_rows(
                    kind,
                    &x[range.clone()],
                    &g[range],
                    wide.width,
                    tiles,
                    part.split_at_mut(wide.width),
                );
            });
            let rest = wide.rows * wide.width;
            if rest < x.len() {
                // One more row, shorter than the others.
                let width = x.len() - rest;
                let (first, second) = parts.split_at_mut(wide.width);
                let out = (&mut first[..width], &mut second[..width]);
                sum_rows(kind, &x[rest..], &g[rest..], width, tiles.map(|p| &p[..width]), out);
            }
            if parts.len() == 2 * channels {
                let second = parts.split_off(channels);
                return (parts, second);
            }
            let mut total = vec![0.0; 2 * channels];
            for part in parts.chunks_exact(2 * wide.width) {
                for (half, sums) in part.chunks_exact(wide.width).enumerate() {
                    for row in sums.chunks_exact(channels) {
                        for (t, s) in total[half * channels..].iter_mut().zip(row) {
                            *t += s;
                        }
                    }
                }
            }
            let second = total.split_off(channels);
            (total, second)
        }
    }
}

/// Rows merged until they fill whole groups of lanes.
pub struct Wide {
    /// Whole wide rows; fewer elements than one may be left over.
    pub rows: usize,
    /// Elements of a wide row.
    pub width: usize,
    repeats: usize,
}

impl Wide {
    /// Of `rows` rows of `channels` elements.
    pub fn new(rows: usize, channels: usize) -> Wide {
        // Long rows lose little in their last, partial group.
        let shared = 1 << channels.trailing_zeros().min(LANES.ilog2());
        let repeats = if channels >= 16 * LANES { 1 } else { LANES / shared };
        Wide { rows: rows / repeats, width: repeats * channels, repeats }
    }

    /// The parameters of a wide row.
    pub fn tile<T: Copy>(&self, p: &[T]) -> Vec<T> {
        p.repeat(self.repeats)
    }
}

/// The length of the pieces that a run is cut into, where there are so few that each keeps several threads busy.
fn piece_length(runs: usize, size: usize) -> usize {
    if runs >= MAX_TASKS || size <= GRAIN {
        return size.max(1);
    }
    size.div_ceil(MAX_TASKS / runs).max(GRAIN).next_multiple_of(CHUNK * LANES)
}

/// The number of tasks for rows of `width` elements.
pub fn task_count(rows: usize, width: usize) -> usize {
    (rows * width / GRAIN).clamp(1, MAX_TASKS).min(rows)
}

/// Cuts rows of `width` elements into tasks.
fn tasks(rows: usize, width: usize, task: impl Fn(usize, usize) + Sync) {
    let count = task_count(rows, width);
    let length = rows.div_ceil(count.max(1));
    parallel_for(count, |i| task((i * length).min(rows), ((i + 1) * length).min(rows)));
}

/// `L` elements starting at `at`.
#[inline(always)]
pub fn lanes<T, const L: usize>(p: &[T], at: usize) -> &[T; L] {
    p[at..at + L].try_into().expect("as many as lanes")
}

crate::multiversion! {
    vectors of T;
    /// Adds the sums down the columns of rows of `width` elements to those of the first and the second terms.
    fn sum_rows<T: Float, K: Terms<T>>(_kind: K, x: &[T], g: &[T], width: usize, p: [&[T]; 3], out: (&mut [f64], &mut [f64])) {
        let (first, second) = out;
        for (x, g) in x.chunks(CHUNK * width).zip(g.chunks(CHUNK * width)) {
            let mut at = 0;
            // As many columns at once as fit the registers: long rows are read in longer pieces.
            while at + WIDE_LANES <= width {
                sum_columns::<T, K, WIDE_LANES>(x, g, width, p, at, first, second);
                at += WIDE_LANES;
            }
            while at + LANES <= width {
                sum_columns::<T, K, LANES>(x, g, width, p, at, first, second);
                at += LANES;
            }
            for column in at..width {
                sum_columns::<T, K, 1>(x, g, width, p, column, first, second);
            }
        }
    }
}

/// Adds the terms of `L` consecutive elements of each of `R` rows.
#[inline(always)]
fn add_terms<T: Float, K: Terms<T>, const L: usize, const R: usize>(
    s: &mut [T; L],
    q: &mut [T; L],
    x: &[T],
    g: &[T],
    p: [&[T; L]; 3],
    starts: [usize; R],
) {
    let x = starts.map(|at| lanes::<T, L>(x, at));
    let g = if K::BINARY { starts.map(|at| lanes::<T, L>(g, at)) } else { x };
    for l in 0..L {
        for r in 0..R {
            let (a, b) = K::terms(x[r][l], g[r][l], [p[0][l], p[1][l], p[2][l]]);
            s[l] += a;
            q[l] += b;
        }
    }
}

/// Sums down the `L` columns from `at` on, and adds the sums to those of their columns.
#[inline(always)]
fn sum_columns<T: Float, K: Terms<T>, const L: usize>(
    x: &[T],
    g: &[T],
    width: usize,
    p: [&[T]; 3],
    at: usize,
    first: &mut [f64],
    second: &mut [f64],
) {
    let [p0, p1, p2] = p;
    let p = [lanes(p0, at), lanes(p1, at), lanes(p2, at)];
    let (mut s, mut q) = ([T::ZERO; L], [T::ZERO; L]);
    let rows = x.len() / width;
    // Sums that exceed the registers are loaded and stored once for four rows.
    for r in (0..rows / 4 * 4).step_by(4) {
        add_terms::<T, K, L, 4>(&mut s, &mut q, x, g, p, [0, 1, 2, 3].map(|i| (r + i) * width + at));
    }
    for r in rows / 4 * 4..rows {
        add_terms::<T, K, L, 1>(&mut s, &mut q, x, g, p, [r * width + at]);
    }
    for l in 0..L {
        first[at + l] += s[l].to_f64();
        second[at + l] += q[l].to_f64();
    }
}

crate::multiversion! {
    vectors of T;
    /// Sums along runs of `size` elements, of which the first is run number `start`.
    fn sum_runs<T: Float, K: Terms<T>>(_kind: K, x: &[T], g: &[T], size: usize, start: usize, p: [&[T]; 3], out: [&mut [f64]; 2]) {
        let [first, second] = out;
        let channels = p[0].len();
        let run = |r: usize| {
            let channel = if start + r < channels { start + r } else { (start + r) % channels };
            let range = r * size..(r + 1) * size;
            Run::<T, K> { x: &x[range.clone()], g: &g[range], p: p.map(|p| p[channel]), kind: PhantomData }
        };
        row_sums(run, first, second);
    }
}

/// A run of a channel.
struct Run<'a, T, K> {
    x: &'a [T],
    g: &'a [T],
    p: [T; 3],
    kind: PhantomData<K>,
}

impl<T: Float, K: Terms<T>> Pairs<T> for Run<'_, T, K> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    fn pairs<const L: usize>(&self, at: usize) -> [[T; L]; 2] {
        let x = lanes::<T, L>(self.x, at);
        let g = if K::BINARY { lanes::<T, L>(self.g, at) } else { x };
        let mut out = [[T::ZERO; L]; 2];
        for l in 0..L {
            (out[0][l], out[1][l]) = K::terms(x[l], g[l], self.p);
        }
        out
    }
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

/// What only rounding can make negative is zero then; a NaN stays.
#[inline(always)]
fn not_negative(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set_num_threads;

    /// Numbers far from zero, of another mean in each channel.
    fn numbers(layout: Layout) -> Vec<f64> {
        let channel = |i: usize| match layout {
            Layout::First { channels, size, .. } => i / size % channels,
            Layout::Last { channels, .. } => i % channels,
        };
        (0..layout.len()).map(|i| 1e4 * (1.0 + channel(i) as f64) + (i * 7 % 31) as f64).collect()
    }

    fn exact(x: &[f64], layout: Layout, channel: usize) -> (f64, f64) {
        let of = |i: &usize| match layout {
            Layout::First { channels, size, .. } => i / size % channels == channel,
            Layout::Last { channels, .. } => i % channels == channel,
        };
        let values: Vec<f64> = (0..x.len()).filter(of).map(|i| x[i]).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn moments_of_every_length() {
        for n in (1..140).chain([2047, 2048, 2049, 5000]) {
            for layout in [
                Layout::First { batch: 1, channels: 3, size: n },
                Layout::First { batch: 2, channels: 3, size: n },
                Layout::Last { rows: 3, channels: n },
                Layout::Last { rows: n, channels: 3 },
            ] {
                let x = numbers(layout);
                let (mean, var) = moments(&x, layout);
                for c in 0..layout.channels().min(5) {
                    let (m, v) = exact(&x, layout, c);
                    assert!(
                        (mean[c] - m).abs() < 1e-8 * m && (var[c] - v).abs() < 1e-8 * (1.0 + v),
                        "{layout:?}"
                    );
                }
            }
        }
    }

    /// A first element far from the others, and differences that overflow.
    #[test]
    fn outliers() {
        for layout in
            [Layout::First { batch: 1, channels: 2, size: 3 }, Layout::Last { rows: 3, channels: 2 }]
        {
            let (mean, _) = moments(&[3e38f32, 3e38, 0.0, 0.0, -3e38, -3e38], layout);
            assert!(mean.iter().all(|m| m.is_finite()), "{layout:?}: {mean:?}");
        }
        let x: Vec<f32> = (0..10_000).map(|i| if i == 0 { 1e6 } else { 1.0 + i as f32 / 1e4 }).collect();
        let wide: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        for layout in [
            Layout::First { batch: 1, channels: 1, size: 10_000 },
            Layout::Last { rows: 10_000, channels: 1 },
        ] {
            let (mean, var) = moments(&x, layout);
            let (m, v) = exact(&wide, layout, 0);
            assert!((mean[0] / m - 1.0).abs() < 1e-6 && (var[0] / v - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn long_runs_have_the_same_bits_on_any_number_of_threads() {
        let layout = Layout::First { batch: 1, channels: 3, size: 300_001 };
        let x: Vec<f32> = numbers(layout).iter().map(|&x| x as f32).collect();
        set_num_threads(1);
        let one = moments(&x, layout);
        set_num_threads(3);
        assert_eq!(moments(&x, layout), one);
    }
}
