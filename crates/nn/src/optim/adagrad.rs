//! `Adagrad`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update1;

optimizer! {
    /// Adagrad (`torch.optim.Adagrad`): divides gradients by the square root of the sum of all their squares so far.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Adagrad, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut adagrad = Adagrad::new([w.clone()], 0.1);
    /// (&w * &w).backward();
    /// adagrad.step();
    /// assert!((w.item() - 0.9).abs() < 1e-6);
    /// ```
    Adagrad, AdagradOptions {
        /// The learning rate.
        lr: f64 = 1e-2,
        /// How fast the learning rate decays with the steps.
        lr_decay: f64 = 0.0,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// The initial value of the sum of squares.
        initial_accumulator_value: f64 = 0.0,
        /// Added to the denominator for numerical stability.
        eps: f64 = 1e-10,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: none;
}

impl Rule for AdagradOptions {
    rule_options!("Adagrad");

    fn buffers(&self) -> &'static [&'static str] {
        &["sum"]
    }

    fn buffer_start(&self, _: &str) -> f64 {
        self.initial_accumulator_value
    }

    fn steps_rows(&self) -> bool {
        self.weight_decay == 0.0
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [sum] = buffers else { unreachable!("Adagrad keeps one buffer") };
        let rate = T::c(self.lr / (1.0 + (at.number - 1) as f64 * self.lr_decay));
        let (decay, eps) = (T::c(self.weight_decay), T::c(self.eps));
        let sign = at.factor::<T>(self.maximize);
        update1(p, g, sum, |p, g, sum| {
            let g = sign * g + decay * p;
            let sum = sum + g * g;
            (p - rate * (g / (sum.sqrt() + eps)), sum)
        });
    }
}
