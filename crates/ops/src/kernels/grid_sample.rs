//! Values of images at points between their pixels.

use super::resample::{at, gather_1};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::{Float, multiversion};

/// The points of a task.
const POINTS: usize = 256;
/// The channels of a task of the image's gradient: it computes the corners of all points again.
const CHANNELS: usize = 8;

/// An index of no pixel: it reads zero.
pub(crate) const NONE: u32 = u32::MAX;

/// The pixels around points along one dimension: for the first tap one index, weight and derivative of the weight a
/// point, then those for the second tap, and so on.
pub(crate) struct AxisTaps<T> {
    pub(crate) index: Vec<u32>,
    pub(crate) weight: Vec<T>,
    pub(crate) slope: Vec<T>,
}

/// Sets the taps of points along a dimension of this size.
pub(crate) type Fill<'a, T> = &'a (dyn Fn(&mut AxisTaps<T>, &[T], usize) + Sync);

/// The sizes of a batch of images and the points in them.
pub(crate) struct Points<'a, T> {
    /// `[images, count, dims]`; the coordinate of the innermost dimension comes first.
    pub(crate) points: &'a [T],
    /// The spatial sizes, the outermost first.
    pub(crate) sizes: &'a [usize],
    pub(crate) images: usize,
    pub(crate) channels: usize,
    /// The points of an image.
    pub(crate) count: usize,
    /// The taps of each dimension: one, two or four.
    pub(crate) taps: usize,
    pub(crate) fill: Fill<'a, T>,
}

/// The pixels around `n` points of an image: products of one tap of each dimension.
struct Corners<T> {
    axes: Vec<AxisTaps<T>>,
    n: usize,
    /// Those of the first combination of taps for all points, then of the second.
    index: Vec<u32>,
    weight: Vec<T>,
}

impl<T: Float> Points<'_, T> {
    fn pixels(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The combinations of one tap of each dimension.
    fn combinations(&self) -> usize {
        self.taps.pow(self.sizes.len() as u32)
    }

    /// The corners of the points of a block, and where it begins.
    fn corners(&self, image: usize, block: usize) -> (Corners<T>, usize) {
        let (dims, start) = (self.sizes.len(), block * POINTS);
        let n = POINTS.min(self.count - start);
        let points = &self.points[(image * self.count + start) * dims..][..n * dims];
        let mut along = vec![T::ZERO; n];
        let axes = (0..dims).map(|d| {
            along.iter_mut().zip(points.chunks_exact(dims)).for_each(|(a, p)| *a = p[dims - 1 - d]);
            let (index, zeros) = (vec![NONE; self.taps * n], vec![T::ZERO; self.taps * n]);
            let mut axis = AxisTaps { index, weight: zeros.clone(), slope: zeros };
            (self.fill)(&mut axis, &along, self.sizes[d]);
            axis
        });
        let axes: Vec<_> = axes.collect();
        let size = n * self.combinations();
        let mut corners = Corners { axes, n, index: vec![0; size], weight: vec![T::ONE; size] };
        let list = corners.index.chunks_exact_mut(n).zip(corners.weight.chunks_exact_mut(n));
        for (number, (index, weight)) in list.enumerate() {
            for (d, axis) in corners.axes.iter().enumerate() {
                let range = self.tap_of(number, d) * n..(self.tap_of(number, d) + 1) * n;
                extend(index, weight, &axis.index[range.clone()], &axis.weight[range], self.sizes[d] as u32);
            }
        }
        (corners, start)
    }

    /// Which tap of a dimension belongs to a combination.
    fn tap_of(&self, number: usize, d: usize) -> usize {
        number / self.taps.pow((self.sizes.len() - 1 - d) as u32) % self.taps
    }

    fn blocks(&self) -> usize {
        self.count.div_ceil(POINTS)
    }

    /// The `[pixels]` of a channel of `x`.
    fn plane<'x>(&self, x: &'x [T], image: usize, c: usize) -> &'x [T] {
        &x[(image * self.channels + c) * self.pixels()..][..self.pixels()]
    }

    /// `x` `[images, channels, pixels]` to `y` `[images, channels, count]`.
    pub(crate) fn forward(&self, x: &[T], y: &mut [T]) {
        let y = SharedSlice::new(y);
        parallel_for(self.images * self.blocks(), |task| {
            let image = task / self.blocks();
            let (corners, start) = self.corners(image, task % self.blocks());
            let Corners { index, weight, n, .. } = &corners;
            for c in 0..self.channels {
                let x = self.plane(x, image, c);
                // SAFETY: each task has its own points.
                let y = unsafe { y.part((image * self.channels + c) * self.count + start, *n) };
                if self.combinations() == 1 {
                    gather_1(y, x, index, weight);
                    continue;
                }
                for (k, (index, weight)) in
                    index.chunks_exact(4 * n).zip(weight.chunks_exact(4 * n)).enumerate()
                {
                    weighted_4(y, x, index, weight, k > 0);
                }
            }
        });
    }

    /// The gradient for `x` from that of `y`.
    pub(crate) fn image_gradient(&self, g: &[T], dx: &mut [T]) {
        let (groups, pixels) = (self.channels.div_ceil(CHANNELS), self.pixels());
        let dx = SharedSlice::new(dx);
        parallel_for(self.images * groups, |task| {
            let (image, from) = (task / groups, task % groups * CHANNELS);
            let planes =
                image * self.channels + from..image * self.channels + self.channels.min(from + CHANNELS);
            // SAFETY: each task has its own planes.
            let dx = unsafe { dx.part(planes.start * pixels, planes.len() * pixels) };
            dx.fill(T::ZERO);
            for block in 0..self.blocks() {
                let (corners, start) = self.corners(image, block);
                for (dx, plane) in dx.chunks_exact_mut(pixels).zip(planes.clone()) {
                    let g = &g[plane * self.count + start..][..corners.n];
                    let list = corners.index.chunks_exact(g.len()).zip(corners.weight.chunks_exact(g.len()));
                    list.for_each(|(index, weight)| scatter(dx, index, weight, g));
                }
            }
        });
    }

    /// The gradient for the points, in their order.
    pub(crate) fn point_gradient(&self, x: &[T], g: &[T], out: &mut [T]) {
        if self.taps == 1 {
            // The nearest pixel is the same in a neighborhood of the point.
            return out.fill(T::ZERO);
        }
        let dims = self.sizes.len();
        let out = SharedSlice::new(out);
        parallel_for(self.images * self.blocks(), |task| {
            let image = task / self.blocks();
            let (corners, start) = self.corners(image, task % self.blocks());
            let n = corners.n;
            // The gradient for the weight of each corner.
            let mut sums = vec![T::ZERO; corners.index.len()];
            for c in 0..self.channels {
                let g = &g[(image * self.channels + c) * self.count + start..][..n];
                let x = self.plane(x, image, c);
                add_products(&mut sums, x, &corners.index, g);
            }
            // SAFETY: each task has its own points.
            let out = unsafe { out.part((image * self.count + start) * dims, n * dims) };
            let (mut total, mut part) = (vec![T::ZERO; n], vec![T::ZERO; n]);
            for d in 0..dims {
                total.fill(T::ZERO);
                for (number, sum) in sums.chunks_exact(n).enumerate() {
                    part.copy_from_slice(sum);
                    for (e, axis) in corners.axes.iter().enumerate() {
                        let factors = if e == d { &axis.slope } else { &axis.weight };
                        multiply(&mut part, &factors[self.tap_of(number, e) * n..][..n]);
                    }
                    total.iter_mut().zip(&part).for_each(|(t, &p)| *t += p);
                }
                out.chunks_exact_mut(dims).zip(&total).for_each(|(out, &t)| out[dims - 1 - d] = t);
            }
        });
    }
}

