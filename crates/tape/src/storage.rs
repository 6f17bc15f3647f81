//! Memory for tensors: aligned buffers from a caching pool, and vectors that they were made of.
//!
//! A training loop needs the same buffers in every step. The pool keeps dropped buffers by size class and hands them
//! out again while they are in the cache, so after the first steps it requests no more memory from the operating
//! system: fresh pages cost more than most kernels.
//!
//! The cache has a limit (see [`set_cache_limit`]); beyond it, the least recently used buffer is returned to the
//! system. If the system is out of memory, the whole cache is returned and the request is retried.

use crate::dtype::{DType, Element};
use crate::kernels::pages::{HUGE_PAGE, alloc_zeros};
use std::alloc::{Layout, dealloc};
use std::collections::VecDeque;
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

/// A cache line, and the widest vector.
const ALIGN: usize = 64;
/// By default buffers in use and cached ones together may take at least this much.
const FLOOR: usize = 64 << 20;

/// By default buffers in use and cached ones together may take this many times the peak use. Of each size of a layer, a
/// step needs the activation, its gradient and one or two temporaries, though not for all layers at once.
const FACTOR: usize = 4;

static CACHE: Mutex<Cache> = Mutex::new(Cache {
    classes: [const { VecDeque::new() }; CLASSES],
    clock: 0,
    limit: None,
    stats: PoolStats {
        live_bytes: 0,
        cached_bytes: 0,
        system_allocations: 0,
        peak_live_bytes: 0,
        allocated_bytes: 0,
    },
});

/// The pool's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes in buffers that are in use.
    pub live_bytes: usize,
    /// Bytes in cached buffers.
    pub cached_bytes: usize,
    /// How many times the pool has requested memory from the system, from the start of the program.
    pub system_allocations: usize,
    /// The maximum number of bytes that were in use at once.
    pub peak_live_bytes: usize,
    /// The total bytes of all buffers handed out since the start of the program (wraps around).
    pub allocated_bytes: usize,
}

/// The pool's statistics now.
///
/// ```
/// let before = tapegrad_tape::pool_stats().live_bytes;
/// let t = tapegrad_tape::Tensor::zeros_with(&[1000], tapegrad_tape::DType::F32);
/// assert!(tapegrad_tape::pool_stats().live_bytes >= before + 4000);
/// drop(t);
/// ```
pub fn pool_stats() -> PoolStats {
    cache().stats
}

/// Returns all cached buffers to the system.
pub fn empty_cache() {
    cache().shrink(0);
}

/// Sets how many bytes of dropped buffers are cached; the least recently used ones are returned first. `Some(0)`
/// disables the cache.
///
/// `None`, the default, lets buffers in use and cached ones together take four times the peak use (and at least 64
/// MiB). A training loop, whose steps are alike, stays below that even where every layer has sizes of its own, and asks
/// the system for nothing after its first steps; a program whose sizes keep changing does not cache a buffer of each.
///
/// ```
/// tapegrad_tape::set_cache_limit(Some(1 << 20));
/// drop(tapegrad_tape::Tensor::zeros_with(&[1 << 20], tapegrad_tape::DType::F32));
/// assert!(tapegrad_tape::pool_stats().cached_bytes <= 1 << 20);
/// tapegrad_tape::set_cache_limit(None);
/// ```
pub fn set_cache_limit(bytes: Option<usize>) {
    let mut cache = cache();
    cache.limit = bytes;
    cache.trim();
}

/// Out of memory for a tensor: the error of [`Tensor::try_zeros`](crate::Tensor::try_zeros) and
/// [`Tensor::try_full`](crate::Tensor::try_full).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemoryError {
    /// The requested bytes; `usize::MAX` if they exceed the address space.
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

