//! Memory for tensors: aligned buffers from a caching pool.
//!
//! A training loop makes the same buffers step after step. The pool keeps what is dropped, by size class,
//! and hands it out again while it is warm, so after the first steps the operating system is asked for
//! nothing more: fresh pages cost more than most kernels.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cache line, and the widest vector.
const ALIGN: usize = 64;
/// From here on, buffers are aligned to huge pages and ask for them.
const HUGE: usize = 2 << 20;

/// Free blocks by size class.
static POOL: Mutex<[Vec<Block>; CLASSES]> = Mutex::new([const { Vec::new() }; CLASSES]);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static CACHED: AtomicUsize = AtomicUsize::new(0);
static SYSTEM_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// What the pool holds and has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes in buffers that are in use.
    pub live_bytes: usize,
    /// Bytes kept for the next buffers.
    pub cached_bytes: usize,
    /// How many times the pool has asked the system for memory, from the start of the program.
    pub system_allocations: usize,
    /// The most bytes that were in use at once.
    pub peak_live_bytes: usize,
    /// The bytes of all buffers that were handed out, from the start of the program (it wraps around).
    pub allocated_bytes: usize,
}

/// The pool's statistics now.
///
/// ```
/// let before = tape::pool_stats().live_bytes;
/// let t = tape::Tensor::zeros(&[1000], tape::DType::F32);
/// assert!(tape::pool_stats().live_bytes >= before + 4000);
/// drop(t);
/// ```
pub fn pool_stats() -> PoolStats {
    PoolStats {
        live_bytes: LIVE.load(Ordering::Relaxed),
        cached_bytes: CACHED.load(Ordering::Relaxed),
        system_allocations: SYSTEM_ALLOCATIONS.load(Ordering::Relaxed),
        peak_live_bytes: PEAK.load(Ordering::Relaxed),
        allocated_bytes: ALLOCATED.load(Ordering::Relaxed),
    }
}

/// Gives all cached buffers back to the system.
pub fn empty_cache() {
    let mut pool = POOL.lock().unwrap_or_else(|e| e.into_inner());
    for block in pool.iter_mut().flat_map(std::mem::take) {
        CACHED.fetch_sub(block.bytes, Ordering::Relaxed);
        block.free();
    }
}

/// A piece of memory of a whole size class; its bytes are initialised (to zero at first, later to old data).
struct Block {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block is plain memory with one owner.
unsafe impl Send for Block {}
// SAFETY: shared access to a block only reads.
unsafe impl Sync for Block {}

impl Block {
    fn layout(bytes: usize) -> Layout {
        let align = if bytes >= HUGE { HUGE } else { ALIGN };
        Layout::from_size_align(bytes, align).expect("a tensor's bytes fit the address space")
    }

    fn new(bytes: usize) -> Block {
        let layout = Block::layout(bytes);
        // SAFETY: size_class never answers zero.
        let ptr = unsafe { alloc(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            // SAFETY: the range was just allocated; the advice changes no contents.
            unsafe { libc::madvise(ptr.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the whole range was just allocated. Zeroing comes after the advice, so that the first
        // touch already brings huge pages, and it initialises every byte that a slice may later show.
        unsafe { ptr.as_ptr().write_bytes(0, bytes) };
        SYSTEM_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        Block { ptr, bytes }
    }

    fn free(self) {
        // SAFETY: allocated in `new` with this layout, and owned.
        unsafe { dealloc(self.ptr.as_ptr(), Block::layout(self.bytes)) };
    }
}

/// Sizes are rounded up to one of eight steps within a power of two, so that near sizes share buffers.
/// Gives the rounded size and its number.
fn size_class(bytes: usize) -> (usize, usize) {
    let units = bytes.div_ceil(ALIGN).max(1);
    let octave = units.next_power_of_two().trailing_zeros().saturating_sub(4);
    let steps = units.div_ceil(1 << octave);
    ((steps << octave) * ALIGN, octave as usize * 16 + steps - 1)
}

/// Sixteen for the smallest sizes, then eight more an octave, counted with gaps.
const CLASSES: usize = 60 * 16;

/// An owned buffer from the pool.
pub(crate) struct Storage {
    block: std::mem::ManuallyDrop<Block>,
    /// Bytes asked for; the block may be larger.
    len: usize,
}

impl Storage {
    /// A buffer of `len` bytes with arbitrary, but initialised, contents.
    pub(crate) fn new(len: usize) -> Storage {
        let (class, number) = size_class(len);
        let cached = POOL.lock().unwrap_or_else(|e| e.into_inner())[number].pop();
        let block = match cached {
            Some(block) => {
                CACHED.fetch_sub(class, Ordering::Relaxed);
                block
            }
            None => Block::new(class),
        };
        let live = LIVE.fetch_add(class, Ordering::Relaxed) + class;
        PEAK.fetch_max(live, Ordering::Relaxed);
        ALLOCATED.fetch_add(class, Ordering::Relaxed);
        Storage { block: std::mem::ManuallyDrop::new(block), len }
    }

    /// The number of bytes asked for.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.block.ptr.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.block.ptr.as_ptr()
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: the block is taken once, here.
        let block = unsafe { std::mem::ManuallyDrop::take(&mut self.block) };
        LIVE.fetch_sub(block.bytes, Ordering::Relaxed);
        CACHED.fetch_add(block.bytes, Ordering::Relaxed);
        let (_, number) = size_class(block.bytes);
        POOL.lock().unwrap_or_else(|e| e.into_inner())[number].push(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_waste_at_most_an_eighth() {
        let mut last = (0, 0);
        for bytes in (0..100_000).chain([1 << 20, (1 << 20) + 1, 123_456_789, 1 << 45]) {
            let (class, number) = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(ALIGN) && number < CLASSES);
            assert!(class <= bytes + bytes / 8 + ALIGN, "{bytes} -> {class}");
            assert_eq!(size_class(class), (class, number));
            assert_eq!(class == last.0, number == last.1 && class > 0 && last.0 > 0, "{bytes}");
            last = (class, number);
        }
    }
}
