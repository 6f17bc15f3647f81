//! Memory from the system, for tensors and for the scratch of kernels.

use std::alloc::{Layout, alloc};
use std::ptr::NonNull;

/// The size of a huge page. Kernels read large buffers with large strides: with pages of 4 KiB they would spend more
/// time on TLB misses than on the memory itself.
pub const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory of this layout, in huge pages if the layout is aligned to them; `None` if the system is out of memory.
///
/// # Panics
/// If the layout has no bytes.
pub fn alloc_zeros(layout: Layout) -> Option<NonNull<u8>> {
    assert!(layout.size() > 0, "an allocation has at least one byte");
    // SAFETY: the size is not zero.
    let ptr = NonNull::new(unsafe { alloc(layout) })?;
    #[cfg(all(target_os = "linux", not(miri)))]
    if layout.align() >= HUGE_PAGE {
        // SAFETY: the range was just allocated; the advice changes no contents.
        unsafe { libc::madvise(ptr.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
    }
    // SAFETY: the whole range was just allocated. Zeroing comes after the advice, so that the first access already
    // allocates huge pages, and it initializes every byte that a slice may later show.
    unsafe { ptr.as_ptr().write_bytes(0, layout.size()) };
    Some(ptr)
}
