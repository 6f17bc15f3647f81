//! Data-parallel training: the ranks (processes) of an MPI job have a copy of a model each, compute the gradients of their
//! samples, and step by the mean. See [`DistributedDataParallel`].
//!
//! Without the feature `mpi`, and in programs that were not started by `mpirun`, there is one rank, and the same program
//! runs unchanged.

#![deny(unsafe_code)]

mod agree;
mod buckets;
mod communicator;
mod ddp;
mod engine;
mod error;
#[cfg(feature = "mpi")]
#[allow(unsafe_code)]
mod mpi;
mod options;
mod reducer;
mod replica;
mod shards;
mod single;
mod sum;
mod sync_batch_norm;
mod threads;
mod train;
mod transport;
mod zero;

pub use communicator::{CommStats, Communicator, Pending};
pub use ddp::{DistributedDataParallel, Synchronized};
pub use error::{CommError, Result};
pub use options::DdpOptions;
pub use reducer::SyncStats;
pub use replica::Replica;
pub use shards::Shard;
pub use sum::Reduce;
pub use sync_batch_norm::SyncBatchNorm;
pub use zero::ZeroRedundancyOptimizer;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
