//! Work shared between threads: [`parallel_for`] over a fixed number of tasks.
//!
//! A kernel cuts its work by the size of the problem, never by the number of threads, so the same
//! input gives the same bits on one thread or many.
//!
//! The calling thread works, and rayon's workers help it: those of the pool that it belongs to, or of the global one.
//! A region asks for the helpers that it lacks by `rayon::spawn`, and waits for none of them. A helper
//! spins for a moment after a task before it goes back to rayon: inside a training step the next kernel is
//! microseconds away, and waking a sleeping thread costs more than most small kernels.
//!
//! Each thread begins with a stretch of tasks of its own, the same one in every kernel, and helps the
//! others when it is done, with their last tasks first: what one kernel wrote is then still in the cache
//! of the core that the next one reads it on.

use super::callers::Callers;
use super::region::Region;
use super::shared::SharedSlice;
use std::cell::Cell;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a helper looks for the next job before it goes back to rayon.
const SPIN: Duration = Duration::from_micros(150);

/// How long a helper stays at most: then rayon may give it other work, and the next region asks again.
const MAX_STAY: Duration = Duration::from_millis(5);

/// The most threads that have a stretch of their own.
const MAX_RANGES: usize = 64;

/// The most helpers of a region.
const MOST_HELPERS: usize = 255;

/// Stands for a limit that nobody has set, as zero does for one that has not been looked for yet.
const NO_LIMIT: usize = usize::MAX;

static LIMIT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// True on a thread that is inside a parallel region.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// The regions that this thread opens.
    static REGIONS: Arc<Regions> = Arc::new(Regions {
        region: Region::new(),
        called: [const { AtomicBool::new(false) }; MOST_HELPERS],
    });
}

/// What [`set_num_threads`] or `TAPEGRAD_NUM_THREADS` allows.
fn limit() -> usize {
    match LIMIT.load(Ordering::Relaxed) {
        0 => {
            let limit = std::env::var_os("TAPEGRAD_NUM_THREADS")
                .map_or(NO_LIMIT, |n| limit_from(&n.to_string_lossy()));
            // Whoever has set one in the meantime knows better.
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

/// The most threads that a kernel called from this thread works on, this thread among them.
///
/// That is what [`set_num_threads`] or else the environment's `TAPEGRAD_NUM_THREADS` says. If neither does, it is the
/// number of threads of rayon's current pool: the one that the program has built or installed, or the global one, for
/// which the environment's `RAYON_NUM_THREADS` counts, or else the number of cores.
///
/// # Panics
/// If `TAPEGRAD_NUM_THREADS` is no number, or zero.
pub fn num_threads() -> usize {
    match limit() {
        NO_LIMIT => pool_threads().max(1),
        limit => limit,
    }
}

/// Sets the most threads that kernels work on from now on, everywhere in the program. Results do not depend on it.
///
/// The calling thread is one of them; the others are workers of rayon's pool, so there are never more than that has.
/// Where nobody has built the global pool and `RAYON_NUM_THREADS` is not set, the first kernel that is large enough to be
/// shared builds it: with a thread for each core, or `n - 1` if that is more.
///
/// # Panics
/// If `n` is zero.
#[track_caller]
pub fn set_num_threads(n: usize) {
    assert!(n > 0, "set_num_threads: at least one thread is needed");
    LIMIT.store(n, Ordering::Relaxed);
}

/// The threads of this thread's pool, or else of the global one, which is built if nobody has; zero if it cannot be.
fn pool_threads() -> usize {
    if is_worker() || global_pool() { rayon::current_num_threads() } else { 0 }
}

fn is_worker() -> bool {
    rayon::current_thread_index().is_some()
}

/// True if the global pool is there. Where the system refuses its threads we work without, and must not call rayon, which
/// panics then.
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
        // Zero is rayon's own choice.
        let own_choice = helpers <= cores || std::env::var_os("RAYON_NUM_THREADS").is_some();
        let threads = if own_choice { 0 } else { helpers.min(MOST_HELPERS) };
        match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
            Ok(()) => true,
            Err(e) if std::error::Error::source(&e).is_some() => false,
            // Somebody has tried before: with success?
            Err(_) => catch_unwind(rayon::current_num_threads).is_ok(),
        }
    })
}

