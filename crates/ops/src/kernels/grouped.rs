//! Convolutions in groups of many channels: each group by itself, on copies of its channels of some images.

use super::geometry::Conv2dShape;
use super::scratch::with_scratch;
use tapegrad_tape::kernels::parallel::{parallel_chunks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;

/// Pixels of a copy, unless an image has more: with few channels it stays in a near cache, with many the kernels do not
/// prepare the weights too often.
fn pixels_at_once(g: &Conv2dShape) -> usize {
    (64 * (g.c_in + g.c_out)).max(1024)
}

/// Partial sums of a weight's gradient: a fixed number, so that results do not depend on the number of threads.
const PARTS: usize = 8;

/// A group of some images.
struct Part {
    /// Its sizes.
    shape: Conv2dShape,
    group: usize,
    /// The pixels before its images on both sides.
    input: usize,
    output: usize,
}

impl Part {
    /// Images `first .. first + count`.
    fn new(s: &Conv2dShape, group: usize, first: usize, count: usize) -> Part {
        let shape = Conv2dShape { n: count, ..s.group() };
        Part { shape, group, input: first * s.h * s.w, output: first * s.out_h() * s.out_w() }
    }

    /// Calls `f` with room for both sides of the group.
    fn with_copies(&self, f: impl FnOnce(&mut [f32], &mut [f32])) {
        let (x, y) = (self.shape.input_len(), self.shape.output_len());
        with_scratch(x + y, |scratch| {
            let (x, y) = scratch.split_at_mut(x);
            f(x, y);
        });
    }

    /// The part of the weight.
    fn weight<'a>(&self, w: &'a [f32]) -> &'a [f32] {
        let len = self.shape.weight_len();
        &w[self.group * len..][..len]
    }
}

/// Images that are copied together.
fn images_at_once(s: &Conv2dShape) -> usize {
    let pixels = (s.h * s.w).max(s.out_h() * s.out_w()).max(1);
    (pixels_at_once(&s.group()) / pixels).clamp(1, s.n.max(1))
}

/// Calls `task` for each group of each few images.
fn for_each_part(s: &Conv2dShape, task: impl Fn(&Part) + Sync) {
    let count = images_at_once(s);
    parallel_for(s.n.div_ceil(count) * s.groups, |i| {
        let (first, group) = (i / s.groups * count, i % s.groups);
        task(&Part::new(s, group, first, count.min(s.n - first)));
    });
}

/// `y = conv(x, w) + bias` by a kernel for one group.
pub(crate) fn forward(
    s: &Conv2dShape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    kernel: impl Fn(&Conv2dShape, &[f32], &[f32], Option<&[f32]>, &mut [f32]) + Sync,
) {
    s.check(x, w, bias, y);
    let y = SharedSlice::new(y);
    for_each_part(s, |part| {
        let g = &part.shape;
        part.with_copies(|xs, ys| {
            take(&x[part.input * s.c_in..], s.c_in, part.group, xs, g.c_in);
            let bias = bias.map(|b| &b[part.group * g.c_out..][..g.c_out]);
            kernel(g, xs, part.weight(w), bias, ys);
            put(ys, g.c_out, y, part.output * s.c_out, s.c_out, part.group);
        });
    });
}

/// The gradient for the input by a kernel for one group.
pub(crate) fn input_grad(
    s: &Conv2dShape,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    kernel: impl Fn(&Conv2dShape, &[f32], &[f32], &mut [f32]) + Sync,
) {
    s.check(dx, w, None, dy);
    let dx = SharedSlice::new(dx);
    for_each_part(s, |part| {
        let g = &part.shape;
        part.with_copies(|xs, ys| {
            take(&dy[part.output * s.c_out..], s.c_out, part.group, ys, g.c_out);
            kernel(g, ys, part.weight(w), xs);
            put(xs, g.c_in, dx, part.input * s.c_in, s.c_in, part.group);
        });
    });
}

/// The gradient for the weight by a kernel for one group.
pub(crate) fn weight_grad(
    s: &Conv2dShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    kernel: impl Fn(&Conv2dShape, &[f32], &[f32], &mut [f32]) + Sync,
) {
    s.check(x, dw, None, dy);
    let len = s.group().weight_len();
    if len == 0 {
        return;
    }
    let parts = PARTS.min(s.n);
    with_scratch(parts * dw.len(), |partial| {
        parallel_chunks(partial, len, |i, dw| {
            let (part, group) = (i / s.groups, i % s.groups);
            let (first, end) = (s.n * part / parts, s.n * (part + 1) / parts);
            let count = images_at_once(s);
            with_scratch(len, |sum| {
                for at in (first..end).step_by(count) {
                    let part = Part::new(s, group, at, count.min(end - at));
                    part.with_copies(|xs, ys| {
                        take(&x[part.input * s.c_in..], s.c_in, group, xs, part.shape.c_in);
                        take(&dy[part.output * s.c_out..], s.c_out, group, ys, part.shape.c_out);
                        if at == first {
                            kernel(&part.shape, xs, ys, dw);
                        } else {
                            kernel(&part.shape, xs, ys, sum);
                            dw.iter_mut().zip(&*sum).for_each(|(dw, sum)| *dw += sum);
                        }
                    });
                }
            });
        });
        dw.fill(0.0);
        for partial in partial.chunks_exact(dw.len()) {
            dw.iter_mut().zip(partial).for_each(|(dw, p)| *dw += p);
        }
    });
}

/// Calls a function with the number of channels as a constant where it is a usual small one: a copy of unknown length is
/// a call.
macro_rules! with_width {
    ($width:expr, $function:ident($($argument:expr),*)) => {
        match $width {
            0 => {}
            4 => $function::<4>($($argument),*),
            8 => $function::<8>($($argument),*),
            16 => $function::<16>($($argument),*),
            _ => $function::<0>($($argument),*),
        }
    };
}

/// Copies the channels of a group out of as many pixels as there is room for.
fn take(from: &[f32], channels: usize, group: usize, to: &mut [f32], per_group: usize) {
    with_width!(per_group, take_width(from, channels, group, to, per_group));
}

/// [`take`] for `WIDTH` channels, or `width` if that is zero.
fn take_width<const WIDTH: usize>(from: &[f32], channels: usize, group: usize, to: &mut [f32], width: usize) {
    let width = if WIDTH > 0 { WIDTH } else { width };
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(channels)) {
        to.copy_from_slice(&from[group * width..][..width]);
    }
}

/// Copies the channels of a group into the pixels from `start` on. Each group of some images is in one task.
fn put(from: &[f32], per_group: usize, to: SharedSlice<f32>, start: usize, channels: usize, group: usize) {
    with_width!(per_group, put_width(from, per_group, to, start + group * per_group, channels));
}

/// [`put`] for `WIDTH` channels, or `width` if that is zero.
fn put_width<const WIDTH: usize>(
    from: &[f32],
    width: usize,
    to: SharedSlice<f32>,
    start: usize,
    channels: usize,
) {
    let width = if WIDTH > 0 { WIDTH } else { width };
    for (pixel, from) in from.chunks_exact(width).enumerate() {
        // SAFETY: no other task writes these channels of this pixel.
        unsafe { to.part(start + pixel * channels, width) }.copy_from_slice(from);
    }
}
