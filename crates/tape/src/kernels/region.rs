//! One caller's parallel region: a job that threads join and leave, and its remaining tasks.
//!
//! `tests/region_model.rs` runs this file under loom, which tries every order of its atomic operations; `sync` holds
//! the difference.

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, UnsafeCell, spin_loop, yield_now};
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A task with its lifetime erased: valid while `Region::run` has not returned.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    tasks: usize,
    /// The number of threads with their own range of tasks.
    ranges: usize,
}

impl Job {
    /// The range of tasks with which this thread begins.
    fn range(&self, thread: usize) -> Range<usize> {
        thread * self.tasks / self.ranges..(thread + 1) * self.tasks / self.ranges
    }
}

/// The remaining tasks of a range: its start in the lower half, its end in the upper half. On its own cache line.
#[repr(align(128))]
pub(crate) struct Remaining(AtomicU64);

impl Remaining {
    pub(crate) fn new() -> Remaining {
        Remaining(AtomicU64::new(0))
    }

    pub(crate) fn fill(&self, tasks: Range<usize>) {
        self.0.store(tasks.start as u64 | (tasks.end as u64) << 32, Ordering::Relaxed);
    }

    /// Takes the first task if the range is the thread's own, else the last one: so other threads mostly take the same
    /// tasks, and a core finds the memory of its own tasks in its cache.
    pub(crate) fn take(&self, own: bool) -> Option<usize> {
        let ends = |left: u64| (left & u64::from(u32::MAX), left >> 32);
        let rest = |left: u64| {
            let (first, end) = ends(left);
            (first < end).then(|| if own { left + 1 } else { left - (1 << 32) })
        };
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).ok()?;
        let (first, end) = ends(taken);
        Some(if own { first } else { end - 1 } as usize)
    }
}

/// Counts the jobs (upper half), the helpers that the current one accepts, none if it is closed, and those that have
/// joined it (16 bits each). A helper joins when it runs, not when the job begins, so no job waits for one that the
/// system has not scheduled yet. On its own cache line.
#[repr(align(128))]
pub(crate) struct State(AtomicU64);

impl State {
    /// The maximum number of helpers of a job.
    const MAX_HELPERS: u64 = 0xffff;

    pub(crate) fn new() -> State {
        State(AtomicU64::new(0))
    }

    fn epoch(state: u64) -> u32 {
        (state >> 32) as u32
    }

    fn joined(state: u64) -> u64 {
        state & Self::MAX_HELPERS
    }

    /// Begins the next job.
    pub(crate) fn open(&self, helpers: usize) {
        let epoch = self.current().wrapping_add(1);
        let helpers = (helpers as u64).min(Self::MAX_HELPERS);
        self.0.store(u64::from(epoch) << 32 | helpers << 16, Ordering::Release);
    }

    /// Accepts no more helpers, and waits for those that have joined.
    pub(crate) fn close(&self) {
        let mut state = self.0.fetch_and(!(Self::MAX_HELPERS << 16), Ordering::AcqRel);
        let mut spins = 0u32;
        while Self::joined(state) > 0 {
            spins += 1;
            // On an oversubscribed machine the helper may need this core to finish.
            if spins.is_multiple_of(4096) {
                yield_now()
            } else {
                spin_loop()
            }
            state = self.0.load(Ordering::Acquire);
        }
    }

    /// Joins the current job if it accepts the helper with this index; also returns the job's number.
    pub(crate) fn join(&self, index: usize) -> (u32, bool) {
        let admitted = |state: u64| (index as u64) < (state >> 16 & Self::MAX_HELPERS);
        let one_more = |state| admitted(state).then_some(state + 1);
        match self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more) {
            Ok(state) => (Self::epoch(state), true),
            Err(state) => (Self::epoch(state), false),
        }
    }

    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn current(&self) -> u32 {
        Self::epoch(self.0.load(Ordering::Relaxed))
    }
}

