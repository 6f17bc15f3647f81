//! Normalization with its weights and running statistics.

use crate::fields::{Buffer, Training};
use crate::module::Forward;
use crate::summary::{is_observed, observe};
use std::cell::Cell;
use tapegrad_ops::BatchNormOptions;
use tapegrad_tape::{DType, IntList, Tensor, Var};

fn ones(shape: &[usize]) -> Var {
    Var::parameter(Tensor::ones_with(shape, DType::F32))
}

fn zeros(shape: &[usize]) -> Var {
    Var::parameter(Tensor::zeros_with(shape, DType::F32))
}

/// The running mean and variance of the training data.
fn statistics(channels: usize) -> [Option<Buffer>; 3] {
    [
        Some(Buffer::new(Tensor::zeros_with(&[channels], DType::F32))),
        Some(Buffer::new(Tensor::ones_with(&[channels], DType::F32))),
        Some(Buffer::new(Tensor::scalar(0i64))),
    ]
}

thread_local! {
    /// True while batch norms take the cumulative average, whatever their momentum.
    static CUMULATIVE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` with batch norms that keep the average of all batches instead of a moving one.
pub(crate) fn with_cumulative_statistics<R>(body: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            CUMULATIVE.set(self.0);
        }
    }
    let _restore = Restore(CUMULATIVE.replace(true));
    body()
}

/// The weight of this batch in the running statistics.
fn share(count: Option<&Buffer>, training: bool, momentum: Option<f64>) -> f64 {
    match count {
        Some(count) if training => {
            let momentum = momentum.filter(|_| !CUMULATIVE.get());
            momentum.unwrap_or_else(|| 1.0 / (count.tensor().item::<i64>() + 1) as f64)
        }
        _ => momentum.unwrap_or(0.0),
    }
}

/// Counts one more batch, in one step: several threads may train the module at once.
fn count_batch(count: &Buffer) {
    count.update(|n| *n = Tensor::scalar(n.item::<i64>() + 1));
}

macro_rules! channel_norms {
    ($($(#[$meta:meta])* $name:ident, $function:ident, [$($ndim:literal),*], $shapes:literal, $affine:literal, $tracks:literal;)*) => {$(
        crate::module! {
            $(#[$meta])*
            pub struct $name {
                /// `[num_features]`, initially ones.
                pub weight: Option<Var>,
                /// `[num_features]`, initially zeros.
                pub bias: Option<Var>,
                /// The running mean.
                pub running_mean: Option<Buffer>,
                /// The running variance.
                pub running_var: Option<Buffer>,
                /// The number of batches in the running statistics.
                pub num_batches_tracked: Option<Buffer>,
                num_features: usize,
                eps: f64,
                momentum: Option<f64>,
                training: Training,
            }
        }

        impl $name {
            /// A module for this many channels, with PyTorch's defaults for the other options.
            pub fn new(num_features: usize) -> $name {
                $name {
                    weight: None,
                    bias: None,
                    running_mean: None,
                    running_var: None,
                    num_batches_tracked: None,
                    num_features,
                    eps: 1e-5,
                    momentum: Some(0.1),
                    training: Training::default(),
                }
                .affine($affine)
                .track_running_stats($tracks)
            }

            /// This module with another value added to the variance for numerical stability.
            pub fn eps(mut self, eps: f64) -> Self {
                self.eps = eps;
                self
            }

            /// This module with another momentum of the running statistics; `None` for the cumulative average.
            pub fn momentum(mut self, momentum: impl Into<Option<f64>>) -> Self {
                self.momentum = momentum.into();
                self
            }

            /// This module with or without weight and bias.
            pub fn affine(mut self, affine: bool) -> Self {
                self.weight = affine.then(|| ones(&[self.num_features]));
                self.bias(affine)
            }

            /// This module with or without a bias.
            pub fn bias(mut self, bias: bool) -> Self {
                self.bias = bias.then(|| zeros(&[self.num_features]));
                self
            }

            /// This module with or without running statistics, which it uses in evaluation mode.
            pub fn track_running_stats(mut self, track: bool) -> Self {
                [self.running_mean, self.running_var, self.num_batches_tracked] =
                    if track { statistics(self.num_features) } else { [None, None, None] };
                self
            }

            fn running(&self) -> Option<(&Var, &Var)> {
                Some((self.running_mean.as_deref()?, self.running_var.as_deref()?))
            }

            #[track_caller]
            fn check(&self, x: &Var) {
                assert!(
                    [$($ndim),*].contains(&x.ndim()),
                    "{}: the input is {}, got shape {:?}", stringify!($name), $shapes, x.shape()
                );
            }
        }

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                self.check(x);
                observe(self, x, |x| $function!(self, x))
            }

            #[track_caller]
            fn forward_relu(&self, x: &Var) -> Var {
                relu_of!($function, self, x)
            }
        }
    )*};
}

macro_rules! batch {
    ($s:ident, $x:ident) => {
        batch!($s, $x, |running, weight, bias, options| tapegrad_ops::batch_norm_with($x, running, weight, bias, options))
    };
    ($s:ident, $x:ident, |$($argument:ident),*| $call:expr) => {{
        let training = $s.training.get() || $s.running_mean.is_none();
        let momentum = share($s.num_batches_tracked.as_ref(), $s.training.get(), $s.momentum);
        let options = BatchNormOptions { training, momentum, eps: $s.eps };
        let y = (|$($argument),*| $call)($s.running(), $s.weight.as_ref(), $s.bias.as_ref(), options);
        if let (true, Some(count)) = ($s.training.get(), &$s.num_batches_tracked) {
            count_batch(count);
        }
        y
    }};
}

macro_rules! relu_of {
    (batch, $s:ident, $x:ident) => {
        $s.relu($x, None)
    };
    ($function:ident, $s:ident, $x:ident) => {
        tapegrad_ops::relu_($s.forward($x))
    };
}

macro_rules! instance {
    ($s:ident, $x:ident) => {{
        let use_input_stats = $s.training.get() || $s.running_mean.is_none();
        // PyTorch does not count batches here, and has no running mean of all.
        let momentum = $s.momentum.unwrap_or(0.0);
        let options = tapegrad_ops::InstanceNormOptions { use_input_stats, momentum, eps: $s.eps };
        let batched = if $s.is_single($x) { $x.unsqueeze(0) } else { $x.clone() };
        let y = tapegrad_ops::instance_norm_with(
            &batched,
            $s.running(),
            $s.weight.as_ref(),
            $s.bias.as_ref(),
            options,
        );
        if $s.is_single($x) { y.squeeze(0) } else { y }
    }};
}

channel_norms! {
    /// Batch normalization of `[N, C]` or `[N, C, L]` (`torch.nn.BatchNorm1d`).
    BatchNorm1d, batch, [2, 3], "[N, C] or [N, C, L]", true, true;
    /// Batch normalization of `[N, C, H, W]` (`torch.nn.BatchNorm2d`).
    ///
    /// ```
    /// use tapegrad_nn::{BatchNorm2d, Module, Forward};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let norm = BatchNorm2d::new(3);
    /// let y = norm.forward(&Var::from(Tensor::ones_with(&[2, 3, 4, 4], DType::F32)));
    /// assert_eq!(y.to_vec::<f32>()[0], 0.0);
    /// let names: Vec<String> = norm.state_dict().keys().map(String::from).collect();
    /// assert_eq!(names, ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]);
    /// ```
    BatchNorm2d, batch, [4], "[N, C, H, W]", true, true;
    /// Batch normalization of `[N, C, D, H, W]` (`torch.nn.BatchNorm3d`).
    BatchNorm3d, batch, [5], "[N, C, D, H, W]", true, true;
    /// Normalization of each channel of each sample of `[N, C, L]` or `[C, L]` (`torch.nn.InstanceNorm1d`).
    InstanceNorm1d, instance, [2, 3], "[N, C, L] or [C, L]", false, false;
    /// Normalization of each channel of each sample of `[N, C, H, W]` or `[C, H, W]` (`torch.nn.InstanceNorm2d`).
    InstanceNorm2d, instance, [3, 4], "[N, C, H, W] or [C, H, W]", false, false;
    /// Normalization of each channel of each sample of `[N, C, D, H, W]` or `[C, D, H, W]`
    /// (`torch.nn.InstanceNorm3d`).
    InstanceNorm3d, instance, [4, 5], "[N, C, D, H, W] or [C, D, H, W]", false, false;
}

