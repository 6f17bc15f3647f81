//! The options of data-parallel training.

/// The options of [`DistributedDataParallel`](crate::DistributedDataParallel) and [`Replica`](crate::Replica).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DdpOptions {
    /// The bytes of gradients that are sent at once; a larger gradient is sent alone, from the memory that it lives in.
    pub bucket_bytes: usize,
    /// The same, of the first gradients that are ready: the sooner they are sent, the sooner communication begins.
    pub first_bucket_bytes: usize,
    /// Whether sums are computed in a fixed order, over virtual shards: the same bits for every number of ranks that
    /// divides that of the shards into powers of two. Otherwise over ranks: the same bits for the same number of ranks.
    pub deterministic: bool,
    /// The number of virtual shards into which [`backward`](crate::Replica::backward) divides each batch.
    pub shards: usize,
    /// Whether some parameters may have no gradient in a step. Without it, a step with such parameters is an error that
    /// lists them.
    pub find_unused_parameters: bool,
    /// Whether `forward` in training begins with the buffers of rank 0, such as running means.
    pub broadcast_buffers: bool,
}

impl Default for DdpOptions {
    fn default() -> DdpOptions {
        DdpOptions {
            bucket_bytes: 4 << 20,
            first_bucket_bytes: 512 << 10,
            deterministic: true,
            shards: 8,
            find_unused_parameters: false,
            broadcast_buffers: true,
        }
    }
}

impl DdpOptions {
    tapegrad_tape::setters! {
        bucket_bytes: usize,
        first_bucket_bytes: usize,
        deterministic: bool,
        shards: usize,
        find_unused_parameters: bool,
        broadcast_buffers: bool,
    }

    /// The number of shards of all ranks together.
    pub(crate) fn shards_of(&self, size: usize) -> Result<usize, String> {
        if !self.deterministic {
            return Ok(size);
        }
        let each = self.shards / size;
        let fits =
            self.shards > 0 && self.shards.is_multiple_of(size) && (size == 1 || each.is_power_of_two());
        if fits {
            return Ok(self.shards);
        }
        Err(format!(
            "{} virtual shards cannot be divided among {size} ranks: use {size} shards times a power of two, or \
             deterministic(false)",
            self.shards
        ))
    }
}