/// The most workers of rayon's current pool that help a kernel called from this thread.
///
/// Work that goes to rayon itself stays on this thread where there are none: the limit is one thread, or the
/// system refuses more.
pub fn num_workers() -> usize {
    helpers(usize::MAX, 1)
}

/// Calls `task(0)`, `task(1)`, ..., `task(tasks - 1)`, each once, on any of the threads and in any order.
///
/// Returns when all are done. A call from inside a task runs its own tasks one after the other.
/// For work of less than some ten microseconds pass one task: handing it over costs more.
///
/// # Panics
/// If a task panics: with what it panicked with, and after the tasks of other threads have ended. Tasks that have not
/// begun by then may be left out.
#[inline]
pub fn parallel_for(tasks: usize, task: impl Fn(usize) + Sync) {
    run(tasks, &task);
}

/// Compiled once for all tasks: inlined here on every path, each would be compiled several times.
fn run(tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    let alone = || (0..tasks).for_each(task);
    // (Halves of a number of 64 bits count the tasks.)
    let Ok(count) = u32::try_from(tasks) else { return alone() };
    if tasks <= 1 || INSIDE.get() || limit() == 1 {
        return alone();
    }
    let callers = Callers::enter();
    let helpers = helpers(tasks, callers.sharing());
    // At the end of a thread its regions are gone.
    let regions = if helpers > 0 { REGIONS.try_with(Arc::clone).ok() } else { None };
    let Some(regions) = regions else { return alone() };
    INSIDE.set(true);
    // SAFETY: only this thread uses these regions, and no task of theirs comes here: it is inside.
    let result = unsafe { regions.region.run(count, helpers, task, || regions.call(helpers)) };
    INSIDE.set(false);
    drop(callers);
    if let Err(payload) = result {
        resume_unwind(payload);
    }
}

/// The helpers that a region of so many tasks admits, if so many callers share the threads.
fn helpers(tasks: usize, callers: usize) -> usize {
    let (threads, wanted) = match limit() {
        1 => return 0,
        NO_LIMIT => (pool_threads(), pool_threads()),
        limit => (pool_threads(), limit),
    };
    let workers = threads.saturating_sub(usize::from(is_worker()));
    ((wanted / callers).clamp(1, tasks) - 1).min(workers).min(MOST_HELPERS)
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
    let (len, chunk) = (data.len(), chunk.max(1));
    let data = SharedSlice::new(data);
    parallel_for(len.div_ceil(chunk), |i| {
        let from = i * chunk;
        // SAFETY: the chunks do not overlap.
        task(i, unsafe { data.part(from, chunk.min(len - from)) });
    });
}

/// The regions of one thread, one after the other.
struct Regions {
    region: Region<MAX_RANGES>,
    /// The helpers that have been asked for and have not left again.
    called: [AtomicBool; MOST_HELPERS],
}

impl Regions {
    /// Asks rayon for those of the first `helpers` that are not here or on their way.
    fn call(self: &Arc<Self>, helpers: usize) {
        for (index, called) in self.called[..helpers].iter().enumerate() {
            if !called.load(Ordering::Acquire) {
                called.store(true, Ordering::Relaxed);
                let regions = self.clone();
                rayon::spawn(move || regions.help(index));
            }
        }
    }

    /// Works as the helper with this index for as long as there are jobs.
    fn help(self: Arc<Self>, index: usize) {
        // Rayon may give this to the calling thread itself, or to a thread that waits inside a task.
        let own = REGIONS.try_with(|own| Arc::ptr_eq(own, &self)).unwrap_or(true);
        if !own && !INSIDE.replace(true) {
            self.work(index);
            INSIDE.set(false);
        }
        self.called[index].store(false, Ordering::Release);
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

    /// Looks for a moment for a job that is not the one `seen`.
    fn is_next_job(&self, seen: u32) -> bool {
        (0..64).any(|_| {
            std::hint::spin_loop();
            self.region.current() != seen
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::region::{Left, State};
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
        let left = Left::new();
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
