//! Probability distributions with densities, samples and gradients (`torch.distributions`).
//!
//! A distribution is a struct of parameters. Its *batch* is what the parameters broadcast to; an *event* is one outcome:
//! a number, or a vector for [`Dirichlet`] and [`Independent`]. A sample has the shape `[sample, batch, event]`, a
//! log-density the shape `[sample, batch]`.
//!
//! ```
//! use tapegrad_ops::distributions::{Distribution, Normal, kl_divergence};
//! use tapegrad_tape::{Tensor, Var};
//! let loc = Var::parameter(Tensor::zeros(3));
//! let q = Normal::new(&loc, 0.5);
//! let z = q.rsample(10);
//! let loss = z.square().mean_all() + kl_divergence(&q, &Normal::new(0.0, 1.0)).mean_all();
//! loss.backward();
//! assert_eq!((z.shape(), loc.grad().unwrap().shape()), (&[10, 3][..], &[3][..]));
//! ```
//!
//! Parameters are numbers or variables, which broadcast; those that no distribution has (a scale of zero) panic, and so
//! do values outside of the support, as in PyTorch.

mod bernoulli;
mod beta;
mod categorical;
mod dirichlet;
mod exponential;
mod gamma;
mod implicit;
mod independent;
mod kl;
mod laplace;
mod log_normal;
mod normal;
mod uniform;

pub use bernoulli::Bernoulli;
pub use beta::Beta;
pub use categorical::Categorical;
pub use dirichlet::Dirichlet;
pub use exponential::Exponential;
pub use gamma::Gamma;
pub use independent::Independent;
pub use kl::{KlDivergence, kl_divergence};
pub use laplace::Laplace;
pub use log_normal::LogNormal;
pub use normal::Normal;
pub use uniform::Uniform;

use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::shape::{Dims, broadcast, numel_for};
use tapegrad_tape::{
    DType, Generator, IntList, Operand, Tensor, Var, broadcast_tensors, default_dtype, no_grad, result_type,
    with_default_generator,
};

/// What all distributions have in common (`torch.distributions.Distribution`).
pub trait Distribution {
    /// The name, as in PyTorch.
    fn name(&self) -> &'static str;

    /// The shape of the parameters: one distribution for each element.
    fn batch_shape(&self) -> Dims;

    /// The shape of one outcome.
    fn event_shape(&self) -> Dims {
        Dims::new()
    }

    /// Whether samples are differentiable functions of the parameters.
    fn has_rsample(&self) -> bool {
        true
    }

    /// Samples of shape `[sample_shape, batch_shape, event_shape]`, differentiable with
    /// [`has_rsample`](Distribution::has_rsample). Programs call [`sample`](Distribution::sample) and
    /// [`rsample`](Distribution::rsample).
    fn draw(&self, sample_shape: &[usize], generator: &mut Generator) -> Var;

    /// The logarithm of the density, or of the probability of a discrete outcome.
    ///
    /// # Panics
    /// If the shape of the value does not fit, or one of its elements is outside of the support.
    fn log_prob(&self, value: &Var) -> Var;

    /// The mean.
    fn mean(&self) -> Var;

    /// The variance.
    fn variance(&self) -> Var;

    /// The standard deviation.
    fn stddev(&self) -> Var {
        self.variance().sqrt()
    }

    /// The entropy in nats.
    fn entropy(&self) -> Var;

    /// The probability of outcomes up to the value.
    ///
    /// # Panics
    /// For distributions whose distribution function PyTorch does not have; and like
    /// [`log_prob`](Distribution::log_prob).
    #[track_caller]
    fn cdf(&self, _value: &Var) -> Var {
        panic!("{}: cdf is not implemented, as in PyTorch", self.name())
    }

    /// The inverse of [`cdf`](Distribution::cdf).
    ///
    /// # Panics
    /// For distributions without it.
    #[track_caller]
    fn icdf(&self, _value: &Var) -> Var {
        panic!("{}: icdf is not implemented, as in PyTorch", self.name())
    }

    /// Samples without gradient, of shape `[sample_shape, batch_shape, event_shape]`, from this thread's default generator;
    /// a single one of each for `()`.
    #[track_caller]
    fn sample(&self, sample_shape: impl IntList) -> Var
    where
        Self: Sized,
    {
        with_default_generator(|g| self.sample_with(sample_shape, g))
    }

    /// [`sample`](Distribution::sample) from a generator.
    #[track_caller]
    fn sample_with(&self, sample_shape: impl IntList, generator: &mut Generator) -> Var
    where
        Self: Sized,
    {
        no_grad(|| self.draw(&sample_shape.to_sizes("sample"), generator)).detach()
    }

