//! Memory that a kernel needs while it runs.

use std::cell::RefCell;

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// Buffers of this thread that no kernel uses just now.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` floats of memory, aligned to a cache line. What they hold is left from earlier uses.
///
/// Each thread keeps its buffers, so that a kernel which runs again finds its pages warm.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let lines = len.div_ceil(16);
    let mut buffer = FREE.with_borrow_mut(|free| {
        // The smallest that is large enough, or else the largest, which grows.
        let fits =
            |b: &Vec<Line>| (b.len() < lines, if b.len() < lines { usize::MAX - b.len() } else { b.len() });
        let best = (0..free.len()).min_by_key(|&i| fits(&free[i]));
        best.map_or_else(Vec::new, |i| free.swap_remove(i))
    });
    if buffer.len() < lines {
        buffer = vec![Line([0.0; 16]); lines];
    }
    // SAFETY: the buffer holds at least `len` floats, initialised, and is borrowed until `f` returns.
    let result = f(unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), len) });
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// A pointer that tasks share, each to write its own part of what it points to.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) *mut f32);

// SAFETY: whoever dereferences the pointer answers for writing only its own part.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The pointer. (A method, so that closures capture the whole wrapper.)
    #[inline(always)]
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_nest() {
        let first = with_scratch(1000, |a| {
            a.fill(1.0);
            with_scratch(500, |b| b.fill(2.0));
            assert!(a.iter().all(|&a| a == 1.0));
            a.as_ptr()
        });
        assert_eq!(first, with_scratch(900, |a| a.as_ptr()));
        assert_eq!(first.align_offset(64), 0);
    }
}
