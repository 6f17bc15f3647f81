//! The operations of this crate as methods.

use crate::{AvgPoolOptions, ConvOptions, CrossEntropyOptions, InterpolateOptions, MaxPoolOptions};
use tapegrad_tape::{IntList, Scalar, Var};

/// Defines the trait and its implementation; a row is a method and the arguments of the function that it calls.
macro_rules! methods {
    ($($name:ident $(<$lt:lifetime>)? ($($arg:ident: $ty:ty),*) => ($($pass:expr),*);)*) => {
        /// Operations of this crate as methods of [`Var`], with the names that they have on `torch.Tensor`.
        ///
        /// ```
        /// use tapegrad_ops::VarOps;
        /// use tapegrad_tape::Var;
        /// let x = Var::from_vec(vec![1f32, -2.0], &[2]);
        /// assert_eq!(x.relu().dot(&x).item(), 1.0);
        /// ```
        pub trait VarOps {
            $(
                #[doc = concat!("See [`crate::", stringify!($name), "`].")]
                #[track_caller]
                fn $name$(<$lt>)?(&self, $($arg: $ty),*) -> Var;
            )*
        }

        impl VarOps for Var {
            $(
                #[track_caller]
                fn $name$(<$lt>)?(&self, $($arg: $ty),*) -> Var {
                    crate::$name(self, $($pass),*)
                }
            )*
        }
    };
}
methods! {
    matmul(other: &Var) => (other);
    mm(other: &Var) => (other);
    bmm(other: &Var) => (other);
    mv(vector: &Var) => (vector);
    dot(other: &Var) => (other);
    outer(other: &Var) => (other);
    addmm(a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, b, beta, alpha);
    addmv(a: &Var, x: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, x, beta, alpha);
    baddbmm(a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, b, beta, alpha);
    relu() => ();
    relu6() => ();
    leaky_relu(slope: f64) => (slope);
    elu(alpha: f64) => (alpha);
    celu(alpha: f64) => (alpha);
    selu() => ();
    prelu(weight: &Var) => (weight);
    gelu() => ();
    gelu_with(approximate: crate::Approximate) => (approximate);
    silu() => ();
    mish() => ();
    softplus(beta: f64, threshold: f64) => (beta, threshold);
    softsign() => ();
    logsigmoid() => ();
    glu(dim: isize) => (dim);
    hardtanh(min_val: f64, max_val: f64) => (min_val, max_val);
    hardsigmoid() => ();
    hardswish() => ();
    hardshrink(lambd: f64) => (lambd);
    softshrink(lambd: f64) => (lambd);
    tanhshrink() => ();
    threshold(limit: f64, value: f64) => (limit, value);
    dropout(p: f64, training: bool) => (p, training);
    softmax(dim: isize) => (dim);
    log_softmax(dim: isize) => (dim);
    softmin(dim: isize) => (dim);
    linear<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv1d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv1d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvOptions<1>) => (weight, bias, options);
    conv2d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv2d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvOptions<2>) => (weight, bias, options);
    conv3d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv3d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvOptions<3>) => (weight, bias, options);
    max_pool1d(options: impl Into<MaxPoolOptions<1>>) => (options);
    max_pool2d(options: impl Into<MaxPoolOptions<2>>) => (options);
    max_pool3d(options: impl Into<MaxPoolOptions<3>>) => (options);
    avg_pool1d(options: impl Into<AvgPoolOptions<1>>) => (options);
    avg_pool2d(options: impl Into<AvgPoolOptions<2>>) => (options);
    avg_pool3d(options: impl Into<AvgPoolOptions<3>>) => (options);
    layer_norm<'a>(shape: impl IntList, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>) => (shape, weight, bias);
    rms_norm<'a>(shape: impl IntList, weight: impl Into<Option<&'a Var>>) => (shape, weight);
    group_norm<'a>(groups: usize, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>) => (groups, weight, bias);
    cross_entropy(target: &Var) => (target);
    cross_entropy_with(target: &Var, options: CrossEntropyOptions) => (target, options);
    nll_loss(target: &Var) => (target);
    mse_loss(target: &Var) => (target);
    l1_loss(target: &Var) => (target);
    interpolate(options: InterpolateOptions) => (options);
    pixel_shuffle(upscale_factor: usize) => (upscale_factor);
    pixel_unshuffle(downscale_factor: usize) => (downscale_factor);
}
