//! Convolutions, and the three linear maps that they and their derivatives are made of.
//!
//! A convolution is linear in its input and in its weight. With `conv(x, w)`, its adjoint for the input
//! `conv_input(dy, w)` and its adjoint for the weight `conv_weight(x, dy)`, every derivative of each of the three is
//! one of the others, so these suffice for gradients of any order.

mod conv1d;
mod conv2d;
mod conv3d;
mod conv_transpose;
mod geometry;
mod select;

pub use conv_transpose::{
    ConvTransposeOptions, conv_transpose1d, conv_transpose1d_with, conv_transpose2d, conv_transpose2d_with,
    conv_transpose3d, conv_transpose3d_with,
};
pub use conv1d::{conv1d, conv1d_with};
pub use conv2d::{conv2d, conv2d_with};
pub use conv3d::{conv3d, conv3d_with};
pub use geometry::{ConvOptions, Padding};

use crate::autocast::{lowered_with_bias, through_f32};
use crate::kernels::geometry::Geometry;
use tapegrad_tape::{RecordOptions, Var, note_flops, record_with, stack};

/// `conv(x, w) + bias`.
#[track_caller]
fn conv(op: &'static str, g: Geometry, x: &Var, w: &Var, bias: Option<&Var>) -> Var {
    let value = select::forward(&g, &x.tensor(), &w.tensor(), bias.map(Var::tensor).as_ref());
    let (xs, ws) = (w.requires_grad().then(|| x.saved()), x.requires_grad().then(|| w.saved()));
    note_flops(g.flops());
    let spatial: Vec<isize> = (2..x.ndim() as isize).collect();
    let terms = |t: &[Option<Var>]| {
        let of_x = t[0].as_ref().map(|t| conv(op, g, t, w, None));
        let of_w = t[1].as_ref().map(|t| conv(op, g, x, t, None));
        vec![of_x, of_w, t[2].as_ref().map(|t| along_channels(t, x.ndim()))]
    };
    let options = RecordOptions::new().forward(&terms).by_sample(true);
    record_with(op, [Some(x), Some(w), bias], value, options, move |c| {
        let dx =
            c.wants(0).then(|| conv_input(g, c.grad(), ws.as_ref().expect("kept for the input's gradient")));
        let dw = c.wants(1).then(|| {
            let x = xs.as_ref().expect("kept for the weight's gradient");
            if !c.by_sample(1) {
                return conv_weight(g, x, c.grad());
            }
            let one = Geometry { n: 1, ..g };
            let of = |i| conv_weight(one, &x.narrow(0, i, 1), &c.grad().narrow(0, i, 1));
            stack(&(0..g.n as isize).map(of).collect::<Vec<_>>(), 0)
        });
        let db = || if c.by_sample(2) { c.grad().sum(&spatial) } else { sum_channels(c.grad()) };
        [dx, dw, c.wants(2).then(db)]
    })
}

/// A vector along dimension 1 of so many.
fn along_channels(v: &Var, ndim: usize) -> Var {
    let mut shape = vec![1; ndim];
    shape[1] = v.numel();
    v.reshape(shape)
}

/// The sum over everything but dimension 1.
fn sum_channels(dy: &Var) -> Var {
    let dims: Vec<isize> = (0..dy.ndim() as isize).filter(|&d| d != 1).collect();
    dy.sum(&dims)
}

/// The gradient of a convolution for its input: a transposed convolution.
#[track_caller]
fn conv_input(g: Geometry, dy: &Var, w: &Var) -> Var {
    let value = select::input_grad(&g, &dy.tensor(), &w.tensor());
    let (ds, ws) = (w.requires_grad().then(|| dy.saved()), dy.requires_grad().then(|| w.saved()));
    note_flops(g.flops());
    let terms = |t: &[Option<Var>]| {
        let of_dy = t[0].as_ref().map(|t| conv_input(g, t, w));
        vec![of_dy, t[1].as_ref().map(|t| conv_input(g, dy, t))]
    };
    let options = RecordOptions::new().forward(&terms);
    record_with("conv_input_grad", [dy, w], value, options, move |c| {
        let d_dy = c
            .wants(0)
            .then(|| conv("conv", g, c.grad(), ws.as_ref().expect("saved for the required gradient"), None));
        let d_w = c
            .wants(1)
            .then(|| conv_weight(g, c.grad(), ds.as_ref().expect("saved for the required gradient")));
        [d_dy, d_w]
    })
}

