//! Shared by the tests of hostile files: a counting allocator, and a file mutator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with the current and the peak number of bytes in use.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grow(bytes: usize) {
    PEAK.fetch_max(USED.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's guarantees are those required here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's guarantees are those required here.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks exist while the bytes are copied.
        grow(size);
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's guarantees are those required here.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The peak number of bytes in use during `f`. Only one thread may measure at a time.
fn peak<R>(f: impl FnOnce() -> R) -> usize {
    let before = USED.load(Relaxed);
    PEAK.store(before, Relaxed);
    drop(f());
    PEAK.load(Relaxed) - before
}

/// Random numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    /// The file with one to three changes: bits, whole bytes, numbers of every width and order at their extremes, cuts,
    /// and pieces that are doubled or left out.
    fn mutated(&mut self, file: &[u8]) -> Vec<u8> {
        let mut bytes = file.to_vec();
        for _ in 0..1 + self.below(3) {
            // Decisive bytes are more often near the ends than in the middle.
            let at = match self.below(3) {
                0 => self.below(bytes.len().min(200)),
                1 => bytes.len().saturating_sub(1 + self.below(200)),
                _ => self.below(bytes.len()),
            };
            if at >= bytes.len() {
                continue;
            }
            match self.below(8) {
                0 | 1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = self.below(256) as u8,
                3 | 4 => {
                    let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                    let extremes = [
                        0,
                        1,
                        255,
                        1 << 15,
                        1 << 31,
                        (1 << 31) - 1,
                        u64::from(u32::MAX),
                        1 << 62,
                        1 << 63,
                        u64::MAX - 1,
                        u64::MAX,
                    ];
                    let value = extremes[self.below(extremes.len())];
                    let number = if self.below(2) == 0 { value.to_le_bytes() } else { value.to_be_bytes() };
                    let begin = if self.below(2) == 0 { 0 } else { 8 - width };
                    bytes[at..at + width].copy_from_slice(&number[begin..begin + width]);
                }
                5 => bytes.truncate(at),
                6 => {
                    let end = (at + 1 + self.below(64)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let end = (at + 1 + self.below(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
        bytes
    }
}

/// Runs a parser on `rounds` mutations of a file, and limits its memory to `times` the input's size and
/// a `constant`.
pub(crate) fn attack(
    name: &str,
    file: &[u8],
    rounds: usize,
    times: usize,
    constant: usize,
    parse: impl Fn(&[u8]),
) {
    let begin = std::time::Instant::now();
    let mut random = Random(file.len() as u64);
    let mut worst = 0.0f64;
    parse(file);
    for round in 0..rounds {
        let bytes = random.mutated(file);
        let used = peak(|| parse(&bytes));
        let most = times * bytes.len() + constant;
        assert!(used <= most, "{name}, round {round}: {used} bytes for a file of {}", bytes.len());
        worst = worst.max(used as f64 / most as f64);
    }
    println!(
        "{name}: {rounds} files in {:.1?}, {:.0}% of the memory allowed",
        begin.elapsed(),
        100.0 * worst
    );
}
