//! Large products by AMX, the tile registers of some x86-64 processors, which multiply BF16 sixteen times as fast as vectors
//! multiply F32.
//!
//! An F32 is the sum of three BF16 (8 + 8 + 8 bits of significand), so a product of F32 is a sum of products of BF16, of
//! which six matter. Products of BF16 are exact, and sums are those of F32: the errors are those of the products by vectors,
//! which still computes what this cannot: infinities and NaN, and operands so small that a part would be subnormal, which
//! the tiles take as zero.

mod pack;
mod tile;

use super::{Finish, View};
use crate::kernels::microkernel::Epilogue;
use crate::kernels::scratch::with_scratch;
use pack::{CHUNK, HALF, Operand, SIDE, Source, chunk_len};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use tapegrad_tape::kernels::arch::{self, Kernel, Vector, prefetch_write};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;
use tile::{Sums, Tiles};

/// The most steps that are packed at once.
const DEPTH: usize = 1024;

/// The most bytes of the packed right operand, a part of the third-level cache.
const BLOCK: usize = 16 << 20;

/// The most bytes of a strip whose steps are multiplied before their sums are added to C. Strips that fit the first-level cache
/// are multiplied faster, but their sums are stored so often that the whole takes longer.
const PASS: usize = 144 << 10;

/// The most strips of the left operand in a task, which packs them for its second-level cache.
const HEIGHT: usize = 8;

/// The number of tasks from which all threads are busy.
const TASKS: usize = 16;

/// Strips of the right operand that a task packs together, so that memory is read in long runs.
const TOGETHER: usize = 4;

/// Operands are multiplied by vectors if their largest magnitudes, or the product of both, are below these powers of two:
/// then parts of elements that matter would be subnormal.
const SMALLEST: f32 = f32::from_bits((127 - 78) << 23);
const SMALLEST_PRODUCT: f32 = f32::from_bits((127 - 86) << 23);

/// Whether products use AMX.
fn is_available() -> bool {
    arch::has_amx()
}

/// Whether AMX is in use and a product of F32 large enough: each packed element has to be used in many products, more if it
/// is transposed while it is packed. (The steps of the left operand are contiguous, and the columns of the right one, or not.)
pub(super) fn takes_f32(size: [usize; 3], contiguous: [bool; 2]) -> bool {
    let [left, right] = contiguous.map(|contiguous| if contiguous { 80 } else { 120 });
    is_worthwhile(size, [left, right])
}

/// The same for BF16, which would have to be converted otherwise.
pub(crate) fn takes_bf16(size: [usize; 3]) -> bool {
    is_worthwhile(size, [32, 32])
}

/// The uses are how many products pay for packing an element of the left and of the right operand.
fn is_worthwhile([m, n, k]: [usize; 3], [left, right]: [usize; 2]) -> bool {
    let steps = m.saturating_mul(n).saturating_mul(k);
    let packing = m.saturating_mul(left).saturating_add(n.saturating_mul(right));
    is_available() && k >= 64 && steps >= 1 << 21 && m.saturating_mul(n) >= packing
}

/// A product by vectors; see [`matmul`](super::matmul).
pub(super) type ByVectors<T> = fn([usize; 3], View<T>, View<T>, &mut [f32], usize, Finish<f32>);

/// The product of F32 or BF16, by `by_vectors` where tiles cannot compute it, which those of BF16 always can.
pub(super) fn product<T: Source>(
    size: [usize; 3],
    a: View<T>,
    b: View<T>,
    c: &mut [f32],
    row: usize,
    finish: Finish<f32>,
    by_vectors: Option<ByVectors<T>>,
) {
    let c = SharedSlice::new(c);
    Product { size, a, b, c, row, finish, by_vectors }.run();
}

struct Product<'a, T> {
    size: [usize; 3],
    a: View<'a, T>,
    b: View<'a, T>,
    c: SharedSlice<'a, f32>,
    row: usize,
    finish: Finish<'a, f32>,
    by_vectors: Option<ByVectors<T>>,
}

/// Packed strips of an operand.
#[derive(Clone, Copy)]
struct Packed {
    first: usize,
    data: *mut f32,
    /// Elements of a strip.
    len: usize,
}

impl Packed {
    fn strip(self, strip: usize) -> *mut u16 {
        self.data.cast::<u16>().wrapping_add((strip - self.first) * self.len)
    }
}

