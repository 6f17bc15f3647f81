//! The mask of dropout: a hash of a key and the element's index.

use tapegrad_tape::kernels::parallel::parallel_chunks;
use tapegrad_tape::{Float, multiversion};

/// The fewest elements in a block for a thread; even, since a hash decides about two.
const BLOCK: usize = 32 * 1024;

/// `out = x * scale`, or zero with probability `p`, by `key` and index.
pub fn drop_out<T: Float>(out: &mut [T], x: &[T], p: f64, scale: T, key: u64) {
    // The share of 32-bit numbers below this is p.
    let limit = (p * 4_294_967_296.0).round().min(4_294_967_295.0) as u32;
    let everything = p >= 1.0;
    parallel_chunks(out, BLOCK, |i, out| {
        let start = i * BLOCK;
        block(
            out,
            &x[start..start + out.len()],
            limit,
            everything,
            scale,
            key.wrapping_add(start as u64 / 2),
        );
    });
}

/// The finalizer of splitmix64: its outputs for consecutive inputs pass tests of randomness.
#[inline(always)]
fn hash(counter: u64) -> u64 {
    let z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

multiversion! {
    vectors of T;
    fn block<T: Float>(out: &mut [T], x: &[T], limit: u32, everything: bool, scale: T, first: u64) {
        if everything {
            out.fill(T::ZERO);
            return;
        }
        let mut words = [0; 2 * HASHES];
        let mut first = first;
        for (out, x) in out.chunks_mut(2 * HASHES).zip(x.chunks(2 * HASHES)) {
            for (k, pair) in words.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let hash = hash(first.wrapping_add(k as u64));
                *pair = [hash as u32, (hash >> 32) as u32];
            }
            for ((o, &x), &w) in out.iter_mut().zip(x).zip(&words) {
                *o = if w < limit { T::ZERO } else { x * scale };
            }
            first = first.wrapping_add(HASHES as u64);
        }
    }
}

/// The hashes that are computed before the elements they decide about: in one loop the two would be computed one by one.
const HASHES: usize = 256;

multiversion! {
    /// What [`drop_out`] multiplies elements by, those from `start` on: zero or `1 / (1 - p)`, for a `p` below one.
    pub fn keep_factors(out: &mut [f32], start: usize, p: f64, key: u64) {
        let limit = (p * 4_294_967_296.0).round().min(4_294_967_295.0) as u32;
        let scale = (1.0 / (1.0 - p)) as f32;
        for (i, out) in out.iter_mut().enumerate() {
            let at = (start + i) as u64;
            let bits = hash(key.wrapping_add(at / 2)) >> (32 * (at % 2));
            *out = if (bits as u32) < limit { 0.0 } else { scale };
        }
    }
}
