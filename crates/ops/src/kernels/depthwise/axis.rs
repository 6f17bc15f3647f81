//! What the windows along one axis read.

use crate::kernels::geometry::Conv2dShape;
use std::ops::Range;

/// Target position `start + step * p` is the sum over the taps of source position `source_step * p + at`, for each
/// grid position p.
#[derive(Clone)]
pub(super) struct Axis {
    /// Size of the source.
    pub(super) source: usize,
    /// Grid positions.
    pub(super) grid: usize,
    pub(super) source_step: usize,
    pub(super) start: usize,
    pub(super) step: usize,
    /// Where each tap reads, and its index in the kernel; in the order of their reads.
    pub(super) taps: Vec<(isize, usize)>,
}

impl Axis {
    /// The windows of a convolution along an axis of the image.
    pub(super) fn forward(s: &Conv2dShape, axis: usize) -> Axis {
        let (dilation, padding) = (s.dilation[axis], s.padding[axis] as isize);
        let taps = (0..[s.kh, s.kw][axis]).map(|k| ((k * dilation) as isize - padding, k)).collect();
        let [source, grid] = sizes(s, axis);
        Axis { source, grid, source_step: s.stride[axis], start: 0, step: 1, taps }
    }

    /// Those input positions `start + stride * p` whose gradient is a correlation: one for each start below the stride.
    pub(super) fn input_grads(s: &Conv2dShape, axis: usize) -> Vec<Axis> {
        let [target, source] = sizes(s, axis);
        let stride = s.stride[axis];
        let axis_of = |start: usize| {
            // Window o covers position start + stride * p with tap k if o = p + (start + padding - k * dilation) / stride.
            let at = |k: usize| {
                let reach = (start + s.padding[axis]) as isize - (k * s.dilation[axis]) as isize;
                (reach % stride as isize == 0).then_some((reach / stride as isize, k))
            };
            let mut taps: Vec<_> = (0..[s.kh, s.kw][axis]).filter_map(at).collect();
            taps.reverse();
            Axis {
                source,
                grid: (target - start).div_ceil(stride),
                source_step: 1,
                start,
                step: stride,
                taps,
            }
        };
        (0..stride.min(target)).map(axis_of).collect()
    }

    /// Where a tap reads at a grid position, if that is inside the source.
    #[inline(always)]
    pub(super) fn read(&self, p: usize, at: isize) -> Option<usize> {
        let y = (p * self.source_step).wrapping_add_signed(at);
        (y < self.source).then_some(y)
    }

    /// The grid positions at which all taps are inside the source.
    pub(super) fn interior(&self) -> Range<usize> {
        let (mut first, mut end) = (0, self.grid);
        for &(at, _) in &self.taps {
            first = first.max((-at).max(0).unsigned_abs().div_ceil(self.source_step));
            end = end.min((self.source as isize - at).max(0).unsigned_abs().div_ceil(self.source_step));
        }
        first.min(end)..end
    }

    /// The source positions that some grid positions read.
    pub(super) fn reads(&self, grid: &Range<usize>) -> Range<usize> {
        let (Some(first), Some(last)) = (self.taps.first(), self.taps.last()) else { return 0..0 };
        if grid.is_empty() {
            return 0..0;
        }
        let at = |p: usize, at: isize| (p * self.source_step) as isize + at;
        let inside = |y: isize| y.clamp(0, self.source as isize) as usize;
        inside(at(grid.start, first.0))..inside(at(grid.end - 1, last.0) + 1)
    }
}

/// The sizes of input and output.
fn sizes(s: &Conv2dShape, axis: usize) -> [usize; 2] {
    [[s.h, s.out_h()], [s.w, s.out_w()]][axis]
}
