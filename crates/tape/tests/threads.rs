//! What kernels promise of threads: any number of callers, rayon's pools, panics, threads that cannot be had. The settings
//! are the process's, so these tests take turns.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tapegrad_tape::kernels::parallel::{num_workers, parallel_for};
use tapegrad_tape::{DType, Generator, Tensor, Var, num_threads, set_num_threads};

static PROCESS: Mutex<()> = Mutex::new(());

/// This test's turn, with this many threads.
fn turn(threads: usize) -> MutexGuard<'static, ()> {
    let guard = PROCESS.lock().unwrap_or_else(|e| e.into_inner());
    set_num_threads(threads);
    guard
}

/// A while of work, so that helpers have the time to come.
fn work(until: Duration) {
    let start = Instant::now();
    while start.elapsed() < until {
        std::hint::spin_loop();
    }
}

/// The most threads that took part in one region, of as many regions as a second has, until one has as many as are
/// expected. (Each region may have another of rayon's workers.)
fn threads_of_a_region(expected: usize) -> usize {
    let mut most = 0;
    let start = Instant::now();
    while most < expected && start.elapsed() < Duration::from_secs(1) {
        let seen = Mutex::new(std::collections::HashSet::new());
        parallel_for(64, |_| {
            seen.lock().unwrap().insert(std::thread::current().id());
            work(Duration::from_micros(50));
        });
        most = most.max(seen.into_inner().unwrap().len());
    }
    most
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Runs one test of this file in a process of its own, with these variables set.
fn in_a_process(test: &str, variables: &[(&str, &str)]) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env_remove("RAYON_NUM_THREADS")
        .env_remove("TAPEGRAD_NUM_THREADS")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[track_caller]
fn passes_in_a_process(test: &str, variables: &[(&str, &str)]) {
    let output = in_a_process(test, variables);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{test} with {variables:?}:\n{text}");
}

#[test]
fn a_panic_reaches_its_own_caller_with_its_message() {
    let _turn = turn(2);
    let panics = AtomicUsize::new(0);
    let start = Barrier::new(8);
    std::thread::scope(|s| {
        for caller in 0..8 {
            let (start, panics) = (&start, &panics);
            s.spawn(move || {
                start.wait();
                for round in 0..300 {
                    let region = catch_unwind(|| {
                        parallel_for(8, |i| {
                            work(Duration::from_micros(2));
                            if caller % 2 == 0 && i == round % 8 {
                                // Without the message that a panic prints.
                                resume_unwind(Box::new((caller, round)));
                            }
                        })
                    });
                    match region {
                        Err(payload) => {
                            assert_eq!(payload.downcast_ref(), Some(&(caller, round)), "another caller's");
                            panics.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(()) => assert!(caller % 2 == 1, "caller {caller} lost its panic of round {round}"),
                    }
                }
            });
        }
    });
    assert_eq!(panics.into_inner(), 4 * 300);
}

#[test]
fn a_helpers_panic_keeps_its_message() {
    let _turn = turn(2);
    let caller = std::thread::current().id();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let region = catch_unwind(|| {
            parallel_for(64, |i| {
                work(Duration::from_micros(20));
                if std::thread::current().id() != caller {
                    resume_unwind(Box::new(format!("task {i} of a helper")));
                }
            })
        });
        if let Err(payload) = region {
            assert!(payload.downcast_ref::<String>().unwrap().ends_with("of a helper"));
            return;
        }
    }
    panic!("no helper came in five seconds");
}

#[test]
fn calls_from_rayons_tasks_end() {
    use rayon::prelude::*;
    let _turn = turn(4);
    let expected = |k: usize| (0..100).map(|i| i * k).sum::<usize>();
    let call = |k: usize| {
        let sum = AtomicUsize::new(0);
        parallel_for(100, |i| {
            sum.fetch_add(i * k, Ordering::Relaxed);
        });
        sum.into_inner()
    };
    let all = || (0..2000).into_par_iter().for_each(|k| assert_eq!(call(k), expected(k)));
    all();
    pool(3).install(all);
    // With a thread outside that calls at the same time, and tasks that wait for tasks.
    std::thread::scope(|s| {
        s.spawn(|| (0..500).for_each(|k| assert_eq!(call(k), expected(k))));
        let nested = |k: usize| rayon::join(|| call(k), || call(k + 1));
        (0..500).into_par_iter().for_each(|k| assert_eq!(nested(k), (expected(k), expected(k + 1))));
    });
    // Rayon's own work inside a task of ours.
    parallel_for(20, |k| (0..20).into_par_iter().for_each(|i| assert_eq!(call(k + i), expected(k + i))));
}

#[test]
fn workers_that_do_not_come_keep_nobody_waiting() {
    let _turn = turn(2);
    // All of the pool's workers wait for us.
    let (pool, stop) = (pool(2), Barrier::new(2));
    pool.in_place_scope(|s| {
        s.spawn(|_| {
            stop.wait();
        });
        pool.install(|| {
            assert_eq!(num_workers(), 1);
            for _ in 0..1000 {
                parallel_for(8, |_| work(Duration::from_micros(1)));
            }
        });
        stop.wait();
    });
}

#[test]
fn rayon_gets_its_workers_back() {
    let _turn = turn(2);
    // The calls never stop, and other work of the pool's only further worker is done all the same.
    let done = AtomicUsize::new(0);
    let pool = pool(2);
    pool.scope(|s| {
        let start = Instant::now();
        for k in 0.. {
            parallel_for(8, |_| work(Duration::from_micros(10)));
            if k % 100 == 99 && k < 1000 {
                s.spawn(|_| {
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            if done.load(Ordering::Relaxed) == 10 {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the worker is never given back");
        }
    });
}

#[test]
fn a_pool_that_is_installed_bounds_the_threads() {
    let _turn = turn(4);
    assert_eq!(pool(1).install(|| (num_workers(), threads_of_a_region(1))), (0, 1));
    assert_eq!(pool(2).install(|| (num_workers(), threads_of_a_region(2))), (1, 2));
    set_num_threads(2);
    assert_eq!(pool(4).install(|| (num_workers(), threads_of_a_region(2))), (1, 2));
    set_num_threads(1);
    assert_eq!(pool(4).install(|| (num_workers(), threads_of_a_region(1))), (0, 1));
}

#[test]
fn the_same_bits_on_any_threads_of_any_pool() {
    let _turn = turn(1);
    let mut g = Generator::manual_seed(3);
    let (x, y) = (g.normal(&[300, 1000], 0.0, 1.0), g.normal(&[300, 1000], 0.0, 1.0));
    let bits = || {
        let (x, y) = (Var::parameter(x.clone()), Var::parameter(y.clone()));
        let loss = ((&x * &y).exp().sum_keepdim(0) / &x).mean_all();
        loss.backward();
        let grads = [x.grad().unwrap(), y.grad().unwrap()].map(|g| g.to_vec::<f32>());
        (loss.item().to_bits(), grads.map(|g| g.into_iter().map(f32::to_bits).collect::<Vec<_>>()))
    };
    let alone = bits();
    for threads in [2, 3, 4] {
        set_num_threads(threads);
        assert!(bits() == alone, "{threads} threads");
        assert!(pool(threads).install(bits) == alone, "a pool of {threads} threads");
    }
    // And while another thread computes, too.
    std::thread::scope(|s| {
        let others: Vec<_> = (0..2).map(|_| s.spawn(bits)).collect();
        assert!(others.into_iter().all(|o| o.join().unwrap() == alone));
    });
}

#[test]
fn threads_that_call_in_turns_have_all_threads_each() {
    let _turn = turn(2);
    for _ in 0..3 {
        assert_eq!(threads_of_a_region(2), 2);
        std::thread::scope(|s| assert_eq!(s.spawn(|| threads_of_a_region(2)).join().unwrap(), 2));
    }
}

#[test]
fn a_region_in_a_destructor_at_the_end_of_a_thread() {
    let _turn = turn(2);
    struct AtEnd;
    impl Drop for AtEnd {
        fn drop(&mut self) {
            let sum = AtomicUsize::new(0);
            parallel_for(8, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 28);
        }
    }
    thread_local! {
        static AT_END: AtEnd = const { AtEnd };
    }
    let thread = std::thread::spawn(|| {
        AT_END.with(|_| ());
        parallel_for(8, |_| ());
    });
    thread.join().unwrap();
}

#[test]
#[ignore = "in a process of its own"]
fn process_without_threads() {
    // More stack than there are addresses: no thread can be started.
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "this system starts any thread");
    set_num_threads(4);
    let sum = AtomicUsize::new(0);
    parallel_for(100, |i| {
        sum.fetch_add(i, Ordering::Relaxed);
    });
    assert_eq!((sum.into_inner(), num_workers()), (4950, 0));
    let x = Var::parameter(Tensor::ones_with(&[1000, 1000], DType::F32));
    x.exp().sum_all().backward();
    assert!(x.grad().is_some());
}

#[test]
fn helpers_that_cannot_be_started_are_done_without() {
    if cfg!(all(target_os = "linux", target_pointer_width = "64")) {
        passes_in_a_process("process_without_threads", &[("RUST_MIN_STACK", "281474976710656")]);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn process_with_threads() {
    let expected: Vec<usize> =
        std::env::var("EXPECTED").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    assert_eq!([num_threads(), num_workers(), threads_of_a_region(expected[2])], expected[..]);
}

#[test]
#[ignore = "in a process of its own"]
fn process_with_a_pool() {
    rayon::ThreadPoolBuilder::new().num_threads(3).build_global().unwrap();
    assert_eq!([num_threads(), num_workers(), threads_of_a_region(3)], [3, 2, 3]);
    set_num_threads(2);
    assert_eq!([num_threads(), num_workers(), threads_of_a_region(2)], [2, 1, 2]);
}

#[test]
fn the_environment_is_respected() {
    let threads = |expected: &str, variables: &[(&str, &str)]| {
        let mut variables = variables.to_vec();
        variables.push(("EXPECTED", expected));
        passes_in_a_process("process_with_threads", &variables);
    };
    threads("1 0 1", &[("RAYON_NUM_THREADS", "1")]);
    threads("3 2 3", &[("RAYON_NUM_THREADS", "3")]);
    threads("1 0 1", &[("TAPEGRAD_NUM_THREADS", "1")]);
    threads("2 1 2", &[("TAPEGRAD_NUM_THREADS", "2"), ("RAYON_NUM_THREADS", "3")]);
    threads("5 2 3", &[("TAPEGRAD_NUM_THREADS", "5"), ("RAYON_NUM_THREADS", "2")]);
    passes_in_a_process("process_with_a_pool", &[]);
}

#[test]
fn a_number_of_threads_that_is_none_is_refused() {
    for value in ["abc", "0", "-1", "1.5", "2 threads"] {
        let output =
            in_a_process("process_with_threads", &[("TAPEGRAD_NUM_THREADS", value), ("EXPECTED", "1 0 1")]);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{value}");
        assert!(text.contains(&format!("TAPEGRAD_NUM_THREADS is {value:?}")), "{text}");
    }
    // Set to nothing is not set.
    passes_in_a_process(
        "process_with_threads",
        &[("TAPEGRAD_NUM_THREADS", ""), ("RAYON_NUM_THREADS", "2"), ("EXPECTED", "2 1 2")],
    );
}

#[test]
fn a_panic_before_a_thread_is_asked_for_leaves_the_caller_able() {
    let _turn = turn(2);
    for _ in 0..100 {
        let caught = catch_unwind(AssertUnwindSafe(|| parallel_for(4, |_| resume_unwind(Box::new(())))));
        assert!(caught.is_err());
        let sum = AtomicUsize::new(0);
        parallel_for(4, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 6);
    }
}
