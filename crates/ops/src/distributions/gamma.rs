//! `Gamma`.

use super::implicit::{gamma_cdf, standard_gamma};
use super::{Distribution, check_shape, check_value, parameters, require_positive, sample_shape};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{DType, Generator, Operand, Var, xlogy};

/// The gamma distribution (`torch.distributions.Gamma`).
///
/// Samples are differentiable with respect to the concentration by implicit reparameterization (Figurnov, Mohamed and Mnih
/// 2018, "Implicit reparameterization gradients"), once.
///
/// ```
/// use tapegrad_ops::distributions::{Distribution, Gamma};
/// let d = Gamma::new(3.0, 2.0);
/// assert_eq!((d.mean().item(), d.variance().item()), (1.5, 0.75));
/// ```
#[derive(Clone, Debug)]
pub struct Gamma {
    /// The shape parameter.
    pub concentration: Var,
    /// The inverse of the scale.
    pub rate: Var,
}

impl Gamma {
    /// With this shape parameter and rate.
    ///
    /// # Panics
    /// If one is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(concentration: impl Into<Operand>, rate: impl Into<Operand>) -> Gamma {
        let [concentration, rate] = parameters("Gamma", [concentration.into(), rate.into()]);
        require_positive("Gamma", "parameter concentration", &concentration);
        require_positive("Gamma", "parameter rate", &rate);
        Gamma { concentration, rate }
    }

    #[track_caller]
    fn check(&self, function: &str, value: &Var) {
        check_shape(self, function, value);
        check_value(self, function, value, "at least 0", &value.ge(0));
    }
}

impl Distribution for Gamma {
    fn name(&self) -> &'static str {
        "Gamma"
    }

    fn batch_shape(&self) -> Dims {
        self.rate.shape().into()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        let shape = sample_shape(self, shape);
        let y = standard_gamma(&self.concentration.expand_to(&shape), generator) / &self.rate;
        // Numbers that are too small become the smallest one; the gradient stays.
        let tiny = match y.dtype() {
            DType::F64 => f64::MIN_POSITIVE,
            DType::F16 => 6.103515625e-5,
            _ => f64::from(f32::MIN_POSITIVE),
        };
        let value = y.detach();
        let raised = value.clamp_min(tiny) - value;
        y + raised
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        self.check("log_prob", value);
        xlogy(&self.concentration, &self.rate) + xlogy(&self.concentration - 1.0, value)
            - &self.rate * value
            - self.concentration.lgamma()
    }

    fn mean(&self) -> Var {
        &self.concentration / &self.rate
    }

    fn variance(&self) -> Var {
        &self.concentration / self.rate.square()
    }

    fn entropy(&self) -> Var {
        let a = &self.concentration;
        a - self.rate.log() + a.lgamma() + (1.0 - a) * a.digamma()
    }

    /// The regularized incomplete gamma function. Other than PyTorch's, it is differentiable with respect to the
    /// concentration, too, once.
    #[track_caller]
    fn cdf(&self, value: &Var) -> Var {
        self.check("cdf", value);
        gamma_cdf(&self.concentration, &(&self.rate * value))
    }
}
