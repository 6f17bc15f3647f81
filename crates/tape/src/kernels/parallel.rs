//! Work shared between threads: [`parallel_for`] over a fixed number of tasks.
//!
//! A kernel cuts its work by the size of the problem, never by the number of threads, so the same
//! input gives the same bits on one thread or many. Helpers spin for a moment after a task before
//! they sleep: inside a training step the next kernel is microseconds away, and waking a sleeping
//! thread costs more than most small kernels.
//!
//! Each thread begins with a stretch of tasks of its own, the same one in every kernel, and helps the
//! others when it is done, with their last tasks first: what one kernel wrote is then still in the cache
//! of the core that the next one reads it on.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a helper looks for the next job before it sleeps.
const SPIN: Duration = Duration::from_micros(150);

thread_local! {
    /// True on helpers, and on a thread that is already inside a parallel region.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The number of threads that kernels use, the calling one among them.
///
/// At the start it is `TAPEGRAD_NUM_THREADS`, or the number of cores.
pub fn num_threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let n = std::env::var("TAPEGRAD_NUM_THREADS")
                .ok()
                .and_then(|n| n.parse().ok())
                .filter(|&n| n > 0)
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
            let _ = THREADS.compare_exchange(0, n, Ordering::Relaxed, Ordering::Relaxed);
            THREADS.load(Ordering::Relaxed)
        }
        n => n,
    }
}

/// Sets the number of threads that kernels use from now on. Results do not depend on it.
///
/// # Panics
/// If `n` is zero.
#[track_caller]
pub fn set_num_threads(n: usize) {
    assert!(n > 0, "set_num_threads: at least one thread is needed");
    THREADS.store(n, Ordering::Relaxed);
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Calls `task(0)`, `task(1)`, ..., `task(tasks - 1)`, each once, on any of the threads and in any order.
///
/// Returns when all are done. A call from inside a task runs its own tasks one after the other.
/// For work of less than some ten microseconds pass one task: handing it over costs more.
///
/// # Panics
/// If a task panics, after the others have ended.
#[inline]
pub fn parallel_for(tasks: usize, task: impl Fn(usize) + Sync) {
    run(tasks, &task);
}

/// Compiled once for all tasks: inlined here on every path, each would be compiled several times.
fn run(tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    let threads = num_threads().min(tasks);
    // (Halves of a number of 64 bits count the tasks.)
    if threads <= 1 || INSIDE.get() || u32::try_from(tasks).is_err() {
        (0..tasks).for_each(task);
        return;
    }
    let pool = pool();
    // Another thread of the program is inside a region: the cores are taken, so run here.
    let Ok(mut owner) = pool.owner.try_lock() else {
        (0..tasks).for_each(task);
        return;
    };
    owner.grow(&pool.shared, threads - 1);
    INSIDE.set(true);
    pool.shared.run(tasks, threads - 1, task);
    INSIDE.set(false);
    drop(owner);
    assert!(!pool.shared.panicked.swap(false, Ordering::Relaxed), "a task of parallel_for panicked");
}

/// Cuts `len` items into blocks of at least `grain` items and calls `task(start, end)` for each.
///
/// The blocks depend on `len` and `grain` alone: at most 64 of them, of equal size but for the last.
#[inline]
pub fn parallel_blocks(len: usize, grain: usize, task: impl Fn(usize, usize) + Sync) {
    run_blocks(len, grain, &task);
}

fn run_blocks(len: usize, grain: usize, task: &(dyn Fn(usize, usize) + Sync)) {
    if len == 0 {
        return;
    }
    let block = len.div_ceil(64).max(grain.max(1));
    run(len.div_ceil(block), &|i| task(i * block, len.min((i + 1) * block)));
}

/// Cuts a slice into chunks of `chunk` elements, the last may be shorter, and calls `task(index, chunk)` for each.
pub fn parallel_chunks<T: Send>(data: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    if data.is_empty() {
        return;
    }
    struct Shared<T>(*mut T);
    // SAFETY: each task takes a chunk of its own.
    unsafe impl<T: Send> Sync for Shared<T> {}
    let (len, chunk) = (data.len(), chunk.max(1));
    let start = Shared(data.as_mut_ptr());
    let start = &start;
    parallel_for(len.div_ceil(chunk), move |i| {
        let from = i * chunk;
        // SAFETY: the chunks lie inside the slice and do not overlap; the slice is borrowed until all are done.
        task(i, unsafe { std::slice::from_raw_parts_mut(start.0.add(from), chunk.min(len - from)) });
    });
}

struct Pool {
    owner: Mutex<Helpers>,
    shared: Arc<Shared>,
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool { owner: Mutex::new(Helpers { count: 0 }), shared: Arc::new(Shared::new()) })
}

