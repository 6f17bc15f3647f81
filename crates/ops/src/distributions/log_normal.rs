//! `LogNormal`.

use super::{Distribution, Normal, check_shape, check_value};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{Generator, Operand, Var};

/// The distribution of numbers whose logarithm is normally distributed (`torch.distributions.LogNormal`).
///
/// ```
/// use tapegrad_ops::distributions::{Distribution, LogNormal};
/// use tapegrad_tape::Var;
/// let d = LogNormal::new(0.0, 1.0);
/// assert!((d.mean().item() - 0.5f64.exp()).abs() < 1e-6);
/// assert!((d.cdf(&Var::from(1.0)).item() - 0.5).abs() < 1e-6);
/// ```
#[derive(Clone, Debug)]
pub struct LogNormal {
    /// The distribution of the logarithm.
    pub base: Normal,
}

impl LogNormal {
    /// With this mean and standard deviation of the logarithm.
    ///
    /// # Panics
    /// If a mean is NaN, a standard deviation is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(loc: impl Into<Operand>, scale: impl Into<Operand>) -> LogNormal {
        LogNormal { base: Normal::new(loc, scale) }
    }

    #[track_caller]
    fn check(&self, function: &str, value: &Var) {
        check_shape(self, function, value);
        check_value(self, function, value, "positive", &value.gt(0));
    }
}

impl Distribution for LogNormal {
    fn name(&self) -> &'static str {
        "LogNormal"
    }

    fn batch_shape(&self) -> Dims {
        self.base.batch_shape()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        self.base.draw(shape, generator).exp()
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        self.check("log_prob", value);
        let log = value.log();
        self.base.log_prob(&log) - log
    }

    fn mean(&self) -> Var {
        (&self.base.loc + self.base.variance() * 0.5).exp()
    }

    fn variance(&self) -> Var {
        let square = self.base.variance();
        square.expm1() * (&self.base.loc * 2.0 + &square).exp()
    }

    fn entropy(&self) -> Var {
        self.base.entropy() + &self.base.loc
    }

    #[track_caller]
    fn cdf(&self, value: &Var) -> Var {
        self.check("cdf", value);
        self.base.cdf(&value.log())
    }

    #[track_caller]
    fn icdf(&self, value: &Var) -> Var {
        self.base.icdf(value).exp()
    }
}
