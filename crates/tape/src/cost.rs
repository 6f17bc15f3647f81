//! What the operations of a graph cost: bytes saved for backward, time, arithmetic.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

static TIMING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SAVED: Cell<usize> = const { Cell::new(0) };
    static FLOPS: Cell<u64> = const { Cell::new(0) };
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Counts bytes that the next recorded operation keeps for its rule besides its [`Var::saved`](crate::Var::saved) values.
pub fn note_saved(bytes: usize) {
    SAVED.set(SAVED.get().saturating_add(bytes));
}

/// Sets the number of floating-point operations of the next recorded operation, for [`trace`](crate::trace()).
pub fn note_flops(flops: u64) {
    FLOPS.set(FLOPS.get().saturating_add(flops));
}

/// Turns the timing of operations on or off; the times are in the graph's trace.
pub fn set_profiling(on: bool) {
    TIMING.store(on, Ordering::Relaxed);
    LAST.set(on.then(Instant::now));
}

/// What a node has cost so far.
#[derive(Default)]
pub(crate) struct Cost {
    saved: AtomicU64,
    pub(crate) flops: u64,
    pub(crate) forward_ns: u64,
    backward_ns: AtomicU64,
}

impl Cost {
    /// The cost of the operation that has just run: since the one before it was recorded.
    pub(crate) fn take() -> Cost {
        let forward_ns = if TIMING.load(Ordering::Relaxed) {
            let now = Instant::now();
            LAST.replace(Some(now)).map_or(0, |last| (now - last).as_nanos() as u64)
        } else {
            0
        };
        Cost {
            saved: AtomicU64::new(SAVED.replace(0) as u64),
            flops: FLOPS.replace(0),
            forward_ns,
            backward_ns: AtomicU64::new(0),
        }
    }

    pub(crate) fn add_saved(&self, bytes: usize) {
        self.saved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn saved_bytes(&self) -> u64 {
        self.saved.load(Ordering::Relaxed)
    }

    pub(crate) fn backward_ns(&self) -> u64 {
        self.backward_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn start(&self) -> Option<Instant> {
        TIMING.load(Ordering::Relaxed).then(Instant::now)
    }

    pub(crate) fn stop_backward(&self, clock: Option<Instant>) {
        if let Some(start) = clock {
            let now = Instant::now();
            self.backward_ns.fetch_add((now - start).as_nanos() as u64, Ordering::Relaxed);
            LAST.set(Some(now));
        }
    }
}
