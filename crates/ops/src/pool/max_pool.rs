//! `max_pool1d`, `max_pool2d`, `max_pool3d`.

use super::{check_window, pooled};
use crate::Size;
use crate::kernels::pool;
use crate::kernels::windows::{Axis, Windows};
use crate::memory::nhwc;
use crate::options::size_setters;
use std::sync::Arc;
use tapegrad_tape::{DType, MemoryFormat, RecordOptions, Tensor, Var, dispatch, note_saved, record_with};

/// The arguments of a max pooling, with PyTorch's defaults; the stride is the kernel's size if it is not set.
///
/// ```
/// let options = tapegrad_ops::MaxPoolOptions::<2>::new(3).stride(2).padding(1);
/// assert_eq!(options.kernel_size, [3, 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPoolOptions<const D: usize> {
    /// The size of the window.
    pub kernel_size: [usize; D],
    /// The step of the window.
    pub stride: [usize; D],
    /// Minus infinity added on both sides.
    pub padding: [usize; D],
    /// The distance between the elements of the window.
    pub dilation: [usize; D],
    /// Windows may overhang at the end.
    pub ceil_mode: bool,
}

impl<const D: usize> MaxPoolOptions<D> {
    /// Adjacent windows of a size.
    pub fn new(kernel_size: impl Into<Size<D>>) -> Self {
        let kernel_size = kernel_size.into().0;
        MaxPoolOptions {
            kernel_size,
            stride: kernel_size,
            padding: [0; D],
            dilation: [1; D],
            ceil_mode: false,
        }
    }

    size_setters! { stride, padding, dilation }

    /// Sets whether windows may overhang at the end.
    pub fn ceil_mode(mut self, ceil_mode: bool) -> Self {
        self.ceil_mode = ceil_mode;
        self
    }
}

impl<const D: usize, T: Into<Size<D>>> From<T> for MaxPoolOptions<D> {
    fn from(kernel_size: T) -> Self {
        MaxPoolOptions::new(kernel_size)
    }
}

#[track_caller]
fn max_pool<const D: usize>(op: &'static str, x: &Var, o: MaxPoolOptions<D>) -> (Var, Taken) {
    check_window(op, x.shape(), &o.kernel_size, &o.stride, &o.padding, &o.dilation);
    max_over_windows::<D>(op, x, |shape| {
        (0..D)
            .map(|d| {
                Axis::sliding(
                    op,
                    shape[d + 2],
                    o.kernel_size[d],
                    o.stride[d],
                    o.padding[d],
                    o.dilation[d],
                    o.ceil_mode,
                )
            })
            .collect()
    })
}

/// The index of the maximum of each window.
#[derive(Clone)]
pub(super) struct Taken {
    windows: Arc<Windows>,
    /// Channels-last, U8 while the windows have no more than 255 elements, else I64.
    taps: Tensor,
}

/// Runs a block with a type parameter bound to the type of the taps.
macro_rules! with_taps {
    ($taken:expr, $I:ident => $body:expr) => {
        match $taken.taps.dtype() {
            DType::U8 => {
                type $I = u8;
                $body
            }
            _ => {
                type $I = i64;
                $body
            }
        }
    };
}

impl Taken {
    /// The index of each output's element in the flattened spatial dimensions, in the shape of `y`.
    pub(super) fn indices(&self, y: &Var) -> Var {
        let mut index =
            Tensor::uninit_format(&self.windows.output_shape(), DType::I64, MemoryFormat::ChannelsLast);
        with_taps!(self, I => pool::flat_indices::<I>(&self.windows, nhwc(&self.taps), index.data_mut()));
        Var::from(index.reshape(y.shape()))
    }

    /// Adds gradients to the elements that were the maxima.
    fn put(&self, dy: &Var) -> Var {
        let mut dx =
            Tensor::uninit_format(&self.windows.input_shape(), dy.dtype(), MemoryFormat::ChannelsLast);
        let g = dy.tensor().to_format(MemoryFormat::ChannelsLast);
        dispatch!(float: dy.dtype(), "max_pool", T => with_taps!(self, I => {
            pool::put::<T, I>(&self.windows, nhwc(&g), nhwc(&self.taps), dx.data_mut())
        }));
        let taken = self.clone();
        let linear = |t: &Var| self.put(t);
        record_with("max_pool_put", [dy], dx, RecordOptions::new().linear(&linear), move |c| {
            [Some(taken.take(c.grad()))]
        })
    }

