//! Sorting and selecting the elements of rows.
//!
//! An element has a rank: an unsigned integer in the order of the elements, NaN above all numbers and both zeros equal.
//! Rank and position together are a key that no other element of the row has, so that unstable algorithms on keys give
//! the stable order.

use crate::dtype::Number;

/// Elements with a rank.
pub(crate) trait Ranked: Number {
    /// An unsigned integer.
    type Rank: Copy + Ord;
    /// A rank and a position.
    type Key: Copy + Ord + Send;
    /// Ranks in the order of the elements, or in the reverse order.
    fn rank(self, descending: bool) -> Self::Rank;
    /// The key of a rank at a position.
    fn key(rank: Self::Rank, position: usize) -> Self::Key;
    /// The rank in a key.
    fn rank_of(key: Self::Key) -> Self::Rank;
    /// The position in a key.
    fn position(key: Self::Key) -> usize;
    /// A rank as 64 bits.
    fn bits(rank: Self::Rank) -> u64;
}

/// The bits of a float as an integer in its order: the sign is turned round, and below it all bits.
macro_rules! float_rank {
    ($x:ident, $descending:ident, $bits:ty, $signed:ty) => {{
        const SIGN: $bits = 1 << (<$bits>::BITS - 1);
        let bits = ($x + 0.0).to_bits();
        let mask = (((bits as $signed) >> (<$bits>::BITS - 1)) as $bits) | SIGN;
        let rank = if $x.is_nan() { <$bits>::MAX } else { bits ^ mask };
        if $descending { !rank } else { rank }
    }};
}

impl Ranked for f32 {
    type Rank = u32;
    type Key = u64;
    #[inline(always)]
    fn rank(self, descending: bool) -> u32 {
        float_rank!(self, descending, u32, i32)
    }
    #[inline(always)]
    fn key(rank: u32, position: usize) -> u64 {
        (u64::from(rank) << 32) | position as u64
    }
    #[inline(always)]
    fn rank_of(key: u64) -> u32 {
        (key >> 32) as u32
    }
    #[inline(always)]
    fn position(key: u64) -> usize {
        (key & u64::from(u32::MAX)) as usize
    }
    #[inline(always)]
    fn bits(rank: u32) -> u64 {
        rank.into()
    }
}

macro_rules! wide_ranks {
    ($($ty:ty, |$x:ident, $descending:ident| $rank:expr;)*) => {$(
        impl Ranked for $ty {
            type Rank = u64;
            type Key = (u64, usize);
            #[inline(always)]
            fn rank(self, $descending: bool) -> u64 {
                let $x = self;
                $rank
            }
            #[inline(always)]
            fn key(rank: u64, position: usize) -> (u64, usize) {
                (rank, position)
            }
            #[inline(always)]
            fn rank_of(key: (u64, usize)) -> u64 {
                key.0
            }
            #[inline(always)]
            fn position(key: (u64, usize)) -> usize {
                key.1
            }
            #[inline(always)]
            fn bits(rank: u64) -> u64 {
                rank
            }
        }
    )*};
}
wide_ranks! {
    f64, |x, descending| float_rank!(x, descending, u64, i64);
    i64, |x, descending| {
        let rank = (x as u64) ^ (1 << 63);
        if descending { !rank } else { rank }
    };
}

/// The keys of a row.
///
/// # Panics
/// If the row has 2^32 elements or more: a key of an F32 has 32 bits for the position.
pub(crate) fn keys<T: Ranked>(row: &[T], descending: bool) -> Vec<T::Key> {
    assert!(
        u32::try_from(row.len()).is_ok(),
        "sort: a row of {} elements is too long to be sorted",
        row.len()
    );
    row.iter().enumerate().map(|(i, x)| T::key(x.rank(descending), i)).collect()
}

/// The keys of a row in their order.
pub(crate) fn sorted<T: Ranked>(row: &[T], descending: bool) -> Vec<T::Key> {
    let mut keys = keys::<T>(row, descending);
    // Below this, comparing is faster than counting.
    if keys.len() < 2048 {
        keys.sort_unstable();
    } else {
        sort_by_digits::<T>(&mut keys);
    }
    keys
}

