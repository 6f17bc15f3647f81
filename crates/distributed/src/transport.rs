//! What a way of communicating provides: collective calls on memory that they own.

use crate::error::Result;
use tapegrad_tape::Tensor;

/// Calls on one channel are matched among ranks by their order; those on different channels do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Channel {
    /// Calls of the program, and small agreements.
    Control,
    /// The first half of a sum: chunks to their owners.
    Scatter,
    /// The second half of a sum: chunks from their owners.
    Gather,
    /// Calls within a forward or a backward pass.
    Inner,
}

impl Channel {
    #[cfg(feature = "mpi")]
    pub(crate) const COUNT: usize = 4;
}

/// A collective call. All ranks make the same, with as much memory of the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Barrier,
    /// Every rank's memory becomes that of `root`.
    Broadcast {
        root: usize,
    },
    /// The sum, in an order that the transport chooses. F32 and F64 only.
    AllReduce,
    /// Chunk `r` of every other rank's memory goes to rank `r`, which receives them in order of rank.
    AllToAll,
    /// Chunk `r` of rank `r`'s memory goes to every rank, in place.
    AllGather,
}

impl Call {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Call::Barrier => "barrier",
            Call::Broadcast { .. } => "broadcast",
            Call::AllReduce => "all_reduce",
            Call::AllToAll => "all_to_all",
            Call::AllGather => "all_gather",
        }
    }
}

/// The elements of chunk `r` when `n` elements are divided among `size` ranks.
pub(crate) fn chunk(n: usize, size: usize, r: usize) -> std::ops::Range<usize> {
    let each = n.div_ceil(size);
    (r * each).min(n)..((r + 1) * each).min(n)
}

/// A way of communicating.
pub(crate) trait Transport: Send + Sync {
    fn rank(&self) -> usize;
    fn size(&self) -> usize;

    /// Starts a call on memory that is not shared and dense.
    fn start(&self, channel: Channel, call: Call, buffer: Tensor) -> Result<Box<dyn Flight>>;

    /// Tells the other ranks that this one waits, after it has started so many calls. Never waits itself.
    fn announce(&self, calls: u64) -> Result<()>;

    /// How many calls each rank has announced; 0 where it has not, and for this rank.
    fn announced(&self) -> Result<Vec<u64>>;
}

/// A call under way. One that is dropped before its end leaves its memory to the transport.
pub(crate) trait Flight: Send {
    /// Whether it has ended. Must be called again until it has: communication goes on within these calls.
    fn test(&mut self) -> Result<bool>;

    /// The memory that it was started with and, of an all-to-all, what was received. Called once, at the end.
    fn take(&mut self) -> (Tensor, Option<Tensor>);
}