    /// The elements that were taken, of another input.
    fn take(&self, x: &Var) -> Var {
        let mut y =
            Tensor::uninit_format(&self.windows.output_shape(), x.dtype(), MemoryFormat::ChannelsLast);
        let input = x.tensor().to_format(MemoryFormat::ChannelsLast);
        dispatch!(float: x.dtype(), "max_pool", T => with_taps!(self, I => {
            pool::take::<T, I>(&self.windows, nhwc(&input), nhwc(&self.taps), y.data_mut())
        }));
        let taken = self.clone();
        let linear = |t: &Var| self.take(t);
        record_with("max_pool_take", [x], y, RecordOptions::new().linear(&linear), move |c| {
            [Some(taken.put(c.grad()))]
        })
    }
}

/// The largest element of each window, and its index.
#[track_caller]
pub(super) fn max_over_windows<const D: usize>(
    op: &'static str,
    x: &Var,
    axes: impl FnOnce(&[usize]) -> Vec<Axis>,
) -> (Var, Taken) {
    let mut made = None;
    let y = pooled::<D>(op, x, |x| {
        let windows = Arc::new(Windows::new(x.shape(), axes(x.shape())));
        let shape = windows.output_shape();
        let input = x.tensor().to_format(MemoryFormat::ChannelsLast);
        let mut y = Tensor::uninit_format(&shape, x.dtype(), MemoryFormat::ChannelsLast);
        let small = windows.most_taps() <= 255;
        let taps = Tensor::uninit_format(
            &shape,
            if small { DType::U8 } else { DType::I64 },
            MemoryFormat::ChannelsLast,
        );
        let mut taken = Taken { windows, taps };
        dispatch!(float: x.dtype(), op, T => with_taps!(taken, I => {
            pool::max_forward::<T, I>(&taken.windows, nhwc(&input), y.data_mut(), taken.taps.data_mut())
        }));
        note_saved(taken.taps.bytes());
        made = Some(taken.clone());
        let again = taken.clone();
        let linear = |t: &Var| again.take(t);
        record_with(op, [x], y, RecordOptions::new().linear(&linear), move |c| [Some(taken.put(c.grad()))])
    });
    (y, made.expect("made with the values"))
}

macro_rules! max_pool {
    ($($(#[$meta:meta])* $name:ident, $with_indices:ident, $d:literal;)*) => {$(
        $(#[$meta])*
        ///
        /// The options may be just a kernel size. At equal elements the gradient goes to the first; a NaN in a
        /// window is its maximum.
        ///
        /// # Panics
        /// If shape and options do not fit.
        #[track_caller]
        pub fn $name(input: &Var, options: impl Into<MaxPoolOptions<$d>>) -> Var {
            // Compiled in this crate and not in the caller's.
            #[track_caller]
            fn pool(input: &Var, options: MaxPoolOptions<$d>) -> Var {
                max_pool::<$d>(stringify!($name), input, options).0
            }
            pool(input, options.into())
        }

        #[doc = concat!("As [`", stringify!($name), "`], with the index of each maximum in the flattened spatial dimensions (`return_indices=True`).")]
        ///
        /// # Panics
        /// If shape and options do not fit.
        #[track_caller]
        pub fn $with_indices(input: &Var, options: impl Into<MaxPoolOptions<$d>>) -> (Var, Var) {
            #[track_caller]
            fn pool(input: &Var, options: MaxPoolOptions<$d>) -> (Var, Var) {
                let (y, taken) = max_pool::<$d>(stringify!($name), input, options);
                let indices = taken.indices(&y);
                (y, indices)
            }
            pool(input, options.into())
        }
    )*};
}
max_pool! {
    /// The largest element of each window of `[N, C, L]` or `[C, L]` (`torch.nn.functional.max_pool1d`).
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 3.0, 2.0, 0.0], &[1, 1, 4]);
    /// assert_eq!(tapegrad_ops::max_pool1d(&x, 2).to_vec::<f32>(), [3.0, 2.0]);
    /// ```
    max_pool1d, max_pool1d_with_indices, 1;
    /// The largest element of each window of `[N, C, H, W]` or `[C, H, W]` (`torch.nn.functional.max_pool2d`).
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[8, 3, 32, 32], DType::F32));
    /// assert_eq!(tapegrad_ops::max_pool2d(&x, 2).shape(), [8, 3, 16, 16]);
    /// ```
    max_pool2d, max_pool2d_with_indices, 2;
    /// The largest element of each window of `[N, C, D, H, W]` or `[C, D, H, W]` (`torch.nn.functional.max_pool3d`).
    max_pool3d, max_pool3d_with_indices, 3;
}
