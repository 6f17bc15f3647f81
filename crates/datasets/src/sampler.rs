//! The order in which an epoch visits a data set.

use tapegrad_tape::Generator;

/// The order of the samples in each epoch, as `torch.utils.data.Sampler`.
pub trait Sampler: Send + Sync {
    /// The indices that epoch `epoch` visits in a data set of `len` samples. Called with the same arguments it must
    /// return the same order: resuming relies on it.
    fn order(&self, len: usize, epoch: u64) -> Vec<usize>;
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
}
