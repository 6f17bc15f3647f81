//! Memory for tensors: aligned buffers from a caching pool.
//!
//! A training loop makes the same buffers step after step. The pool keeps what is dropped, by size class,
//! and hands it out again while it is warm, so after the first steps the operating system is asked for
//! nothing more: fresh pages cost more than most kernels.
//!
//! What is kept has a limit (see [`set_cache_limit`]); beyond it, the buffer that has lain longest goes back to the
//! system. Where the system has no memory left, the whole cache goes back and the request is tried again.

use crate::dtype::{DType, Element};
use crate::kernels::pages::{HUGE_PAGE, alloc_zeros};
use std::alloc::{Layout, dealloc};
use std::collections::VecDeque;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

/// A cache line, and the widest vector.
const ALIGN: usize = 64;
/// By default this much may be in use and kept together, however little has been in use so far.
const FLOOR: usize = 64 << 20;

/// By default this many times the most bytes that were in use at once may be in use and kept together. Of each size of
/// a layer, a step needs the activation, its gradient and one or two temporaries, though not all layers' at once.
const FACTOR: usize = 4;

static CACHE: Mutex<Cache> =
    Mutex::new(Cache { classes: [const { VecDeque::new() }; CLASSES], bytes: 0, clock: 0, limit: None });
static LIVE: AtomicUsize = AtomicUsize::new(0);
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
/// let before = tapegrad_tape::pool_stats().live_bytes;
/// let t = tapegrad_tape::Tensor::zeros(&[1000], tapegrad_tape::DType::F32);
/// assert!(tapegrad_tape::pool_stats().live_bytes >= before + 4000);
/// drop(t);
/// ```
pub fn pool_stats() -> PoolStats {
    PoolStats {
        live_bytes: LIVE.load(Ordering::Relaxed),
        cached_bytes: cache().bytes,
        system_allocations: SYSTEM_ALLOCATIONS.load(Ordering::Relaxed),
        peak_live_bytes: PEAK.load(Ordering::Relaxed),
        allocated_bytes: ALLOCATED.load(Ordering::Relaxed),
    }
}

/// Gives all cached buffers back to the system.
pub fn empty_cache() {
    cache().shrink(0);
}

/// Sets how many bytes of dropped buffers are kept for the next ones; the buffers that have lain longest are given
/// back first. `Some(0)` keeps none.
///
/// `None`, the default, lets buffers in use and kept ones together take four times the most that was ever in use at
/// once (and at least 64 MiB). A training loop, whose steps are alike, stays below that even where every layer has sizes
/// of its own, and asks the system for nothing after its first steps; a program whose sizes keep changing does not keep
/// a buffer of each.
///
/// ```
/// tapegrad_tape::set_cache_limit(Some(1 << 20));
/// drop(tapegrad_tape::Tensor::zeros(&[1 << 20], tapegrad_tape::DType::F32));
/// assert!(tapegrad_tape::pool_stats().cached_bytes <= 1 << 20);
/// tapegrad_tape::set_cache_limit(None);
/// ```
pub fn set_cache_limit(bytes: Option<usize>) {
    let mut cache = cache();
    cache.limit = bytes;
    cache.trim();
}

/// There is no memory for a tensor: the error of [`Tensor::try_zeros`](crate::Tensor::try_zeros) and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemoryError {
    /// The bytes that were asked for; `usize::MAX` if they are more than an address can count.
    pub bytes: usize,
}

impl fmt::Display for OutOfMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes {
            usize::MAX => write!(f, "out of memory: more than {} bytes cannot be allocated", isize::MAX),
            bytes => write!(f, "out of memory: {bytes} bytes cannot be allocated"),
        }
    }
}

impl std::error::Error for OutOfMemoryError {}

/// Free blocks.
struct Cache {
    /// By size class, the one that has lain longest in front, each with the time when it came.
    classes: [VecDeque<(u64, Block)>; CLASSES],
    bytes: usize,
    /// Counts the blocks that have come.
    clock: u64,
    /// The most bytes that are kept, where a number was set.
    limit: Option<usize>,
}

fn cache() -> MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(|e| e.into_inner())
}

impl Cache {
    fn take(&mut self, class: usize) -> Option<Block> {
        let (_, block) = self.classes[class].pop_back()?;
        self.bytes -= block.bytes;
        Some(block)
    }

    fn put(&mut self, block: Block) {
        self.clock += 1;
        self.bytes += block.bytes;
        let (_, class) = size_class(block.bytes);
        self.classes[class].push_back((self.clock, block));
        self.trim();
    }