macro_rules! single {
    ($($name:ident $ndim:literal)*) => {$(
        impl $name {
            /// True for one sample without a batch dimension.
            fn is_single(&self, x: &Var) -> bool {
                x.ndim() == $ndim
            }
        }
    )*};
}
single! { InstanceNorm1d 2 InstanceNorm2d 3 InstanceNorm3d 4 }

crate::module! {
    /// Normalization over the last dimensions (`torch.nn.LayerNorm`).
    ///
    /// ```
    /// use tapegrad_nn::{LayerNorm, Forward};
    /// use tapegrad_tape::Var;
    /// let y = LayerNorm::new(&[2]).forward(&Var::from_vec(vec![1f32, 3.0], &[1, 2]));
    /// assert!((y.to_vec::<f32>()[1] - 1.0).abs() < 1e-4);
    /// ```
    pub struct LayerNorm {
        /// Of the normalized shape, initially ones.
        pub weight: Option<Var>,
        /// Of the normalized shape, initially zeros.
        pub bias: Option<Var>,
        shape: Vec<usize>,
        eps: f64,
    }
}

impl LayerNorm {
    /// A module for last dimensions of this shape.
    pub fn new(normalized_shape: impl IntList) -> LayerNorm {
        let normalized_shape = &normalized_shape.to_sizes("LayerNorm");
        let shape = normalized_shape.to_vec();
        LayerNorm { weight: Some(ones(&shape)), bias: Some(zeros(&shape)), shape, eps: 1e-5 }
    }