/// The gradient of a convolution for its weight.
#[track_caller]
fn conv_weight(g: Geometry, x: &Var, dy: &Var) -> Var {
    let value = select::weight_grad(&g, &x.tensor(), &dy.tensor());
    let (xs, ds) = (dy.requires_grad().then(|| x.saved()), x.requires_grad().then(|| dy.saved()));
    note_flops(g.flops());
    let terms = |t: &[Option<Var>]| {
        let of_x = t[0].as_ref().map(|t| conv_weight(g, t, dy));
        vec![of_x, t[1].as_ref().map(|t| conv_weight(g, x, t))]
    };
    let options = RecordOptions::new().forward(&terms);
    record_with("conv_weight_grad", [x, dy], value, options, move |c| {
        let d_x = c
            .wants(0)
            .then(|| conv_input(g, ds.as_ref().expect("saved for the required gradient"), c.grad()));
        let d_dy = c
            .wants(1)
            .then(|| conv("conv", g, xs.as_ref().expect("saved for the required gradient"), c.grad(), None));
        [d_x, d_dy]
    })
}

/// Adds the batch dimension where it is missing, calls `f`, and takes it away again.
#[track_caller]
pub(crate) fn batched<const D: usize>(op: &str, x: &Var, f: impl FnOnce(&Var) -> Var) -> Var {
    match x.ndim() {
        n if n == D + 2 => f(x),
        n if n == D + 1 => {
            let shape: Vec<isize> = std::iter::once(1).chain(x.shape().iter().map(|&n| n as isize)).collect();
            let y = f(&x.reshape(&shape));
            let shape: Vec<isize> = y.shape()[1..].iter().map(|&n| n as isize).collect();
            y.reshape(&shape)
        }
        _ => panic!(
            "{op}: expected an input of {} dimensions, or {} without the batch, got shape {:?}",
            D + 2,
            D + 1,
            x.shape()
        ),
    }
}

/// The convolution of `D` spatial dimensions.
#[track_caller]
fn conv_nd<const D: usize>(
    op: &'static str,
    x: &Var,
    w: &Var,
    bias: Option<&Var>,
    o: &ConvOptions<D>,
) -> Var {
    in_float(op, x, w, bias, |x, w, bias| conv_float(op, x, w, bias, o))
}

/// [`conv_nd`] in F32 or F64.
#[track_caller]
fn conv_float<const D: usize>(
    op: &'static str,
    x: &Var,
    w: &Var,
    bias: Option<&Var>,
    o: &ConvOptions<D>,
) -> Var {
    batched::<D>(op, x, |x| {
        let g = Geometry::new(op, x.shape(), w.shape(), o);
        if let Some(b) = bias {
            assert!(
                b.shape() == [g.c_out],
                "{op}: expected a bias of shape [{}], got {:?}",
                g.c_out,
                b.shape()
            );
        }
        conv(op, g, x, w, bias)
    })
}

/// Calls a convolution, or its adjoint, in the type of autocast, and in F32 where that is a shorter one.
#[track_caller]
fn in_float(
    op: &str,
    x: &Var,
    w: &Var,
    bias: Option<&Var>,
    f: impl FnOnce(&Var, &Var, Option<&Var>) -> Var,
) -> Var {
    lowered_with_bias([x, w], bias, |x, w, bias| {
        check_types(op, x, w, bias);
        match bias {
            Some(b) => through_f32([x, w, b], |[x, w, b]| f(x, w, Some(b))),
            None => through_f32([x, w], |[x, w]| f(x, w, None)),
        }
    })
}

#[track_caller]
fn check_types(op: &str, x: &Var, w: &Var, bias: Option<&Var>) {
    for (name, v) in [("weight", Some(w)), ("bias", bias)] {
        if let Some(v) = v {
            assert!(
                v.dtype() == x.dtype(),
                "{op}: input type ({}) and {name} type ({}) should be the same",
                x.dtype(),
                v.dtype()
            );
        }
    }
}
