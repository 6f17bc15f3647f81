//! `kl_divergence`, for the pairs that PyTorch has.

use super::{
    Bernoulli, Beta, Categorical, Dirichlet, Distribution, Exponential, Gamma, Independent, Laplace,
    LogNormal, Normal, Uniform,
};
use crate::softplus;
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use tapegrad_tape::{Operand, Var, where_, xlogy};

const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;

/// A pair of distributions whose Kullback-Leibler divergence is known: see [`kl_divergence`].
pub trait KlDivergence<Q: ?Sized = Self> {
    /// The divergence of this distribution from `q`.
    fn kl_divergence(&self, q: &Q) -> Var;
}

/// The Kullback-Leibler divergence `E[ln p(x) - ln q(x)]` for `x` from `p` (`torch.distributions.kl_divergence`), an element
/// for each distribution of the batch. It exists for the pairs for which [`KlDivergence`] is implemented, those of
/// PyTorch; others do not compile.
///
/// ```
/// use tapegrad_ops::distributions::{Normal, kl_divergence};
/// let (p, q) = (Normal::new(1.0, 1.0), Normal::new(0.0, 1.0));
/// assert_eq!(kl_divergence(&p, &q).item(), 0.5);
/// ```
#[track_caller]
pub fn kl_divergence<P: KlDivergence<Q>, Q>(p: &P, q: &Q) -> Var {
    p.kl_divergence(q)
}

/// A row is a pair and the divergence of the first from the second.
macro_rules! pairs {
    ($($P:ident, $Q:ident: |$p:ident, $q:ident| $kl:expr;)*) => {$(
        impl KlDivergence<$Q> for $P {
            #[track_caller]
            fn kl_divergence(&self, $q: &$Q) -> Var {
                let $p = self;
                $kl
            }
        }
    )*};
}

/// Pairs whose divergence is infinite, since `p` has outcomes that `q` does not.
macro_rules! infinite {
    ($($P:ident by $parameter:ident: $($Q:ident)*;)*) => {$($(
        impl KlDivergence<$Q> for $P {
            fn kl_divergence(&self, _q: &$Q) -> Var {
                self.$parameter.full_like(f64::INFINITY)
            }
        }
    )*)*};
}

/// A value where a condition holds, else another.
fn replaced(condition: &Var, value: f64, other: impl Into<Operand>) -> Var {
    where_(condition, value, other)
}

/// The square of a mean and a variance: the second moment around `center`, halved, over a variance.
fn half_moment(mean: &Var, variance: &Var, q: &Normal) -> Var {
    (variance + (mean - &q.loc).square()) * 0.5 / q.scale.square()
}

/// `ln Gamma(a) - a ln(rate)`, the constant of a gamma density.
fn log_constant(q: &Gamma) -> Var {
    q.concentration.lgamma() - &q.concentration * q.rate.log()
}

/// `ln(x)` integrated from `low` to `high`, over the width; without the minus one.
fn mean_log(low: &Var, high: &Var) -> Var {
    (xlogy(high, high) - xlogy(low, low)) / (high - low)
}

/// The logarithm of the normal density's constant, `ln(scale sqrt(2 pi))`.
fn log_scale(q: &Normal) -> Var {
    q.scale.log() + 0.5 * (2.0 * PI).ln()
}

