//! Sums and maps by channel, for tensors whose channels are contiguous or interleaved.
//!
//! A normalization needs two passes: one that sums two terms of every element for each channel, and one that maps every
//! element with its channel's parameters. Both read memory in its order, a fixed number of lanes at a time. Sums are in
//! the element's type over chunks and in `f64` over their sums; chunks and tasks depend on the sizes alone, so results
//! are bit-identical for any number of threads.
//!
//! Far from zero, rounding a mean to the element's type is an error as large as the differences of the elements. Code
//! that centers by a rounded mean adds its [error](Centers), in `f64`, to the terms that do not depend on the element.

mod kinds;

use super::fold::difference;
use tapegrad_tape::Float;
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;

pub use kinds::{
    Affine, AffineAddRelu, AffineRelu, AffineRelu6, Gradient, Map, Powers, Products, Relu6Gradient,
    Relu6Products, ReluGradient, ReluProducts, Terms,
};

/// The number of lanes.
const LANES: usize = 32;
/// The number of rows that are summed in the element's type.
const CHUNK: usize = 64;
/// The fewest elements in a task.
const GRAIN: usize = 1 << 15;
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

    fn len(self) -> usize {
        self.channels().saturating_mul(self.count())
    }
}

/// The means of channels in the type of their elements.
pub struct Centers<T> {
    /// As rounded to the type.
    pub rounded: Vec<T>,
    /// The means minus the rounded ones.
    pub off: Vec<f64>,
}

impl<T: Float> Centers<T> {
    /// Of these means.
    pub fn new(means: &[f64]) -> Centers<T> {
        let rounded: Vec<T> = means.iter().map(|&m| T::from_f64(m)).collect();
        let off = means.iter().zip(&rounded).map(|(m, r)| m - r.to_f64()).collect();
        Centers { rounded, off }
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
        centers = Centers::new(&found.means).rounded;
        found = centered_moments(x, flat, runs, &centers);
    }
    (found.mean, found.var)
}

struct Moments {
    /// Of the runs.
    means: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
    /// The variance is so small compared to the squares that the rounding errors matter.
    far: bool,
}

/// The moments of channels of `runs` runs each, from the distances of a run's elements from its center.
fn centered_moments<T: Float>(x: &[T], flat: Layout, runs: usize, centers: &[T]) -> Moments {
    let (s, q) = sums(Powers, x, x, flat, [centers; 3]);
    let (size, channels) = (flat.count() as f64, flat.channels() / runs);
    let means: Vec<f64> = centers.iter().zip(&s).map(|(c, s)| c.to_f64() + s / size).collect();
    let mut mean = vec![0.0; channels];
    for row in means.chunks_exact(channels) {
        mean.iter_mut().zip(row).for_each(|(m, r)| *m += r);
    }
    mean.iter_mut().for_each(|m| *m /= runs as f64);
    let (mut squares, mut about) = (vec![0.0; channels], vec![0.0; channels]);
    let sums = s.chunks_exact(channels).zip(q.chunks_exact(channels));
    for (row, (s, q)) in means.chunks_exact(channels).zip(sums) {
        for c in 0..channels {
            let apart = row[c] - mean[c];
            squares[c] += difference(q[c], s[c] * s[c] / size) + size * apart * apart;
            about[c] += q[c];
        }
    }
    let far = about.iter().zip(&squares).any(|(q, s)| *q > MAX_RATIO * s);
    let var = squares.iter().map(|s| s / (runs as f64 * size)).collect();
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
    let mut total = vec![0.0; 2 * channels];
    match layout {
        Layout::First { batch, size, .. } => {
            let runs = batch * channels;
            let mut parts = vec![0.0; 2 * runs];
            let shared = SharedSlice::new(&mut parts);
            tasks(runs, size, |start, end| {
                // SAFETY: each run belongs to one task.
                let parts = unsafe { shared.part(2 * start, 2 * (end - start)) };
                let range = start * size..end * size;
                sum_runs(kind, &x[range.clone()], &g[range], size, start, p, parts);
            });
            for (r, part) in parts.chunks_exact(2).enumerate() {
                total[r % channels] += part[0];
                total[channels + r % channels] += part[1];
            }
        }
        Layout::Last { rows, .. } => {
            let wide = Wide::new(rows, channels);
            let p = p.map(|p| wide.tile(p));
            let tiles = [&p[0][..], &p[1], &p[2]];
            let blocks = task_count(wide.rows, wide.width);
            let mut parts = vec![0.0; (blocks + 1) * 2 * wide.width];
            let shared = SharedSlice::new(&mut parts);
            let length = wide.rows.div_ceil(blocks.max(1));
            parallel_for(blocks, |i| {
                let (start, end) = ((i * length).min(wide.rows), ((i + 1) * length).min(wide.rows));
                // SAFETY: each task has its own part.
                let part = unsafe { shared.part(i * 2 * wide.width, 2 * wide.width) };
                let range = start * wide.width..end * wide.width;
                sum_rows(kind, &x[range.clone()], &g[range], wide.width, tiles, part);
            });
            let rest = wide.rows * wide.width;
            if rest < x.len() {
                let width = x.len() - rest;
                // One more row, shorter than the others: its second sums stand behind `width` first ones.
                let mut part = vec![0.0; 2 * width];
                sum_rows(kind, &x[rest..], &g[rest..], width, tiles.map(|p| &p[..width]), &mut part);
                let last = &mut parts[blocks * 2 * wide.width..];
                last[..width].copy_from_slice(&part[..width]);
                last[wide.width..wide.width + width].copy_from_slice(&part[width..]);
            }
            for part in parts.chunks_exact(2 * wide.width) {
                for (half, sums) in part.chunks_exact(wide.width).enumerate() {
                    for row in sums.chunks_exact(channels) {
                        for (t, s) in total[half * channels..].iter_mut().zip(row) {
                            *t += s;
                        }
                    }
                }
            }
        }
    }
    let second = total.split_off(channels);
    (total, second)
}

