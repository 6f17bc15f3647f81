//! Convolution in any number of dimensions, with groups, for every float type: blocked im2col and a matrix product. A
//! block of columns that fits the L2 cache is gathered and multiplied at once; the whole column matrix is never stored.
//!
//! Tensors are row-major: `[n, c, d, h, w]`.

use super::gemm::{Bias, Finish, Real, View, matmul};
use super::geometry::Geometry;
use tapegrad_tape::kernels::parallel::{parallel_chunks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;

/// Bytes of columns gathered at once.
const BLOCK: usize = 256 * 1024;
/// Partial sums of a weight gradient: a fixed number, so that results do not depend on the number of threads.
const PARTS: usize = 8;

/// One group of one image, as the three products use it.
struct Plan {
    /// Rows of the column matrix: channels of a group times kernel taps.
    k: usize,
    /// Output channels of a group.
    m: usize,
    /// Output pixels.
    pixels: usize,
    /// Pixels in a block.
    block: usize,
    input_size: usize,
}

impl Plan {
    fn new<T>(g: &Geometry) -> Plan {
        let k = g.c_in / g.groups * g.kernel.iter().product::<usize>();
        let pixels = g.output.iter().product::<usize>();
        let block = (BLOCK / (k.max(1) * size_of::<T>())).max(16).next_multiple_of(16).min(pixels.max(1));
        Plan { k, m: g.c_out / g.groups, pixels, block, input_size: g.input.iter().product() }
    }
}

/// Calls `run(column range, image range)` for every run of output pixels `from..to` in one row of one tap
/// whose inputs lie inside the image, and `gap` for the ranges of columns that lie in the padding.
fn for_each_run(
    g: &Geometry,
    tap: [usize; 3],
    from: usize,
    to: usize,
    mut run: impl FnMut(std::ops::Range<usize>, usize),
    mut gap: impl FnMut(std::ops::Range<usize>),
) {
    let [_, out_h, out_w] = g.output;
    let [in_d, in_h, in_w] = g.input;
    let mut p = from;
    while p < to {
        let (ow, oh, od) = (p % out_w, p / out_w % out_h, p / (out_w * out_h));
        let end = (p + out_w - ow).min(to);
        let at = |o: usize, d: usize| (o * g.stride[d] + tap[d] * g.dilation[d]).wrapping_sub(g.padding[d]);
        let (z, y) = (at(od, 0), at(oh, 1));
        if z >= in_d || y >= in_h {
            gap(p - from..end - from);
        } else {
            // Output columns lo..hi read inside the row: 0 <= ow * stride + shift - padding < in_w.
            let shift = tap[2] * g.dilation[2];
            let lo = g.padding[2].saturating_sub(shift).div_ceil(g.stride[2]).max(ow);
            let hi = (in_w + g.padding[2]).saturating_sub(shift).div_ceil(g.stride[2]).min(ow + end - p);
            let hi = hi.max(lo.min(ow + end - p));
            let lo = lo.min(hi);
            gap(p - from..p - from + lo - ow);
            if hi > lo {
                run(p - from + lo - ow..p - from + hi - ow, (z * in_h + y) * in_w + at(lo, 2));
            }
            gap(p - from + hi - ow..end - from);
        }
        p = end;
    }
}

/// Gathers the columns of pixels `from..to` of one group of one image: `[k, to - from]`.
fn gather<T: Real>(g: &Geometry, plan: &Plan, image: &[T], from: usize, to: usize, columns: &mut [T]) {
    let width = to - from;
    for (row, columns) in columns.chunks_exact_mut(width).take(plan.k).enumerate() {
        let (channel, tap) = unravel(g, row);
        let plane = &image[channel * plan.input_size..][..plan.input_size];
        // Both callbacks write the row, one after the other.
        let cell = std::cell::RefCell::new(columns);
        for_each_run(
            g,
            tap,
            from,
            to,
            |range, start| {
                let out = &mut cell.borrow_mut()[range];
                if g.stride[2] == 1 {
                    out.copy_from_slice(&plane[start..start + out.len()]);
                } else {
                    for (o, &v) in out.iter_mut().zip(plane[start..].iter().step_by(g.stride[2])) {
                        *o = v;
                    }
                }
            },
            |range| cell.borrow_mut()[range].fill(T::ZERO),
        );
    }
}

/// Adds the columns of pixels `from..to` at the positions from which they were gathered.
fn scatter<T: Real>(g: &Geometry, plan: &Plan, image: &mut [T], from: usize, to: usize, columns: &[T]) {
    let width = to - from;
    for (row, columns) in columns.chunks_exact(width).take(plan.k).enumerate() {
        let (channel, tap) = unravel(g, row);
        let plane = &mut image[channel * plan.input_size..][..plan.input_size];
        for_each_run(
            g,
            tap,
            from,
            to,
            |range, start| {
                for (&c, v) in columns[range].iter().zip(plane[start..].iter_mut().step_by(g.stride[2])) {
                    *v += c;
                }
            },
            |_| {},
        );
    }
}

/// The channel and kernel tap of a row of the column matrix.
fn unravel(g: &Geometry, row: usize) -> (usize, [usize; 3]) {
    let [kd, kh, kw] = g.kernel;
    (row / (kd * kh * kw), [row / (kh * kw) % kd, row / kw % kh, row % kw])
}

/// `y[n, o] = sum over c, taps of x[n, c] * w[o, c] + bias[o]`.
pub(crate) fn forward<T: Real>(g: &Geometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let plan = Plan::new::<T>(g);
    if y.is_empty() {
        return;
    }
    let per_image = plan.pixels.div_ceil(plan.block);
    let y = SharedSlice::new(y);
    parallel_for(g.n * g.groups * per_image, |task| {
        let (image_group, block) = (task / per_image, task % per_image);
        let (group, from) = (image_group % g.groups, block * plan.block);
        let to = (from + plan.block).min(plan.pixels);
        let image =
            &x[image_group * (g.c_in / g.groups) * plan.input_size..][..g.c_in / g.groups * plan.input_size];
        let weights = &w[group * plan.m * plan.k..][..plan.m * plan.k];
        let width = to - from;
        let mut columns = vec![T::ZERO; plan.k * width];
        gather(g, &plan, image, from, to, &mut columns);
        let bias = bias.map_or(Bias::None, |bias| Bias::Rows(&bias[group * plan.m..][..plan.m]));
        let mut product = vec![T::ZERO; plan.m * width];
        matmul(
            [plan.m, width, plan.k],
            View::rows(weights, plan.k),
            View::rows(&columns, width),
            &mut product,
            width,
            Finish { bias, ..Finish::default() },
        );
        for (o, row) in product.chunks_exact(width).enumerate() {
            let out = y.at((image_group * plan.m + o) * plan.pixels + from);
            // SAFETY: the block's part of row o of this image and group.
            unsafe { std::slice::from_raw_parts_mut(out, width) }.copy_from_slice(row);
        }
    });
}

/// The gradient for the input: `dx` is overwritten.
pub(crate) fn input_grad<T: Real>(g: &Geometry, dy: &[T], w: &[T], dx: &mut [T]) {
    let plan = Plan::new::<T>(g);
    let image_size = g.c_in / g.groups * plan.input_size;
    parallel_chunks(dx, image_size, |image_group, image| {
        image.fill(T::ZERO);
        let group = image_group % g.groups;
        let weights = &w[group * plan.m * plan.k..][..plan.m * plan.k];
        let mut columns = vec![T::ZERO; plan.k * plan.block];
        for from in (0..plan.pixels).step_by(plan.block) {
            let to = (from + plan.block).min(plan.pixels);
            let width = to - from;
            let gradient =
                View { data: &dy[image_group * plan.m * plan.pixels + from..], row: plan.pixels, column: 1 };
            let columns = &mut columns[..plan.k * width];
            let weights = View::rows(weights, plan.k).transposed();
            matmul([plan.k, width, plan.m], weights, gradient, columns, width, Finish::default());
            scatter(g, &plan, image, from, to, columns);
        }
    });
}

/// The gradient for the weight: `dw` is overwritten.
pub(crate) fn weight_grad<T: Real>(g: &Geometry, x: &[T], dy: &[T], dw: &mut [T]) {
    let plan = Plan::new::<T>(g);
    let group_size = plan.m * plan.k;
    let parts = g.n.clamp(1, PARTS);
    let mut partial = vec![T::ZERO; parts * dw.len()];
    // A chunk is one part of the batch for one group.
    parallel_chunks(&mut partial, group_size, |i, sum| {
        let (part, group) = (i / g.groups, i % g.groups);
        let images = part * g.n / parts..(part + 1) * g.n / parts;
        let mut columns = vec![T::ZERO; plan.k * plan.block];
        for image_group in images.map(|n| n * g.groups + group) {
            let image = &x[image_group * (g.c_in / g.groups) * plan.input_size..]
                [..g.c_in / g.groups * plan.input_size];
            for from in (0..plan.pixels).step_by(plan.block) {
                let to = (from + plan.block).min(plan.pixels);
                let columns = &mut columns[..plan.k * (to - from)];
                gather(g, &plan, image, from, to, columns);
                let gradient = View {
                    data: &dy[image_group * plan.m * plan.pixels + from..],
                    row: plan.pixels,
                    column: 1,
                };
                let transposed = View::rows(columns, to - from).transposed();
                let finish = Finish { beta: T::ONE, ..Finish::default() };
                matmul([plan.m, plan.k, to - from], gradient, transposed, sum, plan.k, finish);
            }
        }
    });
    dw.fill(T::ZERO);
    for part in partial.chunks_exact(dw.len().max(1)) {
        for (d, &p) in dw.iter_mut().zip(part) {
            *d += p;
        }
    }
}