/// The payload of a task's panic.
pub(crate) type Payload = Box<dyn Any + Send>;

/// The jobs of one caller, which run one at a time. Threads beyond `RANGES` have no range of their own and only take
/// tasks of others.
pub(crate) struct Region<const RANGES: usize> {
    state: State,
    /// The current job, for helpers that have joined it.
    job: UnsafeCell<Option<Job>>,
    /// The remaining tasks of each thread's range.
    remaining: [Remaining; RANGES],
    /// The first panic of the current job.
    panic: Mutex<Option<Payload>>,
}

// SAFETY: the task behind the pointer is Sync, and it is used only while its caller waits in `run`.
unsafe impl<const RANGES: usize> Send for Region<RANGES> {}
// SAFETY: as above; `job` is written while no helper has joined, and read by helpers that have. All other fields
// are Sync.
unsafe impl<const RANGES: usize> Sync for Region<RANGES> {}

impl<const RANGES: usize> Region<RANGES> {
    pub(crate) fn new() -> Self {
        Region {
            state: State::new(),
            job: UnsafeCell::new(None),
            remaining: std::array::from_fn(|_| Remaining::new()),
            panic: Mutex::new(None),
        }
    }

    /// The number of the current or last job.
    pub(crate) fn current(&self) -> u32 {
        self.state.current()
    }

    /// Runs all tasks, on this thread and on the helpers that join; calls `opened` once they can. Returns when no
    /// thread uses `task` any more, with the payload of a task that panicked.
    ///
    /// # Safety
    /// One call at a time, and not from inside a task.
    pub(crate) unsafe fn run(
        &self,
        tasks: u32,
        helpers: usize,
        task: &(dyn Fn(usize) + Sync),
        opened: impl FnOnce(),
    ) -> Result<(), Payload> {
        /// Also if `opened` panics.
        struct Close<'a>(&'a State);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        // SAFETY: only the lifetime changes; `Close` waits until no helper uses the task.
        let task: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
        let job = Job { task, tasks: tasks as usize, ranges: (helpers + 1).min(RANGES) };
        // SAFETY: the last job is closed and all helpers have left it.
        self.job.with_mut(|place| unsafe { *place = Some(job) });
        for (thread, remaining) in self.remaining[..job.ranges].iter().enumerate() {
            remaining.fill(job.range(thread));
        }
        self.state.open(helpers);
        let close = Close(&self.state);
        opened();
        // SAFETY: this is `run`.
        unsafe { self.work(0, &job) };
        drop(close);
        match self.panic().take() {
            Some(payload) => Err(payload),
            None => Ok(()),
        }
    }

    /// Works on the current job if it accepts the helper with this index. Returns the job's number.
    pub(crate) fn help(&self, index: usize) -> u32 {
        let (epoch, joined) = self.state.join(index);
        if joined {
            // SAFETY: the job has been joined, so its caller waits for this helper before it changes anything.
            unsafe {
                if let Some(job) = self.job.with(|job| *job) {
                    self.work(index + 1, &job);
                }
            }
            self.state.leave();
        }
        epoch
    }

    /// Runs the tasks of the thread's own range, then the remaining ones of the others.
    ///
    /// # Safety
    /// The job's caller must still be in `run`.
    unsafe fn work(&self, thread: usize, job: &Job) {
        // SAFETY: promised by the caller.
        let task = unsafe { &*job.task };
        let result = catch_unwind(AssertUnwindSafe(|| {
            for k in 0..job.ranges {
                let owner = (thread + k) % job.ranges;
                while let Some(i) = self.remaining[owner].take(owner == thread) {
                    task(i);
                }
            }
        }));
        if let Err(payload) = result {
            self.panic().get_or_insert(payload);
        }
    }

    fn panic(&self) -> MutexGuard<'_, Option<Payload>> {
        self.panic.lock().unwrap_or_else(|e| e.into_inner())
    }
}
