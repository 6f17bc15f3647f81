//! Background threads that prepare batches.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Plan, Prepare};
use crate::error::Result;
use crate::parallel;

/// A batch, or the payload of a panic.
type Prepared<R> = std::thread::Result<Result<<R as Prepare>::Batch>>;

/// Background threads and their finished batches.
pub(super) struct WorkerPool<R: Prepare> {
    queue: Arc<WorkQueue<R>>,
    threads: Vec<JoinHandle<()>>,
}

struct WorkQueue<R: Prepare> {
    state: Mutex<QueueState<R>>,
    /// A batch is ready.
    ready: Condvar,
    /// A batch was taken, so there is room for another; or the workers should stop.
    room: Condvar,
    window: usize,
}

struct QueueState<R: Prepare> {
    ready: BTreeMap<usize, Prepared<R>>,
    /// The next batch that no worker has taken.
    next: usize,
    /// The next batch for the consumer.
    wanted: usize,
    /// Behind the last batch; smaller once a batch has failed.
    end: usize,
    stop: bool,
}

impl<R: Prepare> WorkerPool<R> {
    pub(super) fn start(
        plan: &Arc<Plan<R>>,
        batches: std::ops::Range<usize>,
        workers: usize,
        window: usize,
    ) -> Self {
        let (next, end) = (batches.start, batches.end);
        let state = QueueState { ready: BTreeMap::new(), next, wanted: next, end, stop: false };
        let queue = Arc::new(WorkQueue {
            state: Mutex::new(state),
            ready: Condvar::new(),
            room: Condvar::new(),
            window,
        });
        // If the system refuses threads, there are fewer, or none.
        let threads = (0..workers.min(batches.len()))
            .map_while(|i| {
                let (queue, plan) = (queue.clone(), plan.clone());
                std::thread::Builder::new().name(format!("loader-{i}")).spawn(move || queue.work(&plan)).ok()
            })
            .collect();
        WorkerPool { queue, threads }
    }

    /// True if the system refused all threads.
    pub(super) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Lets the threads end by themselves.
    pub(super) fn abandon(mut self) {
        self.threads.clear();
    }

    pub(super) fn take(&self, number: usize) -> Prepared<R> {
        let mut state = lock(&self.queue.state);
        loop {
            if let Some(batch) = state.ready.remove(&number) {
                state.wanted = number + 1;
                drop(state);
                self.queue.room.notify_all();
                return batch;
            }
            state = self.queue.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<R: Prepare> Drop for WorkerPool<R> {
    fn drop(&mut self) {
        lock(&self.queue.state).stop = true;
        self.queue.room.notify_all();
        for thread in self.threads.drain(..) {
            // A worker's panic has been passed on with its batch.
            let _ = thread.join();
        }
    }
}

impl<R: Prepare> WorkQueue<R> {
    fn work(&self, plan: &Plan<R>) {
        parallel::work_alone();
        while let Some(number) = self.claim() {
            let batch = catch_unwind(AssertUnwindSafe(|| plan.batch(number)));
            let mut state = lock(&self.state);
            if !matches!(batch, Ok(Ok(_))) {
                // The epoch ends here: later batches are not needed, earlier ones are.
                state.end = state.end.min(number + 1);
            }
            state.ready.insert(number, batch);
            drop(state);
            self.ready.notify_all();
        }
    }

    fn claim(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if state.stop || state.next >= state.end {
                return None;
            }
            if state.next < state.wanted + self.window {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
