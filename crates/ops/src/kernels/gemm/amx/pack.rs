//! Operands as strips of tiles of BF16.
//!
//! A strip is 32 lines of an operand (rows of the left one, columns of the right one), in chunks of 32 steps. A chunk has
//! its parts one after the other, each in two tiles of 16 lines. A tile of the left operand has a line of 32 steps in each of
//! its rows, one of the right operand a pair of steps, for each line one after the other.

use crate::kernels::gemm::View;
use std::ops::Range;
use tapegrad_tape::bf16;
use tapegrad_tape::kernels::arch::prefetch;
use tapegrad_tape::kernels::transpose::transpose;

/// Lines of a strip.
pub(super) const SIDE: usize = 32;

/// Steps of a chunk.
pub(super) const CHUNK: usize = 32;

/// Elements of a tile.
pub(super) const TILE: usize = 16 * CHUNK;

/// Pairs of steps in a chunk, and lines of a tile.
pub(super) const HALF: usize = 16;

/// Which operand a strip is of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Operand {
    Left,
    Right,
}

/// An element of an operand: a sum of parts, each a BF16.
pub(in crate::kernels::gemm) trait Source: Copy + Send + Sync + 'static {
    /// The number of parts: 1 or 3.
    const PARTS: usize;
    /// 0
    const ZERO: Self;
    /// The parts, the largest first, each in the upper half of its bits.
    fn split(self) -> [u32; 3];
    /// The bits of the magnitude, as those of an F32.
    fn magnitude(self) -> u32;
}

/// The nearest BF16 as an F32. What rounds to infinity, and NaN, has a rest that is NaN.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

impl Source for f32 {
    const PARTS: usize = 3;
    const ZERO: f32 = 0.0;

    #[inline(always)]
    fn split(self) -> [u32; 3] {
        let first = nearest(self);
        let rest = self - first;
        let second = nearest(rest);
        [first.to_bits(), second.to_bits(), nearest(rest - second).to_bits()]
    }

    #[inline(always)]
    fn magnitude(self) -> u32 {
        self.to_bits() & 0x7fff_ffff
    }
}

impl Source for bf16 {
    const PARTS: usize = 1;
    const ZERO: bf16 = bf16::ZERO;

    #[inline(always)]
    fn split(self) -> [u32; 3] {
        [u32::from(self.to_bits()) << 16, 0, 0]
    }

    #[inline(always)]
    fn magnitude(self) -> u32 {
        u32::from(self.to_bits() & 0x7fff) << 16
    }
}

/// Elements of a packed chunk of a strip.
pub(super) fn chunk_len<T: Source>() -> usize {
    T::PARTS * 2 * TILE
}

/// Packs some steps of some lines in strips that are `len` elements apart, zeros past the last. Returns the bits of the
/// largest magnitude.
///
/// # Safety
/// The lines and steps must be inside the view, and `to` have room for their strips.
pub(super) unsafe fn strips<T: Source>(
    operand: Operand,
    view: &View<T>,
    lines: Range<usize>,
    steps: Range<usize>,
    to: *mut u16,
    len: usize,
) -> u32 {
    // Distance of lines, and of steps.
    let (line, step) = match operand {
        Operand::Left => (view.row, view.column),
        Operand::Right => (view.column, view.row),
    };
    let mut largest = 0;
    for (chunk, k) in steps.clone().step_by(CHUNK).enumerate() {
        for (strip, i) in lines.clone().step_by(SIDE).enumerate() {
            let to = to.wrapping_add(strip * len + chunk * chunk_len::<T>());
            let from = view.data.as_ptr().wrapping_add(i * line + k * step);
            let (rows, columns) = (SIDE.min(lines.end - i), CHUNK.min(steps.end - k));
            // SAFETY: the caller's promise; the copy is a whole block of lines.
            let magnitude = unsafe {
                if (rows, columns) == (SIDE, CHUNK) && (line == 1 || step == 1) {
                    whole(operand, from, line, step, to)
                } else {
                    let mut block = [T::ZERO; SIDE * CHUNK];
                    for (i, k) in (0..rows).flat_map(|i| (0..columns).map(move |k| (i, k))) {
                        block[i * CHUNK + k] = *from.add(i * line + k * step);
                    }
                    whole(operand, block.as_ptr(), CHUNK, 1, to)
                }
            };
            largest = largest.max(magnitude);
        }
    }
    largest
}