/// Sorts keys that are in the order of their positions by the digits of their ranks, the lowest first: each pass keeps
/// the order of equal digits.
fn sort_by_digits<T: Ranked>(keys: &mut Vec<T::Key>) {
    const BITS: u32 = 11;
    let bits = |key: T::Key| T::bits(T::rank_of(key));
    let first = bits(keys[0]);
    let differ = keys.iter().fold(0, |all, &key| all | (bits(key) ^ first));
    let mut other = keys.clone();
    let mut shift = differ.trailing_zeros();
    while shift < u64::BITS - differ.leading_zeros() {
        let digit = |key: T::Key| (bits(key) >> shift) as usize & ((1 << BITS) - 1);
        let mut starts = [0usize; 1 << BITS];
        keys.iter().for_each(|&key| starts[digit(key)] += 1);
        let mut next = 0;
        for start in &mut starts {
            next += std::mem::replace(start, next);
        }
        for &key in keys.iter() {
            let place = &mut starts[digit(key)];
            other[*place] = key;
            *place += 1;
        }
        std::mem::swap(keys, &mut other);
        shift += BITS;
    }
}

/// The position of the element that is number `k` in ascending order.
pub(crate) fn nth<T: Ranked>(row: &[T], k: usize) -> usize {
    let mut keys = keys(row, false);
    T::position(*keys.select_nth_unstable(k).1)
}

/// Up to so many elements are selected by one pass that keeps the best ones sorted.
const FEW: usize = 64;

/// The first `k` keys of a row in their order.
pub(crate) fn first<T: Ranked>(row: &[T], k: usize, descending: bool) -> Vec<T::Key> {
    if k == 0 {
        return Vec::new();
    }
    if k > FEW || k * 8 > row.len() {
        let mut keys = keys(row, descending);
        if k < keys.len() {
            keys.select_nth_unstable(k - 1);
        }
        keys.truncate(k);
        keys.sort_unstable();
        return keys;
    }
    let mut best = sorted(&row[..k], descending);
    for (block, start) in row[k..].chunks(64).zip((k..).step_by(64)) {
        // Of equal elements the first ones stay: those that come later have to be better.
        if has_better(block, T::rank_of(best[k - 1]), descending) {
            for (&x, i) in block.iter().zip(start..) {
                let key = T::key(x.rank(descending), i);
                if key < best[k - 1] {
                    let at = best.partition_point(|&b| b < key);
                    best.copy_within(at..k - 1, at + 1);
                    best[at] = key;
                }
            }
        }
    }
    best
}

crate::multiversion! {
    vectors of T;
    fn has_better<T: Ranked>(block: &[T], worst: T::Rank, descending: bool) -> bool {
        block.iter().fold(false, |any, x| any | (x.rank(descending) < worst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compare(a: f64, b: f64) -> std::cmp::Ordering {
        a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    }

    proptest! {
        #[test]
        fn ranks_are_in_the_order_of_the_elements(a: f64, b: f64, i: i64, j: i64) {
            for (a, b) in [(a, b), (a, -a), (0.0, -0.0), (a, f64::NAN), (f64::NAN, -f64::NAN), (-f64::INFINITY, b)] {
                prop_assert_eq!(a.rank(false).cmp(&b.rank(false)), compare(a, b));
                prop_assert_eq!(a.rank(true).cmp(&b.rank(true)), compare(b, a));
                let (a, b) = (a as f32, b as f32);
                prop_assert_eq!(a.rank(false).cmp(&b.rank(false)), compare(a.into(), b.into()));
            }
            prop_assert_eq!(i.rank(false).cmp(&j.rank(false)), i.cmp(&j));
        }

        #[test]
        fn digits_sort_as_comparisons(seed in 0u32..1000, same: bool) {
            let of = |i: u32| if same { (i % 3) as f32 } else { (i as f32).sin() * 1e3 };
            let row: Vec<f32> = (0..5000u32).map(|i| of(i.wrapping_mul(7919) ^ seed)).collect();
            let mut by_comparison = keys(&row, same);
            by_comparison.sort_unstable();
            prop_assert_eq!(sorted(&row, same), by_comparison);
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x).exp()).collect();
            let mut by_comparison = keys(&row, same);
            by_comparison.sort_unstable();
            prop_assert_eq!(sorted(&row, same), by_comparison);
        }

        #[test]
        fn the_first_of_many(seed in 0u32..1000, k in 0usize..40, descending: bool) {
            let row: Vec<f32> = (0..700u32).map(|i| ((i * 7919 + seed) * 31 % 257) as f32).collect();
            let all = sorted(&row, descending);
            prop_assert_eq!(&first(&row, k, descending)[..], &all[..k]);
            let n = 3 * k;
            prop_assert_eq!(&first(&row[..n], k, descending)[..], &sorted(&row[..n], descending)[..k]);
        }
    }
}
