//! `Categorical`.

use super::bernoulli::epsilon;
use super::{Distribution, check_shape, check_value, parameters, require, require_real, sample_shape};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{DType, Generator, Tensor, Var};

/// The distribution of the numbers `0..n` with given probabilities (`torch.distributions.Categorical`). Samples are I64.
///
/// ```
/// use tapegrad_ops::distributions::{Categorical, Distribution};
/// use tapegrad_tape::Var;
/// let d = Categorical::from_probs(&Var::from_vec(vec![1f32, 0.0, 3.0], 3));
/// assert!(d.sample(10).to_vec::<i64>().iter().all(|&i| i == 0 || i == 2));
/// assert!((d.log_prob(&Var::from(2)).item() - 0.75f64.ln()).abs() < 1e-6);
/// ```
#[derive(Clone, Debug)]
pub struct Categorical {
    /// The probabilities `[..., n]`, whose sum is 1.
    pub probs: Var,
    /// Their logarithms.
    pub logits: Var,
}

impl Categorical {
    /// With probabilities in proportion to these weights `[..., n]`.
    ///
    /// # Panics
    /// If there is no dimension, or a weight is negative or NaN, or all of a vector are zero.
    #[track_caller]
    pub fn from_probs(probs: &Var) -> Categorical {
        assert!(probs.ndim() > 0, "Categorical: the probabilities must have at least one dimension");
        let [probs] = parameters("Categorical", [probs.into()]);
        require("Categorical", "parameter probs", &probs, "at least 0", &probs.ge(0));
        let sums = probs.sum_keepdim(-1);
        require("Categorical", "the sum of probs", &sums, "positive", &sums.gt(0));
        let probs = probs / sums;
        // Zero probabilities keep finite logarithms, as in PyTorch.
        let eps = epsilon(probs.dtype());
        Categorical { logits: probs.clamp(eps, 1.0 - eps).log(), probs }
    }

    /// With these logarithms of probabilities `[..., n]` up to a constant.
    ///
    /// # Panics
    /// If there is no dimension, or one is NaN.
    #[track_caller]
    pub fn from_logits(logits: &Var) -> Categorical {
        assert!(logits.ndim() > 0, "Categorical: the logits must have at least one dimension");
        let [logits] = parameters("Categorical", [logits.into()]);
        require_real("Categorical", "parameter logits", &logits);
        let logits = crate::log_softmax(&logits, -1);
        Categorical { probs: logits.exp(), logits }
    }

    fn constant(&self, value: f64) -> Var {
        Tensor::full_with(&self.batch_shape(), value, self.probs.dtype()).into()
    }
}

impl Distribution for Categorical {
    fn name(&self) -> &'static str {
        "Categorical"
    }

    fn batch_shape(&self) -> Dims {
        self.probs.shape()[..self.probs.ndim() - 1].into()
    }

    fn has_rsample(&self) -> bool {
        false
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        let all = sample_shape(self, shape);
        let count: usize = shape.iter().product();
        if all.contains(&0) {
            return Tensor::zeros_with(&all, DType::I64).into();
        }
        let rows = self.probs.reshape((-1, self.probs.size(-1)));
        let drawn = rows.multinomial_with(count, true, generator).t();
        drawn.reshape(&all.iter().map(|&n| n as isize).collect::<Vec<_>>())
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        check_shape(self, "log_prob", value);
        let n = self.probs.size(-1);
        let inside = value.ge(0).logical_and(&value.lt(n)).logical_and(&value.eq(value.trunc()));
        check_value(self, "log_prob", value, &format!("an integer below {n}"), &inside);
        let value = value.cast(DType::I64).unsqueeze(-1);
        let batch = tapegrad_tape::shape::broadcast_for(
            "Categorical",
            value.shape(),
            &[&self.batch_shape()[..], &[1]].concat(),
        );
        let value = value.expand_to(&batch);
        let logits = self.logits.expand_to(&[&batch[..batch.len() - 1], &[n]].concat());
        logits.gather(-1, &value).squeeze(-1)
    }

    /// NaN, as in PyTorch: categories are not numbers.
    fn mean(&self) -> Var {
        self.constant(f64::NAN)
    }

    /// NaN, as in PyTorch: categories are not numbers.
    fn variance(&self) -> Var {
        self.constant(f64::NAN)
    }

    fn entropy(&self) -> Var {
        // Impossible outcomes add nothing.
        let lowest = if self.logits.dtype() == DType::F64 { f64::MIN } else { f64::from(f32::MIN) };
        -(self.logits.clamp_min(lowest) * &self.probs).sum(-1)
    }
}
