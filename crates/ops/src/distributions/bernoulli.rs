//! `Bernoulli`.

use super::{Distribution, check_shape, check_value, parameters, require, require_real, sample_shape};
use crate::{BceWithLogitsOptions, Reduction, binary_cross_entropy_with_logits_with};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{DType, Generator, Operand, Var};

/// The distribution of 1 with a probability and 0 otherwise (`torch.distributions.Bernoulli`).
///
/// ```
/// use tapegrad_ops::distributions::{Bernoulli, Distribution};
/// use tapegrad_tape::Var;
/// let d = Bernoulli::from_probs(0.25);
/// assert!((d.log_prob(&Var::from(1.0)).item() - 0.25f64.ln()).abs() < 1e-6);
/// ```
#[derive(Clone, Debug)]
pub struct Bernoulli {
    /// The probability of 1.
    pub probs: Var,
    /// The logarithm of the odds of 1.
    pub logits: Var,
}

impl Bernoulli {
    /// With this probability of 1.
    ///
    /// # Panics
    /// If a probability is not in `[0, 1]`.
    #[track_caller]
    pub fn from_probs(probs: impl Into<Operand>) -> Bernoulli {
        let [probs] = parameters("Bernoulli", [probs.into()]);
        let inside = probs.ge(0).logical_and(&probs.le(1));
        require("Bernoulli", "parameter probs", &probs, "in [0, 1]", &inside);
        // Certain outcomes keep finite logits, as in PyTorch.
        let eps = epsilon(probs.dtype());
        let clamped = probs.clamp(eps, 1.0 - eps);
        Bernoulli { logits: clamped.log() - (-&clamped).log1p(), probs }
    }

    /// With this logarithm of the odds of 1.
    ///
    /// # Panics
    /// If one is NaN.
    #[track_caller]
    pub fn from_logits(logits: impl Into<Operand>) -> Bernoulli {
        let [logits] = parameters("Bernoulli", [logits.into()]);
        require_real("Bernoulli", "parameter logits", &logits);
        Bernoulli { probs: logits.sigmoid(), logits }
    }

    fn cross_entropy(&self, target: &Var) -> Var {
        let shape = tapegrad_tape::shape::broadcast_for("Bernoulli", self.logits.shape(), target.shape());
        let (logits, target) =
            (self.logits.expand_to(&shape), target.expand_to(&shape).cast(self.logits.dtype()));
        binary_cross_entropy_with_logits_with(
            &logits,
            &target,
            BceWithLogitsOptions::new().reduction(Reduction::None),
        )
    }
}

/// Machine epsilon.
pub(super) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => f64::from(f32::EPSILON),
    }
}

impl Distribution for Bernoulli {
    fn name(&self) -> &'static str {
        "Bernoulli"
    }

    fn batch_shape(&self) -> Dims {
        self.probs.shape().into()
    }

    fn has_rsample(&self) -> bool {
        false
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        self.probs.expand_to(&sample_shape(self, shape)).bernoulli_with(generator)
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        check_shape(self, "log_prob", value);
        check_value(self, "log_prob", value, "0 or 1", &value.eq(0).logical_or(&value.eq(1)));
        -self.cross_entropy(value)
    }

    fn mean(&self) -> Var {
        self.probs.clone()
    }

    fn variance(&self) -> Var {
        &self.probs * (1.0 - &self.probs)
    }

    fn entropy(&self) -> Var {
        self.cross_entropy(&self.probs)
    }
}
