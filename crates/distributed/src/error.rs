//! Why ranks could not work together.

/// A communication failed, or ranks do not agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank}: {call}: {reason}")]
pub struct CommError {
    /// The rank that reports it.
    pub rank: usize,
    /// The call that failed.
    pub call: &'static str,
    /// What went wrong.
    pub reason: String,
}

/// The result of a communication.
pub type Result<T> = std::result::Result<T, CommError>;