struct Helpers {
    count: usize,
}

impl Helpers {
    /// Starts helpers until there are `wanted`. They live as long as the process.
    fn grow(&mut self, shared: &Arc<Shared>, wanted: usize) {
        while self.count < wanted {
            let (shared, index) = (shared.clone(), self.count);
            let seen = shared.state.current();
            std::thread::Builder::new()
                .name(format!("tapegrad-{index}"))
                .spawn(move || shared.help(index, seen))
                .expect("a helper thread could not be started");
            self.count += 1;
        }
    }
}

/// A task with its lifetime erased: valid while `Shared::run` has not returned.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    tasks: usize,
    helpers: usize,
}

impl Job {
    /// The threads that have a stretch of their own.
    fn stretches(&self) -> usize {
        (self.helpers + 1).min(STRETCHES)
    }

    /// The tasks that the thread with this number begins with.
    fn stretch(&self, thread: usize) -> std::ops::Range<usize> {
        let threads = self.stretches();
        thread * self.tasks / threads..(thread + 1) * self.tasks / threads
    }
}

/// The most threads that have a stretch of their own.
const STRETCHES: usize = 64;

/// The tasks of a stretch that nobody has taken yet: the first in the lower half, the one behind the last in the upper. On a
/// cache line of its own.
#[repr(align(128))]
struct Left(AtomicU64);

impl Left {
    fn fill(&self, tasks: std::ops::Range<usize>) {
        self.0.store(tasks.start as u64 | (tasks.end as u64) << 32, Ordering::Relaxed);
    }

    /// Takes the first one for the thread whose stretch it is, the last one for another: so it is always the same tasks
    /// that others take, and a core finds their memory in its own cache again.
    fn take(&self, own: bool) -> Option<usize> {
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

struct Shared {
    state: State,
    /// The current job, for those who have joined it.
    job: UnsafeCell<Option<Job>>,
    /// What is left of each thread's stretch; further threads have no stretch and only help.
    left: [Left; STRETCHES],
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    alarm: Condvar,
    panicked: AtomicBool,
}

// SAFETY: the task behind the pointer is Sync, and it is used only while its owner waits in `run`.
unsafe impl Send for Shared {}
// SAFETY: as above; `job` is written while no helper has joined, and read by helpers that have. All other fields
// are Sync.
unsafe impl Sync for Shared {}

/// Counts the jobs (upper half), the helpers that the current one admits, none when it is closed, and those that
/// have joined it (16 bits each). A helper joins when it runs, not when the job begins: one that the system has not
/// woken yet, since another program has the core, keeps nobody waiting. On a cache line of its own.
#[repr(align(128))]
struct State(AtomicU64);

impl State {
    /// The most helpers of a job.
    const MOST: u64 = 0xffff;

    fn epoch(state: u64) -> u32 {
        (state >> 32) as u32
    }

    fn joined(state: u64) -> u64 {
        state & Self::MOST
    }

    /// Begins the next job.
    fn open(&self, helpers: usize) {
        let epoch = Self::epoch(self.0.load(Ordering::Relaxed)).wrapping_add(1);
        let helpers = (helpers as u64).min(Self::MOST);
        self.0.store(u64::from(epoch) << 32 | helpers << 16, Ordering::SeqCst);
    }

    /// Admits nobody any more, and waits for those who have joined.
    fn close(&self) {
        let mut state = self.0.fetch_and(!(Self::MOST << 16), Ordering::AcqRel);
        let mut spins = 0u32;
        while Self::joined(state) > 0 {
            spins += 1;
            // On an oversubscribed machine the helper may need this core to finish.
            if spins.is_multiple_of(4096) {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
            state = self.0.load(Ordering::Acquire);
        }
    }

    /// Joins the current job if it admits the helper with this index; returns the job's number, too.
    fn join(&self, index: usize) -> (u32, bool) {
        let admitted = |state: u64| (index as u64) < (state >> 16 & Self::MOST);
        let one_more = |state| admitted(state).then_some(state + 1);
        match self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more) {
            Ok(state) => (Self::epoch(state), true),
            Err(state) => (Self::epoch(state), false),
        }
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    fn current(&self) -> u32 {
        Self::epoch(self.0.load(Ordering::SeqCst))
    }
}

impl Shared {
    fn new() -> Self {
        Shared {
            state: State(AtomicU64::new(0)),
            job: UnsafeCell::new(None),
            left: [const { Left(AtomicU64::new(0)) }; STRETCHES],
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
            panicked: AtomicBool::new(false),
        }
    }

    fn run(&self, tasks: usize, helpers: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes; `close` below returns when no helper uses the task.
        let task: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
        let job = Job { task, tasks, helpers };
        // SAFETY: the last job is closed and everybody has left it.
        unsafe { *self.job.get() = Some(job) };
        for (thread, left) in self.left[..job.stretches()].iter().enumerate() {
            left.fill(job.stretch(thread));
        }
        self.state.open(helpers);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _bed = self.bed.lock().unwrap();
            self.alarm.notify_all();
        }
        // SAFETY: as above.
        unsafe { self.work(0, &job) };
        self.state.close();
    }

    /// The thread's own stretch, then what is left of the others'.
    ///
    /// # Safety
    /// The job's owner must still wait in `run`.
    unsafe fn work(&self, thread: usize, job: &Job) {
        // SAFETY: the caller's promise.
        let task = unsafe { &*job.task };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for k in 0..job.stretches() {
                let whose = (thread + k) % job.stretches();
                while let Some(i) = self.left[whose].take(whose == thread) {
                    task(i);
                }
            }
        }));
        if result.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    fn help(&self, index: usize, mut seen: u32) {
        INSIDE.set(true);
        loop {
            self.wait(seen);
            let (epoch, joined) = self.state.join(index);
            seen = epoch;
            if joined {
                // SAFETY: the job has been joined, so its owner waits for this helper before it changes anything.
                unsafe {
                    if let Some(job) = *self.job.get() {
                        self.work(index + 1, &job);
                    }
                }
                self.state.leave();
            }
        }
    }

