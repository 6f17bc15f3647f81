//! Which kernel computes a convolution.

use super::Geometry;
use crate::kernels::im2col;
use tape::{Tensor, dispatch};

pub(super) fn forward(g: &Geometry, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let mut y = Tensor::uninit(&g.output_shape(), x.dtype());
    dispatch!(float: x.dtype(), "conv", T => {
        let (x, w, bias) = (x.contiguous(), w.contiguous(), bias.map(Tensor::contiguous));
        im2col::forward::<T>(g, slice(&x), slice(&w), bias.as_ref().map(slice), y.data_mut());
    });
    y
}

pub(super) fn input_grad(g: &Geometry, dy: &Tensor, w: &Tensor) -> Tensor {
    let mut dx = Tensor::uninit(&g.input_shape(), dy.dtype());
    dispatch!(float: dy.dtype(), "conv", T => {
        let (dy, w) = (dy.contiguous(), w.contiguous());
        im2col::input_grad::<T>(g, slice(&dy), slice(&w), dx.data_mut());
    });
    dx
}

pub(super) fn weight_grad(g: &Geometry, x: &Tensor, dy: &Tensor) -> Tensor {
    let mut dw = Tensor::uninit(&g.weight_shape(), x.dtype());
    dispatch!(float: x.dtype(), "conv", T => {
        let (x, dy) = (x.contiguous(), dy.contiguous());
        im2col::weight_grad::<T>(g, slice(&x), slice(&dy), dw.data_mut());
    });
    dw
}

fn slice<T: tape::Element>(t: &Tensor) -> &[T] {
    t.as_slice().expect("made contiguous")
}
