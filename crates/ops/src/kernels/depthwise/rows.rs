//! The loops of the forward pass and of the gradient for the input.

use super::axis::Axis;
use super::{Products, View};
use std::ops::Range;
use tapegrad_tape::kernels::arch::{Kernel, Vector};
use tapegrad_tape::unroll;

/// Some rows of the grid of an image, for a block of channels.
pub(super) struct Rows<'a> {
    pub(super) rows: Range<usize>,
    pub(super) axes: &'a [Axis; 2],
    pub(super) source: View,
    /// Channels of the block.
    pub(super) channels: usize,
    /// For each tap and channel of a group a vector for the block.
    pub(super) weights: *const f32,
    /// Distance between them.
    pub(super) weight_step: usize,
    /// One term for each channel, or null.
    pub(super) bias: *const f32,
    /// The first pixel of the image.
    pub(super) target: *mut f32,
    pub(super) target_pixel: usize,
    pub(super) target_row: usize,
}

/// Adjacent outputs that are computed at once.
const COLUMNS: usize = 8;

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let [down, right] = self.axes;
        let interior = right.interior();
        let (mut all, mut some) = (Products::new(), Products::new());
        for row in self.rows.clone() {
            let target = self.target.wrapping_add((down.start + down.step * row) * self.target_row);
            all.clear();
            self.source.products(self.axes, row, self.weight_step, &mut all, |_| true);
            let mut column = interior.start;
            while column < interior.end {
                let left = interior.end - column;
                // The last outputs may be computed again with their neighbors.
                if left >= COLUMNS {
                    self.tile::<V, COLUMNS>(&all, target, column);
                    column += COLUMNS;
                } else if left > 4 && interior.len() >= COLUMNS {
                    self.tile::<V, COLUMNS>(&all, target, interior.end - COLUMNS);
                    column = interior.end;
                } else if interior.len() >= 4 {
                    self.tile::<V, 4>(&all, target, column.min(interior.end - 4));
                    column += 4;
                } else {
                    self.tile::<V, 1>(&all, target, column);
                    column += 1;
                }
            }
            for column in (0..interior.start).chain(interior.end..right.grid) {
                some.clear();
                self.source.products(self.axes, row, self.weight_step, &mut some, |at| {
                    right.read(column, at).is_some()
                });
                self.tile::<V, 1>(&some, target, column);
            }
        }
    }
}

impl Rows<'_> {
    /// Computes some adjacent columns of all channels.
    #[inline(always)]
    fn tile<V: Vector, const N: usize>(&self, products: &Products, target: *mut f32, column: usize) {
        let right = &self.axes[1];
        let source = self.source.start.wrapping_add(column * right.source_step * self.source.pixel);
        let target = target.wrapping_add((right.start + right.step * column) * self.target_pixel);
        let whole = self.channels - self.channels % V::LANES;
        for c in (0..whole).step_by(V::LANES) {
            self.vectors::<V, N, true>(products, source, target, c, V::LANES);
        }
        if whole < self.channels {
            self.vectors::<V, N, false>(products, source, target, whole, self.channels - whole);
        }
    }

    /// Computes a vector of `n` channels of some adjacent columns.
    #[inline(always)]
    fn vectors<V: Vector, const N: usize, const WHOLE: bool>(
        &self,
        products: &Products,
        source: *const f32,
        target: *mut f32,
        c: usize,
        n: usize,
    ) {
        let mask = V::mask(n);
        // `n` channels of a pixel inside the image, of a weight or of the bias.
        macro_rules! load {
            ($p:expr) => {
                // SAFETY: as said above.
                unsafe { load::<V, WHOLE>($p, mask) }
            };
        }
        let step = self.axes[1].source_step * self.source.pixel;
        let (source, weights) = (source.wrapping_add(c), self.weights.wrapping_add(c));
        let start = if self.bias.is_null() { V::splat(0.0) } else { load!(self.bias.wrapping_add(c)) };
        let mut sums = [start; N];
        for &(place, weight) in products {
            let (x, w) = (source.wrapping_offset(place), load!(weights.wrapping_add(weight)));
            unroll!(i of 10 < N, {
                sums[i] = load!(x.wrapping_add(i * step)).mul_add(w, sums[i]);
            });
        }
        let (target, step) = (target.wrapping_add(c), self.axes[1].step * self.target_pixel);
        unroll!(i of 10 < N, {
            // SAFETY: `n` channels of a pixel of the target that belongs to this task.
            unsafe {
                let to = target.wrapping_add(i * step);
                if WHOLE { sums[i].store(to) } else { sums[i].store_masked(to, mask) }
            }
        });
    }
}

/// A whole vector, or the lanes of the mask.
///
/// # Safety
/// They must be readable.
#[inline(always)]
pub(super) unsafe fn load<V: Vector, const WHOLE: bool>(p: *const f32, mask: V::Mask) -> V {
    // SAFETY: as the caller promises.
    unsafe { if WHOLE { V::load(p) } else { V::load_masked(p, mask) } }
}
