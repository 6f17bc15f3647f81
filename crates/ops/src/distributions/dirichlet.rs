//! `Dirichlet`.

use super::implicit::standard_dirichlet;
use super::{Distribution, check_shape, check_value, parameters, require_positive, sample_shape};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{Generator, Var, xlogy};

/// The Dirichlet distribution of positive vectors whose sum is 1 (`torch.distributions.Dirichlet`).
///
/// Samples are differentiable by implicit reparameterization, as [`Beta`](super::Beta)'s, once; the gradient is that of
/// Jankowiak and Obermeyer 2018, "Pathwise derivatives beyond the reparameterization trick", as in PyTorch.
///
/// ```
/// use tapegrad_ops::distributions::{Dirichlet, Distribution};
/// use tapegrad_tape::Var;
/// let d = Dirichlet::new(&Var::from_vec(vec![1f32, 3.0], 2));
/// assert_eq!(d.mean().to_vec::<f32>(), [0.25, 0.75]);
/// ```
#[derive(Clone, Debug)]
pub struct Dirichlet {
    /// The concentrations `[..., n]`.
    pub concentration: Var,
}

impl Dirichlet {
    /// With these concentrations `[..., n]`.
    ///
    /// # Panics
    /// If there is no dimension, or a concentration is not positive.
    #[track_caller]
    pub fn new(concentration: &Var) -> Dirichlet {
        assert!(concentration.ndim() > 0, "Dirichlet: the concentrations must have at least one dimension");
        let [concentration] = parameters("Dirichlet", [concentration.into()]);
        require_positive("Dirichlet", "parameter concentration", &concentration);
        Dirichlet { concentration }
    }
}

impl Distribution for Dirichlet {
    fn name(&self) -> &'static str {
        "Dirichlet"
    }

    fn batch_shape(&self) -> Dims {
        self.concentration.shape()[..self.concentration.ndim() - 1].into()
    }

    fn event_shape(&self) -> Dims {
        self.concentration.shape()[self.concentration.ndim() - 1..].into()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        standard_dirichlet(&self.concentration.expand_to(&sample_shape(self, shape)), generator)
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        check_shape(self, "log_prob", value);
        check_value(self, "log_prob", value, "at least 0", &value.ge(0));
        let sums = value.sum(-1);
        check_value(self, "log_prob", &sums, "a vector whose sum is 1", &(&sums - 1.0).abs().lt(1e-6));
        let a = &self.concentration;
        xlogy(a - 1.0, value).sum(-1) + a.sum(-1).lgamma() - a.lgamma().sum(-1)
    }

    fn mean(&self) -> Var {
        &self.concentration / self.concentration.sum_keepdim(-1)
    }

    fn variance(&self) -> Var {
        let (a, total) = (&self.concentration, self.concentration.sum_keepdim(-1));
        a * (&total - a) / (total.square() * (&total + 1.0))
    }

    fn entropy(&self) -> Var {
        let (a, k) = (&self.concentration, self.concentration.size(-1) as f64);
        let total = a.sum(-1);
        a.lgamma().sum(-1)
            - total.lgamma()
            - (k - &total) * total.digamma()
            - ((a - 1.0) * a.digamma()).sum(-1)
    }
}
