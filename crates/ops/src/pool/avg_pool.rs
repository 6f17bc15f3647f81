//! `avg_pool1d`, `avg_pool2d`, `avg_pool3d`.

use super::{check_window, pooled};
use crate::Size;
use crate::kernels::pool;
use crate::kernels::windows::{Axis, Windows};
use crate::memory::nhwc;
use crate::options::size_setters;
use std::sync::Arc;
use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::{Int, MemoryFormat, RecordOptions, Tensor, Var, dispatch, record_with};

/// The arguments of an average pooling, with PyTorch's defaults; the stride is the kernel's size if it is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPoolOptions<const D: usize> {
    /// The size of the window.
    pub kernel_size: [usize; D],
    /// The step of the window.
    pub stride: [usize; D],
    /// Zeros added on both sides.
    pub padding: [usize; D],
    /// Windows may overhang at the end.
    pub ceil_mode: bool,
    /// The zeros of the padding count in the mean.
    pub count_include_pad: bool,
    /// What the sum is divided by, in place of the number of elements.
    pub divisor_override: Option<isize>,
}

impl<const D: usize> AvgPoolOptions<D> {
    /// Adjacent windows of a size.
    pub fn new(kernel_size: impl Into<Size<D>>) -> Self {
        let kernel_size = kernel_size.into().0;
        AvgPoolOptions {
            kernel_size,
            stride: kernel_size,
            padding: [0; D],
            ceil_mode: false,
            count_include_pad: true,
            divisor_override: None,
        }
    }

    size_setters! { stride, padding }

    /// Sets whether windows may overhang at the end.
    pub fn ceil_mode(mut self, ceil_mode: bool) -> Self {
        self.ceil_mode = ceil_mode;
        self
    }

    /// Sets whether the zeros of the padding count in the mean.
    pub fn count_include_pad(mut self, count_include_pad: bool) -> Self {
        self.count_include_pad = count_include_pad;
        self
    }

    /// Sets what the sum is divided by, in place of the number of elements.
    pub fn divisor_override(mut self, divisor: impl Int) -> Self {
        self.divisor_override = Some(divisor.to_isize());
        self
    }
}

impl<const D: usize, T: Into<Size<D>>> From<T> for AvgPoolOptions<D> {
    fn from(kernel_size: T) -> Self {
        AvgPoolOptions::new(kernel_size)
    }
}

#[track_caller]
fn avg_pool<const D: usize>(op: &'static str, x: &Var, o: AvgPoolOptions<D>) -> Var {
    check_window(op, x.shape(), &o.kernel_size, &o.stride, &o.padding, &[1; D]);
    assert!(o.divisor_override != Some(0), "{op}: divisor must be not zero");
    mean_over_windows::<D>(op, x, o.count_include_pad, o.divisor_override, |shape| {
        (0..D)
            .map(|d| {
                Axis::sliding(op, shape[d + 2], o.kernel_size[d], o.stride[d], o.padding[d], 1, o.ceil_mode)
            })
            .collect()
    })
}

/// The mean of each window.
#[track_caller]
pub(super) fn mean_over_windows<const D: usize>(
    op: &'static str,
    x: &Var,
    count_include_pad: bool,
    divisor: Option<isize>,
    axes: impl FnOnce(&[usize]) -> Vec<Axis>,
) -> Var {
    pooled::<D>(op, x, |x| {
        let w = Windows::new(x.shape(), axes(x.shape()));
        let scale = list_for(op, w.output_size(), |p| {
            let pixel = w.pixel(p);
            let count = |d: usize| match count_include_pad {
                true => w.axes[d].padded[pixel[d]] as f64,
                false => w.axes[d].windows[pixel[d]].1 as f64,
            };
            1.0 / divisor.map_or_else(|| (0..3).map(count).product(), |n| n as f64)
        });
        sums(op, Arc::new(Means { w, scale }), x)
    })
}

/// The windows, and the factor of each output pixel.
struct Means {
    w: Windows,
    scale: Vec<f64>,
}

/// The scaled sum of each window.
#[track_caller]
fn sums(op: &'static str, m: Arc<Means>, x: &Var) -> Var {
    let mut y = Tensor::uninit_format(&m.w.output_shape(), x.dtype(), MemoryFormat::ChannelsLast);
    let input = x.tensor().to_format(MemoryFormat::ChannelsLast);
    dispatch!(float: x.dtype(), op, T => pool::sum_forward::<T>(&m.w, &m.scale, nhwc(&input), y.data_mut()));
    let linear = |t: &Var| sums(op, m.clone(), t);
    let options = RecordOptions::new().linear(&linear);
    record_with(op, [x], y, options, {
        let m = m.clone();
        move |c| [Some(spread(m.clone(), c.grad()))]
    })
}

/// The adjoint of [`sums`].
fn spread(m: Arc<Means>, dy: &Var) -> Var {
    let mut dx = Tensor::uninit_format(&m.w.input_shape(), dy.dtype(), MemoryFormat::ChannelsLast);
    let g = dy.tensor().to_format(MemoryFormat::ChannelsLast);
    dispatch!(float: dy.dtype(), "avg_pool", T => pool::sum_backward::<T>(&m.w, &m.scale, nhwc(&g), dx.data_mut()));
    let linear = |t: &Var| spread(m.clone(), t);
    let options = RecordOptions::new().linear(&linear);
    record_with("avg_pool_spread", [dy], dx, options, {
        let m = m.clone();
        move |c| [Some(sums("avg_pool", m.clone(), c.grad()))]
    })
}

macro_rules! avg_pool {
    ($($(#[$meta:meta])* $name:ident, $d:literal;)*) => {$(
        $(#[$meta])*
        ///
        /// The options may be just a kernel size.
        ///
        /// # Panics
        /// If shape and options do not fit.
        #[track_caller]
        pub fn $name(input: &Var, options: impl Into<AvgPoolOptions<$d>>) -> Var {
            // Compiled in this crate and not in the caller's.
            #[track_caller]
            fn pool(input: &Var, options: AvgPoolOptions<$d>) -> Var {
                avg_pool::<$d>(stringify!($name), input, options)
            }
            pool(input, options.into())
        }
    )*};
}
avg_pool! {
    /// The mean of each window of `[N, C, L]` or `[C, L]` (`torch.nn.functional.avg_pool1d`).
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 3.0, 2.0, 0.0], &[1, 1, 4]);
    /// assert_eq!(tapegrad_ops::avg_pool1d(&x, 2).to_vec::<f32>(), [2.0, 1.0]);
    /// ```
    avg_pool1d, 1;
    /// The mean of each window of `[N, C, H, W]` or `[C, H, W]` (`torch.nn.functional.avg_pool2d`).
    avg_pool2d, 2;
    /// The mean of each window of `[N, C, D, H, W]` or `[C, D, H, W]` (`torch.nn.functional.avg_pool3d`).
    avg_pool3d, 3;
}
