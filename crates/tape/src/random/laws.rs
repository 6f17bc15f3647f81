//! Tensors of independent numbers of one law: `exponential`, `geometric`, `cauchy`, `log_normal`.

use super::{Generator, with_default_generator};
use crate::dtype::{DType, default_dtype};
use crate::int_list::IntList;
use crate::tensor::Tensor;
use crate::var::Var;

/// Makes functions of [`Tensor`] and [`Var`] from a law: the check of its parameters, and how one number is drawn.
macro_rules! laws {
    ($($(#[$meta:meta])* $name:ident, $with:ident($($p:ident),*): $fits:expr, $message:literal; |$g:ident| $next:expr;)*) => {$(
        impl Tensor {
            $(#[$meta])*
            #[track_caller]
            pub fn $name(shape: impl IntList, $($p: f64),*) -> Tensor {
                with_default_generator(|g| Tensor::$with(shape, $($p,)* g))
            }

            #[doc = concat!("[`Tensor::", stringify!($name), "`] from a generator.")]
            ///
            /// # Panics
            #[doc = concat!("Same as [`Tensor::", stringify!($name), "`].")]
            #[track_caller]
            pub fn $with(shape: impl IntList, $($p: f64,)* generator: &mut Generator) -> Tensor {
                let op = stringify!($name);
                let shape = shape.to_sizes(op);
                assert!($fits, $message, $($p = $p),*);
                let next = |$g: &mut Generator| $next;
                match default_dtype() {
                    DType::F64 => generator.fill::<f64>(op, &shape, next),
                    _ => generator.fill::<f32>(op, &shape, next),
                }
            }
        }

        impl Var {
            #[doc = concat!("[`Tensor::", stringify!($name), "`] as a constant.")]
            #[track_caller]
            pub fn $name(shape: impl IntList, $($p: f64),*) -> Var {
                Tensor::$name(shape, $($p),*).into()
            }

            #[doc = concat!("[`Tensor::", stringify!($with), "`] as a constant.")]
            #[track_caller]
            pub fn $with(shape: impl IntList, $($p: f64,)* generator: &mut Generator) -> Var {
                Tensor::$with(shape, $($p,)* generator).into()
            }
        }
    )*};
}

laws! {
    /// Positive numbers of the exponential distribution with rate `lambd`, whose mean is `1 / lambd`, in the [default
    /// type](crate::set_default_dtype) (`torch.empty(shape).exponential_(lambd)`), from this thread's default generator.
    ///
    /// # Panics
    /// If `lambd` is not positive.
    ///
    /// ```
    /// use tapegrad_tape::{Generator, Tensor};
    /// let t = Tensor::exponential_with((2, 3), 0.5, &mut Generator::manual_seed(0));
    /// assert!(t.to_vec::<f32>().iter().all(|&v| v > 0.0));
    /// ```
    exponential, exponential_with(lambd): lambd > 0.0, "exponential: expects lambda > 0, but found lambda = {lambd}";
        |g| g.next_exponential() / lambd;

    /// How many independent trials it takes until one succeeds, from 1 on, where each succeeds with probability `p`; in the
    /// [default type](crate::set_default_dtype) (`torch.empty(shape).geometric_(p)`), from this thread's default generator.
    ///
    /// # Panics
    /// If `p` is not in `(0, 1)`.
    ///
    /// ```
    /// use tapegrad_tape::{Generator, Tensor};
    /// let t = Tensor::geometric_with(100, 0.5, &mut Generator::manual_seed(0));
    /// assert!(t.to_vec::<f32>().iter().all(|&v| v >= 1.0 && v.fract() == 0.0));
    /// ```
    geometric, geometric_with(p): p > 0.0 && p < 1.0, "geometric: expects p to be in (0, 1), but got p = {p}";
        |g| g.next_geometric(p);

    /// Numbers of the Cauchy distribution around `median` with scale `sigma`, in the [default
    /// type](crate::set_default_dtype) (`torch.empty(shape).cauchy_(median, sigma)`), from this thread's default generator.
    ///
    /// # Panics
    /// If `sigma` is not positive.
    ///
    /// ```
    /// use tapegrad_tape::{Generator, Tensor};
    /// assert_eq!(Tensor::cauchy_with((2, 3), 0.0, 1.0, &mut Generator::manual_seed(0)).shape(), [2, 3]);
    /// ```
    cauchy, cauchy_with(median, sigma): sigma > 0.0, "cauchy: expects sigma > 0, but found median = {median}, sigma = {sigma}";
        |g| median + sigma * g.next_cauchy();

    /// Numbers whose logarithms are normally distributed with this mean and standard deviation, in the [default
    /// type](crate::set_default_dtype) (`torch.empty(shape).log_normal_(mean, std)`), from this thread's default generator.
    ///
    /// # Panics
    /// If `std` is not positive.
    ///
    /// ```
    /// use tapegrad_tape::{Generator, Tensor};
    /// let t = Tensor::log_normal_with((2, 3), 1.0, 2.0, &mut Generator::manual_seed(0));
    /// assert!(t.to_vec::<f32>().iter().all(|&v| v > 0.0));
    /// ```
    log_normal, log_normal_with(mean, std): std > 0.0, "log_normal: expects std > 0, but found mean = {mean}, std = {std}";
        |g| libm::exp(mean + std * g.next_normal());
}
