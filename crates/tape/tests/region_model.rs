//! The jobs of a parallel region under loom, which runs every order of their atomic operations that the memory model
//! allows: each task runs once, its effects are seen by the caller, and no helper touches a job that is over.

#![allow(dead_code)]

mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;
}

#[path = "../src/kernels/region.rs"]
mod region;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use region::Region;

/// What tasks write without synchronization of their own: loom reports it if two threads do so at once, or if the
/// caller reads it too early.
struct Results<const N: usize>([UnsafeCell<u32>; N]);

// SAFETY: this is what the tests find out.
unsafe impl<const N: usize> Sync for Results<N> {}

impl<const N: usize> Results<N> {
    fn new() -> Self {
        Results(std::array::from_fn(|_| UnsafeCell::new(0)))
    }

    fn add(&self, i: usize) {
        // SAFETY: each task has its own.
        self.0[i].with_mut(|count| unsafe { *count += 1 });
    }

    fn get(&self) -> [u32; N] {
        // SAFETY: all tasks have ended.
        std::array::from_fn(|i| self.0[i].with(|count| unsafe { *count }))
    }
}

/// `jobs` jobs of `TASKS` tasks, while `helpers` threads try to join `tries` times each.
fn model<const TASKS: usize>(jobs: usize, helpers: usize, admitted: usize, tries: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let region = Arc::new(Region::<2>::new());
        let threads: Vec<_> = (0..helpers)
            .map(|index| {
                let region = region.clone();
                thread::spawn(move || {
                    (0..tries).for_each(|_| {
                        region.help(index);
                    })
                })
            })
            .collect();
        for _ in 0..jobs {
            let results = Results::<TASKS>::new();
            // SAFETY: this is the only caller.
            let result = unsafe { region.run(TASKS as u32, admitted, &|i| results.add(i), || {}) };
            assert!(result.is_ok());
            assert_eq!(results.get(), [1; TASKS]);
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn one_helper_and_two_jobs() {
    model::<2>(2, 1, 1, 2);
}

#[test]
fn one_helper_takes_from_the_callers_range() {
    model::<3>(1, 1, 1, 1);
}

#[test]
fn two_helpers_and_one_job() {
    model::<3>(1, 2, 2, 1);
}

#[test]
fn a_helper_that_is_not_admitted_stays_out() {
    model::<2>(1, 2, 1, 1);
}

#[test]
fn a_panic_reaches_the_caller_of_its_job_and_no_later_one() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let region = Arc::new(Region::<2>::new());
        let helper = {
            let region = region.clone();
            thread::spawn(move || {
                region.help(0);
            })
        };
        let task = |i: usize| {
            if i == 1 {
                std::panic::resume_unwind(Box::new("task 1"))
            }
        };
        // SAFETY: this is the only caller.
        let first = unsafe { region.run(2, 1, &task, || {}) };
        assert_eq!(first.unwrap_err().downcast_ref(), Some(&"task 1"));
        // SAFETY: as above.
        let second = unsafe { region.run(2, 1, &|_| (), || {}) };
        assert!(second.is_ok());
        helper.join().unwrap();
    });
}