pairs! {
    Bernoulli, Bernoulli: |p, q| {
        let term = |probs: &Var, other: &Var, sign: f64| {
            let t = probs * (soft(&q.logits, sign) - soft(&p.logits, sign));
            replaced(&probs.eq(0), 0.0, replaced(&other.eq(0), f64::INFINITY, t))
        };
        term(&p.probs, &q.probs, -1.0) + term(&(1.0 - &p.probs), &(1.0 - &q.probs), 1.0)
    };
    Categorical, Categorical: |p, q| {
        let t = &p.probs * (&p.logits - &q.logits);
        replaced(&p.probs.eq(0), 0.0, replaced(&q.probs.eq(0), f64::INFINITY, t)).sum(-1)
    };
    Dirichlet, Dirichlet: |p, q| {
        let (a, b) = (&p.concentration, &q.concentration);
        let (sum_a, sum_b) = (a.sum(-1), b.sum(-1));
        let slopes = a.digamma() - sum_a.digamma().unsqueeze(-1);
        sum_a.lgamma() - sum_b.lgamma() - (a.lgamma() - b.lgamma()).sum(-1) + ((a - b) * slopes).sum(-1)
    };
    Beta, Beta: |p, q| {
        let part = |a: &Var, b: &Var| b.lgamma() - a.lgamma() + (a - b) * a.digamma();
        let (a, b) = (&p.concentration1 + &p.concentration0, &q.concentration1 + &q.concentration0);
        part(&p.concentration1, &q.concentration1) + part(&p.concentration0, &q.concentration0) - part(&a, &b)
    };
    Beta, Exponential: |p, q| -p.entropy() - q.rate.log() + &q.rate * p.mean();
    Beta, Gamma: |p, q| {
        let log = p.concentration1.digamma() - (&p.concentration1 + &p.concentration0).digamma();
        -p.entropy() + log_constant(q) - (&q.concentration - 1.0) * log + &q.rate * p.mean()
    };
    Beta, Normal: |p, q| -p.entropy() + log_scale(q) + half_moment(&p.mean(), &p.variance(), q);
    Beta, Uniform: |p, q| {
        let outside = q.low.gt(0).logical_or(&q.high.lt(1));
        replaced(&outside, f64::INFINITY, -p.entropy() + (&q.high - &q.low).log())
    };
    Exponential, Exponential: |p, q| {
        let ratio = &q.rate / &p.rate;
        &ratio - ratio.log() - 1.0
    };
    Exponential, Gamma: |p, q| {
        let ratio = &q.rate / &p.rate;
        let a = &q.concentration;
        &ratio - a * ratio.log() + a.lgamma() + a * EULER_GAMMA - (1.0 + EULER_GAMMA)
    };
    Exponential, Normal: |p, q| p.rate.log() - 1.0 + log_scale(q) + half_moment(&p.mean(), &p.variance(), q);
    Gamma, Gamma: |p, q| {
        let (a, b) = (&p.concentration, &q.concentration);
        b * (&p.rate / &q.rate).log() + b.lgamma() - a.lgamma() + (a - b) * a.digamma()
            + (&q.rate - &p.rate) * (a / &p.rate)
    };
    Gamma, Exponential: |p, q| -p.entropy() - q.rate.log() + &q.rate * p.mean();
    Gamma, Normal: |p, q| -p.entropy() + log_scale(q) + half_moment(&p.mean(), &p.variance(), q);
    Laplace, Laplace: |p, q| {
        let (ratio, distance) = (&p.scale / &q.scale, (&p.loc - &q.loc).abs());
        &distance / &q.scale - ratio.log() + &ratio * (-(&distance / &p.scale)).exp() - 1.0
    };
    Laplace, Normal: |p, q| -p.entropy() + log_scale(q) + half_moment(&p.loc, &p.variance(), q);
    Normal, Normal: |p, q| {
        let ratio = (&p.scale / &q.scale).square();
        0.5 * (&ratio + ((&p.loc - &q.loc) / &q.scale).square() - 1.0 - ratio.log())
    };
    Normal, Laplace: |p, q| {
        let off = &p.loc - &q.loc;
        let z = &off / &p.scale;
        let mean = &p.scale * (z.square() * -0.5).exp() * (2.0 / PI).sqrt() + &off * (z * FRAC_1_SQRT_2).erf();
        mean / &q.scale - (&p.scale / &q.scale).log() - 0.5 * (1.0 + (0.5 * PI).ln())
    };
    LogNormal, LogNormal: |p, q| kl_divergence(&p.base, &q.base);
    Uniform, Uniform: |p, q| {
        let outside = q.low.gt(&p.low).logical_or(&q.high.lt(&p.high));
        replaced(&outside, f64::INFINITY, ((&q.high - &q.low) / (&p.high - &p.low)).log())
    };
    Uniform, Beta: |p, q| {
        let (a, b) = (&q.concentration1, &q.concentration0);
        let log = mean_log(&p.low, &p.high) - 1.0;
        let log_rest = mean_log(&(1.0 - &p.high), &(1.0 - &p.low)) - 1.0;
        let kl = a.lgamma() + b.lgamma() - (a + b).lgamma() - (a - 1.0) * log - (b - 1.0) * log_rest - p.entropy();
        replaced(&p.high.gt(1).logical_or(&p.low.lt(0)), f64::INFINITY, kl)
    };
    Uniform, Exponential: |p, q| {
        let kl = &q.rate * p.mean() - ((&p.high - &p.low) * &q.rate).log();
        replaced(&p.low.lt(0), f64::INFINITY, kl)
    };
    Uniform, Gamma: |p, q| {
        let log = mean_log(&p.low, &p.high) - 1.0;
        let kl = log_constant(q) - p.entropy() + (1.0 - &q.concentration) * log + &q.rate * p.mean();
        replaced(&p.low.lt(0), f64::INFINITY, kl)
    };
    Uniform, Normal: |p, q| log_scale(q) - p.entropy() + half_moment(&p.mean(), &p.variance(), q);
}

infinite! {
    Exponential by rate: Beta Uniform;
    Gamma by concentration: Beta Uniform;
    Laplace by loc: Beta Exponential Gamma Uniform;
    Normal by loc: Beta Exponential Gamma Uniform;
}

/// `ln(1 + e^(sign x))`
fn soft(x: &Var, sign: f64) -> Var {
    softplus(&(x * sign))
}

impl<P: KlDivergence<Q> + Distribution, Q: Distribution> KlDivergence<Independent<Q>> for Independent<P> {
    /// # Panics
    /// If the two reinterpret different numbers of dimensions.
    #[track_caller]
    fn kl_divergence(&self, q: &Independent<Q>) -> Var {
        assert!(
            self.reinterpreted_batch_ndims == q.reinterpreted_batch_ndims,
            "kl_divergence: one Independent reinterprets {} dimensions of the batch, the other {}",
            self.reinterpreted_batch_ndims,
            q.reinterpreted_batch_ndims
        );
        self.summed(&self.base.kl_divergence(&q.base))
    }
}
