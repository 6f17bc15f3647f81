//! `Laplace`.

use super::{Distribution, check_real, numbers, parameters, require_positive, require_real, sample_shape};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{Generator, Operand, Var};

/// The Laplace distribution (`torch.distributions.Laplace`).
///
/// ```
/// use tapegrad_ops::distributions::{Distribution, Laplace};
/// use tapegrad_tape::Var;
/// let d = Laplace::new(0.0, 0.5);
/// assert_eq!((d.variance().item(), d.log_prob(&Var::from(0.0)).item()), (0.5, 0.0));
/// ```
#[derive(Clone, Debug)]
pub struct Laplace {
    /// The mean.
    pub loc: Var,
    /// The mean distance from the mean.
    pub scale: Var,
}

impl Laplace {
    /// With this mean and scale.
    ///
    /// # Panics
    /// If a mean is NaN, a scale is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(loc: impl Into<Operand>, scale: impl Into<Operand>) -> Laplace {
        let [loc, scale] = parameters("Laplace", [loc.into(), scale.into()]);
        require_real("Laplace", "parameter loc", &loc);
        require_positive("Laplace", "parameter scale", &scale);
        Laplace { loc, scale }
    }
}

impl Distribution for Laplace {
    fn name(&self) -> &'static str {
        "Laplace"
    }

    fn batch_shape(&self) -> Dims {
        self.loc.shape().into()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        let shape = sample_shape(self, shape);
        let unit = numbers(&shape, self.loc.dtype(), || {
            let distance = generator.next_exponential();
            if generator.next_u64() & 1 == 0 { distance } else { -distance }
        });
        &self.loc + unit * &self.scale
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        check_real(self, "log_prob", value);
        -(&self.scale * 2.0).log() - (value - &self.loc).abs() / &self.scale
    }

    fn mean(&self) -> Var {
        self.loc.clone()
    }

    fn variance(&self) -> Var {
        self.scale.square() * 2.0
    }

    fn stddev(&self) -> Var {
        &self.scale * std::f64::consts::SQRT_2
    }

    fn entropy(&self) -> Var {
        (&self.scale * 2.0).log() + 1.0
    }

    #[track_caller]
    fn cdf(&self, value: &Var) -> Var {
        check_real(self, "cdf", value);
        let off = value - &self.loc;
        0.5 - 0.5 * off.sign() * (-off.abs() / &self.scale).expm1()
    }

    #[track_caller]
    fn icdf(&self, value: &Var) -> Var {
        let term = value - 0.5;
        &self.loc - &self.scale * term.sign() * (term.abs() * -2.0).log1p()
    }
}
