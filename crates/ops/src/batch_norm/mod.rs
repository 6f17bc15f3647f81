//! `batch_norm`.

use crate::kernels::norm::{
    Affine, AffineAddRelu, AffineRelu, AffineRelu6, Centers, Gradient, Layout, Products, Relu6Gradient,
    Relu6Products, ReluGradient, ReluProducts, map, moments, sums,
};
use crate::memory::slice;
use crate::normalization::{
    check_affine, check_float, check_type, gradients, is_half, record_affine, record_empty,
};
use crate::options::setters;
use tapegrad_tape::kernels::strided;
use tapegrad_tape::{DType, Float, MemoryFormat, Tensor, Var, is_grad_enabled, record_with_output, where_};

/// How [`batch_norm`] normalizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormOptions {
    /// Whether to use the batch's statistics, which also update the running ones, or the running ones.
    pub training: bool,
    /// The part of the batch's statistics in the new running ones.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

impl BatchNormOptions {
    setters! { training: bool, momentum: f64, eps: f64 }
}

impl Default for BatchNormOptions {
    /// PyTorch's: not training, momentum 0.1, eps 1e-5.
    fn default() -> BatchNormOptions {
        BatchNormOptions { training: false, momentum: 0.1, eps: 1e-5 }
    }
}

/// Normalizes each channel over the batch and all positions (`torch.nn.functional.batch_norm`).
///
/// `x` is `[N, C, ...]`; `running` are mean and variance, `[C]` each, as [`Var::buffer`]s; weight and bias are `[C]`.
/// In training the running statistics are updated with weight `momentum`, the variance unbiased as in PyTorch. The
/// result has the memory format of `x`, row-major or channels-last.
///
/// # Panics
/// If shapes or types do not fit, if a batch in training has one value per channel, or if running statistics are
/// missing where they are needed.
///
/// ```
/// use tapegrad_ops::{BatchNormOptions, batch_norm, batch_norm_with};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let x = Var::from_vec(vec![1f64, 10.0, 3.0, 30.0], &[2, 2]);
/// let mean = Var::buffer(Tensor::zeros_with(&[2], DType::F64));
/// let var = Var::buffer(Tensor::ones_with(&[2], DType::F64));
/// let options = BatchNormOptions::new().training(true).eps(0.0);
/// let y = batch_norm_with(&x, Some((&mean, &var)), None, None, options);
/// assert_eq!(y.to_vec::<f64>(), [-1.0, -1.0, 1.0, 1.0]);
/// assert_eq!(mean.to_vec::<f64>(), [0.2, 2.0]);
/// ```
#[track_caller]
pub fn batch_norm<'a>(
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: impl Into<Option<&'a Var>>,
    bias: impl Into<Option<&'a Var>>,
) -> Var {
    batch_norm_with(x, running, weight, bias, Default::default())
}

/// [`batch_norm`] with options.
///
/// # Panics
/// Same as [`batch_norm`].
#[track_caller]
pub fn batch_norm_with<'a>(
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: impl Into<Option<&'a Var>>,
    bias: impl Into<Option<&'a Var>>,
    options: BatchNormOptions,
) -> Var {
    let weight = weight.into();
    let bias = bias.into();
    check(x, running, weight, bias, options);
    if x.numel() == 0 {
        return record_empty("batch_norm", x, weight, bias);
    }
    by_type("batch_norm", x, running, weight, bias, options, Tail::Nothing)
}

/// `relu(batch_norm(x) + residual)` in as few passes over memory as [`batch_norm`] alone; most networks have this after
/// a convolution. The residual is optional; it has the shape of `x`.
///
/// # Panics
/// Same as [`batch_norm`], and if the residual has another shape or type.
///
/// ```
/// use tapegrad_ops::{BatchNormOptions, batch_norm_relu};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 10.0, 3.0, 30.0], &[2, 2]);
/// let options = BatchNormOptions::new().training(true).eps(0.0);
/// let y = batch_norm_relu(&x, None, None, None, None, options);
/// assert_eq!(y.to_vec::<f64>(), [0.0, 0.0, 1.0, 1.0]);
/// ```
#[track_caller]
pub fn batch_norm_relu(
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: Option<&Var>,
    bias: Option<&Var>,
    residual: Option<&Var>,
    options: BatchNormOptions,
) -> Var {
    if let Some(r) = residual {
        assert!(
            r.shape() == x.shape() && r.dtype() == x.dtype(),
            "batch_norm_relu: a residual {} of shape {:?} for an input {} of shape {:?}; they have to be the same",
            r.dtype(),
            r.shape(),
            x.dtype(),
            x.shape()
        );
    }
    if x.numel() == 0 {
        let y = batch_norm_with(x, running, weight, bias, options);
        return crate::relu(&residual.map_or_else(|| y.clone(), |r| &y + r));
    }
    check(x, running, weight, bias, options);
    let tail = residual.map_or(Tail::Relu, Tail::AddRelu);
    by_type("batch_norm_relu", x, running, weight, bias, options, tail)
}

