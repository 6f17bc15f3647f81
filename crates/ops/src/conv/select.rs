//! Which kernel computes a convolution. In F32: depthwise for groups of few channels; for one group, or each of several,
//! Winograd where it is faster, direct otherwise; three dimensions as two. In other types im2col.
//! The environment variable `TAPEGRAD_CONV=auto|direct|winograd` overrides the choice between direct and Winograd.

use crate::kernels::geometry::{Conv2dShape, Geometry};
use crate::kernels::volumes::Volumes;
use crate::kernels::{depthwise, direct_conv, grouped, im2col, row_winograd, winograd};
use crate::memory::{self, nhwc};
use std::sync::OnceLock;
use tapegrad_tape::{DType, MemoryFormat, Tensor, dispatch};

/// The geometry for the channels-last kernels, which compute in F32.
fn channels_last(g: &Geometry, dtype: DType) -> Option<Conv2dShape> {
    if dtype == DType::F32 { g.two_dimensional() } else { None }
}

/// The same for volumes, whose planes become channels of images.
fn volumes(g: &Geometry, dtype: DType) -> Option<Volumes> {
    if dtype == DType::F32 { Volumes::new(g) } else { None }
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
    if let Some(v) = volumes(g, x.dtype()) {
        let x = x.to_format(MemoryFormat::ChannelsLast);
        let mut y = Tensor::uninit_format(&g.output_shape(), DType::F32, MemoryFormat::ChannelsLast);
        let bias = bias.as_ref().map(slice);
        v.with_weights(slice(&w), |w| {
            v.with_images(nhwc(&x), |x| forward_2d(&v.images, x, w, bias, y.data_mut()));
        });
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
    if let Some(v) = volumes(g, dy.dtype()) {
        let dy = dy.to_format(MemoryFormat::ChannelsLast);
        let mut dx = Tensor::uninit_format(&g.input_shape(), DType::F32, MemoryFormat::ChannelsLast);
        v.with_weights(slice(&w), |w| {
            v.sum_images(dx.data_mut(), |dx| input_grad_2d(&v.images, nhwc(&dy), w, dx));
        });
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
        return Tensor::zeros_with(&g.weight_shape(), x.dtype());
    }
    let mut dw = Tensor::uninit(&g.weight_shape(), x.dtype());
    if let Some(s) = channels_last(g, x.dtype()) {
        let (x, dy) = (x.to_format(MemoryFormat::ChannelsLast), dy.to_format(MemoryFormat::ChannelsLast));
        weight_grad_2d(&s, nhwc(&x), nhwc(&dy), dw.data_mut());
        return dw;
    }
    if let Some(v) = volumes(g, x.dtype()) {
        let (x, dy) = (x.to_format(MemoryFormat::ChannelsLast), dy.to_format(MemoryFormat::ChannelsLast));
        v.sort_weights(dw.data_mut(), |dw| {
            v.with_images(nhwc(&x), |x| weight_grad_2d(&v.images, x, nhwc(&dy), dw));
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// The kernels in F32 against im2col in F64.
        #[test]
        fn three_dimensions_and_groups(
            (n, groups, from, to) in (0..3usize, prop_oneof![Just(1), 1..4usize], 1..20usize, 1..20usize),
            input in prop::array::uniform3(1..7usize),
            kernel in prop::array::uniform3(1..4usize),
            stride in prop::array::uniform3(1..3usize),
            padding in prop::array::uniform3(0..3usize),
            dilation in prop::array::uniform3(1..3usize),
            dims in 2..4usize,
        ) {
            let mut g = Geometry {
                n, groups, dims, input, kernel, stride, padding, dilation,
                c_in: groups * from,
                c_out: groups * to,
                output: [1; 3],
            };
            for d in 0..3 {
                if d < 3 - dims {
                    (g.input[d], g.kernel[d], g.stride[d], g.padding[d], g.dilation[d]) = (1, 1, 1, 0, 1);
                }
                let room = (g.input[d] + 2 * g.padding[d]).checked_sub((g.kernel[d] - 1) * g.dilation[d] + 1);
                prop_assume!(room.is_some());
                g.output[d] = room.unwrap_or(0) / g.stride[d] + 1;
            }
            let tensor = |shape: &[usize], seed| Tensor::from_vec(numbers(shape.iter().product(), seed), shape);
            let (x, w, dy, b) = (
                tensor(&g.input_shape(), 1),
                tensor(&g.weight_shape(), 2),
                tensor(&g.output_shape(), 3),
                tensor(&[g.c_out], 4),
            );
            let [x32, w32, dy32, b32] = [&x, &w, &dy, &b].map(|t| t.cast(DType::F32));
            for (name, got, wanted) in [
                ("forward", forward(&g, &x32, &w32, Some(&b32)), forward(&g, &x, &w, Some(&b))),
                ("input gradient", input_grad(&g, &dy32, &w32), input_grad(&g, &dy, &w)),
                ("weight gradient", weight_grad(&g, &x32, &dy32), weight_grad(&g, &x, &dy)),
            ] {
                let (got, wanted) = (got.to_vec::<f32>(), wanted.to_vec::<f64>());
                let largest = wanted.iter().fold(1.0f64, |m, v| m.max(v.abs()));
                for (g32, w64) in got.iter().zip(&wanted) {
                    prop_assert!((f64::from(*g32) - w64).abs() < 2e-5 * largest, "{} {:?}: {} {}", name, g, g32, w64);
                }
            }
        }
    }
}