/// Maps every element with its channel's parameters. A function of one operand is given it twice.
pub fn map<T: Float, K: Map<T>>(kind: K, out: &mut [T], x: &[T], g: &[T], layout: Layout, p: [&[T]; 5]) {
    assert!(out.len() == layout.len() && x.len() == out.len() && g.len() == out.len());
    assert!(p.iter().all(|p| p.len() == layout.channels()));
    let channels = layout.channels();
    let out = SharedSlice::new(out);
    match layout {
        Layout::First { batch, size, .. } => tasks_backward(batch * channels, size, |start, end| {
            let range = start * size..end * size;
            // SAFETY: each run belongs to one task.
            let out = unsafe { out.part(range.start, range.len()) };
            map_runs(kind, out, &x[range.clone()], &g[range], size, start, p);
        }),
        Layout::Last { rows, .. } => {
            let wide = Wide::new(rows, channels);
            let p = p.map(|p| wide.tile(p));
            let tiles = [&p[0][..], &p[1], &p[2], &p[3], &p[4]];
            tasks_backward(wide.rows, wide.width, |start, end| {
                let range = start * wide.width..end * wide.width;
                // SAFETY: each row belongs to one task.
                let out = unsafe { out.part(range.start, range.len()) };
                map_rows(kind, out, &x[range.clone()], &g[range], wide.width, tiles);
            });
            let rest = wide.rows * wide.width;
            if rest < x.len() {
                let width = x.len() - rest;
                // SAFETY: all tasks have ended, and they wrote the elements before.
                let out = unsafe { out.part(rest, width) };
                map_rows(kind, out, &x[rest..], &g[rest..], width, tiles.map(|p| &p[..width]));
            }
        }
    }
}

/// Rows merged until they fill whole groups of lanes.
struct Wide {
    /// Whole wide rows; fewer elements than one may be left over.
    rows: usize,
    width: usize,
    repeats: usize,
}

impl Wide {
    fn new(rows: usize, channels: usize) -> Wide {
        // Long rows lose little in their last, partial group.
        let shared = 1 << channels.trailing_zeros().min(LANES.ilog2());
        let repeats = if channels >= 16 * LANES { 1 } else { LANES / shared };
        Wide { rows: rows / repeats, width: repeats * channels, repeats }
    }

    fn tile<T: Copy>(&self, p: &[T]) -> Vec<T> {
        p.repeat(self.repeats)
    }
}

fn task_count(rows: usize, width: usize) -> usize {
    (rows * width / GRAIN).clamp(1, 64).min(rows)
}

/// Cuts rows of `width` elements into tasks.
fn tasks(rows: usize, width: usize, task: impl Fn(usize, usize) + Sync) {
    let count = task_count(rows, width);
    let length = rows.div_ceil(count.max(1));
    parallel_for(count, |i| task((i * length).min(rows), ((i + 1) * length).min(rows)));
}

/// Like [`tasks`], from the last to the first: what the previous pass read last is still cached.
fn tasks_backward(rows: usize, width: usize, task: impl Fn(usize, usize) + Sync) {
    let count = task_count(rows, width);
    let length = rows.div_ceil(count.max(1));
    parallel_for(count, |i| {
        let i = count - 1 - i;
        task((i * length).min(rows), ((i + 1) * length).min(rows));
    });
}

