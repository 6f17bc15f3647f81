//! `RAdam`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update2;

optimizer! {
    /// Rectified Adam (`torch.optim.RAdam`): plain momentum until the variance of the adaptive learning rate is
    /// tractable.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Optimizer, RAdam};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut radam = RAdam::new([w.clone()], 0.1);
    /// (&w * &w).backward();
    /// radam.step();
    /// assert!((w.item() - 0.8).abs() < 1e-6);
    /// ```
    RAdam, RAdamOptions {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// The decay rates of the running averages of the gradient and of its square.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay.
        weight_decay: f64 = 0.0,
        /// Decoupled weight decay: shrink the parameters instead of adding to their gradients.
        decoupled_weight_decay: bool = false,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: betas;
}

impl Rule for RAdamOptions {
    rule_options!("RAdam");

    fn buffers(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [m, v] = buffers else { unreachable!("RAdam keeps two buffers") };
        let (b1, b2) = self.betas;
        let t = at.number as f64;
        let (c1, c2) = (1.0 - b1.powf(t), 1.0 - b2.powf(t));
        // The length of the moving average of squares: its maximum, and at this step.
        let full = 2.0 / (1.0 - b2) - 1.0;
        let length = full - 2.0 * t * b2.powf(t) / c2;
        let rate = self.lr / c1;
        let rectified = (length > 5.0).then(|| {
            let r = (length - 4.0) * (length - 2.0) * full / ((full - 4.0) * (full - 2.0) * length);
            T::c(rate * r.sqrt() * c2.sqrt())
        });
        let (shrink, decay) = if self.decoupled_weight_decay {
            (1.0 - self.lr * self.weight_decay, 0.0)
        } else {
            (1.0, self.weight_decay)
        };
        let (shrink, decay, eps, rate) = (T::c(shrink), T::c(decay), T::c(self.eps), T::c(rate));
        let sign = at.factor::<T>(self.maximize);
        let (d1, b2, d2) = (T::c(1.0 - b1), T::c(b2), T::c(1.0 - b2));
        let moments = |p: T, g: T, m: T, v: T| {
            let g = sign * g + decay * p;
            (m + (g - m) * d1, b2 * v + d2 * (g * g))
        };
        match rectified {
            Some(rate) => update2(p, g, m, v, |p, g, m, v| {
                let (m, v) = moments(p, g, m, v);
                (p * shrink - rate * (m / (v.sqrt() + eps)), m, v)
            }),
            None => update2(p, g, m, v, |p, g, m, v| {
                let (m, v) = moments(p, g, m, v);
                (p * shrink - rate * m, m, v)
            }),
        }
    }
}
