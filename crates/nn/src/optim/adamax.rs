//! `Adamax`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update2;

optimizer! {
    /// Adam with the infinity norm (`torch.optim.Adamax`).
    ///
    /// ```
    /// use tapegrad_nn::optim::{Adamax, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut adamax = Adamax::new([w.clone()], 0.1);
    /// (&w * &w).backward();
    /// adamax.step();
    /// assert!((w.item() - 0.9).abs() < 1e-6);
    /// ```
    Adamax, AdamaxOptions {
        /// The learning rate.
        lr: f64 = 2e-3,
        /// The decay rates of the running average and of the running maximum.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: betas;
}

impl Rule for AdamaxOptions {
    rule_options!("Adamax");

    fn buffers(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_inf"]
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [m, u] = buffers else { unreachable!("Adamax keeps two buffers") };
        let (b1, b2) = self.betas;
        let rate = T::c(self.lr / (1.0 - b1.powf(at.number as f64)));
        let (d1, b2, decay, eps) = (T::c(1.0 - b1), T::c(b2), T::c(self.weight_decay), T::c(self.eps));
        let sign = at.factor::<T>(self.maximize);
        update2(p, g, m, u, |p, g, m, u| {
            let g = sign * g + decay * p;
            let m = m + (g - m) * d1;
            let u = (b2 * u).maximum(g.abs() + eps);
            (p - rate * (m / u), m, u)
        });
    }
}
