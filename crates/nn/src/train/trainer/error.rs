//! Why training could not continue.

use crate::files::FileError;
use crate::optim::OptimizerStateError;
use crate::state_dict::StateDictError;
use crate::train::replicas::ReplicaError;
use std::fmt;

/// Training could not continue, or its results could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A checkpoint or another file.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are checkpoints, but none of them can be read. They were left unchanged.
    #[error(
        "no checkpoint can be read, so training was not started: {}; start over with resume(false) (--restart), which keeps \
         the existing files under another name",
        .0.iter().map(FileError::to_string).collect::<Vec<_>>().join("; ")
    )]
    Unreadable(Vec<FileError>),
    /// The checkpoint belongs to another model.
    #[error(transparent)]
    Model(#[from] StateDictError),
    /// The checkpoint belongs to another optimizer or schedule.
    #[error(transparent)]
    Optimizer(#[from] OptimizerStateError),
    /// The checkpoint belongs to other data.
    #[error("the checkpoint does not fit the data: {0}")]
    Source(String),
    /// Settings differ from those of the checkpoint and would be ignored in favor of them.
    #[error(
        "the checkpoint was made with other settings, which would be used: {}; restore them, or start \
         over with resume(false) (--restart)",
        .0.join("; ")
    )]
    Settings(Vec<String>),
    /// A loss or a gradient is not finite. Weights and checkpoints are those before the step.
    #[error(transparent)]
    Nonfinite(#[from] Nonfinite),
    /// An epoch has a batch of one sample, which batch normalization cannot take.
    #[error(
        "an epoch has a batch of one sample, and {0}, which has no variance: drop it with \
         drop_last(true), or use another batch size"
    )]
    SingleSample(String),
    /// The processes that train together do not agree, or one has failed.
    #[error(transparent)]
    Replicas(#[from] ReplicaError),
}

/// Where a loss or a gradient was not finite, and which operation is the cause.
#[derive(Clone, Debug, PartialEq)]
pub struct Nonfinite {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The step that failed, from 1.
    pub step: u64,
    /// The batch of the epoch, from 1.
    pub batch: u64,
    /// `"loss"`, or `"gradient norm"`.
    pub what: &'static str,
    /// The loss or the norm.
    pub value: f64,
    /// The operation that produced the first such value and the line that called it, or the input that was not finite.
    pub origin: String,
}

impl std::error::Error for Nonfinite {}

impl fmt::Display for Nonfinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Nonfinite { epoch, step, batch, what, value, origin } = self;
        write!(f, "epoch {epoch}, step {step}, batch {batch}: the {what} is {value}: {origin}")
    }
}
