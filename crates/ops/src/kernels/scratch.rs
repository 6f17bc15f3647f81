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

/// Floats of memory for a kernel, aligned to a cache line, that go back to their thread when dropped.
///
/// Each thread keeps its buffers, so that a kernel which runs again finds its pages warm.
pub(crate) struct Scratch {
    buffer: Vec<Line>,
    len: usize,
}

impl Scratch {
    /// Takes `len` floats. What they hold is left from earlier uses.
    pub(crate) fn new(len: usize) -> Self {
        let lines = len.div_ceil(16);
        let mut buffer = FREE.with_borrow_mut(|free| {
            // The smallest that is large enough, or else the largest, which gives way to a larger one.
            let fit = |b: &Vec<Line>| (b.len() < lines, b.len().abs_diff(lines));
            let best = (0..free.len()).min_by_key(|&i| fit(&free[i]));
            best.map_or_else(Vec::new, |i| free.swap_remove(i))
        });
        if buffer.len() < lines {
            buffer = vec![Line([0.0; 16]); lines];
        }
        Scratch { buffer, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // At the end of a thread there may be no list any more.
        let _ = FREE.try_with(|free| free.borrow_mut().push(buffer));
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the buffer holds at least `len` floats, all initialised.
        unsafe { std::slice::from_raw_parts(self.buffer.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.as_mut_ptr().cast(), self.len) }
    }
}

/// Calls `f` with `len` floats of memory, aligned to a cache line. What they hold is left from earlier uses.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    f(&mut Scratch::new(len))
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
        let mut a = Scratch::new(1000);
        a.fill(1.0);
        Scratch::new(500).fill(2.0);
        assert!(a.iter().all(|&a| a == 1.0));
        let first = a.as_ptr();
        drop(a);
        assert_eq!(first, Scratch::new(900).as_ptr());
        assert_eq!(first.align_offset(64), 0);
    }
}
