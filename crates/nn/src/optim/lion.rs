//! `Lion`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update1;

optimizer! {
    /// Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"): every element moves by the learning rate,
    /// in the direction of a mean of the gradients. It needs a learning rate of a third to a tenth of Adam's, and a larger
    /// weight decay, which is decoupled.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Lion, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut lion = Lion::new([w.clone()], 0.1);
    /// (&w * &w).backward();
    /// lion.step();
    /// assert!((w.item() - 0.9).abs() < 1e-6);
    /// ```
    Lion, LionOptions {
        /// The learning rate.
        lr: f64 = 1e-4,
        /// The share of the running average in the direction, and the decay rate of this average.
        betas: (f64, f64) = (0.9, 0.99),
        /// Decoupled weight decay.
        weight_decay: f64 = 0.0,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: betas;
}

impl Rule for LionOptions {
    rule_options!("Lion");

    fn buffers(&self) -> &'static [&'static str] {
        &["exp_avg"]
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [m] = buffers else { unreachable!("Lion keeps one buffer") };
        let (b1, b2) = self.betas;
        let (b1, d1, b2, d2) = (T::c(b1), T::c(1.0 - b1), T::c(b2), T::c(1.0 - b2));
        let (lr, shrink) = (T::c(self.lr), T::c(1.0 - self.lr * self.weight_decay));
        let sign = at.factor::<T>(self.maximize);
        update1(p, g, m, |p, g, m| {
            let g = sign * g;
            let direction = b1 * m + d1 * g;
            // Zero where the direction is zero or NaN.
            let up = if direction > T::ZERO { lr } else { T::ZERO };
            let down = if direction < T::ZERO { lr } else { T::ZERO };
            (p * shrink - up + down, b2 * m + d2 * g)
        });
    }
}