    /// Returns when the current job is no longer the one `seen`: spins first, then sleeps.
    fn wait(&self, seen: u32) {
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if self.state.current() != seen {
                    return;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > SPIN {
                break;
            }
        }
        let mut bed = self.bed.lock().unwrap();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.state.current() == seen {
            bed = self.alarm.wait(bed).unwrap();
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3] {
            set_num_threads(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicU64> = (0..tasks).map(|_| AtomicU64::new(0)).collect();
                parallel_for(tasks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn owners_take_the_first_task_and_others_the_last() {
        let left = Left(AtomicU64::new(0));
        left.fill(3..7);
        let taken = [true, false, false, true, true, false].map(|own| left.take(own));
        assert_eq!(taken, [Some(3), Some(6), Some(5), Some(4), None, None]);
    }

    #[test]
    fn short_jobs_end_before_their_memory_does() {
        set_num_threads(3);
        for job in 0..20_000u64 {
            let sums = [const { AtomicU64::new(0) }; 5];
            parallel_for(5, |i| {
                sums[i].fetch_add(job + i as u64, Ordering::Relaxed);
            });
            assert_eq!(sums.map(AtomicU64::into_inner), [0, 1, 2, 3, 4].map(|i| job + i));
        }
    }

    #[test]
    fn a_helper_that_comes_late_stays_out() {
        let state = State(AtomicU64::new(0));
        state.open(2);
        assert_eq!([0, 1, 2].map(|index| state.join(index)), [(1, true), (1, true), (1, false)]);
        state.leave();
        state.leave();
        state.close();
        assert_eq!(state.join(0), (1, false));
        state.open(1);
        assert_eq!((state.join(0), state.join(1)), ((2, true), (2, false)));
    }

    #[test]
    fn nested_regions_run_inside_their_task() {
        let sum = AtomicU64::new(0);
        parallel_for(4, |i| {
            parallel_for(5, |j| {
                sum.fetch_add((i * 5 + j) as u64, Ordering::Relaxed);
            })
        });
        assert_eq!(sum.into_inner(), (0..20).sum());
    }

    #[test]
    fn blocks_cover_the_range() {
        let hit: Vec<AtomicU64> = (0..1003).map(|_| AtomicU64::new(0)).collect();
        parallel_blocks(1003, 10, |start, end| {
            for h in &hit[start..end] {
                h.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(hit.iter().all(|h| h.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn chunks_are_disjoint_and_complete() {
        let mut data = vec![0usize; 1003];
        parallel_chunks(&mut data, 100, |i, chunk| chunk.iter_mut().for_each(|x| *x += i + 1));
        assert!(data.iter().enumerate().all(|(k, &x)| x == k / 100 + 1));
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let result = std::panic::catch_unwind(|| parallel_for(8, |i| assert_ne!(i, 5)));
        assert!(result.is_err());
        parallel_for(8, |_| {});
    }
}
