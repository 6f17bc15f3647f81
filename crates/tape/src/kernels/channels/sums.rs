//! Sums of two terms of every element for each channel.

use super::Layout;
use super::rows::{CHUNK, LANES, Pairs, lanes, row_sums};
use crate::dtype::Float;
use crate::kernels::parallel::parallel_for;
use crate::kernels::shared::SharedSlice;
use std::marker::PhantomData;

/// The number of lanes for long rows of channels.
const WIDE_LANES: usize = 128;
/// The fewest elements in a task.
const GRAIN: usize = 1 << 15;
/// The most tasks of a call.
const MAX_TASKS: usize = 64;

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
    // Loops: calls in arrays' `map` are not always inlined.
    let mut rows = [[lanes::<T, L>(x, starts[0]); 2]; R];
    for (row, at) in rows.iter_mut().zip(starts) {
        let x = lanes(x, at);
        *row = [x, if K::BINARY { lanes(g, at) } else { x }];
    }
    for l in 0..L {
        for [x, g] in rows {
            let (a, b) = K::terms(x[l], g[l], [p[0][l], p[1][l], p[2][l]]);
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
        let start = r * width + at;
        let starts = [start, start + width, start + 2 * width, start + 3 * width];
        add_terms::<T, K, L, 4>(&mut s, &mut q, x, g, p, starts);
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
            let p = [p[0][channel], p[1][channel], p[2][channel]];
            Run::<T, K> { x: &x[range.clone()], g: &g[range], p, kind: PhantomData }
        };
        row_sums(run, first, second);
    }
}

/// A run of a channel.
pub struct Run<'a, T, K> {
    x: &'a [T],
    g: &'a [T],
    p: [T; 3],
    kind: PhantomData<K>,
}

impl<'a, T: Float, K: Terms<T>> Run<'a, T, K> {
    /// A run whose terms depend on its elements and its center alone.
    #[inline(always)]
    pub fn new(_kind: K, x: &'a [T], center: T) -> Self {
        Run { x, g: x, p: [center; 3], kind: PhantomData }
    }
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
