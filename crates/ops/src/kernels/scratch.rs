//! Temporary memory of kernels.

use std::alloc::{Layout, dealloc};
use std::cell::RefCell;
use std::ptr::NonNull;
use tapegrad_tape::OutOfMemoryError;
use tapegrad_tape::kernels::pages::{HUGE_PAGE, alloc_zeros};

/// Memory of at least this size gets whole huge pages.
const LARGE: usize = 256 << 10;

thread_local! {
    /// The unused buffers of this thread.
    static FREE: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Initialized memory.
struct Buffer {
    ptr: NonNull<f32>,
    layout: Layout,
}

impl Buffer {
    /// At least `bytes`, aligned to a cache line.
    ///
    /// # Panics
    /// If there is no memory, even after the tensors' cache was freed.
    fn new(bytes: usize) -> Self {
        let align = if bytes >= LARGE { HUGE_PAGE } else { 64 };
        let size = bytes.max(1).checked_next_multiple_of(align);
        let layout = size.and_then(|size| Layout::from_size_align(size, align).ok());
        let fresh = || layout.and_then(|layout| Some((alloc_zeros(layout)?, layout)));
        let fresh = fresh().or_else(|| {
            tapegrad_tape::empty_cache();
            fresh()
        });
        let Some((ptr, layout)) = fresh else {
            panic!("{}, for the scratch of a kernel", OutOfMemoryError { bytes })
        };
        Buffer { ptr: ptr.cast(), layout }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and owned.
        unsafe { dealloc(self.ptr.as_ptr().cast(), self.layout) };
    }
}

/// Floats of memory for a kernel, aligned to a cache line, that are returned to their thread when dropped.
///
/// Each thread keeps its buffers, so that a kernel that runs again reuses their pages.
pub(crate) struct Scratch {
    buffer: Option<Buffer>,
    len: usize,
}

impl Scratch {
    /// Takes `len` floats with arbitrary contents.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<f32>());
        let free = FREE.with_borrow_mut(|free| {
            // The smallest that is large enough, or else the largest, which is replaced by a larger one.
            let fit = |b: &Buffer| (b.layout.size() < bytes, b.layout.size().abs_diff(bytes));
            let best = (0..free.len()).min_by_key(|&i| fit(&free[i]));
            best.map(|i| free.swap_remove(i))
        });
        let buffer = free.filter(|b| b.layout.size() >= bytes).unwrap_or_else(|| Buffer::new(bytes));
        Scratch { buffer: Some(buffer), len }
    }

    fn ptr(&self) -> *mut f32 {
        self.buffer.as_ref().map_or(NonNull::dangling(), |b| b.ptr).as_ptr()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = self.buffer.take();
        // At the end of a thread the list may have been dropped.
        let _ = FREE.try_with(|free| free.borrow_mut().extend(buffer));
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the buffer holds at least `len` floats, all initialized, until it is taken on drop.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.len) }
    }
}

/// Calls `f` with `len` floats of memory, aligned to a cache line, with arbitrary contents.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    f(&mut Scratch::new(len))
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
