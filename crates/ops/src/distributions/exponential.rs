//! `Exponential`.

use super::{Distribution, check_shape, check_value, numbers, parameters, require_positive, sample_shape};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{Generator, Operand, Var};

/// The exponential distribution (`torch.distributions.Exponential`).
///
/// ```
/// use tapegrad_ops::distributions::{Distribution, Exponential};
/// assert_eq!(Exponential::new(4.0).mean().item(), 0.25);
/// ```
#[derive(Clone, Debug)]
pub struct Exponential {
    /// The inverse of the mean.
    pub rate: Var,
}

impl Exponential {
    /// With this rate.
    ///
    /// # Panics
    /// If a rate is not positive.
    #[track_caller]
    pub fn new(rate: impl Into<Operand>) -> Exponential {
        let [rate] = parameters("Exponential", [rate.into()]);
        require_positive("Exponential", "parameter rate", &rate);
        Exponential { rate }
    }

    #[track_caller]
    fn check(&self, function: &str, value: &Var) {
        check_shape(self, function, value);
        check_value(self, function, value, "at least 0", &value.ge(0));
    }
}

impl Distribution for Exponential {
    fn name(&self) -> &'static str {
        "Exponential"
    }

    fn batch_shape(&self) -> Dims {
        self.rate.shape().into()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        let shape = sample_shape(self, shape);
        numbers(&shape, self.rate.dtype(), || generator.next_exponential()) / &self.rate
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        self.check("log_prob", value);
        self.rate.log() - &self.rate * value
    }

    fn mean(&self) -> Var {
        self.rate.reciprocal()
    }

    fn variance(&self) -> Var {
        self.rate.pow(-2)
    }

    fn stddev(&self) -> Var {
        self.rate.reciprocal()
    }

    fn entropy(&self) -> Var {
        1.0 - self.rate.log()
    }

    #[track_caller]
    fn cdf(&self, value: &Var) -> Var {
        self.check("cdf", value);
        -(-(&self.rate * value)).expm1()
    }

    #[track_caller]
    fn icdf(&self, value: &Var) -> Var {
        -(-value).log1p() / &self.rate
    }
}
