//! `group_norm` and `instance_norm`: each sample's channels by their own statistics.

use crate::batch_norm::{BatchNormOptions, batch_norm_with, convert, move_toward};
use crate::kernels::norm::{Affine, Centers, Gradient, Layout, Products, map, moments, sums};
use crate::normalization::{
    check_affine, check_float, check_type, gradients, is_half, record_by_sample, record_empty,
};
use crate::options::setters;
use tapegrad_tape::{DType, Float, Tensor, Var, is_grad_enabled};

/// Normalizes groups of neighboring channels of each sample (`torch.nn.functional.group_norm`).
///
/// `x` is `[N, C, ...]`, weight and bias `[C]`. The result is row-major.
///
/// # Panics
/// If the channels cannot be divided into `groups`, or weight or bias do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 3.0, 10.0, 30.0], &[1, 4]);
/// let y = tapegrad_ops::group_norm_with(&x, 2, None, None, 0.0);
/// assert_eq!(y.to_vec::<f64>(), [-1.0, 1.0, -1.0, 1.0]);
/// ```
#[track_caller]
pub fn group_norm<'a>(
    x: &Var,
    groups: usize,
    weight: impl Into<Option<&'a Var>>,
    bias: impl Into<Option<&'a Var>>,
) -> Var {
    group_norm_with(x, groups, weight, bias, 1e-5)
}

/// [`group_norm`] with another `eps`.
///
/// # Panics
/// Same as [`group_norm`].
#[track_caller]
pub fn group_norm_with<'a>(
    x: &Var,
    groups: usize,
    weight: impl Into<Option<&'a Var>>,
    bias: impl Into<Option<&'a Var>>,
    eps: f64,
) -> Var {
    let weight = weight.into();
    let bias = bias.into();
    let shape = x.shape();
    assert!(
        shape.len() >= 2,
        "group_norm: expected at least 2 dimensions for the input [N, C, ...] but got shape {shape:?}"
    );
    assert!(groups > 0, "group_norm: expected num_groups to be greater than 0, got {groups}");
    let channels = shape[1];
    assert!(
        channels.is_multiple_of(groups),
        "group_norm: expected number of channels in input to be divisible by num_groups, but got input of shape \
         {shape:?} and num_groups={groups}"
    );
    assert!(
        channels > 0,
        "group_norm: expected number of channels to be greater than 0, got input {shape:?}"
    );
    assert!(
        shape[2..].iter().product::<usize>() > 0,
        "group_norm: expected HxW to be greater than 0, got input {shape:?}"
    );
    grouped("group_norm", x, groups, weight, bias, eps).0
}

/// How [`instance_norm`] normalizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceNormOptions {
    /// Whether to use each sample's statistics, which also update the running ones, or the running ones.
    pub use_input_stats: bool,
    /// The part of the samples' statistics in the new running ones.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

impl InstanceNormOptions {
    setters! { use_input_stats: bool, momentum: f64, eps: f64 }
}

impl Default for InstanceNormOptions {
    /// PyTorch's: the input's statistics, momentum 0.1, eps 1e-5.
    fn default() -> InstanceNormOptions {
        InstanceNormOptions { use_input_stats: true, momentum: 0.1, eps: 1e-5 }
    }
}

/// Normalizes each channel of each sample over its positions (`torch.nn.functional.instance_norm`).
///
/// `x` is `[N, C, ...]`; `running` are mean and variance, `[C]` each, as [`Var::buffer`]s; weight and bias are `[C]`.
/// Running statistics are updated with weight `momentum` by the mean of the samples' statistics.
///
/// # Panics
/// If shapes or types do not fit, if there is one position, or if running statistics are missing where they are
/// needed.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 3.0, 10.0, 30.0], &[1, 2, 2]);
/// let options = tapegrad_ops::InstanceNormOptions::new().eps(0.0);
/// let y = tapegrad_ops::instance_norm_with(&x, None, None, None, options);
/// assert_eq!(y.to_vec::<f64>(), [-1.0, 1.0, -1.0, 1.0]);
/// ```
#[track_caller]
pub fn instance_norm<'a>(
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: impl Into<Option<&'a Var>>,
    bias: impl Into<Option<&'a Var>>,
) -> Var {
    instance_norm_with(x, running, weight, bias, Default::default())
}

