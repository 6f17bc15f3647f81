//! Convolutions of volumes as convolutions of images: the planes that a window covers become channels.
//!
//! Output plane z is the convolution of an image whose channels are those of the input planes that z reads, with the
//! weights in the same order. So all kernels for images serve volumes, at the cost of a copy of the input for each tap
//! along the depth.

use super::geometry::{Conv2dShape, Geometry};
use super::scratch::with_scratch;
use tapegrad_tape::kernels::parallel::parallel_chunks;

/// Most elements of the copies.
const MOST_ELEMENTS: usize = 1 << 26;

/// A convolution of channels-last volumes as one of images.
pub(crate) struct Volumes {
    /// The convolution of images, with `kernel` times as many input channels.
    pub(crate) images: Conv2dShape,
    /// Planes of the input and the output, and taps.
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    /// Input channels of a group.
    per_group: usize,
    /// Elements of a weight's plane.
    taps: usize,
}

impl Volumes {
    /// How to compute a convolution of volumes this way, if the copies are not too large.
    pub(crate) fn new(g: &Geometry) -> Option<Volumes> {
        let sizes = [g.n, g.output[0], g.c_in, g.kernel[0], g.input[1], g.input[2]];
        let copies = sizes.iter().try_fold(1usize, |product, &n| product.checked_mul(n.max(1)))?;
        if g.dims != 3 || copies > MOST_ELEMENTS {
            return None;
        }
        let planes = Geometry {
            n: g.n * g.output[0],
            c_in: g.c_in * g.kernel[0],
            dims: 2,
            input: [1, g.input[1], g.input[2]],
            output: [1, g.output[1], g.output[2]],
            kernel: [1, g.kernel[1], g.kernel[2]],
            ..*g
        };
        Some(Volumes {
            images: planes.two_dimensional()?,
            input: g.input[0],
            output: g.output[0],
            kernel: g.kernel[0],
            stride: g.stride[0],
            padding: g.padding[0],
            dilation: g.dilation[0],
            per_group: g.c_in / g.groups,
            taps: g.kernel[1] * g.kernel[2],
        })
    }

    /// Pixels of an input plane, and its channels.
    fn plane(&self) -> [usize; 2] {
        [self.images.h * self.images.w, self.images.c_in / self.kernel]
    }

    /// The input plane that an output plane reads with a tap.
    fn read(&self, z: usize, tap: usize) -> Option<usize> {
        let at = (z * self.stride + tap * self.dilation).checked_sub(self.padding)?;
        (at < self.input).then_some(at)
    }

    /// Where the channels of a tap and a group begin in a pixel of the copies.
    fn place(&self, group: usize, tap: usize) -> usize {
        (group * self.kernel + tap) * self.per_group
    }

    /// Calls `f` with the images that stand for the volumes `x`.
    pub(crate) fn with_images<R>(&self, x: &[f32], f: impl FnOnce(&[f32]) -> R) -> R {
        if self.kernel == 1 && self.stride == 1 && self.padding == 0 {
            return f(x);
        }
        let ([pixels, channels], part) = (self.plane(), self.per_group);
        with_scratch(self.images.input_len(), |copies| {
            parallel_chunks(copies, (pixels * channels * self.kernel).max(1), |image, to| {
                let (n, z) = (image / self.output, image % self.output);
                for tap in 0..self.kernel {
                    let source = self.read(z, tap).map(|at| &x[(n * self.input + at) * pixels * channels..]);
                    for (pixel, to) in to.chunks_exact_mut(channels * self.kernel).enumerate() {
                        for group in 0..self.images.groups {
                            let to = &mut to[self.place(group, tap)..][..part];
                            match source {
                                Some(x) => to.copy_from_slice(&x[pixel * channels + group * part..][..part]),
                                None => to.fill(0.0),
                            }
                        }
                    }
                }
            });
            f(copies)
        })
    }

    /// Calls `f` with room for the gradients of the images, and adds them up to those of the volumes `dx`.
    pub(crate) fn sum_images(&self, dx: &mut [f32], f: impl FnOnce(&mut [f32])) {
        if self.kernel == 1 && self.stride == 1 && self.padding == 0 {
            return f(dx);
        }
        let ([pixels, channels], part) = (self.plane(), self.per_group);
        with_scratch(self.images.input_len(), |copies| {
            f(copies);
            let copies = &*copies;
            parallel_chunks(dx, (pixels * channels).max(1), |plane, to| {
                let (n, at) = (plane / self.input, plane % self.input);
                to.fill(0.0);
                for (z, tap) in (0..self.output).flat_map(|z| (0..self.kernel).map(move |tap| (z, tap))) {
                    if self.read(z, tap) != Some(at) {
                        continue;
                    }
                    let from = &copies[(n * self.output + z) * pixels * channels * self.kernel..];
                    let from = from.chunks_exact(channels * self.kernel);
                    for (to, from) in to.chunks_exact_mut(channels).zip(from) {
                        for group in 0..self.images.groups {
                            let from = &from[self.place(group, tap)..][..part];
                            for (to, from) in to[group * part..][..part].iter_mut().zip(from) {
                                *to += from;
                            }
                        }
                    }
                }
            });
        });
    }

    /// Calls `f` with the weights `[c_out, c_in / groups, kernel...]` in the order of the images' channels.
    pub(crate) fn with_weights<R>(&self, w: &[f32], f: impl FnOnce(&[f32]) -> R) -> R {
        with_scratch(w.len(), |copy| {
            self.each_weight(w.len(), |volume, image| {
                copy[image..][..self.taps].copy_from_slice(&w[volume..][..self.taps])
            });
            f(copy)
        })
    }

    /// Calls `f` with room for the gradients of these weights, and arranges them as those of the volumes' weights.
    pub(crate) fn sort_weights(&self, dw: &mut [f32], f: impl FnOnce(&mut [f32])) {
        with_scratch(dw.len(), |copy| {
            f(copy);
            self.each_weight(dw.len(), |volume, image| {
                dw[volume..][..self.taps].copy_from_slice(&copy[image..][..self.taps])
            });
        });
    }

    /// Calls `f(place in the volumes' weights, place in the images')` for each plane of the weights.
    fn each_weight(&self, len: usize, mut f: impl FnMut(usize, usize)) {
        let channels = self.per_group * self.kernel;
        for row in 0..len / (channels * self.taps).max(1) {
            for (r, tap) in (0..self.per_group).flat_map(|r| (0..self.kernel).map(move |tap| (r, tap))) {
                let [volume, image] = [r * self.kernel + tap, tap * self.per_group + r];
                f((row * channels + volume) * self.taps, (row * channels + image) * self.taps);
            }
        }
    }
}
