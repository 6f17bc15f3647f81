//! Pooling: the largest element or the mean of each window.

mod adaptive_pool;
mod avg_pool;
mod lp_pool;
mod max_pool;
mod max_unpool;

pub use adaptive_pool::{
    adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, adaptive_max_pool1d,
    adaptive_max_pool1d_with_indices, adaptive_max_pool2d, adaptive_max_pool2d_with_indices,
    adaptive_max_pool3d, adaptive_max_pool3d_with_indices,
};
pub use avg_pool::{AvgPoolOptions, avg_pool1d, avg_pool2d, avg_pool3d};
pub use lp_pool::{LpPoolOptions, lp_pool1d, lp_pool2d, lp_pool3d};
pub use max_pool::{
    MaxPoolOptions, max_pool1d, max_pool1d_with_indices, max_pool2d, max_pool2d_with_indices, max_pool3d,
    max_pool3d_with_indices,
};
pub use max_unpool::{MaxUnpoolOptions, max_unpool1d, max_unpool2d, max_unpool3d};

use crate::autocast::through_f32;
use crate::size::check_sizes;
use tapegrad_tape::Var;
use tapegrad_tape::shape::MAX_NUMEL;

/// Adds the batch dimension where it is missing, checks for empty images, calls `f`, and takes it away.
#[track_caller]
fn pooled<const D: usize>(op: &'static str, x: &Var, f: impl FnOnce(&Var) -> Var) -> Var {
    check_shape::<D>(op, x.shape(), D);
    assert!(x.dtype().is_float(), "{op}: not defined for {}; it takes float32 or float64", x.dtype());
    through_f32([x], |[x]| crate::conv::batched::<D>(op, x, f))
}

/// Checks the number of dimensions, and that none of the last `filled` is empty.
#[track_caller]
fn check_shape<const D: usize>(op: &str, shape: &[usize], filled: usize) {
    let fits = (D + 1..=D + 2).contains(&shape.len()) && !shape[shape.len() - filled..].contains(&0);
    assert!(
        fits,
        "{op}: expected {}D or {}D (batch mode) tensor with optional 0 dim batch size for input, but got shape {shape:?}",
        D + 1,
        D + 2
    );
}

/// The checks that the windows of max and average pooling share. Unlike an adaptive pooling they take no image without channels.
#[track_caller]
fn check_window<const D: usize>(
    op: &str,
    shape: &[usize],
    kernel: &[usize; D],
    stride: &[usize; D],
    padding: &[usize; D],
    dilation: &[usize; D],
) {
    check_shape::<D>(op, shape, D + 1);
    check_sizes(op, "stride", stride);
    for d in 0..D {
        assert!(kernel[d] > 0, "{op}: kernel_size must be greater than zero, but got {}", kernel[d]);
        assert!(stride[d] > 0, "{op}: stride must be greater than zero, but got {}", stride[d]);
        assert!(dilation[d] > 0, "{op}: dilation must be greater than zero, but got {}", dilation[d]);
        let reach =
            dilation[d].checked_mul(kernel[d] - 1).and_then(|n| n.checked_add(1)).filter(|&n| n <= MAX_NUMEL);
        let reach = reach.unwrap_or_else(|| {
            panic!(
                "{op}: effective kernel size overflows, but got kernel_size={} and dilation={}",
                kernel[d], dilation[d]
            )
        });
        assert!(
            padding[d] <= reach / 2,
            "{op}: pad should be at most half of effective kernel size, but got pad={}, kernel_size={} and dilation={}",
            padding[d],
            kernel[d],
            dilation[d]
        );
    }
}
