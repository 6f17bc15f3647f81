//! Memory under a limit of the system: the cache gives way to new requests, and what cannot be had is an error. Each
//! test starts this program anew for itself alone, because a limit holds for a whole process.
#![cfg(target_os = "linux")]

use std::process::Command;
use tapegrad_tape::{DType, OutOfMemoryError, Tensor, Var, pool_stats, set_cache_limit};

const CHILD: &str = "TAPEGRAD_TEST_UNDER_LIMIT";

/// Runs a test of this file in a process of its own; in that process, answers true.
fn in_own_process(test: &str) -> bool {
    if std::env::var(CHILD).is_ok_and(|name| name == test) {
        return true;
    }
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .expect("this program can be started again");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}", output.status);
    false
}

/// Limits this process to this many more bytes of address space.
fn limit(more: usize) {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').next().and_then(|n| n.parse().ok()).expect("the size in pages");
    // SAFETY: plain system calls on values that live here.
    unsafe {
        let now = pages * libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let most = (now + more) as libc::rlim_t;
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
    }
}

fn megabytes(n: usize) -> Tensor {
    Tensor::zeros_with(&[n << 18], DType::F32)
}

#[test]
fn growing_tensors_live_in_what_the_largest_needs() {
    if in_own_process("growing_tensors_live_in_what_the_largest_needs") {
        // The largest, rounded to huge pages and to its size class, twice over would not fit.
        limit(450 << 20);
        for n in (4..=300).step_by(4) {
            assert_eq!(megabytes(n).numel(), n << 18);
        }
    }
}

#[test]
fn what_cannot_be_had_is_an_error() {
    if in_own_process("what_cannot_be_had_is_an_error") {
        limit(200 << 20);
        let asked = 400usize << 20;
        let error = Tensor::try_zeros(&[asked], DType::U8).unwrap_err();
        assert_eq!(error, OutOfMemoryError { bytes: asked });
        assert_eq!(error.to_string(), "out of memory: 419430400 bytes cannot be allocated");
        assert_eq!(Tensor::try_full(&[asked / 4], 1, DType::F32).unwrap_err().bytes, asked);
        assert_eq!(Tensor::try_zeros(&[usize::MAX, 2], DType::F32).unwrap_err().bytes, usize::MAX);
        let panic = std::panic::catch_unwind(|| Tensor::zeros_with(&[100 << 20], DType::F32)).unwrap_err();
        let said = panic.downcast_ref::<String>().expect("a message");
        assert!(
            said.contains(
                "out of memory: 419430400 bytes cannot be allocated, for a tensor of shape [104857600]"
            ),
            "{said}"
        );
        // A list as large as a tensor is refused alike.
        let view = Var::from(Tensor::zeros_with(&[1], DType::F32)).expand_to(&[60 << 20]);
        let panic =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| view.roll(&[1], &[0]))).unwrap_err();
        let said = panic.downcast_ref::<String>().expect("a message");
        assert!(said.contains("roll: out of memory: 503316480 bytes cannot be allocated"), "{said}");
        // And the program goes on.
        assert_eq!(megabytes(50).numel(), 50 << 18);
    }
}

#[test]
fn the_cache_stays_below_its_limit() {
    if in_own_process("the_cache_stays_below_its_limit") {
        // Four times the most that was in use at once.
        for n in (4..=100).step_by(4) {
            drop(megabytes(n));
            let stats = pool_stats();
            assert!(stats.cached_bytes <= (4 * stats.peak_live_bytes).max(64 << 20), "{stats:?}");
        }
        // What was used last is what is kept.
        let before = pool_stats().system_allocations;
        drop(megabytes(100));
        assert_eq!(pool_stats().system_allocations, before);

        set_cache_limit(Some(10 << 20));
        assert!(pool_stats().cached_bytes <= 10 << 20);
        drop(megabytes(20));
        assert!(pool_stats().cached_bytes <= 10 << 20);
        set_cache_limit(Some(0));
        drop(megabytes(1));
        assert_eq!(pool_stats().cached_bytes, 0);
        set_cache_limit(None);
        drop(megabytes(1));
        assert!(pool_stats().cached_bytes >= 1 << 20);
    }
}