/// [`instance_norm`] with options.
///
/// # Panics
/// Same as [`instance_norm`].
#[track_caller]
pub fn instance_norm_with<'a>(
    x: &Var,
    running: Option<(&Var, &Var)>,
    weight: impl Into<Option<&'a Var>>,
    bias: impl Into<Option<&'a Var>>,
    options: InstanceNormOptions,
) -> Var {
    let weight = weight.into();
    let bias = bias.into();
    let InstanceNormOptions { use_input_stats, momentum, eps } = options;
    let shape = x.shape();
    assert!(
        shape.len() >= 2,
        "instance_norm: expected an input [N, C, ...] of at least two dimensions, but got shape {shape:?}"
    );
    if !use_input_stats {
        assert!(
            running.is_some(),
            "instance_norm: expected running_mean and running_var to be defined when use_input_stats is false"
        );
        return batch_norm_with(
            x,
            running,
            weight,
            bias,
            BatchNormOptions { training: false, momentum, eps },
        );
    }
    let (channels, size) = (shape[1], shape[2..].iter().product::<usize>());
    assert!(
        size != 1,
        "instance_norm: expected more than 1 spatial element when using the input's statistics, got input {shape:?}"
    );
    if let Some((mean, var)) = running {
        for (name, v) in [("running_mean", mean), ("running_var", var)] {
            assert!(
                v.shape() == [channels],
                "instance_norm: {name} should contain {channels} elements, one for each channel of the input \
                 {shape:?}, but has shape {:?}",
                v.shape()
            );
            check_type("instance_norm", name, x, v);
            assert!(
                v.is_leaf() && v.id().is_some(),
                "instance_norm: {name} is changed by the call, so it must be a buffer"
            );
        }
    }
    let (y, mean, var) = grouped("instance_norm", x, channels, weight, bias, eps);
    if let (Some((running_mean, running_var)), false) = (running, mean.is_empty()) {
        let n = shape[0] as f64;
        let average = |values: &[f64], c: usize| values.iter().skip(c).step_by(channels).sum::<f64>() / n;
        let unbiased = size as f64 / (size as f64 - 1.0);
        move_toward(running_mean, (0..channels).map(|c| average(&mean, c)), momentum);
        move_toward(running_var, (0..channels).map(|c| average(&var, c) * unbiased), momentum);
    }
    y
}

/// The normalized value, and mean and biased variance of each sample's groups (none for an empty input).
#[track_caller]
fn grouped(
    op: &'static str,
    x: &Var,
    groups: usize,
    weight: Option<&Var>,
    bias: Option<&Var>,
    eps: f64,
) -> (Var, Vec<f64>, Vec<f64>) {
    check_float(op, x);
    check_affine(op, x, weight, bias, &x.shape()[1..2]);
    if is_half(x.dtype()) {
        let wide = |v: &Var| v.cast(DType::F32);
        let (w, b) = (weight.map(wide), bias.map(wide));
        let (y, mean, var) = grouped(op, &wide(x), groups, w.as_ref(), b.as_ref(), eps);
        return (y.cast(x.dtype()), mean, var);
    }
    if x.numel() == 0 {
        return (record_empty(op, x, weight, bias), vec![], vec![]);
    }
    tapegrad_tape::dispatch!(float: x.dtype(), op, T => normalize::<T>(op, x, groups, weight, bias, eps))
}

