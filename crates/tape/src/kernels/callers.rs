//! How many threads of the program call kernels at the same time: they share the cores.
//!
//! Two threads that each train a model are fastest if each computes alone: with a helper for one of them, three threads
//! would compete for two cores, and waiting for a task of a thread that is not running costs milliseconds. So callers
//! whose regions overlap divide the threads, and continue to do so for a while, since most of them pause between two
//! regions. Threads that call in turns never overlap, and each gets all threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// For how many milliseconds an overlap counts.
const LASTS: u64 = 10;

/// The callers that are inside a region now.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// The last overlap: until when it counts in the upper 48 bits, in milliseconds, and the number of callers in the lower
/// 16. Zero if it no longer counts.
static OVERLAP: AtomicU64 = AtomicU64::new(0);

/// A caller inside its region, until it is dropped.
pub(super) struct Callers(usize);

impl Callers {
    pub(super) fn enter() -> Callers {
        Callers(INSIDE.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The number of callers that share the threads, including this one.
    pub(super) fn sharing(&self) -> usize {
        let overlap = OVERLAP.load(Ordering::Relaxed);
        // The usual case does not read the clock.
        if self.0 == 1 && overlap == 0 {
            return 1;
        }
        let (callers, next) = sharing(self.0, overlap, now());
        if next != overlap {
            OVERLAP.store(next, Ordering::Relaxed);
        }
        callers
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Milliseconds since the first overlap.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// The number of callers that share the threads if `inside` callers are inside now, and the new last overlap.
fn sharing(inside: usize, overlap: u64, now: u64) -> (usize, u64) {
    let (until, overlapping) = (overlap >> 16, (overlap & 0xffff) as usize);
    let overlapping = if now < until { overlapping } else { 0 };
    match inside.min(0xffff) {
        inside if inside > 1 && inside >= overlapping => (inside, (now + LASTS) << 16 | inside as u64),
        _ if overlapping > 0 => (overlapping, overlap),
        _ => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_that_meet_share_until_they_have_not_met_for_a_while() {
        let (callers, overlap) = sharing(1, 0, 5);
        assert_eq!((callers, overlap), (1, 0));
        let (callers, overlap) = sharing(3, overlap, 5);
        assert_eq!(callers, 3);
        // Two of them overlap again: the third one may only pause.
        assert_eq!(sharing(2, overlap, 5 + LASTS - 1), (3, overlap));
        assert_eq!(sharing(1, overlap, 5 + LASTS - 1), (3, overlap));
        assert_eq!(sharing(1, overlap, 5 + LASTS), (1, 0));
        let (callers, later) = sharing(2, overlap, 5 + LASTS);
        assert_eq!((callers, sharing(1, later, 5 + 2 * LASTS - 1).0), (2, 2));
    }
}
