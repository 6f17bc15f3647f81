//! Work shared between threads: [`parallel_for`] over a fixed number of tasks.
//!
//! A kernel partitions its work by the size of the problem, never by the number of threads, so results are
//! bit-identical for any number of threads.
//!
//! The calling thread works, helped by rayon's workers: those of the pool that it belongs to, or of the global one. A
//! region requests missing helpers by `rayon::spawn`, without waiting for them. After a job a helper spins for a moment
//! before it returns to rayon: inside a training step the next kernel is microseconds away, and waking a sleeping
//! thread costs more than most small kernels.
//!
//! Each thread begins with its own range of tasks, the same one in every kernel, and then takes tasks of the others,
//! the last ones first: so what one kernel wrote is still in the cache of the core on which the next kernel reads it.

use super::callers::Callers;
use super::region::Region;
use super::shared::SharedSlice;
use std::cell::Cell;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a helper waits for the next job before it returns to rayon.
const SPIN: Duration = Duration::from_micros(150);

/// How long a helper stays at most: then rayon may give it other work, and the next region requests it again.
const MAX_STAY: Duration = Duration::from_secs(1);

/// The maximum number of threads with their own range of tasks.
const MAX_RANGES: usize = 64;

/// The maximum number of helpers of a region.
const MAX_HELPERS: usize = 255;

/// No limit is set. Zero means that the environment has not been read yet.
const NO_LIMIT: usize = usize::MAX;

static LIMIT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// True on a thread that is inside a parallel region.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// The regions that this thread opens.
    static REGIONS: Arc<Regions> = Arc::new(Regions {
        region: Region::new(),
        requested: [const { AtomicBool::new(false) }; MAX_HELPERS],
    });
}

/// What [`set_num_threads`] or `TAPEGRAD_NUM_THREADS` allows.
fn limit() -> usize {
    match LIMIT.load(Ordering::Relaxed) {
        0 => {
            let limit = std::env::var_os("TAPEGRAD_NUM_THREADS")
                .map_or(NO_LIMIT, |n| limit_from(&n.to_string_lossy()));
            // A limit that was set in the meantime takes precedence.
            let _ = LIMIT.compare_exchange(0, limit, Ordering::Relaxed, Ordering::Relaxed);
            LIMIT.load(Ordering::Relaxed)
        }
        limit => limit,
    }
}

fn limit_from(text: &str) -> usize {
    match text.trim().parse() {
        _ if text.is_empty() => NO_LIMIT,
        Ok(n) if n > 0 => n,
        _ => panic!(
            "TAPEGRAD_NUM_THREADS is {text:?}: it takes the number of threads to compute on, 1 or more"
        ),
    }
}

/// The maximum number of threads that a kernel called from this thread works on, this thread among them.
///
/// The limit is that of [`set_num_threads`], or else of the environment variable `TAPEGRAD_NUM_THREADS`. Without
/// either, it is the number of threads of rayon's current pool: one that the program has built or installed, or the
/// global one, whose size is `RAYON_NUM_THREADS` or else the number of cores.
///
/// # Panics
/// If `TAPEGRAD_NUM_THREADS` is not a number, or zero.
pub fn num_threads() -> usize {
    match limit() {
        NO_LIMIT => pool_threads().max(1),
        limit => limit,
    }
}

/// Sets the maximum number of threads that kernels use from now on, everywhere in the program. Results do not depend on
/// it.
///
/// The calling thread is one of them; the others are workers of rayon's pool, so their number is limited by the size of
/// the pool. If the global pool has not been built and `RAYON_NUM_THREADS` is not set, the first kernel that is large
/// enough to run in parallel builds it with a thread for each core, or `n - 1` if that is more.
///
/// # Panics
/// If `n` is zero.
#[track_caller]
pub fn set_num_threads(n: usize) {
    assert!(n > 0, "set_num_threads: at least one thread is needed");
    LIMIT.store(n, Ordering::Relaxed);
}

/// The threads of this thread's pool, or else of the global one, which is built if necessary; zero if that fails.
fn pool_threads() -> usize {
    if is_worker() || global_pool() { rayon::current_num_threads() } else { 0 }
}

fn is_worker() -> bool {
    rayon::current_thread_index().is_some()
}

/// True if the global pool exists. If the system refuses to create its threads, kernels run without it and must not
/// call rayon, which would panic.
fn global_pool() -> bool {
    static BUILT: OnceLock<bool> = OnceLock::new();
    *BUILT.get_or_init(|| {
        if cfg!(target_family = "wasm") {
            return false;
        }
        let helpers = match limit() {
            NO_LIMIT => 0,
            limit => limit - 1,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Zero means rayon's default.
        let own_choice = helpers <= cores || std::env::var_os("RAYON_NUM_THREADS").is_some();
        let threads = if own_choice { 0 } else { helpers.min(MAX_HELPERS) };
        match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
            Ok(()) => true,
            Err(e) if std::error::Error::source(&e).is_some() => false,
            // It has been attempted before; this tells whether it succeeded.
            Err(_) => catch_unwind(rayon::current_num_threads).is_ok(),
        }
    })
}

/// The maximum number of workers of rayon's current pool that help a kernel called from this thread.
///
/// If it is zero, other work for rayon stays on this thread, too: the limit is one thread, or the system refuses more.
pub fn num_workers() -> usize {
    helpers(usize::MAX, 1)
}

