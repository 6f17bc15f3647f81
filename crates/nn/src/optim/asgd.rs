//! `ASGD`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update1;

optimizer! {
    /// Averaged stochastic gradient descent (`torch.optim.ASGD`). The average is in the state dict, as `ax`.
    ///
    /// ```
    /// use tapegrad_nn::optim::{ASGD, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut asgd = ASGD::new([w.clone()], 0.1);
    /// (&w * &w).backward();
    /// asgd.step();
    /// assert!((w.item() - 0.8).abs() < 1e-4);
    /// ```
    ASGD, ASGDOptions {
        /// The learning rate.
        lr: f64 = 1e-2,
        /// Weight decay.
        lambd: f64 = 1e-4,
        /// The exponent of the step size decay.
        alpha: f64 = 0.75,
        /// The step at which averaging begins.
        t0: f64 = 1e6,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: none;
}

impl Rule for ASGDOptions {
    rule_options!("ASGD");
    const SCALARS: &'static [&'static str] = &["eta", "mu"];

    fn buffers(&self) -> &'static [&'static str] {
        &["ax"]
    }

    fn scalars_start(&self) -> Vec<f64> {
        vec![single(self.lr), 1.0]
    }

    fn update<T: Float>(&self, at: Step, state: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [ax] = buffers else { unreachable!("ASGD keeps one buffer") };
        let (eta, mu) = (state[0], state[1]);
        let (shrink, decay) = (T::c(1.0 - self.lambd * eta), T::c(self.weight_decay));
        let sign = at.factor::<T>(self.maximize);
        let (rate, share) = (T::c(eta), T::c(mu));
        update1(p, g, ax, |p, g, ax| {
            let p = p * shrink - rate * (sign * g + decay * p);
            (p, if mu == 1.0 { p } else { ax + (p - ax) * share })
        });
        let t = at.number as f64;
        state[0] = single(self.lr / (1.0 + self.lambd * self.lr * t).powf(self.alpha));
        state[1] = single(1.0 / (t - self.t0).max(1.0));
    }
}

/// PyTorch keeps the step size and the share of the average in `f32`, whatever the parameters are.
fn single(x: f64) -> f64 {
    f64::from(x as f32)
}
