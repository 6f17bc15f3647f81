//! Sums of two terms of every element for each channel, for tensors whose channels are contiguous or interleaved; mean
//! and variance of each channel by these.
//!
//! Memory is read once, in its order, a fixed number of lanes at a time. Sums are in the element's type over chunks and in
//! `f64` over their sums; chunks and tasks depend on the sizes alone, so results are bit-identical for any number of
//! threads.

mod rows;
mod sums;

use crate::dtype::Float;

pub use rows::{LANES, Pairs, lanes, row_sums};
pub(crate) use rows::{sum_f32_lanes, sum_f64_lanes};
pub use sums::{Powers, Run, Terms, Wide, sums, task_count};

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