    /// Gives back what is beyond the limit.
    fn trim(&mut self) {
        let allowed = self.limit.unwrap_or_else(|| {
            let total = PEAK.load(Ordering::Relaxed).saturating_mul(FACTOR).max(FLOOR);
            total.saturating_sub(LIVE.load(Ordering::Relaxed))
        });
        self.shrink(allowed);
    }

    /// Gives back what has lain longest, until no more than `bytes` are kept.
    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let oldest = self.classes.iter_mut().filter(|c| !c.is_empty()).min_by_key(|c| c[0].0);
            let (_, block) = oldest.and_then(VecDeque::pop_front).expect("what is counted is there");
            self.bytes -= block.bytes;
            block.free();
        }
    }
}

/// A piece of memory of a whole size class; its bytes are initialized (to zero at first, later to old data).
struct Block {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block is plain memory with one owner.
unsafe impl Send for Block {}
// SAFETY: shared access to a block only reads.
unsafe impl Sync for Block {}

impl Block {
    /// None if the address space cannot hold so many bytes.
    fn layout(bytes: usize) -> Option<Layout> {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
        Layout::from_size_align(bytes, align).ok()
    }

    /// A fresh block from the system, if it has one.
    fn new(bytes: usize) -> Option<Block> {
        let layout = Block::layout(bytes)?;
        let ptr = alloc_zeros(layout)?;
        SYSTEM_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        Some(Block { ptr, bytes })
    }

    fn free(self) {
        let layout = Block::layout(self.bytes).expect("it was allocated with it");
        // SAFETY: allocated in `new` with this layout, and owned.
        unsafe { dealloc(self.ptr.as_ptr(), layout) };
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
    /// What every reader and writer takes the bytes for.
    dtype: DType,
}

impl Storage {
    /// A buffer of `len` bytes for elements of a type, with arbitrary, but valid, contents.
    pub(crate) fn try_new(len: usize, dtype: DType) -> Result<Storage, OutOfMemoryError> {
        let (class, number) = size_class(len);
        let cached = cache().take(number);
        let reused = cached.is_some();
        let fresh = || {
            Block::new(class).or_else(|| {
                empty_cache();
                Block::new(class)
            })
        };
        let block = cached.or_else(fresh).ok_or(OutOfMemoryError { bytes: len })?;
        let live = LIVE.fetch_add(class, Ordering::Relaxed) + class;
        PEAK.fetch_max(live, Ordering::Relaxed);
        ALLOCATED.fetch_add(class, Ordering::Relaxed);
        if !reused {
            cache().trim();
        }
        let storage = Storage { block: std::mem::ManuallyDrop::new(block), len, dtype };
        if dtype == DType::Bool {
            // SAFETY: the block has at least `len` bytes. Old bytes may be other than 0 and 1.
            unsafe { storage.block.ptr.as_ptr().write_bytes(0, len) };
        }
        Ok(storage)
    }

    /// The number of bytes asked for.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A pointer to `len` elements from an offset on, both counted in elements.
    #[track_caller]
    fn pointer<T: Element>(&self, offset: usize, len: usize) -> *mut T {
        assert_eq!(self.dtype, T::DTYPE, "a tensor's memory is read as what it was made for");
        let end = offset.checked_add(len).and_then(|end| end.checked_mul(size_of::<T>()));
        assert!(
            end.is_some_and(|end| end <= self.len),
            "elements {offset} + {len} lie beyond a tensor's memory"
        );
        // SAFETY: the offset is in bounds, as checked above.
        unsafe { self.block.ptr.as_ptr().cast::<T>().add(offset) }
    }

    /// `len` elements from an offset on, both counted in elements.
    #[track_caller]
    pub(crate) fn slice<T: Element>(&self, offset: usize, len: usize) -> &[T] {
        let start = self.pointer(offset, len);
        // SAFETY: in bounds and of this type (see `pointer`), aligned (the block is to 64 bytes, and the offset counts
        // elements), initialized (blocks are when made, and Bool memory is cleared), not written to while borrowed.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The same, to be changed.
    #[track_caller]
    pub(crate) fn slice_mut<T: Element>(&mut self, offset: usize, len: usize) -> &mut [T] {
        let start = self.pointer(offset, len);
        // SAFETY: as in `slice`, and borrowed by nothing else.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: the block is taken once, here.
        let block = unsafe { std::mem::ManuallyDrop::take(&mut self.block) };
        LIVE.fetch_sub(block.bytes, Ordering::Relaxed);
        cache().put(block);
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
