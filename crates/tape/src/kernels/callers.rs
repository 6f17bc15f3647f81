//! How many threads of the program call kernels at the same time: they share the cores.
//!
//! Two threads that train a model each are fastest if each computes alone: with a helper for one of them three threads
//! would compete for two cores, and whoever waits for a task of a thread that does not run loses milliseconds. So callers
//! that meet inside their regions divide the threads, and go on to do so for a while after, since most of them
//! pause between two regions. Threads that call in turns never meet, and have all threads each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// For how many milliseconds a meeting counts.
const LASTS: u64 = 10;

/// The callers that are inside a region now.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// The last meeting: until when it counts in the upper 48 bits, in milliseconds, and how many met in the lower 16. Zero if
/// it is over.
static MEETING: AtomicU64 = AtomicU64::new(0);

/// A caller inside its region, until it is dropped.
pub(super) struct Callers(usize);

impl Callers {
    pub(super) fn enter() -> Callers {
        Callers(INSIDE.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The number of callers that share the threads, this one among them.
    pub(super) fn sharing(&self) -> usize {
        let meeting = MEETING.load(Ordering::Relaxed);
        // The usual case costs no look at the clock.
        if self.0 == 1 && meeting == 0 {
            return 1;
        }
        let (callers, next) = sharing(self.0, meeting, now());
        if next != meeting {
            MEETING.store(next, Ordering::Relaxed);
        }
        callers
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Milliseconds since the first meeting.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// The number of callers that share the threads if so many are inside now, and the last meeting then.
fn sharing(inside: usize, meeting: u64, now: u64) -> (usize, u64) {
    let (until, met) = (meeting >> 16, (meeting & 0xffff) as usize);
    let met = if now < until { met } else { 0 };
    match inside.min(0xffff) {
        inside if inside > 1 && inside >= met => (inside, (now + LASTS) << 16 | inside as u64),
        _ if met > 0 => (met, meeting),
        _ => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_that_meet_share_until_they_have_not_met_for_a_while() {
        let (callers, meeting) = sharing(1, 0, 5);
        assert_eq!((callers, meeting), (1, 0));
        let (callers, meeting) = sharing(3, meeting, 5);
        assert_eq!(callers, 3);
        // Two of them meet again: the third one pauses only.
        assert_eq!(sharing(2, meeting, 5 + LASTS - 1), (3, meeting));
        assert_eq!(sharing(1, meeting, 5 + LASTS - 1), (3, meeting));
        assert_eq!(sharing(1, meeting, 5 + LASTS), (1, 0));
        let (callers, later) = sharing(2, meeting, 5 + LASTS);
        assert_eq!((callers, sharing(1, later, 5 + 2 * LASTS - 1).0), (2, 2));
    }
}
