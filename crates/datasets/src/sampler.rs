//! The order in which an epoch visits a data set.

use tapegrad_tape::Generator;

/// The order of the samples in each epoch, as `torch.utils.data.Sampler`.
pub trait Sampler: Send + Sync {
    /// The indices that epoch `epoch` visits in a data set of `len` samples. Called with the same arguments it must
    /// return the same order: resuming relies on it.
    fn order(&self, len: usize, epoch: u64) -> Vec<usize>;

    /// The length of that order.
    fn count(&self, len: usize) -> usize {
        len
    }
}

/// From the first sample to the last.
#[derive(Debug, Clone, Copy, Default)]
pub struct SequentialSampler;

impl Sampler for SequentialSampler {
    fn order(&self, len: usize, _epoch: u64) -> Vec<usize> {
        (0..len).collect()
    }
}

/// Every sample once, in a new random order each epoch, determined by the seed.
///
/// ```
/// use tapegrad_datasets::{RandomSampler, Sampler};
/// let sampler = RandomSampler::new(42);
/// assert_eq!(sampler.order(50, 3), sampler.order(50, 3));
/// assert_ne!(sampler.order(50, 3), sampler.order(50, 4));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RandomSampler {
    seed: u64,
}

impl RandomSampler {
    /// The orders of this `seed`.
    pub fn new(seed: u64) -> Self {
        RandomSampler { seed }
    }
}

impl Sampler for RandomSampler {
    fn order(&self, len: usize, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        Generator::stream(self.seed, "order", [epoch, 0]).shuffle(&mut order);
        order
    }
}

/// Samples drawn at random, each as often as its weight says, as `torch.utils.data.WeightedRandomSampler`.
///
/// ```
/// use tapegrad_datasets::{Sampler, WeightedRandomSampler};
/// let sampler = WeightedRandomSampler::new(&[0.0, 3.0, 1.0], 1000).seed(7);
/// let order = sampler.order(3, 0);
/// let of = |i| order.iter().filter(|&&j| j == i).count();
/// assert!(of(0) == 0 && of(1) > 700 && of(2) > 200);
/// ```
#[derive(Debug, Clone)]
pub struct WeightedRandomSampler {
    weights: Vec<f64>,
    samples: usize,
    replacement: bool,
    seed: u64,
}

impl WeightedRandomSampler {
    /// Draws this many samples in each epoch, with replacement.
    ///
    /// # Panics
    /// If a weight is negative or not finite, or all are zero.
    #[track_caller]
    pub fn new(weights: &[f64], samples: usize) -> Self {
        if let Some(w) = weights.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
            panic!("WeightedRandomSampler: weights must be finite and not negative, got {w}");
        }
        WeightedRandomSampler { weights: weights.to_vec(), samples, replacement: true, seed: 0 }.checked()
    }

    /// With replacement, or each sample at most once.
    ///
    /// # Panics
    /// If there are not enough samples to draw without replacement.
    #[track_caller]
    #[must_use]
    pub fn replacement(mut self, replacement: bool) -> Self {
        self.replacement = replacement;
        self.checked()
    }

    /// The seed of the draws, 0 unless given.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    #[track_caller]
    fn checked(self) -> Self {
        let positive = self.weights.iter().filter(|&&w| w > 0.0).count();
        let (least, how) = match self.replacement {
            true => (self.samples.min(1), ""),
            false => (self.samples, ", without replacement"),
        };
        assert!(
            positive >= least,
            "WeightedRandomSampler: {} samples of {positive} with a weight above zero{how}",
            self.samples
        );
        self
    }
}

impl Sampler for WeightedRandomSampler {
    /// # Panics
    /// If there is not one weight for each sample.
    fn order(&self, len: usize, epoch: u64) -> Vec<usize> {
        assert!(
            self.weights.len() == len,
            "WeightedRandomSampler: {} weights for {len} samples",
            self.weights.len()
        );
        let mut rng = Generator::stream(self.seed, "weighted", [epoch, 0]);
        if self.replacement {
            let mut sum = 0.0;
            let ends: Vec<f64> = self.weights.iter().map(|w| (sum += w, sum).1).collect();
            // Rounding must not reach the end of the list.
            let last = self.weights.iter().rposition(|&w| w > 0.0).unwrap_or(0);
            let mut draw = || {
                let at = sum * rng.next_f64();
                ends.partition_point(|&end| end <= at).min(last)
            };
            return (0..self.samples).map(|_| draw()).collect();
        }
        // Efraimidis and Spirakis: the largest of u^(1/w), here as logarithms.
        let mut keys: Vec<(f64, usize)> = Vec::with_capacity(len);
        for (i, &w) in self.weights.iter().enumerate() {
            let key = libm::log(1.0 - rng.next_f64());
            if w > 0.0 {
                keys.push((key / w, i));
            }
        }
        keys.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        keys.into_iter().take(self.samples).map(|(_, i)| i).collect()
    }

