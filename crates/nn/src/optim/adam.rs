//! `Adam` and `AdamW`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::{update2, update3};

macro_rules! adam {
    ($(#[$meta:meta])* $name:ident, $options:ident, $label:literal, $decay:expr, $decoupled:expr) => {
        optimizer! {
            $(#[$meta])*
            $name, $options {
                /// The learning rate.
                lr: f64 = 1e-3,
                /// The decay rates of the running averages of the gradient and of its square.
                betas: (f64, f64) = (0.9, 0.999),
                /// Added to the denominator for numerical stability.
                eps: f64 = 1e-8,
                /// Weight decay.
                weight_decay: f64 = $decay,
                /// Divide by the largest mean square so far (AMSGrad).
                amsgrad: bool = false,
                /// Maximize instead of minimize.
                maximize: bool = false,
                /// Decoupled weight decay: shrink the parameters instead of adding to their gradients.
                decoupled_weight_decay: bool = $decoupled,
            }
            momentum: betas;
        }

        impl Rule for $options {
            rule_options!($label);

            fn buffers(&self) -> &'static [&'static str] {
                if self.amsgrad { &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"] } else { &["exp_avg", "exp_avg_sq"] }
            }

            fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
                let (b1, b2) = self.betas;
                let (c1, c2) = (1.0 - b1.powf(at.number as f64), 1.0 - b2.powf(at.number as f64));
                let (shrink, decay) = if self.decoupled_weight_decay {
                    (1.0 - self.lr * self.weight_decay, 0.0)
                } else {
                    (1.0, self.weight_decay)
                };
                let (shrink, decay) = (T::c(shrink), T::c(decay));
                let sign = at.factor::<T>(self.maximize);
                let (d1, b2, d2) = (T::c(1.0 - b1), T::c(b2), T::c(1.0 - b2));
                let (rate, scale, eps) = (T::c(self.lr / c1), T::c(1.0 / c2.sqrt()), T::c(self.eps));
                match buffers {
                    [m, v] => update2(p, g, m, v, |p, g, m, v| {
                        let g = sign * g + decay * p;
                        let m = m + (g - m) * d1;
                        let v = b2 * v + d2 * (g * g);
                        (p * shrink - rate * (m / (v.sqrt() * scale + eps)), m, v)
                    }),
                    [m, v, top] => update3(p, g, m, v, top, |p, g, m, v, top| {
                        let g = sign * g + decay * p;
                        let m = m + (g - m) * d1;
                        let v = b2 * v + d2 * (g * g);
                        let top = top.maximum(v);
                        (p * shrink - rate * (m / (top.sqrt() * scale + eps)), m, v, top)
                    }),
                    _ => unreachable!("Adam keeps two or three buffers"),
                }
            }
        }
    };
}

adam! {
    /// Adam (`torch.optim.Adam`): steps scaled by running averages of the gradient and of its square.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Adam, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut adam = Adam::new([w.clone()], 0.1);
    /// (&w * &w).backward();
    /// adam.step();
    /// assert!((w.item() - 0.9).abs() < 1e-6);
    /// ```
    Adam, AdamOptions, "Adam", 0.0, false
}

adam! {
    /// Adam with decoupled weight decay (`torch.optim.AdamW`).
    ///
    /// ```
    /// use tapegrad_nn::optim::{AdamW, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut adam = AdamW::new([w.clone()], 0.1).weight_decay(0.5);
    /// (&w * &w).backward();
    /// adam.step();
    /// assert!((w.item() - 0.85).abs() < 1e-6);
    /// ```
    AdamW, AdamWOptions, "AdamW", 1e-2, true
}