#[track_caller]
fn normalize<T: Float>(
    op: &'static str,
    x: &Var,
    groups: usize,
    weight: Option<&Var>,
    bias: Option<&Var>,
    eps: f64,
) -> (Var, Vec<f64>, Vec<f64>) {
    let (n, channels) = (x.shape()[0], x.shape()[1]);
    let size: usize = x.shape()[2..].iter().product();
    let each = channels / groups;
    let input = x.tensor().contiguous();
    let data = input.as_slice::<T>().expect("contiguous");
    let (mean, var) = moments(data, Layout::First { batch: 1, channels: n * groups, size: each * size });
    let rstd: Vec<f64> = var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    // Every channel of every sample is normalized separately.
    let layout = Layout::First { batch: 1, channels: n * channels, size };
    let factor = factors(&rstd, weight, n, channels, each);
    let Centers { rounded, off } = Centers::<T>::new(&mean);
    let spread = move |v: &[T]| -> Vec<T> { (0..n * channels).map(|i| v[i / each]).collect() };
    let center = spread(&rounded);
    let bias_values = bias.map_or_else(|| vec![0.0; channels], |b| b.to_vec::<f64>());
    let shift: Vec<T> =
        convert((0..n * channels).map(|i| bias_values[i % channels] - off[i / each] * factor[i]));
    let mut out = Tensor::uninit(x.shape(), T::DTYPE);
    let p1 = convert::<T>(factor);
    map(Affine, out.data_mut::<T>(), data, data, layout, [&center, &p1, &shift, &shift, &shift]);
    drop(input);

    let (saved, saved_weight) = (x.saved(), weight.map(Var::saved));
    let y = record_by_sample(op, x, weight, bias, out, move |g, wants, by_sample| {
        let weight = saved_weight.as_ref();
        if is_grad_enabled() || by_sample {
            return composed(&saved, g, weight, groups, eps);
        }
        let (x, g) = (saved.tensor().contiguous(), g.tensor().cast(T::DTYPE).contiguous());
        let (x_data, g_data) =
            (x.as_slice::<T>().expect("contiguous"), g.as_slice::<T>().expect("contiguous"));
        let (s, mut q) = sums(Products, x_data, g_data, layout, [&center; 3]);
        (0..n * channels).for_each(|i| q[i] -= off[i / each] * s[i]);
        let w = weight.map_or_else(|| vec![1.0; channels], |w| w.to_vec::<f64>());
        let dx = wants[0].then(|| {
            let count = (each * size) as f64;
            let (mut p2, mut p3) = (vec![0.0; n * groups], vec![0.0; n * groups]);
            for i in 0..n * channels {
                p2[i / each] += s[i] * w[i % channels] * rstd[i / each] / count;
                p3[i / each] += q[i] * w[i % channels] * rstd[i / each].powi(3) / count;
            }
            (0..n * groups).for_each(|i| p2[i] -= off[i] * p3[i]);
            let p1 = convert::<T>(factors(&rstd, weight, n, channels, each));
            let (p2, p3) = (spread(&convert::<T>(p2)), spread(&convert::<T>(p3)));
            let mut dx = Tensor::uninit(x.shape(), T::DTYPE);
            let p = [&center[..], &p1, &p2, &p3, &p3];
            map(Gradient, dx.data_mut::<T>(), x_data, g_data, layout, p);
            Var::from(dx)
        });
        let over_samples = |f: &dyn Fn(usize) -> f64| {
            let sums = (0..channels).map(|c| (0..n).map(|i| f(i * channels + c)).sum());
            Var::from(Tensor::from_vec(convert::<T>(sums), &[channels]))
        };
        let dw = wants[1].then(|| over_samples(&|i| q[i] * rstd[i / each]));
        let db = wants[2].then(|| over_samples(&|i| s[i]));
        [dx, dw, db]
    });
    (y, mean, var)
}