    fn count(&self, _len: usize) -> usize {
        self.samples
    }
}

/// The share of one process among several, as `torch.utils.data.distributed.DistributedSampler`: all shares have one
/// length, for which the first samples are repeated, or with [`drop_last`](Self::drop_last) the last are left out.
///
/// ```
/// use tapegrad_datasets::{DistributedSampler, Sampler};
/// let share = |rank| DistributedSampler::new(rank, 2).order(5, 0);
/// assert_eq!((share(0), share(1)), (vec![0, 2, 4], vec![1, 3, 0]));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct DistributedSampler {
    rank: usize,
    world: usize,
    shuffle: Option<u64>,
    drop_last: bool,
}

impl DistributedSampler {
    /// The share of process `rank` of `world`, in order.
    ///
    /// # Panics
    /// If `rank` is not below `world`.
    #[track_caller]
    pub fn new(rank: usize, world: usize) -> Self {
        assert!(rank < world, "DistributedSampler: rank {rank} of {world} processes");
        DistributedSampler { rank, world, shuffle: None, drop_last: false }
    }

    /// In a new random order each epoch. All processes need the same seed.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.shuffle = Some(seed);
        self
    }

    /// Whether samples are left out, rather than repeated, where they cannot be divided evenly.
    #[must_use]
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }
}

impl Sampler for DistributedSampler {
    fn order(&self, len: usize, epoch: u64) -> Vec<usize> {
        let order = match self.shuffle {
            Some(seed) => RandomSampler::new(seed).order(len, epoch),
            None => (0..len).collect(),
        };
        let count = self.count(len);
        order.into_iter().cycle().skip(self.rank).step_by(self.world).take(count).collect()
    }

    fn count(&self, len: usize) -> usize {
        if self.drop_last { len / self.world } else { len.div_ceil(self.world) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_once() {
        for epoch in 0..5 {
            let mut order = RandomSampler::new(1).order(97, epoch);
            order.sort_unstable();
            assert_eq!(order, SequentialSampler.order(97, epoch));
        }
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(RandomSampler::new(0).order(97, 0), RandomSampler::new(1).order(97, 0));
    }

    #[test]
    fn weighted_draws_without_replacement() {
        let sampler = WeightedRandomSampler::new(&[1.0, 0.0, 5.0, 1.0], 3).replacement(false).seed(3);
        let mut first = [0; 4];
        for epoch in 0..400 {
            let mut order = sampler.order(4, epoch);
            assert_eq!(order, sampler.order(4, epoch));
            first[order[0]] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 2, 3]);
        }
        assert!(first[2] > 220 && first[0] > 20 && first[3] > 20, "{first:?}");
        assert_eq!(WeightedRandomSampler::new(&[1.0], 9).count(1), 9);
        let refused =
            std::panic::catch_unwind(|| WeightedRandomSampler::new(&[1.0, 0.0], 2).replacement(false));
        let text = refused.unwrap_err();
        let text = text.downcast_ref::<String>().unwrap();
        assert!(text.contains("2 samples of 1 with a weight above zero, without replacement"), "{text}");
    }

    #[test]
    fn shares_cover_all_samples() {
        for (len, world) in [(10, 3), (9, 3), (2, 5), (0, 2)] {
            let share = |rank| DistributedSampler::new(rank, world).shuffle(4);
            let mut all: Vec<usize> = (0..world).flat_map(|rank| share(rank).order(len, 1)).collect();
            assert!((0..world).all(|rank| share(rank).order(len, 1).len() == share(rank).count(len)));
            all.sort_unstable();
            all.dedup();
            assert_eq!(all, (0..len).collect::<Vec<_>>());
            let kept: Vec<usize> =
                (0..world).flat_map(|rank| share(rank).drop_last(true).order(len, 1)).collect();
            assert_eq!(kept.len(), len / world * world);
        }
    }
}
