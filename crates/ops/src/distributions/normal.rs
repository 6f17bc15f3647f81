//! `Normal`.

use super::{Distribution, check_real, numbers, parameters, require_positive, require_real, sample_shape};
use std::f64::consts::{PI, SQRT_2};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{Generator, Operand, Var};

/// The normal distribution (`torch.distributions.Normal`).
///
/// ```
/// use tapegrad_ops::distributions::{Distribution, Normal};
/// use tapegrad_tape::Var;
/// let d = Normal::new(1.0, 2.0);
/// assert_eq!((d.mean().item(), d.variance().item()), (1.0, 4.0));
/// assert!((d.cdf(&Var::from(1.0)).item() - 0.5).abs() < 1e-6);
/// ```
#[derive(Clone, Debug)]
pub struct Normal {
    /// The mean.
    pub loc: Var,
    /// The standard deviation.
    pub scale: Var,
}

impl Normal {
    /// With this mean and standard deviation.
    ///
    /// # Panics
    /// If a mean is NaN, a standard deviation is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(loc: impl Into<Operand>, scale: impl Into<Operand>) -> Normal {
        let [loc, scale] = parameters("Normal", [loc.into(), scale.into()]);
        require_real("Normal", "parameter loc", &loc);
        require_positive("Normal", "parameter scale", &scale);
        Normal { loc, scale }
    }
}

impl Distribution for Normal {
    fn name(&self) -> &'static str {
        "Normal"
    }

    fn batch_shape(&self) -> Dims {
        self.loc.shape().into()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        let shape = sample_shape(self, shape);
        &self.loc + numbers(&shape, self.loc.dtype(), || generator.next_normal()) * &self.scale
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        check_real(self, "log_prob", value);
        let z = (value - &self.loc) / &self.scale;
        z.square() * -0.5 - self.scale.log() - 0.5 * (2.0 * PI).ln()
    }

    fn mean(&self) -> Var {
        self.loc.clone()
    }

    fn variance(&self) -> Var {
        self.scale.square()
    }

    fn stddev(&self) -> Var {
        self.scale.clone()
    }

    fn entropy(&self) -> Var {
        self.scale.log() + (0.5 + 0.5 * (2.0 * PI).ln())
    }

    #[track_caller]
    fn cdf(&self, value: &Var) -> Var {
        check_real(self, "cdf", value);
        0.5 * (1.0 + ((value - &self.loc) / (&self.scale * SQRT_2)).erf())
    }

    #[track_caller]
    fn icdf(&self, value: &Var) -> Var {
        &self.loc + &self.scale * (2.0 * value - 1.0).erfinv() * SQRT_2
    }
}