    /// Samples that are differentiable functions of the parameters, of shape `[sample_shape, batch_shape, event_shape]`,
    /// from this thread's default generator.
    ///
    /// # Panics
    /// For discrete distributions.
    #[track_caller]
    fn rsample(&self, sample_shape: impl IntList) -> Var
    where
        Self: Sized,
    {
        with_default_generator(|g| self.rsample_with(sample_shape, g))
    }

    /// [`rsample`](Distribution::rsample) from a generator.
    ///
    /// # Panics
    /// Same as [`rsample`](Distribution::rsample).
    #[track_caller]
    fn rsample_with(&self, sample_shape: impl IntList, generator: &mut Generator) -> Var
    where
        Self: Sized,
    {
        assert!(self.has_rsample(), "{}: samples have no gradient; use sample", self.name());
        self.draw(&sample_shape.to_sizes("rsample"), generator)
    }
}

/// Parameters of one floating-point type and shape. Numbers take the type of the variables.
#[track_caller]
fn parameters<const N: usize>(op: &str, values: [Operand; N]) -> [Var; N] {
    let variables: Vec<&Operand> = values.iter().filter(|v| v.input().is_some()).collect();
    let dtype = if variables.is_empty() { default_dtype() } else { result_type(&variables) };
    assert!(dtype.is_float(), "{op}: the parameters have to be floating point, not {dtype}");
    let values = values.map(|v| match v {
        Operand::Var(v) => v.cast(dtype),
        Operand::Scalar(s) => Tensor::full_with((), s, dtype).into(),
    });
    let shapes = values.iter().try_fold(Dims::new(), |all, v| broadcast(&all, v.shape()));
    assert!(
        shapes.is_some(),
        "{op}: the shapes of the parameters do not broadcast: {:?}",
        values.iter().map(Var::shape).collect::<Vec<_>>()
    );
    broadcast_tensors(&values).try_into().unwrap_or_else(|_| unreachable!("as many as before"))
}

/// Panics at the first element for which a condition does not hold.
#[track_caller]
fn require(op: &str, what: &str, x: &Var, wanted: &str, holds: &Var) {
    if holds.all(()).item() == 1.0 {
        return;
    }
    let values = x.expand_to(holds.shape()).to_vec::<f64>();
    let i = holds.to_vec::<bool>().iter().position(|&fits| !fits).expect("one does not");
    panic!("{op}: expected {what} to be {wanted}, but element {i} is {}", values[i])
}

/// Panics at the first parameter that is not positive.
#[track_caller]
fn require_positive(op: &str, what: &str, x: &Var) {
    require(op, what, x, "positive", &x.gt(0));
}

/// Panics at the first parameter that is not a number.
#[track_caller]
fn require_real(op: &str, what: &str, x: &Var) {
    require(op, what, x, "real", &x.isnan().logical_not());
}

/// Panics if the shape of a value does not fit.
#[track_caller]
fn check_shape(d: &dyn Distribution, function: &str, value: &Var) {
    let shape = [&d.batch_shape()[..], &d.event_shape()[..]].concat();
    let event = d.event_shape().len();
    let fits = value.ndim() >= event
        && value.shape()[value.ndim() - event..] == shape[shape.len() - event..]
        && broadcast(value.shape(), &shape).is_some();
    assert!(
        fits,
        "{}.{function}: expected a value that broadcasts with {shape:?}, the batch and the event shape, but got shape {:?}",
        d.name(),
        value.shape()
    );
}

/// Panics if the shape of a value does not fit, or at its first element outside of the support.
#[track_caller]
fn check_value(d: &dyn Distribution, function: &str, value: &Var, wanted: &str, holds: &Var) {
    require(&format!("{}.{function}", d.name()), "the value", value, wanted, holds);
}

/// [`check_value`] where the support is the real numbers.
#[track_caller]
fn check_real(d: &dyn Distribution, function: &str, value: &Var) {
    check_shape(d, function, value);
    check_value(d, function, value, "real", &value.isnan().logical_not());
}

/// The shape of samples.
#[track_caller]
fn sample_shape(d: &dyn Distribution, leading: &[usize]) -> Dims {
    let shape: Dims = [leading, &d.batch_shape(), &d.event_shape()].concat().into();
    numel_for(d.name(), &shape);
    shape
}

/// Independent random numbers in a type.
fn numbers(shape: &[usize], dtype: DType, mut next: impl FnMut() -> f64) -> Var {
    let values = list_for("sample", shape.iter().product(), |_| next());
    Tensor::from_vec(values, shape).cast(dtype).into()
}

/// A number in `[0, 1)` with as many bits as elements of the type hold exactly.
fn uniform(dtype: DType, generator: &mut Generator) -> f64 {
    match dtype {
        DType::F64 => generator.next_f64(),
        DType::F32 => (generator.next_u64() >> 40) as f64 / (1u64 << 24) as f64,
        _ => (generator.next_u64() >> 56) as f64 / 256.0,
    }
}