/// Adds the terms of `LANES` consecutive elements.
#[inline(always)]
fn add_lanes<T: Float, K: Terms<T>>(
    s: &mut [T; LANES],
    q: &mut [T; LANES],
    x: &[T],
    g: &[T],
    p: [&[T; LANES]; 3],
) {
    let x: &[T; LANES] = x.try_into().expect("as many elements as lanes");
    let g: &[T; LANES] = if K::BINARY { g.try_into().expect("as many elements as lanes") } else { x };
    for l in 0..LANES {
        let (a, b) = K::terms(x[l], g[l], [p[0][l], p[1][l], p[2][l]]);
        s[l] += a;
        q[l] += b;
    }
}

/// `LANES` elements starting at `at`.
#[inline(always)]
fn lanes<T>(p: &[T], at: usize) -> &[T; LANES] {
    p[at..at + LANES].try_into().expect("as many as lanes")
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// Sums down the columns of rows of `width` elements; first terms, then `width` second ones.
    fn sum_rows<T: Float, K: Terms<T>>(_kind: K, x: &[T], g: &[T], width: usize, p: [&[T]; 3], out: &mut [f64]) {
        let (first, second) = out.split_at_mut(width);
        for (x, g) in x.chunks(CHUNK * width).zip(g.chunks(CHUNK * width)) {
            let rows = x.len() / width;
            let mut at = 0;
            while at + LANES <= width {
                let [p0, p1, p2] = p;
                let lanes = [lanes(p0, at), lanes(p1, at), lanes(p2, at)];
                let (mut s, mut q) = ([T::ZERO; LANES], [T::ZERO; LANES]);
                for r in 0..rows {
                    let i = r * width + at;
                    add_lanes::<T, K>(&mut s, &mut q, &x[i..i + LANES], &g[i..i + LANES], lanes);
                }
                for l in 0..LANES {
                    first[at + l] += s[l].to_f64();
                    second[at + l] += q[l].to_f64();
                }
                at += LANES;
            }
            for column in at..width {
                let (mut s, mut q) = (T::ZERO, T::ZERO);
                for r in 0..rows {
                    let i = r * width + column;
                    let (a, b) = K::terms(x[i], g[i], [p[0][column], p[1][column], p[2][column]]);
                    s += a;
                    q += b;
                }
                first[column] += s.to_f64();
                second[column] += q.to_f64();
            }
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// Sums along runs of `size` elements, of which the first is run number `start`; both terms of a run are adjacent.
    fn sum_runs<T: Float, K: Terms<T>>(_kind: K, x: &[T], g: &[T], size: usize, start: usize, p: [&[T]; 3], out: &mut [f64]) {
        let channels = p[0].len();
        let mut channel = start % channels;
        for (r, out) in out.chunks_exact_mut(2).enumerate() {
            let p = [p[0][channel], p[1][channel], p[2][channel]];
            channel = if channel + 1 == channels { 0 } else { channel + 1 };
            let lanes = [[p[0]; LANES], [p[1]; LANES], [p[2]; LANES]];
            let lanes = [&lanes[0], &lanes[1], &lanes[2]];
            let (x, g) = (&x[r * size..(r + 1) * size], &g[r * size..(r + 1) * size]);
            for (x, g) in x.chunks(CHUNK * LANES).zip(g.chunks(CHUNK * LANES)) {
                let (mut s, mut q) = ([T::ZERO; LANES], [T::ZERO; LANES]);
                let whole = x.len() / LANES * LANES;
                let mut at = 0;
                while at < whole {
                    add_lanes::<T, K>(&mut s, &mut q, &x[at..at + LANES], &g[at..at + LANES], lanes);
                    at += LANES;
                }
                for i in whole..x.len() {
                    let (a, b) = K::terms(x[i], g[i], p);
                    s[i - whole] += a;
                    q[i - whole] += b;
                }
                out[0] += halve(s).to_f64();
                out[1] += halve(q).to_f64();
            }
        }
    }
}

/// The sum of all lanes, halved until one is left.
#[inline(always)]
fn halve<T: Float>(mut lanes: [T; LANES]) -> T {
    let mut n = LANES / 2;
    while n > 0 {
        for l in 0..n {
            lanes[l] += lanes[l + n];
        }
        n /= 2;
    }
    lanes[0]
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// Maps runs of `size` elements, of which the first is run number `start`.
    fn map_runs<T: Float, K: Map<T>>(
        _kind: K,
        out: &mut [T],
        x: &[T],
        g: &[T],
        size: usize,
        start: usize,
        p: [&[T]; 5],
    ) {
        let channels = p[0].len();
        let mut c = start % channels;
        for ((out, x), g) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(g.chunks_exact(size)) {
            let p = [p[0][c], p[1][c], p[2][c], p[3][c], p[4][c]];
            if K::BINARY {
                for i in 0..size {
                    out[i] = K::map(x[i], g[i], p);
                }
            } else {
                for i in 0..size {
                    out[i] = K::map(x[i], x[i], p);
                }
            }
            c = if c + 1 == channels { 0 } else { c + 1 };
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn map_rows<T: Float, K: Map<T>>(_kind: K, out: &mut [T], x: &[T], g: &[T], width: usize, p: [&[T]; 5]) {
        let g = if K::BINARY { g } else { x };
        for ((out, x), g) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(g.chunks_exact(width)) {
            // Whole arrays, so that the compiler omits bounds checks and vectorizes short rows, too.
            let mut groups = out.chunks_exact_mut(LANES);
            let mut at = 0;
            for out in &mut groups {
                let (x, g) = (lanes(x, at), lanes(g, at));
                let [p0, p1, p2, p3, p4] = p.map(|p| lanes(p, at));
                for i in 0..LANES {
                    out[i] = K::map(x[i], g[i], [p0[i], p1[i], p2[i], p3[i], p4[i]]);
                }
                at += LANES;
            }
            for (i, out) in (at..width).zip(groups.into_remainder()) {
                *out = K::map(x[i], g[i], p.map(|p| p[i]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;
    use proptest::prelude::*;

    fn channel(layout: Layout, i: usize) -> usize {
        match layout {
            Layout::First { channels, size, .. } => i / size % channels,
            Layout::Last { channels, .. } => i % channels,
        }
    }

    /// By definition, in `f64`.
    fn naive_moments(x: &[f64], layout: Layout) -> (Vec<f64>, Vec<f64>) {
        let n = layout.count() as f64;
        let (mut mean, mut var) = (vec![0.0; layout.channels()], vec![0.0; layout.channels()]);
        for (i, x) in x.iter().enumerate() {
            mean[channel(layout, i)] += x / n;
        }
        for (i, x) in x.iter().enumerate() {
            var[channel(layout, i)] += (x - mean[channel(layout, i)]).powi(2) / n;
        }
        (mean, var)
    }

    fn near(a: &[f64], b: &[f64], tolerance: f64) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * (1.0 + b.abs()))
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        let first = (1usize..4, 1usize..40, 1usize..200).prop_map(|(batch, channels, size)| Layout::First {
            batch,
            channels,
            size,
        });
        let last = (1usize..300, 1usize..100).prop_map(|(rows, channels)| Layout::Last { rows, channels });
        prop_oneof![first, last]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn both_layouts_by_definition(layout in layouts(), seed: u64) {
            let (x, g) = (numbers(layout.len(), seed), numbers(layout.len(), seed ^ 1));
            // Far from zero, variances by plain squares would be inaccurate.
            let x: Vec<f64> = x.iter().map(|x| x + 100.0).collect();
            let (mean, var) = naive_moments(&x, layout);
            let (m, v) = moments(&x, layout);
            prop_assert!(near(&m, &mean, 1e-12) && near(&v, &var, 1e-10));
            let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let (m, v) = moments(&single, layout);
            prop_assert!(near(&m, &mean, 1e-6) && near(&v, &var, 2e-4));

            let (s, q) = sums(Products, &x, &g, layout, [&mean; 3]);
            let (mut s2, mut q2) = (vec![0.0; mean.len()], vec![0.0; mean.len()]);
            for i in 0..x.len() {
                s2[channel(layout, i)] += g[i];
                q2[channel(layout, i)] += g[i] * (x[i] - mean[channel(layout, i)]);
            }
            prop_assert!(near(&s, &s2, 1e-10) && near(&q, &q2, 1e-10));

            let mut out = vec![0.0; x.len()];
            map(Gradient, &mut out, &x, &g, layout, [&mean, &var, &s, &q, &q]);
            for i in 0..x.len() {
                let c = channel(layout, i);
                let want = g[i] * var[c] - s[c] - (x[i] - mean[c]) * q[c];
                prop_assert!((out[i] - want).abs() <= 1e-12 * (1.0 + want.abs()));
            }
        }
    }

    #[test]
    fn not_a_number_stays() {
        for layout in
            [Layout::First { batch: 2, channels: 2, size: 3 }, Layout::Last { rows: 6, channels: 2 }]
        {
            let mut x = vec![1.0f32; 12];
            x[4] = f32::NAN;
            let (mean, var) = moments(&x, layout);
            let c = channel(layout, 4);
            assert!(mean[c].is_nan() && var[c].is_nan() && mean[1 - c] == 1.0 && var[1 - c] == 0.0);
        }
    }
}