/// Whether operands whose largest magnitudes are these would lose bits as subnormal parts.
fn are_tiny(a: f32, b: f32) -> bool {
    let tiny = |x: f32, least: f32| x != 0.0 && x < least;
    tiny(a, SMALLEST) || tiny(b, SMALLEST) || tiny(a * b, SMALLEST_PRODUCT)
}

impl<T: Source> Product<'_, T> {
    fn run(&self) {
        let [_, n, k] = self.size;
        let depth = k.div_ceil(k.div_ceil(DEPTH)).next_multiple_of(CHUNK);
        let len = depth / CHUNK * chunk_len::<T>();
        let columns = n.div_ceil(SIDE);
        let width = (BLOCK / 2 / len).clamp(1, columns);
        with_scratch(width * len / 2, |right| {
            let right = SharedSlice::new(right);
            for start in (0..k).step_by(depth) {
                let steps = start..k.min(start + depth);
                for first in (0..columns).step_by(width) {
                    self.columns(&steps, first..columns.min(first + width), right, len);
                }
            }
        });
    }

    /// The product of all rows with some strips of the right operand.
    fn columns(&self, steps: &Range<usize>, columns: Range<usize>, right: SharedSlice<f32>, len: usize) {
        let packed = |first| Packed { first, data: right.at(0), len };
        let largest = AtomicU32::new(0);
        parallel_for(columns.len().div_ceil(TOGETHER), |group| {
            let first = columns.start + group * TOGETHER;
            let strips = first..columns.end.min(first + TOGETHER);
            // SAFETY: each strip has its own place.
            let magnitude =
                unsafe { self.pack(Operand::Right, strips, steps, packed(columns.start).strip(first), len) };
            largest.fetch_max(magnitude, Ordering::Relaxed);
        });
        let largest = f32::from_bits(largest.into_inner());
        let rows = self.size[0].div_ceil(SIDE);
        let height = rows.div_ceil(TASKS).clamp(2, HEIGHT);
        let heights = rows.div_ceil(height);
        let widths = (TASKS / 2 / heights).clamp(1, columns.len().div_ceil(HEIGHT));
        parallel_for(heights * widths, |task| {
            let (row, width) = (task % heights * height, task / heights);
            let rows = row..rows.min(row + height);
            let part = |i: usize| columns.start + columns.len() * i / widths;
            with_scratch(height * len / 2, |left| {
                let left = Packed { first: row, data: left.as_mut_ptr(), len };
                // SAFETY: the scratch is this task's own.
                let magnitude =
                    unsafe { self.pack(Operand::Left, rows.clone(), steps, left.strip(row), len) };
                let by_vectors = are_tiny(f32::from_bits(magnitude), largest);
                let right = packed(columns.start);
                self.task(steps, rows, part(width)..part(width + 1), [left, right], by_vectors);
            });
        });
    }

    /// The lines of a strip.
    fn lines(&self, operand: usize, strip: usize) -> Range<usize> {
        strip * SIDE..self.size[operand].min((strip + 1) * SIDE)
    }

    /// Packs some steps of some strips. Returns the bits of the largest magnitude.
    ///
    /// # Safety
    /// `to` must have room for them.
    unsafe fn pack(
        &self,
        operand: Operand,
        strips: Range<usize>,
        steps: &Range<usize>,
        to: *mut u16,
        len: usize,
    ) -> u32 {
        let (view, size) = match operand {
            Operand::Left => (&self.a, self.size[0]),
            Operand::Right => (&self.b, self.size[1]),
        };
        let lines = strips.start * SIDE..size.min(strips.end * SIDE);
        // SAFETY: the sizes of the views were checked; the room is the caller's promise.
        unsafe { pack::strips(operand, view, lines, steps.clone(), to, len) }
    }

    /// The product of packed strips.
    fn task(
        &self,
        steps: &Range<usize>,
        rows: Range<usize>,
        columns: Range<usize>,
        [left, right]: [Packed; 2],
        by_vectors: bool,
    ) {
        let chunks = steps.len().div_ceil(CHUNK);
        let passes = (chunks * chunk_len::<T>() * 2).div_ceil(PASS);
        let pass = chunks.div_ceil(passes) * CHUNK;
        let tiles = Tiles::new();
        let mut sums = Sums([0.0; SIDE * SIDE]);
        for start in steps.clone().step_by(pass) {
            let pass = start..steps.end.min(start + pass);
            let at = (start - steps.start) / CHUNK * chunk_len::<T>();
            for column in columns.clone() {
                let right = right.strip(column).wrapping_add(at);
                for row in rows.clone() {
                    let left = left.strip(row).wrapping_add(at);
                    self.prefetch(row, column);
                    if !by_vectors {
                        // SAFETY: both strips are packed.
                        unsafe { tiles.multiply::<T>(left, right, pass.len().div_ceil(CHUNK), &mut sums) };
                    }
                    self.finish(row, column, &pass, &mut sums, by_vectors);
                }
            }
        }
    }

    /// Starts to load a block of C while its sums are computed.
    fn prefetch(&self, row: usize, column: usize) {
        for i in self.lines(0, row) {
            let line = self.c.at(i * self.row + column * SIDE);
            prefetch_write(line);
            prefetch_write(line.wrapping_add(HALF));
        }
    }

    /// Stores the sums of a block in C, after those that the tiles cannot compute.
    fn finish(&self, row: usize, column: usize, steps: &Range<usize>, sums: &mut Sums, by_vectors: bool) {
        let (rows, columns) = (self.lines(0, row), self.lines(1, column));
        if let Some(f) = self.by_vectors
            && (by_vectors || !is_finite(sums))
        {
            let (a, b) = (self.a, self.b);
            let a = View { data: &a.data[rows.start * a.row + steps.start * a.column..], ..a };
            let b = View { data: &b.data[steps.start * b.row + columns.start * b.column..], ..b };
            let size = [rows.len(), columns.len(), steps.len()];
            f(size, a, b, &mut sums.0, SIDE, Finish::default());
        }
        let (first, last) = (steps.start == 0, steps.end == self.size[2]);
        arch::run(Store {
            sums,
            size: [rows.len(), columns.len()],
            c: self.c.at(rows.start * self.row + columns.start),
            row: self.row,
            epilogue: self.finish.epilogue(first, last, rows.start, columns.start),
        });
    }
}

