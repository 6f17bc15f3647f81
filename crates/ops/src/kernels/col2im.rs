//! Sums of overlapping patches.

use super::geometry::Conv2dShape;
use tapegrad_tape::kernels::parallel::parallel_chunks;
use tapegrad_tape::{Float, multiversion};

/// Adds the patches `columns`, `[n * c_in, kh * kw, out_h * out_w]`, to the images `out`, `[n * c_in, h, w]`.
pub(crate) fn add_patches<T: Float>(columns: &[T], out: &mut [T], s: &Conv2dShape) {
    let Conv2dShape { h: height, w: width, kh, kw, stride, padding: [ph, pw], dilation, .. } = *s;
    let (oh, ow) = (s.out_h(), s.out_w());
    parallel_chunks(out, height * width, |plane, out| {
        let columns = &columns[plane * kh * kw * oh * ow..][..kh * kw * oh * ow];
        for (k, columns) in columns.chunks_exact((oh * ow).max(1)).enumerate() {
            let (down, right) = (k / kw * dilation[0], k % kw * dilation[1]);
            // The patches whose element lies inside, and where that of the first is.
            let (first, last) = inside(right, pw, stride[1], width, ow);
            if first >= last {
                continue;
            }
            let at = first * stride[1] + right - pw;
            let (top, bottom) = inside(down, ph, stride[0], height, oh);
            for y in top..bottom {
                let line = &mut out[(y * stride[0] + down - ph) * width + at..];
                add_every(line, &columns[y * ow..][first..last], stride[1]);
            }
        }
    });
}

/// The patches of `count` for which `offset` is inside of a dimension: from the first one to before the second.
fn inside(offset: usize, padding: usize, stride: usize, size: usize, count: usize) -> (usize, usize) {
    let first = padding.saturating_sub(offset).div_ceil(stride);
    let last = (size + padding).saturating_sub(offset).div_ceil(stride);
    (first, last.min(count))
}

multiversion! {
    vectors of T;
    /// Adds the elements of `x` to every `step`-th one of `out`.
    fn add_every<T: Float>(out: &mut [T], x: &[T], step: usize) {
        if step == 1 {
            out.iter_mut().zip(x).for_each(|(o, &x)| *o += x);
        } else {
            out.iter_mut().step_by(step).zip(x).for_each(|(o, &x)| *o += x);
        }
    }
}