/// `relu6(batch_norm(x))` in as few passes over memory as [`batch_norm`] alone: what networks for small devices have
/// after a convolution.
///
/// # Panics
/// Same as [`batch_norm`].
///
/// ```
/// use tapegrad_ops::{BatchNormOptions, batch_norm_relu6};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 10.0, 3.0, 30.0], &[2, 2]);
/// let weight = Var::from_vec(vec![2f64, 8.0], &[2]);
/// let options = BatchNormOptions::new().training(true).eps(0.0);
/// let y = batch_norm_relu6(&x, None, Some(&weight), None, options);
/// assert_eq!(y.to_vec::<f64>(), [0.0, 0.0, 2.0, 6.0]);
/// ```
#[track_caller]
pub fn batch_norm_relu6(
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: Option<&Var>,
    bias: Option<&Var>,
    options: BatchNormOptions,
) -> Var {
    if x.numel() == 0 {
        return crate::relu6(&batch_norm_with(x, running, weight, bias, options));
    }
    check(x, running, weight, bias, options);
    by_type("batch_norm_relu6", x, running, weight, bias, options, Tail::Relu6)
}

/// What is applied to normalized values before they are stored.
#[derive(Clone, Copy)]
enum Tail<'a> {
    Nothing,
    Relu,
    Relu6,
    AddRelu(&'a Var),
}

#[track_caller]
fn check(
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: Option<&Var>,
    bias: Option<&Var>,
    options: BatchNormOptions,
) {
    check_float("batch_norm", x);
    let shape = x.shape();
    assert!(
        shape.len() >= 2 || x.numel() == 0,
        "batch_norm: expected an input [N, C, ...] of at least two dimensions, but got shape {shape:?}"
    );
    let channels = shape.get(1).copied().unwrap_or(0);
    check_affine("batch_norm", x, weight, bias, &[channels]);
    if let Some((mean, var)) = running {
        for (name, v) in [("running_mean", mean), ("running_var", var)] {
            assert!(
                v.shape() == [channels],
                "batch_norm: {name} should contain {channels} elements, one for each channel of the input {shape:?}, \
                 but has shape {:?}",
                v.shape()
            );
            check_type("batch_norm", name, x, v);
            assert!(
                !options.training || (v.is_leaf() && v.id().is_some()),
                "batch_norm: {name} is changed in training, so it must be a buffer"
            );
        }
    }
    if options.training {
        let count: usize = shape.iter().enumerate().filter(|(d, _)| *d != 1).map(|(_, n)| n).product();
        assert!(
            count != 1,
            "batch_norm: expected more than 1 value per channel when training, got input size {shape:?}"
        );
    } else {
        assert!(
            running.is_some(),
            "batch_norm: running_mean and running_var are needed when not training (input {shape:?})"
        );
    }
}

/// A tensor in row-major or channels-last memory, whichever it already is in, and the layout of its channels.
pub(crate) fn arrange(t: &Tensor) -> (Tensor, Layout, MemoryFormat) {
    let (n, channels) = (t.shape()[0], t.shape()[1]);
    let size: usize = t.shape()[2..].iter().product();
    if size == 1 && t.is_contiguous() {
        // Row-major and channels-last are the same here.
        return (t.clone(), Layout::Last { rows: n, channels }, MemoryFormat::Contiguous);
    }
    if !t.is_contiguous() && t.is_contiguous_in(MemoryFormat::ChannelsLast) {
        return (t.clone(), Layout::Last { rows: n * size, channels }, MemoryFormat::ChannelsLast);
    }
    (t.contiguous(), Layout::First { batch: n, channels, size }, MemoryFormat::Contiguous)
}

/// Numbers in another type.
pub(crate) fn convert<T: Float>(values: impl IntoIterator<Item = f64>) -> Vec<T> {
    values.into_iter().map(T::from_f64).collect()
}