/// Free blocks, and what is counted: under one lock, since a lock costs as much as the rest.
struct Cache {
    /// By size class, the least recently used first, each with the time of its return.
    classes: [VecDeque<(u64, Block)>; CLASSES],
    /// Counts the blocks that have been returned.
    clock: u64,
    /// The limit of cached bytes, if one was set.
    limit: Option<usize>,
    stats: PoolStats,
}

fn cache() -> MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(|e| e.into_inner())
}

impl Cache {
    /// A block that will be in use.
    fn take(&mut self, class: usize) -> Option<Block> {
        let (_, block) = self.classes[class].pop_back()?;
        self.stats.cached_bytes -= block.bytes;
        self.hand_out(&block);
        Some(block)
    }

    fn hand_out(&mut self, block: &Block) {
        let stats = &mut self.stats;
        stats.live_bytes += block.bytes;
        stats.peak_live_bytes = stats.peak_live_bytes.max(stats.live_bytes);
        stats.allocated_bytes = stats.allocated_bytes.wrapping_add(block.bytes);
    }

    /// Takes a block back.
    fn put(&mut self, block: Block) {
        self.clock += 1;
        self.stats.live_bytes -= block.bytes;
        self.stats.cached_bytes += block.bytes;
        let (_, class) = size_class(block.bytes);
        self.classes[class].push_back((self.clock, block));
        self.trim();
    }

    /// Frees what is beyond the limit.
    fn trim(&mut self) {
        let PoolStats { live_bytes, peak_live_bytes, .. } = self.stats;
        let allowed = self
            .limit
            .unwrap_or_else(|| peak_live_bytes.saturating_mul(FACTOR).max(FLOOR).saturating_sub(live_bytes));
        self.shrink(allowed);
    }

    /// Frees the least recently used blocks until at most `bytes` are cached.
    fn shrink(&mut self, bytes: usize) {
        while self.stats.cached_bytes > bytes {
            let oldest = self.classes.iter_mut().filter(|c| !c.is_empty()).min_by_key(|c| c[0].0);
            let (_, block) = oldest.and_then(VecDeque::pop_front).expect("what is counted is there");
            self.stats.cached_bytes -= block.bytes;
            block.free();
        }
    }
}

/// A block of memory of a size class; its bytes are initialized (to zero at first, later to old data).
struct Block {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block is plain memory with one owner.
unsafe impl Send for Block {}
// SAFETY: shared access to a block only reads.
unsafe impl Sync for Block {}

impl Block {
    /// `None` if the bytes exceed the address space.
    fn layout(bytes: usize) -> Option<Layout> {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
        Layout::from_size_align(bytes, align).ok()
    }

    /// A fresh block from the system, if it has one.
    fn new(bytes: usize) -> Option<Block> {
        let layout = Block::layout(bytes)?;
        let ptr = alloc_zeros(layout)?;
        Some(Block { ptr, bytes })
    }

