//! Which kernel computes a convolution. In F32 and up to two dimensions: depthwise for groups of few channels, and for
//! one group, or each of several, Winograd where it is faster, direct otherwise. In other types and dimensions im2col.
//! The environment variable `TAPEGRAD_CONV=auto|direct|winograd` overrides the choice between direct and Winograd.

use crate::kernels::geometry::{Conv2dShape, Geometry};
use crate::kernels::{depthwise, direct_conv, grouped, im2col, row_winograd, winograd};
use crate::memory::{self, nhwc};
use std::sync::OnceLock;
use tapegrad_tape::{DType, MemoryFormat, Tensor, dispatch};

/// The geometry for the channels-last kernels, which compute in F32.
fn channels_last(g: &Geometry, dtype: DType) -> Option<Conv2dShape> {
    if dtype == DType::F32 { g.two_dimensional() } else { None }
}

/// The kernels for channels-last memory.
enum Kernel {
    /// Groups of few channels at once.
    Depthwise,
    /// Groups of many channels one after the other, each by one of the following.
    Grouped,
    Direct,
    Winograd,
    /// Winograd along the rows; for the input gradient [`Kernel::Direct`].
    RowWinograd,
}

/// The kernel that computes this convolution.
fn kernel(s: &Conv2dShape) -> Kernel {
    if depthwise::wins(s) {
        return Kernel::Depthwise;
    } else if s.groups > 1 {
        return Kernel::Grouped;
    }
    static CHOICE: OnceLock<fn(&Conv2dShape) -> Kernel> = OnceLock::new();
    let choice = CHOICE.get_or_init(|| match std::env::var("TAPEGRAD_CONV").as_deref() {
        Err(_) | Ok("" | "auto") => |s| winograd_if(winograd::wins(s), row_winograd::wins(s)),
        Ok("direct") => |_| Kernel::Direct,
        Ok("winograd") => |s| winograd_if(winograd::supports(s), row_winograd::supports(s)),
        Ok(other) => panic!("TAPEGRAD_CONV is {other:?}; it can be auto, direct or winograd"),
    });
    choice(s)
}

/// Winograd's kernels where they can be used: in both dimensions, or along the rows.
fn winograd_if(both: bool, rows: bool) -> Kernel {
    match (both, rows) {
        (true, _) => Kernel::Winograd,
        (false, true) => Kernel::RowWinograd,
        (false, false) => Kernel::Direct,
    }
}

fn forward_2d(s: &Conv2dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    match kernel(s) {
        Kernel::Depthwise => depthwise::forward(s, x, w, bias, y),
        Kernel::Grouped => grouped::forward(s, x, w, bias, y, forward_2d),
        Kernel::Direct => direct_conv::forward(s, x, w, bias, y),
        Kernel::Winograd => winograd::forward(s, x, w, bias, y),
        Kernel::RowWinograd => row_winograd::forward(s, x, w, bias, y),
    }
}

fn input_grad_2d(s: &Conv2dShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    match kernel(s) {
        Kernel::Depthwise => depthwise::input_grad(s, dy, w, dx),
        Kernel::Grouped => grouped::input_grad(s, dy, w, dx, input_grad_2d),
        Kernel::Winograd => winograd::input_grad(s, dy, w, dx),
        Kernel::Direct | Kernel::RowWinograd => direct_conv::input_grad(s, dy, w, dx),
    }
}

fn weight_grad_2d(s: &Conv2dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    match kernel(s) {
        Kernel::Depthwise => depthwise::weight_grad(s, x, dy, dw),
        Kernel::Grouped => grouped::weight_grad(s, x, dy, dw, weight_grad_2d),
        Kernel::Direct => direct_conv::weight_grad(s, x, dy, dw),
        Kernel::Winograd => winograd::weight_grad(s, x, dy, dw),
        Kernel::RowWinograd => row_winograd::weight_grad(s, x, dy, dw),
    }
}

// Empty tensors take no kernel: their other sizes are not bounded.

pub(super) fn forward(g: &Geometry, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    if g.n == 0 {
        return Tensor::uninit(&g.output_shape(), x.dtype());
    }
    let (w, bias) = (w.contiguous(), bias.map(Tensor::contiguous));
    if let Some(s) = channels_last(g, x.dtype()) {
        let x = x.to_format(MemoryFormat::ChannelsLast);
        let mut y = Tensor::uninit_format(&g.output_shape(), DType::F32, MemoryFormat::ChannelsLast);
        forward_2d(&s, nhwc(&x), slice(&w), bias.as_ref().map(slice), y.data_mut());
        return y;
    }
    let mut y = Tensor::uninit(&g.output_shape(), x.dtype());
    dispatch!(float: x.dtype(), "conv", T => {
        let x = x.contiguous();
        im2col::forward::<T>(g, slice(&x), slice(&w), bias.as_ref().map(slice), y.data_mut());
    });
    y
}

pub(super) fn input_grad(g: &Geometry, dy: &Tensor, w: &Tensor) -> Tensor {
    if g.n == 0 {
        return Tensor::uninit(&g.input_shape(), dy.dtype());
    }
    let w = w.contiguous();
    if let Some(s) = channels_last(g, dy.dtype()) {
        let dy = dy.to_format(MemoryFormat::ChannelsLast);
        let mut dx = Tensor::uninit_format(&g.input_shape(), DType::F32, MemoryFormat::ChannelsLast);
        input_grad_2d(&s, nhwc(&dy), slice(&w), dx.data_mut());
        return dx;
    }
    let mut dx = Tensor::uninit(&g.input_shape(), dy.dtype());
    dispatch!(float: dy.dtype(), "conv", T => {
        let dy = dy.contiguous();
        im2col::input_grad::<T>(g, slice(&dy), slice(&w), dx.data_mut());
    });
    dx
}

pub(super) fn weight_grad(g: &Geometry, x: &Tensor, dy: &Tensor) -> Tensor {
    if g.n == 0 {
        return Tensor::zeros(&g.weight_shape(), x.dtype());
    }
    let mut dw = Tensor::uninit(&g.weight_shape(), x.dtype());
    if let Some(s) = channels_last(g, x.dtype()) {
        let (x, dy) = (x.to_format(MemoryFormat::ChannelsLast), dy.to_format(MemoryFormat::ChannelsLast));
        weight_grad_2d(&s, nhwc(&x), nhwc(&dy), dw.data_mut());
        return dw;
    }
    dispatch!(float: x.dtype(), "conv", T => {
        let (x, dy) = (x.contiguous(), dy.contiguous());
        im2col::weight_grad::<T>(g, slice(&x), slice(&dy), dw.data_mut());
    });
    dw
}

fn slice<T: tapegrad_tape::Element>(t: &Tensor) -> &[T] {
    memory::slice(t, MemoryFormat::Contiguous)
}