    /// This module with another value added to the variance for numerical stability.
    pub fn eps(mut self, eps: f64) -> LayerNorm {
        self.eps = eps;
        self
    }

    /// This module with or without weight and bias.
    pub fn elementwise_affine(mut self, affine: bool) -> LayerNorm {
        self.weight = affine.then(|| ones(&self.shape));
        self.bias(affine)
    }

    /// This module with or without a bias.
    pub fn bias(mut self, bias: bool) -> LayerNorm {
        self.bias = bias.then(|| zeros(&self.shape));
        self
    }
}

impl Forward for LayerNorm {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            tapegrad_ops::layer_norm_with(x, &self.shape, self.weight.as_ref(), self.bias.as_ref(), self.eps)
        })
    }
}

crate::module! {
    /// Division by the root mean square over the last dimensions (`torch.nn.RMSNorm`).
    pub struct RMSNorm {
        /// Of the normalized shape, initially ones.
        pub weight: Option<Var>,
        shape: Vec<usize>,
        eps: Option<f64>,
    }
}

impl RMSNorm {
    /// A module for last dimensions of this shape.
    pub fn new(normalized_shape: impl IntList) -> RMSNorm {
        let normalized_shape = &normalized_shape.to_sizes("RMSNorm");
        let shape = normalized_shape.to_vec();
        RMSNorm { weight: Some(ones(&shape)), shape, eps: None }
    }

    /// This module with this value added to the mean square; the type's epsilon by default.
    pub fn eps(mut self, eps: impl Into<Option<f64>>) -> RMSNorm {
        self.eps = eps.into();
        self
    }

    /// This module with or without a weight.
    pub fn elementwise_affine(mut self, affine: bool) -> RMSNorm {
        self.weight = affine.then(|| ones(&self.shape));
        self
    }
}

impl Forward for RMSNorm {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| tapegrad_ops::rms_norm_with(x, &self.shape, self.weight.as_ref(), self.eps))
    }
}

crate::module! {
    /// Normalization of groups of channels of each sample (`torch.nn.GroupNorm`).
    pub struct GroupNorm {
        /// `[num_channels]`, initially ones.
        pub weight: Option<Var>,
        /// `[num_channels]`, initially zeros.
        pub bias: Option<Var>,
        num_groups: usize,
        num_channels: usize,
        eps: f64,
    }
}

impl GroupNorm {
    /// A module for this many channels in this many groups.
    ///
    /// # Panics
    /// If the channels cannot be divided into the groups.
    #[track_caller]
    pub fn new(num_groups: usize, num_channels: usize) -> GroupNorm {
        assert!(
            num_groups > 0 && num_channels.is_multiple_of(num_groups),
            "GroupNorm: {num_channels} channels cannot be divided into {num_groups} groups"
        );
        let (weight, bias) = (Some(ones(&[num_channels])), Some(zeros(&[num_channels])));
        GroupNorm { weight, bias, num_groups, num_channels, eps: 1e-5 }
    }

    /// This module with another value added to the variance for numerical stability.
    pub fn eps(mut self, eps: f64) -> GroupNorm {
        self.eps = eps;
        self
    }

    /// This module with or without weight and bias.
    pub fn affine(mut self, affine: bool) -> GroupNorm {
        self.weight = affine.then(|| ones(&[self.num_channels]));
        self.bias(affine)
    }

    /// This module with or without a bias.
    pub fn bias(mut self, bias: bool) -> GroupNorm {
        self.bias = bias.then(|| zeros(&[self.num_channels]));
        self
    }
}

impl Forward for GroupNorm {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            tapegrad_ops::group_norm_with(
                x,
                self.num_groups,
                self.weight.as_ref(),
                self.bias.as_ref(),
                self.eps,
            )
        })
    }
}
macro_rules! batch_norm_relu {
    ($($name:ident)*) => {$(
        impl $name {
            /// `relu(self.forward(x) + residual)`, in as many passes over memory as the normalization alone.
            ///
            /// # Panics
            /// As `forward`, and if the residual has another shape.
            #[track_caller]
            pub fn relu(&self, x: &Var, residual: Option<&Var>) -> Var {
                self.check(x);
                if is_observed() {
                    let y = self.forward(x);
                    return tapegrad_ops::relu(&residual.map_or_else(|| y.clone(), |r| &y + r));
                }
                batch!(self, x, |running, weight, bias, options| {
                    tapegrad_ops::batch_norm_relu(x, running, weight, bias, residual, options)
                })
            }

            /// `relu6(self.forward(x))`, in as many passes over memory as the normalization alone.
            ///
            /// # Panics
            /// As `forward`.
            #[track_caller]
            pub fn relu6(&self, x: &Var) -> Var {
                self.check(x);
                if is_observed() {
                    return tapegrad_ops::relu6(&self.forward(x));
                }
                batch!(self, x, |running, weight, bias, options| {
                    tapegrad_ops::batch_norm_relu6(x, running, weight, bias, options)
                })
            }
        }
    )*};
}
batch_norm_relu!(BatchNorm1d BatchNorm2d BatchNorm3d);