/// Each sample's channels' factors: the weight over the standard deviation of the group.
fn factors(rstd: &[f64], weight: Option<&Var>, n: usize, channels: usize, each: usize) -> Vec<f64> {
    let w = weight.map_or_else(|| vec![1.0; channels], |w| w.to_vec::<f64>());
    (0..n * channels).map(|i| rstd[i / each] * w[i % channels]).collect()
}

/// The gradients in differentiable operations.
fn composed(x: &Var, g: &Var, weight: Option<&Var>, groups: usize, eps: f64) -> [Option<Var>; 3] {
    let (n, channels) = (x.shape()[0] as isize, x.shape()[1] as isize);
    let groups = groups as isize;
    let shape: Vec<isize> = x.shape().iter().map(|&n| n as isize).collect();
    let split = [n, groups, channels / groups, -1];
    let weight = weight.map(|w| w.reshape(&[1, groups, channels / groups, 1]));
    let g = g.reshape(&split);
    let (dx, dw) = gradients(&x.reshape(&split), &g, weight.as_ref(), &[2, 3], eps, true);
    // The backward pass sums over the samples.
    let per_channel = |v: Var| v.sum(3).reshape(&[n, channels]);
    [Some(dx.reshape(&shape)), Some(per_channel(dw)), Some(per_channel(g))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use proptest::prelude::*;
    use tapegrad_tape::BackwardOptions;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gradients_of_both(
            n in 1usize..3, groups in 1usize..3, each in 1usize..3, space in proptest::collection::vec(2usize..4, 1..3),
            instance: bool, affine: bool, seed: u64,
        ) {
            let c = groups * each;
            let mut shape = vec![n, c];
            shape.extend(space);
            let mut inputs = vec![parameter(&shape, seed)];
            if affine {
                inputs.extend([parameter(&[c], seed ^ 1), parameter(&[c], seed ^ 2)]);
            }
            let options = InstanceNormOptions::new().eps(1e-2);
            let f = |v: &[Var]| match instance {
                true => instance_norm_with(&v[0], None, v.get(1), v.get(2), options),
                false => group_norm_with(&v[0], groups, v.get(1), v.get(2), 1e-2),
            };
            check_gradients(f, &inputs);
            let seed = parameter(&shape, seed ^ 3).detach();
            let gradients = |create_graph| -> Vec<Var> {
                inputs.iter().for_each(Var::zero_grad);
                f(&inputs).backward_with(&seed, BackwardOptions::new().create_graph(create_graph));
                inputs.iter().map(|v| v.grad().unwrap().detach()).collect()
            };
            for (fused, composed) in gradients(false).iter().zip(&gradients(true)) {
                assert_close(fused, composed, 1e-10);
            }
        }
    }

    #[test]
    fn one_group_is_a_layer_norm_and_single_channels_are_instances() {
        let x = parameter(&[2, 4, 3, 5], 1);
        assert_close(&group_norm(&x, 1, None, None), &crate::layer_norm(&x, &[4, 3, 5], None, None), 1e-12);
        let instances = instance_norm(&x, None, None, None);
        assert_close(&group_norm(&x, 4, None, None), &instances, 1e-12);
    }

    #[test]
    fn running_statistics_are_means_over_the_samples() {
        let (mean, var) = (
            Var::buffer(Tensor::zeros_with(&[1], DType::F64)),
            Var::buffer(Tensor::zeros_with(&[1], DType::F64)),
        );
        let x = Var::from_vec(vec![1.0f64, 3.0, 5.0, 9.0], &[2, 1, 2]);
        let options = InstanceNormOptions::new().momentum(1.0);
        instance_norm_with(&x, Some((&mean, &var)), None, None, options);
        // Means 2 and 7, unbiased variances 2 and 8.
        assert_eq!((mean.item(), var.item()), (4.5, 5.0));
    }

    #[test]
    #[should_panic(
        expected = "group_norm: expected number of channels in input to be divisible by num_groups"
    )]
    fn groups_that_do_not_divide() {
        group_norm(&parameter(&[2, 7, 4], 1), 2, None, None);
    }
}