tapegrad_tape::multiversion! {
    fn is_finite(sums: &Sums) -> bool {
        let largest = sums.0.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff));
        largest < f32::INFINITY.to_bits()
    }
}

/// The end of a block: its sums, the block of C, and what that becomes.
struct Store<'a> {
    sums: &'a Sums,
    size: [usize; 2],
    c: *mut f32,
    row: usize,
    epilogue: Epilogue,
}

impl Kernel for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Store { sums, size: [rows, columns], c, row, epilogue } = self;
        let plain = epilogue.alpha == 1.0 && epilogue.column_bias.is_null() && epilogue.row_bias.is_null();
        // SAFETY: C and the biases were checked to have these rows and columns, which belong to this task.
        unsafe {
            if plain && columns == SIDE && (epilogue.beta == 0.0 || epilogue.beta == 1.0) {
                for (i, sums) in sums.0.chunks_exact(SIDE).take(rows).enumerate() {
                    for j in (0..SIDE).step_by(V::LANES) {
                        let to = c.wrapping_add(i * row + j);
                        let x = V::load(sums[j..].as_ptr());
                        if epilogue.beta == 0.0 { x } else { x.add(V::load(to)) }.store(to);
                    }
                }
                return;
            }
            for (i, j) in (0..rows).flat_map(|i| (0..columns).step_by(V::LANES).map(move |j| (i, j))) {
                let mask = V::mask(V::LANES.min(columns - j));
                let to = c.wrapping_add(i * row + j);
                let mut x = V::load(sums.0[i * SIDE + j..].as_ptr()).mul(V::splat(epilogue.alpha));
                if !epilogue.column_bias.is_null() {
                    x = x.add(V::load_masked(epilogue.column_bias.wrapping_add(j), mask));
                }
                if !epilogue.row_bias.is_null() {
                    x = x.add(V::splat(*epilogue.row_bias.add(i)));
                }
                if epilogue.beta != 0.0 {
                    x = V::splat(epilogue.beta).mul_add(V::load_masked(to, mask), x);
                }
                x.store_masked(to, mask);
            }
        }
    }
}

#[cfg(test)]
mod tests;