/// In the type of the input, or in F32 if that is shorter.
#[track_caller]
fn by_type(
    op: &'static str,
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: Option<&Var>,
    bias: Option<&Var>,
    options: BatchNormOptions,
    tail: Tail,
) -> Var {
    if is_half(x.dtype()) {
        let wide = |v: &Var| v.cast(DType::F32);
        let (w, b) = (weight.map(wide), bias.map(wide));
        let residual;
        let tail = match tail {
            Tail::AddRelu(r) => {
                residual = wide(r);
                Tail::AddRelu(&residual)
            }
            other => other,
        };
        return normalize::<f32>(&wide(x), running, w.as_ref(), b.as_ref(), options, tail).cast(x.dtype());
    }
    tapegrad_tape::dispatch!(float: x.dtype(), op, T => normalize::<T>(x, running, weight, bias, options, tail))
}

#[track_caller]
fn normalize<T: Float>(
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: Option<&Var>,
    bias: Option<&Var>,
    options: BatchNormOptions,
    tail: Tail,
) -> Var {
    let BatchNormOptions { training, momentum, eps } = options;
    let (input, layout, format) = arrange(&x.tensor());
    let data = slice::<T>(&input, format);
    let (mean, var) = match running {
        Some((mean, var)) if !training => (mean.to_vec::<f64>(), var.to_vec::<f64>()),
        _ => moments(data, layout),
    };
    if let (true, Some((running_mean, running_var))) = (training, running) {
        let n = layout.count() as f64;
        move_toward(running_mean, mean.iter().copied(), momentum);
        move_toward(running_var, var.iter().map(|v| v * (n / (n - 1.0))), momentum);
    }
    let rstd: Vec<f64> = var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let factor: Vec<f64> = match weight {
        Some(w) => rstd.iter().zip(w.to_vec::<f64>()).map(|(r, w)| r * w).collect(),
        None => rstd.clone(),
    };
    let centers = Centers::<T>::new(&mean);
    let bias_values = bias.map_or_else(|| vec![0.0; mean.len()], |b| b.to_vec::<f64>());
    let shift: Vec<T> = convert((0..mean.len()).map(|c| bias_values[c] - centers.off[c] * factor[c]));
    let mut out = Tensor::uninit_format(x.shape(), T::DTYPE, format);
    let p1 = convert::<T>(factor.iter().copied());
    let p = [&centers.rounded[..], &p1, &shift, &shift, &shift];
    match tail {
        Tail::Nothing => map(Affine, out.data_mut::<T>(), data, data, layout, p),
        Tail::Relu => map(AffineRelu, out.data_mut::<T>(), data, data, layout, p),
        Tail::Relu6 => map(AffineRelu6, out.data_mut::<T>(), data, data, layout, p),
        Tail::AddRelu(residual) => {
            let residual = residual.tensor().to_format(format);
            map(AffineAddRelu, out.data_mut::<T>(), data, slice::<T>(&residual, format), layout, p)
        }
    }

    let (saved, saved_weight) = (x.saved(), weight.map(Var::saved));
    let six = matches!(tail, Tail::Relu6);
    let rule = move |g: &Var, wants, relu: bool| {
        if is_grad_enabled() {
            composed(&saved, saved_weight.as_ref(), g, (!training).then_some((&mean, &rstd)), eps)
        } else {
            let relu = relu.then_some((&shift[..], six));
            fused::<T>(&saved.tensor(), &g.tensor(), wants, training, [&mean, &rstd, &factor], relu)
        }
    };
    let residual = match tail {
        Tail::Nothing => {
            return record_affine("batch_norm", x, weight, bias, out, move |g, wants| rule(g, wants, false));
        }
        Tail::Relu | Tail::Relu6 => None,
        Tail::AddRelu(residual) => Some(residual),
    };
    let op = if six { "batch_norm_relu6" } else { "batch_norm_relu" };
    let adds = residual.is_some();
    record_with_output(op, [Some(x), weight, bias, residual], out, move |c| {
        let (y, wants) = (c.output(), [0, 1, 2].map(|i| c.wants(i)));
        let mut g = c.into_grad();
        if is_grad_enabled() {
            g = where_(&passes(&y, six), &g, 0.0);
        } else if adds {
            // Without a residual the passes of the rule recompute where the ReLU was active.
            let masked = |g, y| if y <= T::ZERO { T::ZERO } else { g };
            g = Var::from(strided::zip_owned::<T, T>(g.into_tensor(), &y.tensor(), masked));
        }
        let [dx, dw, db] = rule(&g, wants, !adds);
        [dx, dw, db, Some(g)]
    })
}

/// Where the gradient passes a ReLU, or a ReLU6, by its result.
fn passes(y: &Var, six: bool) -> Var {
    if six { y.gt(0.0).logical_and(&y.lt(6.0)) } else { y.gt(0.0) }
}

