//! The weight gradient where both sides have few channels: one dot product of planes for each weight.
//!
//! Each channel of the input (with the zeros around it) and of the output's gradient is copied into a plane
//! of its own, rows of both equally far apart. Then a weight's gradient is the dot product of one plane of each
//! side, shifted by the tap; the gaps between the rows hold zeros on the gradient's side.

// The compiler keeps arrays in registers if loops over indices have constant bounds.
#![allow(clippy::needless_range_loop)]

use super::{Conv2dShape, run_tasks};
use crate::kernels::scratch::with_scratch;
use tapegrad_tape::kernels::arch::{self, Kernel, MAX_LANES, Vector};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::kernels::transpose::transpose_to;

/// Computes the weight gradient if it pays this way.
pub(super) fn weight_grad(s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) -> bool {
    let (oh, ow) = (s.out_h(), s.out_w());
    // With more channels on one side the other way fills its vectors.
    let few = s.c_in.max(s.c_out) <= 8 || (s.c_in * s.kw < 8 && s.c_out <= 16);
    if s.stride != [1, 1] || !few || ow < 8 {
        return false;
    }
    let width = ow + (s.kw - 1) * s.dilation[1];
    let height = oh + (s.kh - 1) * s.dilation[0];
    let x_plane = height * width + MAX_LANES;
    let dy_plane = ((oh - 1) * width + ow).next_multiple_of(MAX_LANES);
    let weights = dw.len();
    // What each (input channel, tap) reads, relative to the start of the planes.
    let mut shifts = Vec::with_capacity(weights / s.c_out);
    for c in 0..s.c_in {
        for i in 0..s.kh {
            shifts.extend((0..s.kw).map(|j| c * x_plane + i * s.dilation[0] * width + j * s.dilation[1]));
        }
    }
    let groups = (s.flops() / 1_000_000).clamp(1, 16).min(s.n);
    with_scratch(groups * weights, |partial| {
        let out = SharedSlice::new(partial);
        run_tasks(groups, s.flops(), |group| {
            let sizes = [s.c_in * x_plane, s.c_out * dy_plane, weights * MAX_LANES];
            with_scratch(sizes.iter().sum(), |scratch| {
                scratch.fill(0.0);
                let (x_planes, rest) = scratch.split_at_mut(sizes[0]);
                let (dy_planes, sums) = rest.split_at_mut(sizes[1]);
                for image in s.n * group / groups..s.n * (group + 1) / groups {
                    fill_input(s, &x[image * s.h * s.w * s.c_in..], x_planes, [height, width], x_plane);
                    for line in 0..oh {
                        let from = dy[(image * oh + line) * ow * s.c_out..][..ow * s.c_out].as_ptr();
                        let to = dy_planes.as_mut_ptr().wrapping_add(line * width);
                        // SAFETY: the line has `ow` pixels, and its part of each plane has room for them.
                        unsafe { transpose_to([ow, s.c_out], from, s.c_out, to, dy_plane) };
                    }
                    arch::run(Dots { dy_planes, dy_plane, x_planes, shifts: &shifts, sums });
                }
                for (i, lanes) in sums.chunks_exact(MAX_LANES).enumerate() {
                    // SAFETY: each group has `weights` sums of its own.
                    unsafe { *out.at(group * weights + i) = lanes.iter().sum() };
                }
            });
        });
        for (i, dw) in dw.iter_mut().enumerate() {
            *dw = partial[i..].iter().step_by(weights).sum();
        }
    });
    true
}

/// Copies the part of an image that the windows read into planes that are already zero around it.
fn fill_input(s: &Conv2dShape, image: &[f32], planes: &mut [f32], [height, width]: [usize; 2], plane: usize) {
    let columns = width.saturating_sub(s.padding[1]).min(s.w);
    for y in 0..s.h.min(height.saturating_sub(s.padding[0])) {
        let from = image[y * s.w * s.c_in..][..columns * s.c_in].as_ptr();
        let to = planes.as_mut_ptr().wrapping_add((y + s.padding[0]) * width + s.padding[1]);
        // SAFETY: the line has `columns` pixels, and its part of each plane has room for them.
        unsafe { transpose_to([columns, s.c_in], from, s.c_in, to, plane) };
    }
}

/// Adds to each sum the product of a gradient plane and a shifted input plane, lane by lane.
struct Dots<'a> {
    dy_planes: &'a [f32],
    dy_plane: usize,
    x_planes: &'a [f32],
    shifts: &'a [usize],
    /// [`MAX_LANES`] for each weight.
    sums: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        const ROWS: usize = 3;
        const SHIFTS: usize = 5;
        let (channels, count) = (self.dy_planes.len() / self.dy_plane, self.shifts.len());
        let reach = self.shifts.iter().max().map_or(0, |shift| shift + self.dy_plane);
        assert!(reach <= self.x_planes.len() && self.sums.len() == channels * count * MAX_LANES);
        for row in (0..channels).step_by(ROWS) {
            for shift in (0..count).step_by(SHIFTS) {
                // Past the last row or shift the last one is computed again and discarded.
                let at = |i: usize, j: usize| {
                    ((row + i).min(channels - 1) * count + (shift + j).min(count - 1)) * MAX_LANES
                };
                // SAFETY: each plane has `dy_plane` elements, a multiple of the lanes, also after its shift.
                unsafe {
                    let mut a = [self.dy_planes.as_ptr(); ROWS];
                    let mut b = [self.x_planes.as_ptr(); SHIFTS];
                    for i in 0..ROWS {
                        a[i] = a[i].add((row + i).min(channels - 1) * self.dy_plane);
                    }
                    for j in 0..SHIFTS {
                        b[j] = b[j].add(self.shifts[(shift + j).min(count - 1)]);
                    }
                    let mut sums = [[V::splat(0.0); SHIFTS]; ROWS];
                    for i in 0..ROWS {
                        for j in 0..SHIFTS {
                            sums[i][j] = V::load(self.sums.as_ptr().add(at(i, j)));
                        }
                    }
                    let mut k = 0;
                    while k < self.dy_plane {
                        let mut left = [V::splat(0.0); ROWS];
                        for i in 0..ROWS {
                            left[i] = V::load(a[i].add(k));
                        }
                        for j in 0..SHIFTS {
                            let right = V::load(b[j].add(k));
                            for i in 0..ROWS {
                                sums[i][j] = left[i].mul_add(right, sums[i][j]);
                            }
                        }
                        k += V::LANES;
                    }
                    for i in 0..ROWS {
                        for j in 0..SHIFTS {
                            if row + i < channels && shift + j < count {
                                sums[i][j].store(self.sums.as_mut_ptr().add(at(i, j)));
                            }
                        }
                    }
                }
            }
        }
    }
}
