//! `LocalResponseNorm`.

use crate::module::Forward;
use crate::summary::observe;
use tapegrad_tape::Var;

crate::module! {
    /// Normalization by neighboring channels (`torch.nn.LocalResponseNorm`).
    pub struct LocalResponseNorm {
        size: usize,
        alpha: f64,
        beta: f64,
        k: f64,
    }
}

impl LocalResponseNorm {
    /// A module that normalizes over this many neighboring channels.
    pub fn new(size: usize) -> LocalResponseNorm {
        LocalResponseNorm { size, alpha: 1e-4, beta: 0.75, k: 1.0 }
    }

    /// This module with another multiplicative factor.
    pub fn alpha(mut self, alpha: f64) -> LocalResponseNorm {
        self.alpha = alpha;
        self
    }

    /// This module with another exponent.
    pub fn beta(mut self, beta: f64) -> LocalResponseNorm {
        self.beta = beta;
        self
    }

    /// This module with another additive constant.
    pub fn k(mut self, k: f64) -> LocalResponseNorm {
        self.k = k;
        self
    }
}

impl Forward for LocalResponseNorm {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            tapegrad_ops::local_response_norm_with(x, self.size, self.alpha, self.beta, self.k)
        })
    }
}