/// The gradients for input, weight and bias, in two passes over memory.
fn fused<T: Float>(
    x: &Tensor,
    g: &Tensor,
    wants: [bool; 3],
    training: bool,
    [mean, rstd, factor]: [&[f64]; 3],
    relu: Option<(&[T], bool)>,
) -> [Option<Var>; 3] {
    let (x, layout, format) = arrange(x);
    let g = g.cast(T::DTYPE).to_format(format);
    let (x_data, g_data) = (slice::<T>(&x, format), slice::<T>(&g, format));
    let n = layout.count() as f64;
    let (Centers { rounded: center, off }, p1) = (Centers::new(mean), convert::<T>(factor.iter().copied()));
    let (s, mut q) = if training || wants[1] || wants[2] {
        match relu {
            Some((shift, true)) => sums(Relu6Products, x_data, g_data, layout, [&center, &p1, shift]),
            Some((shift, false)) => sums(ReluProducts, x_data, g_data, layout, [&center, &p1, shift]),
            None => sums(Products, x_data, g_data, layout, [&center; 3]),
        }
    } else {
        (vec![0.0; mean.len()], vec![0.0; mean.len()])
    };
    q.iter_mut().zip(&s).zip(&off).for_each(|((q, s), off)| *q -= off * s);
    let dx = wants[0].then(|| {
        let mut out = Tensor::uninit_format(x.shape(), T::DTYPE, format);
        let zero = vec![T::ZERO; mean.len()];
        let (p2, p3) = if training {
            let slope = |c: usize| q[c] * factor[c] * rstd[c] * rstd[c] / n;
            let all = 0..mean.len();
            let p2 = convert::<T>(all.clone().map(|c| s[c] * factor[c] / n - off[c] * slope(c)));
            (p2, convert::<T>(all.map(slope)))
        } else {
            (zero.clone(), zero.clone())
        };
        let p = [&center[..], &p1, &p2, &p3, relu.map_or(&zero[..], |(shift, _)| shift)];
        match relu {
            Some((_, true)) => map(Relu6Gradient, out.data_mut::<T>(), x_data, g_data, layout, p),
            Some((_, false)) => map(ReluGradient, out.data_mut::<T>(), x_data, g_data, layout, p),
            None if training => map(Gradient, out.data_mut::<T>(), x_data, g_data, layout, p),
            None => {
                map(Affine, out.data_mut::<T>(), g_data, g_data, layout, [&zero, &p1, &zero, &zero, &zero])
            }
        }
        Var::from(out)
    });
    let vector = |values: Vec<T>| {
        let len = values.len();
        Var::from(Tensor::from_vec(values, &[len]))
    };
    let dw = wants[1].then(|| vector(convert::<T>(q.iter().zip(rstd).map(|(q, r)| q * r))));
    let db = wants[2].then(|| vector(convert::<T>(s)));
    [dx, dw, db]
}

/// The same gradients in differentiable operations; `fixed` are mean and inverse deviation where they are given.
fn composed(
    x: &Var,
    weight: Option<&Var>,
    g: &Var,
    fixed: Option<(&Vec<f64>, &Vec<f64>)>,
    eps: f64,
) -> [Option<Var>; 3] {
    let channels = x.shape()[1];
    let mut broadcast = vec![1; x.ndim()];
    broadcast[1] = channels as isize;
    let dims: Vec<isize> = (0..x.ndim() as isize).filter(|&d| d != 1).collect();
    let weight = weight.map(|w| w.reshape(&broadcast));
    let (dx, dw) = match fixed {
        Some((mean, rstd)) => {
            let constant =
                |v: &[f64]| Var::from(Tensor::from_slice(v, &[channels]).cast(x.dtype())).reshape(&broadcast);
            let (mean, rstd) = (constant(mean), constant(rstd));
            let inner = weight.as_ref().map_or_else(|| g.clone(), |w| g * w);
            (&inner * &rstd, &(g * &(x - &mean)) * &rstd)
        }
        None => gradients(x, g, weight.as_ref(), &dims, eps, true),
    };
    [Some(dx), Some(dw.sum(&dims)), Some(g.sum(&dims))]
}

/// `running = (1 - momentum) running + momentum value`
pub(crate) fn move_toward(running: &Var, values: impl Iterator<Item = f64>, momentum: f64) {
    running.update(|t| {
        let moved = t.to_vec::<f64>().into_iter().zip(values);
        let moved: Vec<f64> = moved.map(|(old, new)| (1.0 - momentum) * old + momentum * new).collect();
        *t = Tensor::from_vec(moved, t.shape()).cast(t.dtype());
    });
}

#[cfg(test)]
mod tests;
