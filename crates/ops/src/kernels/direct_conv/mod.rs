//! Convolution as an implicit matrix product: the register tile reads the image in place.
//!
//! No column matrix is built. A row of the left operand is a pixel, and the inner dimension runs over the taps of the
//! kernel and the channels of each. The weights are packed into panels of 32 columns. Forward and input gradient are
//! the same `Correlation`; with a stride the input gradient is one correlation for each residue of the pixel's
//! position, so that no product with an inserted zero is computed. A kernel of one pixel that moves by one needs none of this: its
//! convolution and both gradients are products of matrices.

mod block;
mod folded;
mod pack;
mod planar;
mod planar_weight_grad;
mod weight_grad;

use super::gemm::{Bias, Finish, View, matmul};
use super::geometry::Conv2dShape;
use super::microkernel::{COLUMNS, Epilogue};
use super::scratch::with_scratch;
use block::Plan;
use folded::Folded;
use planar::Planar;
use tapegrad_tape::kernels::parallel::{parallel_chunks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;

pub use weight_grad::weight_grad;

/// The convolution of `x` (n, h, w, c_in) with `w` (c_out, c_in, kh, kw) into `y` (n, out_h, out_w, c_out).
///
/// # Panics
/// If the length of a slice does not match the shape, or there are several groups.
pub fn forward(s: &Conv2dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    check(s, x, w, bias, y);
    if let Some(pixels) = pointwise(s) {
        let (x, w) = (View::rows(x, s.c_in), View::rows(w, s.c_in).transposed());
        let bias = bias.map_or(Bias::None, Bias::Columns);
        let finish = Finish { bias, ..Finish::default() };
        return matmul([pixels, s.c_out, s.c_in], x, w, y, s.c_out, finish);
    }
    let kernel = s.kh * s.kw;
    let weight = pack::View { data: w, kernel, row: kernel, column: s.c_in * kernel };
    let correlation = Correlation {
        n: s.n,
        source: Image { h: s.h, w: s.w, c: s.c_in },
        target: Image { h: s.out_h(), w: s.out_w(), c: s.c_out },
        grid: [s.out_h(), s.out_w()],
        source_step: s.stride,
        target_start: [0, 0],
        target_step: [1, 1],
        taps: taps(s, |k, axis| Some((k * s.dilation[axis]) as isize - s.padding[axis] as isize)),
    };
    correlation.run(x, &weight, bias, y);
}

/// The gradient of a convolution with respect to its input: `dx` (n, h, w, c_in) from `dy` (n, out_h, out_w, c_out).
///
/// # Panics
/// If the length of a slice does not match the shape, or there are several groups.
pub fn input_grad(s: &Conv2dShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    check(s, dx, w, None, dy);
    if let Some(pixels) = pointwise(s) {
        let (dy, w) = (View::rows(dy, s.c_out), View::rows(w, s.c_in));
        return matmul([pixels, s.c_in, s.c_out], dy, w, dx, s.c_in, Finish::default());
    }
    let kernel = s.kh * s.kw;
    let weight = pack::View { data: w, kernel, row: s.c_in * kernel, column: kernel };
    // Pixels between the windows: with a stride beyond the kernel most of them.
    let gaps = [0, 1].map(|axis| s.stride[axis] > [s.kh, s.kw][axis] && s.dilation[axis] == 1);
    if gaps[0] || gaps[1] {
        parallel_chunks(dx, 1 << 16, |_, dx| dx.fill(0.0));
    }
    let by_rows = s.stride[1] > 1 && s.dilation == [1, 1] && !gaps[0] && s.n.min(s.w) > 0;
    for top in 0..s.stride[0].min(s.h) {
        if by_rows {
            let rows = adjoint(s, [top, 0], true);
            if let Some(folded) = Folded::new(&rows, s.stride[1]) {
                folded.run(&rows, dy, &weight, None, dx);
                continue;
            }
        }
        for left in 0..s.stride[1].min(s.w) {
            let correlation = adjoint(s, [top, left], false);
            if correlation.taps.is_empty() && (gaps[0] || gaps[1]) {
                continue;
            }
            correlation.run(dy, &weight, None, dx);
        }
    }
}

/// The input gradient at pixel `start` and those after it in steps of the stride. With `rows` at all pixels of these rows: then
/// the horizontal offsets of the taps are to be divided by the stride.
fn adjoint(s: &Conv2dShape, start: [usize; 2], rows: bool) -> Correlation {
    // Window o covers pixel start + stride * a with tap k if o = a + (start + padding - k * dilation) / stride.
    let at = |k: usize, axis: usize| {
        let reach = (start[axis] + s.padding[axis]) as isize - (k * s.dilation[axis]) as isize;
        let stride = s.stride[axis] as isize;
        if rows && axis == 1 { Some(reach) } else { (reach % stride == 0).then_some(reach / stride) }
    };
    let target_step = [s.stride[0], if rows { 1 } else { s.stride[1] }];
    Correlation {
        n: s.n,
        source: Image { h: s.out_h(), w: s.out_w(), c: s.c_out },
        target: Image { h: s.h, w: s.w, c: s.c_in },
        grid: [(s.h - start[0]).div_ceil(target_step[0]), (s.w - start[1]).div_ceil(target_step[1])],
        source_step: [1, 1],
        target_start: start,
        target_step,
        taps: taps(s, at),
    }
}

/// The number of pixels, if the kernel is one pixel that moves by one: then the convolution is a product of matrices, whose
/// kernels pack both operands or read them in place, whichever is cheaper.
fn pointwise(s: &Conv2dShape) -> Option<usize> {
    let plain = [s.kh, s.kw] == [1, 1] && s.stride == [1, 1] && s.padding == [0, 0];
    plain.then(|| s.n * s.h * s.w)
}

/// What these kernels take.
#[track_caller]
fn check(s: &Conv2dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &[f32]) {
    assert!(s.groups == 1, "convolution: the direct kernels have one group: {s:?}");
    s.check(x, w, bias, y);
}

/// The sizes of one channels-last image.
#[derive(Clone, Copy, Debug)]
struct Image {
    h: usize,
    w: usize,
    c: usize,
}

impl Image {
    fn len(self) -> usize {
        self.h * self.w * self.c
    }
}

/// One position of the kernel.
#[derive(Clone, Copy, Debug)]
struct Tap {
    /// Where it reads, relative to the window's origin.
    at: [isize; 2],
    /// Its index in the weight.
    index: usize,
}

/// The taps at the offsets of `at`, in the memory order of their reads.
fn taps(s: &Conv2dShape, at: impl Fn(usize, usize) -> Option<isize>) -> Vec<Tap> {
    let mut taps = Vec::with_capacity(s.kh * s.kw);
    for i in 0..s.kh {
        for j in 0..s.kw {
            if let (Some(y), Some(x)) = (at(i, 0), at(j, 1)) {
                taps.push(Tap { at: [y, x], index: i * s.kw + j });
            }
        }
    }
    taps.sort_by_key(|t| t.at);
    taps
}

/// For each image and grid position p:
/// `target[start + step * p] = sum over taps t and channels c of source[p * source_step + t.at][c] * weight[t][c]`,
/// where the source is zero outside the image.
struct Correlation {
    n: usize,
    source: Image,
    target: Image,
    grid: [usize; 2],
    source_step: [usize; 2],
    target_start: [usize; 2],
    target_step: [usize; 2],
    taps: Vec<Tap>,
}

impl Correlation {
    /// Grid positions of all images.
    fn positions(&self) -> usize {
        self.n * self.grid[0] * self.grid[1]
    }

    fn flops(&self) -> usize {
        2 * self.positions() * self.taps.len() * self.source.c * self.target.c
    }

    /// The columns of the grid that the taps form, and the distance between them in pixels; none without a tap.
    fn tap_columns(&self) -> Option<(usize, usize)> {
        let first = self.taps.first()?.at;
        let columns = self.taps.iter().take_while(|t| t.at[0] == first[0]).count();
        let spacing = if columns > 1 { (self.taps[1].at[1] - first[1]) as usize } else { 1 };
        Some((columns, spacing))
    }

    /// How many images a task takes if it takes whole ones: an even number of tasks, each large enough to dispatch.
    fn images_per_task(&self) -> usize {
        let worth = (2_000_000 * self.n / self.flops()).clamp(1, self.n);
        self.n.div_ceil(self.n.div_ceil(worth).next_multiple_of(2))
    }

    /// The offset of a grid position in an image of the target, in elements.
    fn target_offset(&self, a: usize, b: usize) -> usize {
        let y = self.target_start[0] + self.target_step[0] * a;
        let x = self.target_start[1] + self.target_step[1] * b;
        (y * self.target.w + x) * self.target.c
    }

    fn run(&self, source: &[f32], weight: &pack::View, bias: Option<&[f32]>, target: &mut [f32]) {
        if self.positions() == 0 || self.target.c == 0 {
            return;
        }
        if let Some(folded) = Folded::new(self, 1) {
            folded.run(self, source, weight, bias, target);
            return;
        }
        if let Some(planar) = Planar::new(self) {
            planar.run(self, source, weight, bias, target);
            return;
        }
        let panels = self.target.c.div_ceil(COLUMNS);
        let panel_len = self.taps.len() * self.source.c * COLUMNS;
        let plan = Plan::new(self);
        with_scratch(panels * panel_len, |packed| {
            pack::panels(weight, &self.taps, self.source.c, self.target.c, packed);
            let packed = &*packed;
            // With few blocks, tasks also divide the panels.
            let groups = 16usize.div_ceil(plan.blocks).min(panels);
            let per_group = panels.div_ceil(groups);
            let out = SharedSlice::new(target);
            run_tasks(plan.blocks * groups, self.flops(), |task| {
                let (block, group) = (task / groups, task % groups);
                let panels = group * per_group..panels.min((group + 1) * per_group);
                plan.with_block(self, source, block, |block| {
                    for panel in panels {
                        let column = panel * COLUMNS;
                        let epilogue = Epilogue {
                            column_bias: bias.map_or(std::ptr::null(), |b| b[column..].as_ptr()),
                            ..Epilogue::STORE
                        };
                        let n = COLUMNS.min(self.target.c - column);
                        let weights = &packed[panel * panel_len..(panel + 1) * panel_len];
                        // SAFETY: the blocks name each grid position once, and each (block, panel) pair is in
                        // one task, so all tasks write elements of their own, all inside `target`.
                        unsafe { block.run(weights, out.at(column), n, epilogue) };
                    }
                });
            });
        });
    }
}

/// Runs the tasks, on one thread if dispatching them would cost more than it saves.
pub(super) fn run_tasks(tasks: usize, flops: usize, task: impl Fn(usize) + Sync) {
    const MIN_PARALLEL_FLOPS: usize = 5_000_000;
    if flops < MIN_PARALLEL_FLOPS { (0..tasks).for_each(task) } else { parallel_for(tasks, task) }
}

#[cfg(test)]
mod tests;
