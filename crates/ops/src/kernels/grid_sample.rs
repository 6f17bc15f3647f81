//! Values of an image at points between its pixels.

use super::resample::{add_gathered, add_gathered_2};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::parallel::{parallel_chunks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;

/// The points of a task.
const POINTS: usize = 256;

/// An index of no pixel: it reads zero.
pub(crate) const NONE: u32 = u32::MAX;

/// The pixels around each point of an image, along one dimension: `taps` lists of one index, weight and derivative of
/// the weight a point.
pub(crate) struct AxisTaps<T> {
    pub(crate) index: Vec<Vec<u32>>,
    pub(crate) weight: Vec<Vec<T>>,
    pub(crate) slope: Vec<Vec<T>>,
}

/// The sizes of one image and the points in it.
pub(crate) struct Points<'a, T> {
    /// One for each spatial dimension, the outermost first.
    pub(crate) axes: &'a [AxisTaps<T>],
    pub(crate) sizes: &'a [usize],
    pub(crate) channels: usize,
    pub(crate) count: usize,
}

/// One pixel for each point: a product of taps of all dimensions.
struct Corner<T> {
    index: Vec<u32>,
    weight: Vec<T>,
}

impl<T: Float> Points<'_, T> {
    fn pixels(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The combinations of one tap of each dimension.
    fn combinations(&self) -> usize {
        self.axes.iter().map(|a| a.index.len()).product()
    }

    /// The taps that make up a combination.
    fn taps(&self, mut number: usize) -> [usize; 3] {
        let mut taps = [0; 3];
        for (d, axis) in self.axes.iter().enumerate().rev() {
            taps[d] = number % axis.index.len();
            number /= axis.index.len();
        }
        taps
    }

    /// The pixels of a combination at some points; their weights, or the derivative for one dimension.
    fn corner(&self, number: usize, range: std::ops::Range<usize>, slope_of: Option<usize>) -> Corner<T> {
        let taps = self.taps(number);
        let mut index = vec![0u32; range.len()];
        let mut weight = vec![T::ONE; range.len()];
        for (d, axis) in self.axes.iter().enumerate() {
            let part = &axis.index[taps[d]][range.clone()];
            for (index, &i) in index.iter_mut().zip(part) {
                *index = if *index == NONE || i == NONE { NONE } else { *index * self.sizes[d] as u32 + i };
            }
            let factors = if slope_of == Some(d) { &axis.slope } else { &axis.weight };
            weight.iter_mut().zip(&factors[taps[d]][range.clone()]).for_each(|(w, &f)| *w = *w * f);
        }
        Corner { index, weight }
    }

    /// All combinations.
    fn corners(&self, range: std::ops::Range<usize>, slope_of: Option<usize>) -> Vec<Corner<T>> {
        (0..self.combinations()).map(|n| self.corner(n, range.clone(), slope_of)).collect()
    }

    /// `x` `[channels, pixels]` to `y` `[channels, count]`.
    pub(crate) fn forward(&self, x: &[T], y: &mut [T]) {
        let pixels = self.pixels();
        let y = SharedSlice::new(y);
        parallel_for(self.count.div_ceil(POINTS), |task| {
            let range = task * POINTS..self.count.min((task + 1) * POINTS);
            let part = |c: usize| {
                // SAFETY: each task has its own points.
                let y = unsafe { y.part(c * self.count + range.start, range.len()) };
                y.fill(T::ZERO);
                y
            };
            let corners = self.corners(range.clone(), None);
            for c in 0..self.channels {
                add_corners(part(c), &x[c * pixels..][..pixels], &corners);
            }
        });
    }

    /// The gradient for `x` from that of `y`.
    pub(crate) fn image_gradient(&self, g: &[T], dx: &mut [T]) {
        let pixels = self.pixels();
        dx.fill(T::ZERO);
        for start in (0..self.count).step_by(POINTS) {
            let range = start..self.count.min(start + POINTS);
            let corners = self.corners(range.clone(), None);
            parallel_chunks(dx, pixels, |c, dx| {
                let g = &g[c * self.count..][range.clone()];
                for corner in &corners {
                    for ((&i, &w), &g) in corner.index.iter().zip(&corner.weight).zip(g) {
                        if let Some(x) = dx.get_mut(i as usize) {
                            *x += w * g;
                        }
                    }
                }
            });
        }
    }

    /// The gradient for the points, `[count, dims]`, whose innermost dimension comes first.
    pub(crate) fn point_gradient(&self, x: &[T], g: &[T], out: &mut [T]) {
        let (pixels, dims) = (self.pixels(), self.axes.len());
        parallel_chunks(out, POINTS * dims, |task, out| {
            let range = task * POINTS..task * POINTS + out.len() / dims;
            let mut value = vec![T::ZERO; range.len()];
            for d in 0..dims {
                let mut sum = vec![T::ZERO; range.len()];
                let corners = self.corners(range.clone(), Some(d));
                for c in 0..self.channels {
                    value.fill(T::ZERO);
                    add_corners(&mut value, &x[c * pixels..][..pixels], &corners);
                    let g = &g[c * self.count..][range.clone()];
                    sum.iter_mut().zip(&value).zip(g).for_each(|((s, &v), &g)| *s += v * g);
                }
                for (out, s) in out.chunks_exact_mut(dims).zip(sum) {
                    out[dims - 1 - d] = s;
                }
            }
        });
    }
}

/// Adds the weighted pixels of all combinations.
fn add_corners<T: Float>(y: &mut [T], x: &[T], corners: &[Corner<T>]) {
    for pair in corners.chunks(2) {
        match pair {
            [a, b] => add_gathered_2(y, x, &a.index, &a.weight, &b.index, &b.weight),
            [a] => add_gathered(y, x, &a.index, &a.weight),
            _ => {}
        }
    }
}