multiversion! {
    vectors of T;
    /// Continues the flat indices and the weights of corners by one dimension.
    fn extend<T: Float>(index: &mut [u32], weight: &mut [T], along: &[u32], factor: &[T], size: u32) {
        let n = index.len();
        let (weight, along, factor) = (&mut weight[..n], &along[..n], &factor[..n]);
        for j in 0..n {
            let outside = (index[j] == NONE) | (along[j] == NONE);
            index[j] = if outside { NONE } else { index[j].wrapping_mul(size).wrapping_add(along[j]) };
            weight[j] = weight[j] * factor[j];
        }
    }
}

multiversion! {
    vectors of T;
    /// Sets `y` to the weighted pixels of four corners, or adds them.
    fn weighted_4<T: Float>(y: &mut [T], x: &[T], index: &[u32], weight: &[T], add: bool) {
        let n = y.len();
        let corner = |c: usize| (&index[c * n..][..n], &weight[c * n..][..n]);
        let ((i, p), (j, q), (k, r), (l, s)) = (corner(0), corner(1), corner(2), corner(3));
        for o in 0..n {
            let upper = at(x, i[o]) * p[o] + at(x, j[o]) * q[o];
            let lower = at(x, k[o]) * r[o] + at(x, l[o]) * s[o];
            y[o] = if add { y[o] + (upper + lower) } else { upper + lower };
        }
    }
}

multiversion! {
    vectors of T;
    /// Adds the pixels of all corners times `g` to their sums.
    fn add_products<T: Float>(sums: &mut [T], x: &[T], index: &[u32], g: &[T]) {
        let n = g.len();
        for (sums, index) in sums.chunks_exact_mut(n).zip(index.chunks_exact(n)) {
            for o in 0..n {
                sums[o] += at(x, index[o]) * g[o];
            }
        }
    }
}

multiversion! {
    vectors of T;
    fn multiply<T: Float>(a: &mut [T], b: &[T]) {
        for (a, &b) in a.iter_mut().zip(b) {
            *a = *a * b;
        }
    }
}

multiversion! {
    vectors of T;
    /// Adds the weighted gradients to the pixels of a corner.
    fn scatter<T: Float>(dx: &mut [T], index: &[u32], weight: &[T], g: &[T]) {
        let n = g.len();
        let (index, weight) = (&index[..n], &weight[..n]);
        for o in 0..n {
            if let Some(x) = dx.get_mut(index[o] as usize) {
                *x += weight[o] * g[o];
            }
        }
    }
}
