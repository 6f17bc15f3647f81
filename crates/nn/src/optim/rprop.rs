//! `Rprop`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update2;

optimizer! {
    /// Resilient backpropagation (`torch.optim.Rprop`): uses only the signs of gradients; for full-batch training.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Optimizer, Rprop};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut rprop = Rprop::new([w.clone()], 0.1);
    /// (&w * &w).backward();
    /// rprop.step();
    /// assert!((w.item() - 0.9).abs() < 1e-6);
    /// ```
    Rprop, RpropOptions {
        /// The first step's size.
        lr: f64 = 1e-2,
        /// The factors by which a step shrinks when the gradient's sign flips, and grows when it stays.
        etas: (f64, f64) = (0.5, 1.2),
        /// The smallest and the largest step.
        step_sizes: (f64, f64) = (1e-6, 50.0),
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: none;
}

impl Rule for RpropOptions {
    rule_options!("Rprop");

    fn buffers(&self) -> &'static [&'static str] {
        &["prev", "step_size"]
    }

    fn buffer_start(&self, name: &str) -> f64 {
        if name == "step_size" { self.lr } else { 0.0 }
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [prev, size] = buffers else { unreachable!("Rprop keeps two buffers") };
        let (minus, plus) = (T::c(self.etas.0), T::c(self.etas.1));
        let (least, most) = (T::c(self.step_sizes.0), T::c(self.step_sizes.1));
        let sign = at.factor::<T>(self.maximize);
        let signum = |x: T| {
            if x > T::ZERO {
                T::ONE
            } else if x < T::ZERO {
                -T::ONE
            } else {
                x
            }
        };
        update2(p, g, prev, size, |p, g, prev, size| {
            let g = sign * g;
            let turn = g * prev;
            let factor = if turn > T::ZERO {
                plus
            } else if turn < T::ZERO {
                minus
            } else {
                T::ONE
            };
            let size = (size * factor).maximum(least).minimum(most);
            let g = if turn < T::ZERO { T::ZERO } else { g };
            (p - signum(g) * size, g, size)
        });
    }
}
