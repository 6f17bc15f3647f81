//! `RMSprop`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::{update1, update2, update3};

optimizer! {
    /// RMSprop (`torch.optim.RMSprop`): divides gradients by a running root mean square.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Optimizer, RMSprop};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut rmsprop = RMSprop::new([w.clone()], 0.01);
    /// (&w * &w).backward();
    /// rmsprop.step();
    /// assert!((w.item() - 0.9).abs() < 1e-6);
    /// ```
    RMSprop, RMSpropOptions {
        /// The learning rate.
        lr: f64 = 1e-2,
        /// The decay rate of the running mean square.
        alpha: f64 = 0.99,
        /// Added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// The momentum factor; zero for none.
        momentum: f64 = 0.0,
        /// Divide by the standard deviation instead of the root mean square.
        centered: bool = false,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: momentum;
}

impl Rule for RMSpropOptions {
    rule_options!("RMSprop");

    fn buffers(&self) -> &'static [&'static str] {
        match (self.centered, self.momentum != 0.0) {
            (false, false) => &["square_avg"],
            (false, true) => &["square_avg", "momentum_buffer"],
            (true, false) => &["square_avg", "grad_avg"],
            (true, true) => &["square_avg", "grad_avg", "momentum_buffer"],
        }
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let (lr, decay, mu, eps) =
            (T::c(self.lr), T::c(self.weight_decay), T::c(self.momentum), T::c(self.eps));
        let (keep, join) = (T::c(self.alpha), T::c(1.0 - self.alpha));
        let sign = at.factor::<T>(self.maximize);
        let square = |p: T, g: T, v: T| {
            let g = sign * g + decay * p;
            (g, keep * v + join * (g * g))
        };
        let deviation = |g: T, v: T, a: T| {
            let a = a + (g - a) * join;
            (a, (v - a * a).sqrt() + eps)
        };
        match (self.centered, buffers) {
            (false, [v]) => update1(p, g, v, |p, g, v| {
                let (g, v) = square(p, g, v);
                (p - lr * (g / (v.sqrt() + eps)), v)
            }),
            (false, [v, m]) => update2(p, g, v, m, |p, g, v, m| {
                let (g, v) = square(p, g, v);
                let m = mu * m + g / (v.sqrt() + eps);
                (p - lr * m, v, m)
            }),
            (true, [v, a]) => update2(p, g, v, a, |p, g, v, a| {
                let (g, v) = square(p, g, v);
                let (a, d) = deviation(g, v, a);
                (p - lr * (g / d), v, a)
            }),
            (true, [v, a, m]) => update3(p, g, v, a, m, |p, g, v, a, m| {
                let (g, v) = square(p, g, v);
                let (a, d) = deviation(g, v, a);
                let m = mu * m + g / d;
                (p - lr * m, v, a, m)
            }),
            _ => unreachable!("RMSprop keeps the buffers that it names"),
        }
    }
}
