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

use tapegrad_tape::Float;
use tapegrad_tape::kernels::channels::{LANES, Wide, lanes, task_count};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;

pub use kinds::{
    Affine, AffineAddRelu, AffineRelu, AffineRelu6, Gradient, Map, Products, Relu6Gradient, Relu6Products,
    ReluGradient, ReluProducts,
};
pub use tapegrad_tape::kernels::channels::{Layout, moments, sums};

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

/// Like [`tasks`], from the last to the first: what the previous pass read last is still cached.
fn tasks_backward(rows: usize, width: usize, task: impl Fn(usize, usize) + Sync) {
    let count = task_count(rows, width);
    let length = rows.div_ceil(count.max(1));
    parallel_for(count, |i| {
        let i = count - 1 - i;
        task((i * length).min(rows), ((i + 1) * length).min(rows));
    });
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
        let [p0, p1, p2, p3, p4] = p;
        for ((out, x), g) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(g.chunks_exact(width)) {
            // Whole arrays, so that the compiler omits bounds checks and vectorizes short rows, too.
            let mut groups = out.chunks_exact_mut(LANES);
            let mut at = 0;
            for out in &mut groups {
                let (x, g) = (lanes::<T, LANES>(x, at), lanes::<T, LANES>(g, at));
                let (p0, p1, p2) = (lanes::<T, LANES>(p0, at), lanes::<T, LANES>(p1, at), lanes::<T, LANES>(p2, at));
                let (p3, p4) = (lanes::<T, LANES>(p3, at), lanes::<T, LANES>(p4, at));
                for i in 0..LANES {
                    out[i] = K::map(x[i], g[i], [p0[i], p1[i], p2[i], p3[i], p4[i]]);
                }
                at += LANES;
            }
            for (i, out) in (at..width).zip(groups.into_remainder()) {
                *out = K::map(x[i], g[i], [p0[i], p1[i], p2[i], p3[i], p4[i]]);
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
