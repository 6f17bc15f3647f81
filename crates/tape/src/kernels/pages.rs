//! Memory from the system, for tensors and for the scratch of kernels.

use std::alloc::{Layout, alloc};
use std::ptr::NonNull;

/// The size of a huge page. Kernels walk large buffers with long strides: on pages of 4 KiB they would wait for the
/// addresses of pages longer than for the memory.
pub const HUGE_PAGE: usize = 2 << 20;

/// Memory of this layout, all zeros, in huge pages where the layout is aligned to them; none if the system has none.
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
    // SAFETY: the whole range was just allocated. Zeroing comes after the advice, so that the first touch already
    // brings huge pages, and it initializes every byte that a slice may later show.
    unsafe { ptr.as_ptr().write_bytes(0, layout.size()) };
    Some(ptr)
}
