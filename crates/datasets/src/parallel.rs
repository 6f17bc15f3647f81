//! Work on the samples of a batch, shared between the threads that kernels use.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use tape::kernels::parallel::parallel_for;

thread_local! {
    /// True on a loader's background thread: it works alone, so that training keeps the helpers.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Makes this thread do its data work by itself from now on.
pub(crate) fn work_alone() {
    ALONE.set(true);
}

/// Calls `task(i, chunk)` for each chunk of `size` items, on several threads where that pays.
///
/// `per_task` chunks go to a thread at a time.
pub(crate) fn for_each_chunk<T: Send>(
    items: &mut [T],
    size: usize,
    per_task: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    let per_task = per_task.max(1);
    if ALONE.get() || items.len() <= size * per_task {
        items.chunks_mut(size).enumerate().for_each(|(i, chunk)| task(i, chunk));
        return;
    }
    // Each block is locked once, by the thread that works on it: the lock only proves that to the compiler.
    let blocks: Vec<_> = items.chunks_mut(size * per_task).map(Mutex::new).collect();
    parallel_for(blocks.len(), |b| {
        let mut block = blocks[b].lock().unwrap_or_else(PoisonError::into_inner);
        for (i, chunk) in block.chunks_mut(size).enumerate() {
            task(b * per_task + i, chunk);
        }
    });
}
