//! `Beta`.

use super::{Dirichlet, Distribution, check_shape, check_value, parameters, require_positive};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{Generator, Operand, Var, stack};

/// The Beta distribution on `[0, 1]` (`torch.distributions.Beta`).
///
/// Samples are differentiable with respect to both concentrations by implicit reparameterization (Figurnov, Mohamed and
/// Mnih 2018, "Implicit reparameterization gradients"), once.
///
/// ```
/// use tapegrad_ops::distributions::{Beta, Distribution};
/// let d = Beta::new(1.0, 3.0);
/// assert_eq!(d.mean().item(), 0.25);
/// assert!((0.0..=1.0).contains(&d.sample(()).item()));
/// ```
#[derive(Clone, Debug)]
pub struct Beta {
    /// The first concentration, alpha.
    pub concentration1: Var,
    /// The second concentration, beta.
    pub concentration0: Var,
}

impl Beta {
    /// With these concentrations, alpha and beta.
    ///
    /// # Panics
    /// If one is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(concentration1: impl Into<Operand>, concentration0: impl Into<Operand>) -> Beta {
        let [concentration1, concentration0] =
            parameters("Beta", [concentration1.into(), concentration0.into()]);
        require_positive("Beta", "parameter concentration1", &concentration1);
        require_positive("Beta", "parameter concentration0", &concentration0);
        Beta { concentration1, concentration0 }
    }

    /// The distribution of the number and what is left to 1.
    fn pair(&self) -> Dirichlet {
        Dirichlet { concentration: stack(&[&self.concentration1, &self.concentration0], -1) }
    }

    fn total(&self) -> Var {
        &self.concentration1 + &self.concentration0
    }
}

impl Distribution for Beta {
    fn name(&self) -> &'static str {
        "Beta"
    }

    fn batch_shape(&self) -> Dims {
        self.concentration1.shape().into()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        self.pair().draw(shape, generator).select(-1, 0isize)
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        check_shape(self, "log_prob", value);
        let inside = value.ge(0).logical_and(&value.le(1));
        check_value(self, "log_prob", value, "in [0, 1]", &inside);
        let (a, b) = (&self.concentration1, &self.concentration0);
        tapegrad_tape::xlogy(a - 1.0, value) + tapegrad_tape::xlog1py(b - 1.0, -value) + self.total().lgamma()
            - a.lgamma()
            - b.lgamma()
    }

    fn mean(&self) -> Var {
        &self.concentration1 / self.total()
    }

    fn variance(&self) -> Var {
        let total = self.total();
        &self.concentration1 * &self.concentration0 / (total.square() * (&total + 1.0))
    }

    fn entropy(&self) -> Var {
        self.pair().entropy()
    }
}
