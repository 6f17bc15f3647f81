//! `Uniform`.

use super::{
    Distribution, check_shape, check_value, numbers, parameters, require, require_real, sample_shape,
};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{Generator, Operand, Var};

/// The uniform distribution over `[low, high)` (`torch.distributions.Uniform`).
///
/// ```
/// use tapegrad_ops::distributions::{Distribution, Uniform};
/// use tapegrad_tape::Var;
/// let d = Uniform::new(-1.0, 3.0);
/// assert_eq!((d.mean().item(), d.cdf(&Var::from(0.0)).item()), (1.0, 0.25));
/// ```
#[derive(Clone, Debug)]
pub struct Uniform {
    /// The lower end, included.
    pub low: Var,
    /// The upper end, excluded.
    pub high: Var,
}

impl Uniform {
    /// Between these ends.
    ///
    /// # Panics
    /// If `low` is not below `high`, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(low: impl Into<Operand>, high: impl Into<Operand>) -> Uniform {
        let [low, high] = parameters("Uniform", [low.into(), high.into()]);
        require_real("Uniform", "parameter high", &high);
        require("Uniform", "parameter low", &low, "below high", &low.lt(&high));
        Uniform { low, high }
    }

    #[track_caller]
    fn check(&self, function: &str, value: &Var) {
        check_shape(self, function, value);
        let inside = value.ge(&self.low).logical_and(&value.le(&self.high));
        check_value(self, function, value, "between low and high", &inside);
    }

    fn width(&self) -> Var {
        &self.high - &self.low
    }
}

impl Distribution for Uniform {
    fn name(&self) -> &'static str {
        "Uniform"
    }

    fn batch_shape(&self) -> Dims {
        self.low.shape().into()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        let (shape, dtype) = (sample_shape(self, shape), self.low.dtype());
        &self.low + numbers(&shape, dtype, || super::uniform(dtype, generator)) * self.width()
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        self.check("log_prob", value);
        // The upper end does not belong to it.
        let inside = self.low.le(value).logical_and(&self.high.gt(value));
        inside.cast(self.low.dtype()).log() - self.width().log()
    }

    fn mean(&self) -> Var {
        (&self.high + &self.low) / 2.0
    }

    fn variance(&self) -> Var {
        self.width().square() / 12.0
    }

    fn stddev(&self) -> Var {
        self.width() / 12f64.sqrt()
    }

    fn entropy(&self) -> Var {
        self.width().log()
    }

    #[track_caller]
    fn cdf(&self, value: &Var) -> Var {
        self.check("cdf", value);
        ((value - &self.low) / self.width()).clamp(0, 1)
    }

    #[track_caller]
    fn icdf(&self, value: &Var) -> Var {
        value * self.width() + &self.low
    }
}
