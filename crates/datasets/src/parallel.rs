//! Work on the samples of a batch, divided among rayon's workers, which are the kernels' threads, too.

use std::cell::Cell;

use rayon::prelude::*;
use tapegrad_tape::kernels::parallel::num_workers;

thread_local! {
    /// True on a loader's background thread: it works alone, so that training keeps the workers.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Makes this thread do its data work alone from now on.
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
    let blocks = items.len().div_ceil((size * per_task).max(1));
    let workers = if ALONE.get() || blocks <= 1 { 0 } else { num_workers() };
    if workers == 0 {
        items.chunks_mut(size).enumerate().for_each(|(i, chunk)| task(i, chunk));
        return;
    }
    // A limit below the size of rayon's pool applies here, too: no more parts than that.
    let least = if workers + 1 < rayon::current_num_threads() { blocks.div_ceil(workers + 1) } else { 1 };
    items.par_chunks_mut(size * per_task).enumerate().with_min_len(least).for_each(|(b, block)| {
        for (i, chunk) in block.chunks_mut(size).enumerate() {
            task(b * per_task + i, chunk);
        }
    });
}

/// Runs both concurrently if there is a thread for it.
pub(crate) fn join<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    if num_workers() == 0 { (a(), b()) } else { rayon::join(a, b) }
}
