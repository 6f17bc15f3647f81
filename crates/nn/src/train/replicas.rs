//! What a trainer needs of the processes that train together.

use std::ops::Range;
use std::sync::Arc;

/// Why processes could not work together.
pub type ReplicaError = Box<dyn std::error::Error + Send + Sync>;

/// The copies of a model in several processes (ranks), of which each computes the gradients of its samples; a
/// [`Trainer`](super::Trainer) takes it by [`distributed`](super::Trainer::distributed). `tapegrad-distributed` implements it over MPI.
///
/// A batch is divided into virtual shards, whose number does not depend on that of the ranks: each rank has as many, in order.
/// All ranks make the same calls in the same order.
pub trait Replicas {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// The number of virtual shards of all ranks.
    fn shards(&self) -> usize;

    /// The samples of this rank's batch that belong to a shard of its own, where rank `r` has `samples[r]` samples.
    fn part(&self, samples: &[usize], shard: usize) -> Range<usize>;

    /// The numbers of all ranks, in order of rank.
    ///
    /// # Errors
    /// If a rank has failed.
    fn all_gather(&self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, ReplicaError>;

    /// The bytes of rank 0.
    ///
    /// # Errors
    /// If a rank has failed.
    fn broadcast(&self, bytes: &[u8]) -> Result<Vec<u8>, ReplicaError>;

    /// Checks that all ranks have the same lines.
    ///
    /// # Errors
    /// If they differ, with the first lines that do.
    fn agree(&self, lines: &[String]) -> Result<(), ReplicaError>;

    /// Calls `f`, within which backward passes add to the gradients of the shard without ending it.
    fn accumulate(&self, f: &mut dyn FnMut());

    /// Calls `pass` with each of this rank's shards, and sums the gradients of all shards of all ranks. A shard has at most one
    /// backward pass outside of [`accumulate`](Self::accumulate), its last. Returns what `pass` has returned for each shard, in
    /// order.
    ///
    /// # Errors
    /// If a rank has failed.
    fn backward(&self, pass: &mut dyn FnMut(usize) -> Vec<f64>) -> Result<Vec<Vec<f64>>, ReplicaError>;
}

/// Shared, as by a trainer and the optimizer that divides its states among the ranks.
impl<R: Replicas + ?Sized> Replicas for Arc<R> {
    fn rank(&self) -> usize {
        (**self).rank()
    }
    fn size(&self) -> usize {
        (**self).size()
    }
    fn shards(&self) -> usize {
        (**self).shards()
    }
    fn part(&self, samples: &[usize], shard: usize) -> Range<usize> {
        (**self).part(samples, shard)
    }
    fn all_gather(&self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, ReplicaError> {
        (**self).all_gather(numbers)
    }
    fn broadcast(&self, bytes: &[u8]) -> Result<Vec<u8>, ReplicaError> {
        (**self).broadcast(bytes)
    }
    fn agree(&self, lines: &[String]) -> Result<(), ReplicaError> {
        (**self).agree(lines)
    }
    fn accumulate(&self, f: &mut dyn FnMut()) {
        (**self).accumulate(f);
    }
    fn backward(&self, pass: &mut dyn FnMut(usize) -> Vec<f64>) -> Result<Vec<Vec<f64>>, ReplicaError> {
        (**self).backward(pass)
    }
}
