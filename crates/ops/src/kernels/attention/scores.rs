//! What happens to a block of transposed scores between the products.

use super::{Attention, Place};
use crate::kernels::dropout::keep_factors;
use crate::kernels::microkernel::{COLUMNS, ROWS};
use std::ops::Range;
use tapegrad_tape::kernels::arch::Vector;
use tapegrad_tape::kernels::transpose::transpose;

/// Transposes the rows of a block of queries, each element times a factor: a row of `ld` for each of `width` elements.
///
/// # Safety
/// The rows must be readable, and `to` have room.
pub(super) unsafe fn transposed(
    from: *const f32,
    stride: usize,
    [rows, width]: [usize; 2],
    to: &mut [f32],
    ld: usize,
    factor: f32,
) {
    assert!(rows <= ld && to.len() >= width * ld);
    let start = to.as_mut_ptr();
    // SAFETY: the rows are readable as promised; each column has its place.
    unsafe { transpose(rows, width, from, stride, |j| start.wrapping_add(j * ld)) };
    if factor != 1.0 {
        to[..width * ld].iter_mut().for_each(|x| *x *= factor);
    }
}

impl Place {
    /// The columns of each panel, and the number of keys that any of them sees.
    pub(super) fn panels(self) -> impl Iterator<Item = (Range<usize>, usize)> {
        (0..self.queries).step_by(COLUMNS).map(move |start| {
            let end = self.queries.min(start + COLUMNS);
            (start..end, self.seen(end))
        })
    }

    /// Adds the mask to the scores, and hides the keys behind each query if attention is causal.
    pub(super) fn hide(&self, a: &Attention, scores: &mut [f32], spare: &mut [f32]) {
        if let Some(mask) = &a.mask {
            let first = mask.offsets[self.i] + self.q * mask.row + self.key;
            if mask.row == 0 {
                let row = &mask.data[first..first + self.keys];
                for (line, m) in scores.chunks_exact_mut(self.ld).zip(row) {
                    line.iter_mut().for_each(|x| *x += m);
                }
            } else {
                let from = mask.data[first..].as_ptr();
                // SAFETY: the mask was checked to have these rows.
                unsafe { transposed(from, mask.row, [self.queries, self.keys], spare, self.ld, 1.0) };
                let all = self.keys * self.ld;
                scores[..all].iter_mut().zip(&spare[..all]).for_each(|(x, m)| *x += m);
            }
        }
        if !a.causal {
            return;
        }
        for (columns, seen) in self.panels() {
            let first = (columns.start as isize - self.shift).clamp(0, seen as isize) as usize;
            for key in first..seen {
                let hidden = self.sees(key).clamp(columns.start, columns.end);
                scores[key * self.ld..][columns.start..hidden].fill(f32::NEG_INFINITY);
            }
        }
    }

    /// Fills the rows behind the last key that a panel sees with zeros, as far as a tile that begins before it reaches.
    pub(super) fn end_with_zeros(&self, weights: &mut [f32]) {
        for (columns, seen) in self.panels() {
            for key in seen..self.keys.min(seen + ROWS) {
                weights[key * self.ld..][columns.clone()].fill(0.0);
            }
        }
    }

    /// The factors of dropout, transposed like the scores, in `factors`; `spare` has as much room.
    pub(super) fn drop_factors(&self, a: &Attention, factors: &mut [f32], spare: &mut [f32]) {
        let Some(drop) = &a.drop else { return };
        for q in 0..self.queries {
            let row = (self.i * a.sizes.l + self.q + q) * a.sizes.s + self.key;
            keep_factors(&mut spare[q * self.keys..][..self.keys], row, drop.p, drop.key);
        }
        // SAFETY: the rows have just been written.
        unsafe { transposed(spare.as_ptr(), self.keys, [self.queries, self.keys], factors, self.ld, 1.0) };
    }
}

/// Calls a block for each pair of vectors in a row of scores: both have the same keys to see.
macro_rules! for_pairs {
    ($V:ident, $place:expr, |$column:ident, $seen:ident| $body:block) => {
        for (columns, $seen) in $place.panels() {
            let mut $column = columns.start;
            // Excess columns are computed and not used.
            while $column < columns.end {
                $body
                $column += 2 * $V::LANES;
            }
        }
    };
}
pub(super) use for_pairs;

/// Multiplies a row of results.
///
/// # Safety
/// The row must be writable.
#[inline(always)]
pub(super) unsafe fn scale_row<V: Vector>(row: *mut f32, width: usize, by: f32) {
    let by = V::splat(by);
    let whole = width / V::LANES * V::LANES;
    // SAFETY: the caller promises `width` elements.
    unsafe {
        for j in (0..whole).step_by(V::LANES) {
            V::load(row.add(j)).mul(by).store(row.add(j));
        }
        if whole < width {
            V::load_part(row.add(whole), width - whole).mul(by).store_part(row.add(whole), width - whole);
        }
    }
}

/// The product of two rows.
///
/// # Safety
/// The rows must be readable.
#[inline(always)]
pub(super) unsafe fn dot<V: Vector>(a: *const f32, b: *const f32, width: usize) -> f32 {
    let whole = width / V::LANES * V::LANES;
    let mut sum = V::splat(0.0);
    // SAFETY: the caller promises `width` elements.
    unsafe {
        for j in (0..whole).step_by(V::LANES) {
            sum = V::load(a.add(j)).mul_add(V::load(b.add(j)), sum);
        }
        if whole < width {
            let rest = width - whole;
            sum = V::load_part(a.add(whole), rest).mul_add(V::load_part(b.add(whole), rest), sum);
        }
    }
    sum.sum()
}