/// Calls `task(0)`, `task(1)`, ..., `task(tasks - 1)`, each once, on any of the threads and in any order.
///
/// Returns when all are done. A call from inside a task runs its own tasks one after the other. For work of less than
/// about ten microseconds pass one task: dispatching it to other threads costs more.
///
/// # Panics
/// If a task panics: with its payload, after the tasks of other threads have ended. Tasks that have not begun by then
/// may be skipped.
#[inline]
pub fn parallel_for(tasks: usize, task: impl Fn(usize) + Sync) {
    run(tasks, &task);
}

/// Compiled once for all tasks; inlined on every path, each task would be compiled several times.
fn run(tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    let alone = || (0..tasks).for_each(task);
    // (Tasks are counted in halves of 64 bits.)
    let Ok(count) = u32::try_from(tasks) else { return alone() };
    if tasks <= 1 || INSIDE.get() || limit() == 1 {
        return alone();
    }
    let callers = Callers::enter();
    let helpers = helpers(tasks, callers.sharing());
    // At the end of a thread its regions have been dropped.
    let regions = if helpers > 0 { REGIONS.try_with(Arc::clone).ok() } else { None };
    let Some(regions) = regions else { return alone() };
    INSIDE.set(true);
    // SAFETY: only this thread runs these regions, and their tasks do not get here since `INSIDE` is set.
    let result = unsafe { regions.region.run(count, helpers, task, || regions.request(helpers)) };
    INSIDE.set(false);
    drop(callers);
    if let Err(payload) = result {
        resume_unwind(payload);
    }
}

/// The number of helpers that a region of `tasks` tasks accepts, if `callers` callers share the threads.
fn helpers(tasks: usize, callers: usize) -> usize {
    let (threads, wanted) = match limit() {
        1 => return 0,
        NO_LIMIT => (pool_threads(), pool_threads()),
        limit => (pool_threads(), limit),
    };
    let workers = threads.saturating_sub(usize::from(is_worker()));
    ((wanted / callers).clamp(1, tasks) - 1).min(workers).min(MAX_HELPERS)
}

/// Splits `len` items into blocks of at least `grain` items and calls `task(start, end)` for each.
///
/// The blocks depend only on `len` and `grain`: at most 64 of them, of equal size but for the last.
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

/// Splits a slice into chunks of `chunk` elements, the last may be shorter, and calls `task(index, chunk)` for each.
pub fn parallel_chunks<T: Send>(data: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    if data.is_empty() {
        return;
    }
    let (len, chunk) = (data.len(), chunk.max(1));
    let data = SharedSlice::new(data);
    parallel_for(len.div_ceil(chunk), |i| {
        let from = i * chunk;
        // SAFETY: the chunks do not overlap.
        task(i, unsafe { data.part(from, chunk.min(len - from)) });
    });
}

/// The regions of one thread, which run one at a time.
struct Regions {
    region: Region<MAX_RANGES>,
    /// The helpers that have been requested and have not left yet.
    requested: [AtomicBool; MAX_HELPERS],
}

impl Regions {
    /// Requests those of the first `helpers` helpers that are not active or requested yet.
    fn request(self: &Arc<Self>, helpers: usize) {
        for (index, requested) in self.requested[..helpers].iter().enumerate() {
            if !requested.load(Ordering::Acquire) {
                requested.store(true, Ordering::Relaxed);
                let regions = self.clone();
                rayon::spawn(move || regions.help(index));
            }
        }
    }

    /// Works as the helper with this index for as long as there are jobs.
    fn help(self: Arc<Self>, index: usize) {
        // Rayon may run this on the calling thread itself, or on a thread that waits inside a task.
        let own = REGIONS.try_with(|own| Arc::ptr_eq(own, &self)).unwrap_or(true);
        if !own && !INSIDE.replace(true) {
            self.work(index);
            INSIDE.set(false);
        }
        self.requested[index].store(false, Ordering::Release);
    }

    fn work(&self, index: usize) {
        let start = Instant::now();
        let mut idle = start;
        let mut seen = self.region.help(index);
        while idle - start < MAX_STAY {
            if !self.is_next_job(seen) {
                if idle.elapsed() > SPIN {
                    return;
                }
                continue;
            }
            seen = self.region.help(index);
            idle = Instant::now();
        }
    }

    /// Spins for a moment, until there is a job other than `seen`.
    fn is_next_job(&self, seen: u32) -> bool {
        (0..64).any(|_| {
            std::hint::spin_loop();
            self.region.current() != seen
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::region::{Remaining, State};
    use super::*;
    use std::sync::atomic::AtomicU64;

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

    #[test]
    fn owners_take_the_first_task_and_others_the_last() {
        let left = Remaining::new();
        left.fill(3..7);
        let taken = [true, false, false, true, true, false].map(|own| left.take(own));
        assert_eq!(taken, [Some(3), Some(6), Some(5), Some(4), None, None]);
    }

    #[test]
    fn a_helper_that_comes_late_stays_out() {
        let state = State::new();
        state.open(2);
        assert_eq!([0, 1, 2].map(|index| state.join(index)), [(1, true), (1, true), (1, false)]);
        state.leave();
        state.leave();
        state.close();
        assert_eq!(state.join(0), (1, false));
        state.open(1);
        assert_eq!((state.join(0), state.join(1)), ((2, true), (2, false)));
    }
}
