//! `Adadelta`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update2;

optimizer! {
    /// Adadelta (`torch.optim.Adadelta`): steps scaled by running averages of squared updates and gradients.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Adadelta, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut adadelta = Adadelta::new([w.clone()], 1.0);
    /// (&w * &w).backward();
    /// adadelta.step();
    /// assert!(w.item() < 1.0);
    /// ```
    Adadelta, AdadeltaOptions {
        /// Scales the steps.
        lr: f64 = 1.0,
        /// The decay rate of the running averages.
        rho: f64 = 0.9,
        /// Added under the square roots for numerical stability.
        eps: f64 = 1e-6,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: none;
}

impl Rule for AdadeltaOptions {
    rule_options!("Adadelta");

    fn buffers(&self) -> &'static [&'static str] {
        &["square_avg", "acc_delta"]
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [v, d] = buffers else { unreachable!("Adadelta keeps two buffers") };
        let (lr, decay, eps) = (T::c(self.lr), T::c(self.weight_decay), T::c(self.eps));
        let (keep, join) = (T::c(self.rho), T::c(1.0 - self.rho));
        let sign = at.factor::<T>(self.maximize);
        update2(p, g, v, d, |p, g, v, d| {
            let g = sign * g + decay * p;
            let v = keep * v + join * (g * g);
            let delta = (d + eps).sqrt() / (v + eps).sqrt() * g;
            (p - lr * delta, v, keep * d + join * (delta * delta))
        });
    }
}
