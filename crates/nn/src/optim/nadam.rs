//! `NAdam`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update2;

optimizer! {
    /// Adam with Nesterov momentum (`torch.optim.NAdam`).
    ///
    /// ```
    /// use tapegrad_nn::optim::{NAdam, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut nadam = NAdam::new([w.clone()], 0.1);
    /// (&w * &w).backward();
    /// nadam.step();
    /// assert!(w.item() < 0.95);
    /// ```
    NAdam, NAdamOptions {
        /// The learning rate.
        lr: f64 = 2e-3,
        /// The decay rates of the running averages of the gradient and of its square.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay.
        weight_decay: f64 = 0.0,
        /// How fast the momentum approaches the first beta.
        momentum_decay: f64 = 4e-3,
        /// Decoupled weight decay: shrink the parameters instead of adding to their gradients.
        decoupled_weight_decay: bool = false,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: betas;
}

impl Rule for NAdamOptions {
    rule_options!("NAdam");
    const SCALARS: &'static [&'static str] = &["mu_product"];

    fn buffers(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn scalars_start(&self) -> Vec<f64> {
        vec![1.0]
    }

    fn update<T: Float>(&self, at: Step, state: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [m, v] = buffers else { unreachable!("NAdam keeps two buffers") };
        let (b1, b2) = self.betas;
        let t = at.number as f64;
        let momentum = |t: f64| b1 * (1.0 - 0.5 * 0.96f64.powf(t * self.momentum_decay));
        let (mu, next) = (momentum(t), momentum(t + 1.0));
        state[0] *= mu;
        let now = T::c(self.lr * (1.0 - mu) / (1.0 - state[0]));
        let ahead = T::c(self.lr * next / (1.0 - state[0] * next));
        let scale = T::c(1.0 / (1.0 - b2.powf(t)));
        let (shrink, decay) = if self.decoupled_weight_decay {
            (1.0 - self.lr * self.weight_decay, 0.0)
        } else {
            (1.0, self.weight_decay)
        };
        let (shrink, decay, eps) = (T::c(shrink), T::c(decay), T::c(self.eps));
        let sign = at.factor::<T>(self.maximize);
        let (d1, b2, d2) = (T::c(1.0 - b1), T::c(b2), T::c(1.0 - b2));
        update2(p, g, m, v, |p, g, m, v| {
            let g = sign * g + decay * p;
            let m = m + (g - m) * d1;
            let v = b2 * v + d2 * (g * g);
            let d = (v * scale).sqrt() + eps;
            (p * shrink - now * (g / d) - ahead * (m / d), m, v)
        });
    }
}
