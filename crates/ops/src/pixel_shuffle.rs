//! `pixel_shuffle` and `pixel_unshuffle`: channels to pixels and back.

use tapegrad_tape::Var;
use tapegrad_tape::shape::numel_for;

/// `[..., C r^2, H, W]` to `[..., C, H r, W r]`: each group of `r^2` channels becomes a square of pixels
/// (`torch.nn.functional.pixel_shuffle`).
///
/// # Panics
/// If there are fewer than three dimensions, or the channels cannot be divided by `upscale_factor^2`.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[1, 4, 1, 1]);
/// let y = tapegrad_ops::pixel_shuffle(&x, 2);
/// assert_eq!((y.shape(), y.to_vec::<f32>()), (&[1, 1, 2, 2][..], vec![1.0, 2.0, 3.0, 4.0]));
/// ```
#[track_caller]
pub fn pixel_shuffle(x: &Var, upscale_factor: usize) -> Var {
    let (lead, [c, h, w]) = split("pixel_shuffle", x, upscale_factor);
    let r = upscale_factor;
    numel_for("pixel_shuffle", &[r, r]);
    assert!(
        c.is_multiple_of(r * r),
        "pixel_shuffle: expects its input's 'channel' dimension to be divisible by the square of upscale_factor, but \
         input.size(-3)={c} is not divisible by {}",
        r * r
    );
    let n = lead.len() as isize;
    let apart = [&lead[..], &[c / (r * r), r, r, h, w]].concat();
    numel_for("pixel_shuffle", &apart);
    let wide = x.reshape(&shape(&apart));
    let order = [&(0..n).collect::<Vec<_>>()[..], &[n, n + 3, n + 1, n + 4, n + 2]].concat();
    wide.permute(&order).reshape(&shape(&[&lead[..], &[c / (r * r), h * r, w * r]].concat()))
}

/// `[..., C, H r, W r]` to `[..., C r^2, H, W]`: the inverse of [`pixel_shuffle`]
/// (`torch.nn.functional.pixel_unshuffle`).
///
/// # Panics
/// If there are fewer than three dimensions, or height or width cannot be divided by `downscale_factor`.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[1, 1, 2, 2]);
/// assert_eq!(tapegrad_ops::pixel_unshuffle(&x, 2).shape(), [1, 4, 1, 1]);
/// ```
#[track_caller]
pub fn pixel_unshuffle(x: &Var, downscale_factor: usize) -> Var {
    let (lead, [c, h, w]) = split("pixel_unshuffle", x, downscale_factor);
    let r = downscale_factor;
    assert!(
        h.is_multiple_of(r) && w.is_multiple_of(r),
        "pixel_unshuffle: expects height and width to be divisible by downscale_factor, but {h} x {w} is not \
         divisible by {r}"
    );
    let n = lead.len() as isize;
    let apart = [&lead[..], &[c, h / r, r, w / r, r]].concat();
    numel_for("pixel_unshuffle", &apart);
    let wide = x.reshape(&shape(&apart));
    let order = [&(0..n).collect::<Vec<_>>()[..], &[n, n + 2, n + 4, n + 1, n + 3]].concat();
    wide.permute(&order).reshape(&shape(&[&lead[..], &[c * r * r, h / r, w / r]].concat()))
}

/// The dimensions before the last three, and those.
#[track_caller]
fn split(op: &str, x: &Var, factor: usize) -> (Vec<usize>, [usize; 3]) {
    let s = x.shape();
    assert!(
        s.len() >= 3,
        "{op}: expects an input [..., C, H, W] of at least 3 dimensions, but got {} (shape {s:?})",
        s.len()
    );
    assert!(factor > 0, "{op}: the factor must be positive, got 0");
    let (lead, last) = s.split_at(s.len() - 3);
    (lead.to_vec(), [last[0], last[1], last[2]])
}

fn shape(sizes: &[usize]) -> Vec<isize> {
    sizes.iter().map(|&n| n as isize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn one_undoes_the_other() {
        let x = parameter(&[2, 8, 3, 2], 1);
        let y = pixel_shuffle(&x, 2);
        assert_eq!(y.shape(), [2, 2, 6, 4]);
        // Row 1, column 1 of the first square is the fourth channel.
        let (flat, channels) = (y.to_vec::<f64>(), x.to_vec::<f64>());
        assert_eq!(flat[5], channels[3 * 6]);
        assert_close(&pixel_unshuffle(&y, 2), &x, 0.0);
        check_gradients(|x| pixel_shuffle(&x[0], 2), &[x]);
        assert_eq!(pixel_unshuffle(&parameter(&[1, 4, 6], 1), 2).shape(), [4, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "pixel_shuffle: expects its input's 'channel' dimension to be divisible")]
    fn channels_that_do_not_divide() {
        pixel_shuffle(&parameter(&[1, 6, 2, 2], 1), 2);
    }
}