    fn free(self) {
        let layout = Block::layout(self.bytes).expect("it was allocated with it");
        // SAFETY: allocated in `new` with this layout, and owned.
        unsafe { dealloc(self.ptr.as_ptr(), layout) };
    }
}

/// Sizes are rounded up to one of eight steps per power of two, so that similar sizes share buffers. Returns the
/// rounded size and its index.
fn size_class(bytes: usize) -> (usize, usize) {
    let units = bytes.div_ceil(ALIGN).max(1);
    let octave = units.next_power_of_two().trailing_zeros().saturating_sub(4);
    let steps = units.div_ceil(1 << octave);
    ((steps << octave) * ALIGN, octave as usize * 16 + steps - 1)
}

/// Sixteen for the smallest sizes, then eight for each power of two, with gaps.
const CLASSES: usize = 60 * 16;

/// Where a buffer's memory comes from, and goes back to.
enum Origin {
    /// A block of this many bytes of the pool.
    Pool(usize),
    /// A vector with a capacity of this many elements, as aligned as its elements are.
    Vec(usize),
}

// SAFETY: a storage is plain memory with one owner.
unsafe impl Send for Storage {}
// SAFETY: shared access to a storage only reads.
unsafe impl Sync for Storage {}

/// An owned buffer.
pub(crate) struct Storage {
    ptr: NonNull<u8>,
    origin: Origin,
    /// The requested bytes; the block may be larger.
    len: usize,
    /// The element type with which the bytes are read and written.
    dtype: DType,
}

impl Storage {
    /// A buffer of `len` bytes for elements of a type, with arbitrary, but valid, contents.
    pub(crate) fn try_new(len: usize, dtype: DType) -> Result<Storage, OutOfMemoryError> {
        let (class, number) = size_class(len);
        let cached = cache().take(number);
        let block = match cached {
            Some(block) => block,
            None => Storage::fresh(class).ok_or(OutOfMemoryError { bytes: len })?,
        };
        let storage = Storage { ptr: block.ptr, origin: Origin::Pool(block.bytes), len, dtype };
        if dtype == DType::Bool {
            // SAFETY: the block has at least `len` bytes. Old bytes may be other than 0 and 1.
            unsafe { storage.ptr.as_ptr().write_bytes(0, len) };
        }
        Ok(storage)
    }

    /// The elements of a vector, in its memory.
    pub(crate) fn from_vec<T: Element>(data: Vec<T>) -> Storage {
        let mut data = std::mem::ManuallyDrop::new(data);
        Storage {
            ptr: NonNull::new(data.as_mut_ptr().cast()).expect("a vector's pointer is not null"),
            origin: Origin::Vec(data.capacity()),
            len: size_of::<T>() * data.len(),
            dtype: T::DTYPE,
        }
    }

    /// The vector that this was made of; otherwise the storage itself.
    pub(crate) fn into_vec<T: Element>(self) -> Result<Vec<T>, Storage> {
        match self.origin {
            Origin::Vec(capacity) if self.dtype == T::DTYPE => {
                let this = std::mem::ManuallyDrop::new(self);
                // SAFETY: made of a vector of this type, which is not dropped any more.
                Ok(unsafe { this.vec::<T>(capacity) })
            }
            _ => Err(self),
        }
    }

    /// The vector that this was made of.
    ///
    /// # Safety
    /// It was made of a vector of this type and capacity, and is not used any more.
    unsafe fn vec<T: Element>(&self, capacity: usize) -> Vec<T> {
        // SAFETY: these are the parts of that vector; its memory has one owner, the caller's.
        unsafe { Vec::from_raw_parts(self.ptr.as_ptr().cast(), self.len / size_of::<T>(), capacity) }
    }

    /// A block from the system, if need be after it has got back all that are cached.
    fn fresh(class: usize) -> Option<Block> {
        let block = Block::new(class).or_else(|| {
            empty_cache();
            Block::new(class)
        })?;
        let mut cache = cache();
        cache.stats.system_allocations += 1;
        cache.hand_out(&block);
        cache.trim();
        Some(block)
    }

    /// The number of requested bytes.
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
        unsafe { self.ptr.as_ptr().cast::<T>().add(offset) }
    }

    /// `len` elements from an offset on, both counted in elements.
    #[track_caller]
    pub(crate) fn slice<T: Element>(&self, offset: usize, len: usize) -> &[T] {
        let start = self.pointer(offset, len);
        // SAFETY: in bounds and of this type (see `pointer`), aligned (a block is to 64 bytes, a vector to its
        // elements, and the offset counts elements), initialized (blocks are when made, and Bool memory is cleared), not
        // written to while borrowed.
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
        match self.origin {
            Origin::Pool(bytes) => cache().put(Block { ptr: self.ptr, bytes }),
            Origin::Vec(capacity) => crate::dispatch!(all: self.dtype, "drop", T => {
                // SAFETY: made of a vector of this type, and dropped once.
                drop(unsafe { self.vec::<T>(capacity) });
            }),
        }
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
