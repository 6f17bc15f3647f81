//! A trainer's view of the ranks.

use crate::agree;
use crate::replica::{Own, Replica};
use crate::shards::Shard;
use std::ops::Range;
use tapegrad_nn::train::{ReplicaError, Replicas};

impl Replicas for Replica {
    fn rank(&self) -> usize {
        self.communicator().rank()
    }
    fn size(&self) -> usize {
        self.communicator().size()
    }
    fn shards(&self) -> usize {
        Replica::shards(self)
    }
    fn part(&self, samples: &[usize], shard: usize) -> Range<usize> {
        let count = Replica::shards(self);
        Own::of(samples, self.communicator().rank(), count).range(Shard { index: shard, count })
    }
    fn all_gather(&self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, ReplicaError> {
        Ok(self.communicator().all_gather_numbers(numbers)?)
    }
    fn broadcast(&self, bytes: &[u8]) -> Result<Vec<u8>, ReplicaError> {
        Ok(self.communicator().broadcast_bytes(bytes)?)
    }
    fn agree(&self, lines: &[String]) -> Result<(), ReplicaError> {
        Ok(agree::on_lines(self.communicator(), "Trainer", lines)?)
    }
    fn accumulate(&self, f: &mut dyn FnMut()) {
        self.no_sync(f);
    }
    fn backward(&self, pass: &mut dyn FnMut(usize) -> Vec<f64>) -> Result<Vec<Vec<f64>>, ReplicaError> {
        Ok(self.backward_shards(1.0, &mut |shard| pass(shard.index))?)
    }
}
