//! Convolutions in groups of many channels: each group by itself, on copies of its channels.

use super::geometry::Conv2dShape;
use super::scratch::with_scratch;
use tapegrad_tape::kernels::parallel::parallel_blocks;
use tapegrad_tape::kernels::shared::SharedSlice;

/// Elements that are worth a task of their own.
const GRAIN: usize = 1 << 15;

/// `y = conv(x, w) + bias` by a kernel for one group.
pub(crate) fn forward(
    s: &Conv2dShape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    kernel: impl Fn(&Conv2dShape, &[f32], &[f32], Option<&[f32]>, &mut [f32]),
) {
    s.check(x, w, bias, y);
    let g = s.group();
    with_scratch(g.input_len() + g.output_len(), |scratch| {
        let (xs, ys) = scratch.split_at_mut(g.input_len());
        for group in 0..s.groups {
            take(x, s.c_in, group, xs, g.c_in);
            let bias = bias.map(|b| &b[group * g.c_out..][..g.c_out]);
            kernel(&g, xs, &w[group * g.weight_len()..][..g.weight_len()], bias, ys);
            put(ys, g.c_out, y, s.c_out, group);
        }
    });
}

/// The gradient for the input by a kernel for one group.
pub(crate) fn input_grad(
    s: &Conv2dShape,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    kernel: impl Fn(&Conv2dShape, &[f32], &[f32], &mut [f32]),
) {
    s.check(dx, w, None, dy);
    let g = s.group();
    with_scratch(g.input_len() + g.output_len(), |scratch| {
        let (xs, ys) = scratch.split_at_mut(g.input_len());
        for group in 0..s.groups {
            take(dy, s.c_out, group, ys, g.c_out);
            kernel(&g, ys, &w[group * g.weight_len()..][..g.weight_len()], xs);
            put(xs, g.c_in, dx, s.c_in, group);
        }
    });
}

/// The gradient for the weight by a kernel for one group.
pub(crate) fn weight_grad(
    s: &Conv2dShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    kernel: impl Fn(&Conv2dShape, &[f32], &[f32], &mut [f32]),
) {
    s.check(x, dw, None, dy);
    let g = s.group();
    with_scratch(g.input_len() + g.output_len(), |scratch| {
        let (xs, ys) = scratch.split_at_mut(g.input_len());
        for group in 0..s.groups {
            take(x, s.c_in, group, xs, g.c_in);
            take(dy, s.c_out, group, ys, g.c_out);
            kernel(&g, xs, ys, &mut dw[group * g.weight_len()..][..g.weight_len()]);
        }
    });
}

/// Copies the channels of a group out of all pixels.
fn take(from: &[f32], channels: usize, group: usize, to: &mut [f32], per_group: usize) {
    if per_group == 0 {
        return;
    }
    let pixels = to.len() / per_group;
    let to = SharedSlice::new(to);
    parallel_blocks(pixels, GRAIN / per_group, |start, end| {
        // SAFETY: each task has pixels of its own.
        let to = unsafe { to.part(start * per_group, (end - start) * per_group) };
        let from = from[start * channels..end * channels].chunks_exact(channels);
        for (to, from) in to.chunks_exact_mut(per_group).zip(from) {
            to.copy_from_slice(&from[group * per_group..][..per_group]);
        }
    });
}

/// Copies the channels of a group into all pixels.
fn put(from: &[f32], per_group: usize, to: &mut [f32], channels: usize, group: usize) {
    if per_group == 0 {
        return;
    }
    let pixels = from.len() / per_group;
    let to = SharedSlice::new(to);
    parallel_blocks(pixels, GRAIN / per_group, |start, end| {
        // SAFETY: each task has pixels of its own.
        let to = unsafe { to.part(start * channels, (end - start) * channels) };
        let from = from[start * per_group..end * per_group].chunks_exact(per_group);
        for (to, from) in to.chunks_exact_mut(channels).zip(from) {
            to[group * per_group..][..per_group].copy_from_slice(from);
        }
    });
}
