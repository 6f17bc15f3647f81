//! Activations as modules.

use crate::fields::Field;
use crate::init::constant_;
use crate::module::Forward;
use crate::summary::observe;
use tapegrad_ops::Approximate;
use tapegrad_tape::{DType, Int, Tensor, Var};

impl Field for Approximate {}

/// Gives a module without options an address of its own, by which its hooks find it.
#[derive(Debug)]
struct Place(#[allow(dead_code)] u8);

impl Field for Place {}

/// The type in which an argument is taken: dimensions as any integer.
macro_rules! argument {
    (isize) => { impl Int };
    ($ty:ident) => { $ty };
}

macro_rules! value {
    (isize, $given:ident) => {
        $given.to_isize()
    };
    ($ty:ident, $given:ident) => {
        $given
    };
}

/// One activation per row: the arguments of its constructor, the options with their defaults, and the operation.
macro_rules! activations {
    ($(
        $(#[$meta:meta])*
        $name:ident($($given:ident: $given_ty:ident),*) { $($option:ident: $ty:ident = $default:expr),* }
        |$s:ident, $x:ident| $f:expr;
    )*) => {$(
        crate::module! {
            $(#[$meta])*
            pub struct $name {
                $($given: $given_ty,)*
                $($option: $ty,)*
                place: Place,
            }
        }

        impl $name {
            /// The module with PyTorch's default options.
            #[allow(clippy::new_without_default)]
            pub fn new($($given: argument!($given_ty)),*) -> $name {
                $name { $($given: value!($given_ty, $given),)* $($option: $default,)* place: Place(0) }
            }

            $(
                #[doc = concat!("This module with the option `", stringify!($option), "`.")]
                pub fn $option(mut self, $option: argument!($ty)) -> $name {
                    self.$option = value!($ty, $option);
                    self
                }
            )*
        }

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, $x: &Var) -> Var {
                let $s = self;
                observe($s, $x, |$x| $f)
            }
        }
    )*};
}

activations! {
    /// Zero below zero, the identity above (`torch.nn.ReLU`).
    ReLU() {} |s, x| tapegrad_ops::relu(x);
    /// The rectifier, capped at six (`torch.nn.ReLU6`).
    ReLU6() {} |s, x| tapegrad_ops::relu6(x);
    /// The rectifier with a small slope below zero (`torch.nn.LeakyReLU`).
    LeakyReLU() { negative_slope: f64 = 0.01 } |s, x| tapegrad_ops::leaky_relu_with(x, s.negative_slope);
    /// The exponential linear unit (`torch.nn.ELU`).
    ELU() { alpha: f64 = 1.0 } |s, x| tapegrad_ops::elu_with(x, s.alpha);
    /// The continuously differentiable exponential linear unit (`torch.nn.CELU`).
    CELU() { alpha: f64 = 1.0 } |s, x| tapegrad_ops::celu_with(x, s.alpha);
    /// The self-normalizing exponential linear unit (`torch.nn.SELU`).
    SELU() {} |s, x| tapegrad_ops::selu(x);
    /// The Gaussian error linear unit (`torch.nn.GELU`).
    GELU() { approximate: Approximate = Approximate::None } |s, x| tapegrad_ops::gelu_with(x, s.approximate);
    /// `x sigmoid(x)` (`torch.nn.SiLU`).
    SiLU() {} |s, x| tapegrad_ops::silu(x);
    /// `x tanh(softplus(x))` (`torch.nn.Mish`).
    Mish() {} |s, x| tapegrad_ops::mish(x);
    /// A smooth rectifier (`torch.nn.Softplus`).
    Softplus() { beta: f64 = 1.0, threshold: f64 = 20.0 } |s, x| tapegrad_ops::softplus_with(x, s.beta, s.threshold);
    /// `x / (1 + |x|)` (`torch.nn.Softsign`).
    Softsign() {} |s, x| tapegrad_ops::softsign(x);
    /// The logistic function (`torch.nn.Sigmoid`).
    Sigmoid() {} |s, x| x.sigmoid();
    /// The logarithm of the logistic function (`torch.nn.LogSigmoid`).
    LogSigmoid() {} |s, x| tapegrad_ops::logsigmoid(x);
    /// The hyperbolic tangent (`torch.nn.Tanh`).
    Tanh() {} |s, x| x.tanh();
    /// `x - tanh(x)` (`torch.nn.Tanhshrink`).
    Tanhshrink() {} |s, x| tapegrad_ops::tanhshrink(x);
    /// Zero near zero, the identity elsewhere (`torch.nn.Hardshrink`).
    Hardshrink() { lambd: f64 = 0.5 } |s, x| tapegrad_ops::hardshrink_with(x, s.lambd);
    /// Zero near zero, shifted towards it elsewhere (`torch.nn.Softshrink`).
    Softshrink() { lambd: f64 = 0.5 } |s, x| tapegrad_ops::softshrink_with(x, s.lambd);
    /// A piecewise linear approximation of the logistic function (`torch.nn.Hardsigmoid`).
    Hardsigmoid() {} |s, x| tapegrad_ops::hardsigmoid(x);
    /// `x hardsigmoid(x)` (`torch.nn.Hardswish`).
    Hardswish() {} |s, x| tapegrad_ops::hardswish(x);
    /// Clamped to a range (`torch.nn.Hardtanh`).
    Hardtanh() { min_val: f64 = -1.0, max_val: f64 = 1.0 } |s, x| tapegrad_ops::hardtanh_with(x, s.min_val, s.max_val);
    /// One value up to a threshold, the identity above (`torch.nn.Threshold`).
    Threshold(threshold: f64, value: f64) {} |s, x| tapegrad_ops::threshold(x, s.threshold, s.value);
    /// Half of the channels, gated by the other half (`torch.nn.GLU`).
    GLU() { dim: isize = -1 } |s, x| {
        let halves = x.chunk(2, s.dim);
        assert!(
            halves.len() == 2 && halves[0].shape() == halves[1].shape(),
            "GLU: dimension {} of {:?} must be even",
            s.dim,
            x.shape()
        );
        &halves[0] * halves[1].sigmoid()
    };
    /// Exponentials that sum to one along a dimension (`torch.nn.Softmax`).
    Softmax(dim: isize) {} |s, x| tapegrad_ops::softmax(x, s.dim);
    /// The logarithm of the softmax (`torch.nn.LogSoftmax`).
    LogSoftmax(dim: isize) {} |s, x| tapegrad_ops::log_softmax(x, s.dim);
    /// The softmax of the negative (`torch.nn.Softmin`).
    Softmin(dim: isize) {} |s, x| tapegrad_ops::softmin(x, s.dim);
    /// The softmax over the channels of `[N, C, H, W]` or `[C, H, W]` (`torch.nn.Softmax2d`).
    Softmax2d() {} |s, x| {
        assert!(
            (3..=4).contains(&x.ndim()),
            "Softmax2d: the input is [N, C, H, W] or [C, H, W], got shape {:?}",
            x.shape()
        );
        tapegrad_ops::softmax(x, -3)
    };
}

crate::module! {
    /// The rectifier with a learned slope below zero (`torch.nn.PReLU`).
    ///
    /// ```
    /// use tapegrad_nn::{Forward, PReLU};
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![-4f32, 2.0], &[1, 2]);
    /// assert_eq!(PReLU::new(1).forward(&x).to_vec::<f32>(), [-1.0, 2.0]);
    /// ```
    pub struct PReLU {
        /// One slope for all channels, or one for each.
        pub weight: Var,
    }
}

impl PReLU {
    /// Slopes of 0.25: one, or one for each channel.
    pub fn new(num_parameters: usize) -> PReLU {
        PReLU { weight: Var::parameter(Tensor::full_with(&[num_parameters], 0.25, DType::F32)) }
    }

    /// This module with other initial slopes.
    pub fn init(self, slope: f64) -> PReLU {
        constant_(&self.weight, slope);
        self
    }
}

impl Forward for PReLU {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| tapegrad_ops::prelu(x, &self.weight))
    }
}