/// Packs a chunk of 32 lines, or steps, of contiguous elements.
#[inline]
unsafe fn whole<T: Source>(operand: Operand, from: *const T, line: usize, step: usize, to: *mut u16) -> u32 {
    #[repr(align(64))]
    struct Other([u16; 3 * 2 * TILE]);
    let mut other = Other([0; 3 * 2 * TILE]);
    let in_place = (operand == Operand::Left) == (step == 1);
    let place = if in_place { to } else { other.0.as_mut_ptr() };
    // SAFETY: the caller's promise; a tile is 16 rows of 16 words.
    unsafe {
        let largest = if step == 1 { lines(from, line, place) } else { pairs(from, step, place) };
        if !in_place {
            for tile in 0..T::PARTS * 2 {
                let (from, to) = (place.add(tile * TILE).cast::<f32>(), to.add(tile * TILE).cast::<f32>());
                transpose(HALF, HALF, from, HALF, |j| to.add(j * HALF));
            }
        }
        largest
    }
}

tapegrad_tape::multiversion! {
    /// Tiles with a line in each row, of lines of contiguous steps.
    fn lines<T: Source>(from: *const T, line: usize, to: *mut u16) -> u32 {
        let mut largest = [0u32; CHUNK];
        for i in 0..SIDE {
            prefetch(from.wrapping_add(i * line + CHUNK).cast());
            // SAFETY: promised by the caller, `whole`.
            let x = unsafe { &*from.add(i * line).cast::<[T; CHUNK]>() };
            let mut parts = [[0u16; CHUNK]; 3];
            for k in 0..CHUNK {
                let [a, b, c] = x[k].split();
                parts[0][k] = (a >> 16) as u16;
                parts[1][k] = (b >> 16) as u16;
                parts[2][k] = (c >> 16) as u16;
                largest[k] = largest[k].max(x[k].magnitude());
            }
            for (part, values) in parts[..T::PARTS].iter().enumerate() {
                // SAFETY: as above.
                unsafe { *to.add(part * 2 * TILE + i * CHUNK).cast() = *values };
            }
        }
        largest.iter().fold(0, |a, &b| a.max(b))
    }
}

tapegrad_tape::multiversion! {
    /// Tiles with a pair of steps in each row, of steps of contiguous lines.
    fn pairs<T: Source>(from: *const T, step: usize, to: *mut u16) -> u32 {
        let mut largest = [0u32; HALF];
        for row in 0..CHUNK {
            let (pair, half) = (row / 2, row % 2);
            let at = from.wrapping_add(2 * pair * step + half * HALF);
            prefetch(from.wrapping_add((row + CHUNK) * step).cast());
            // SAFETY: promised by the caller, `whole`.
            let (x, y) = unsafe { (&*at.cast::<[T; HALF]>(), &*at.add(step).cast::<[T; HALF]>()) };
            let mut parts = [[0u32; HALF]; 3];
            for j in 0..HALF {
                let (x, y) = (x[j], y[j]);
                let (first, second) = (x.split(), y.split());
                parts[0][j] = first[0] >> 16 | second[0];
                parts[1][j] = first[1] >> 16 | second[1];
                parts[2][j] = first[2] >> 16 | second[2];
                largest[j] = largest[j].max(x.magnitude()).max(y.magnitude());
            }
            for (part, values) in parts[..T::PARTS].iter().enumerate() {
                // SAFETY: as above.
                unsafe { *to.add((part * 2 + half) * TILE + pair * 2 * HALF).cast() = *values };
            }
        }
        largest.iter().fold(0, |a, &b| a.max(b))
    }
}
