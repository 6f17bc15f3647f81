//! `ScheduleFreeSGD` and `ScheduleFreeAdamW`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::{update0, update1, update2};

/// The sum of the squared learning rates so far.
const SUM: usize = 0;
/// One while the parameter is the average.
const AVERAGED: usize = 1;

/// The learning rate of a step, and the share of this step in the average.
fn rates(lr: f64, warmup_steps: usize, at: Step, scalars: &mut [f64], name: &str) -> (f64, f64) {
    assert!(scalars[AVERAGED] == 0.0, "{name}: the parameters are averages; call train() before a step");
    let rate = lr * (at.number as f64 / warmup_steps.max(1) as f64).min(1.0);
    scalars[SUM] += rate * rate;
    (rate, if rate == 0.0 { 0.0 } else { rate * rate / scalars[SUM] })
}

/// What both rules share besides their step.
macro_rules! switching {
    ($momentum:expr) => {
        const SCALARS: &'static [&'static str] = &["weight_sum", "averaged"];
        const SWITCHES: bool = true;

        fn conflict(&self) -> Option<&'static str> {
            let momentum: fn(&Self) -> f64 = $momentum;
            (momentum(self) <= 0.0).then_some("the momentum (the first of the betas) must be above 0")
        }

        fn switch<T: Float>(
            &self,
            training: bool,
            scalars: &mut [f64],
            p: &mut [T],
            buffers: &mut [&mut [T]],
        ) {
            if (scalars[AVERAGED] == 0.0) == training {
                return;
            }
            scalars[AVERAGED] = f64::from(u8::from(!training));
            let momentum: fn(&Self) -> f64 = $momentum;
            let momentum = momentum(self);
            // y = (1 - momentum) z + momentum x, solved for x where the average is asked for.
            let share = T::c(if training { 1.0 - momentum } else { 1.0 - 1.0 / momentum });
            update0(p, &*buffers[0], |p, z| (p + (z - p) * share,));
        }
    };
}

optimizer! {
    /// Schedule-free SGD (Defazio et al. 2024, "The Road Less Scheduled"): the weights to evaluate are an average of all steps
    /// so far, which takes the place of a schedule. Gradients are taken between this average and the last step.
    ///
    /// The parameters are the weights for gradients; [`Optimizer::eval`](super::Optimizer::eval) makes them the average, before
    /// an evaluation or before they are saved, and [`Optimizer::train`](super::Optimizer::train) makes them those for
    /// gradients again.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Optimizer, ScheduleFreeSGD};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut optimizer = ScheduleFreeSGD::new([w.clone()], 0.4);
    /// for _ in 0..100 {
    ///     optimizer.zero_grad();
    ///     (&w * &w).backward();
    ///     optimizer.step();
    /// }
    /// optimizer.eval();
    /// assert!(w.item().abs() < 0.05);
    /// ```
    ScheduleFreeSGD, ScheduleFreeSGDOptions {
        /// The learning rate, after warmup.
        lr: f64 = 1.0,
        /// The share of the average in the weights for gradients.
        momentum: f64 = 0.9,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// The number of steps in which the learning rate increases.
        warmup_steps: usize = 0,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: none;
}

impl Rule for ScheduleFreeSGDOptions {
    rule_options!("ScheduleFreeSGD");
    switching!(|options| options.momentum);

    fn buffers(&self) -> &'static [&'static str] {
        &["z"]
    }

    fn update<T: Float>(&self, at: Step, state: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [z] = buffers else { unreachable!("ScheduleFreeSGD keeps one buffer") };
        if at.fresh {
            z.copy_from_slice(p);
        }
        let (rate, share) = rates(self.lr, self.warmup_steps, at, state, Self::NAME);
        let (along, rate, share) =
            (T::c(rate * (1.0 - self.momentum * (1.0 - share))), T::c(rate), T::c(share));
        let (sign, decay) = (at.factor::<T>(self.maximize), T::c(self.weight_decay));
        update1(p, g, z, |y, g, z| {
            let g = sign * g + decay * y;
            (y + (z - y) * share - along * g, z - rate * g)
        });
    }
}

optimizer! {
    /// Schedule-free AdamW (Defazio et al. 2024, "The Road Less Scheduled", algorithm 1): see [`ScheduleFreeSGD`].
    ///
    /// ```
    /// use tapegrad_nn::optim::{Optimizer, ScheduleFreeAdamW};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut optimizer = ScheduleFreeAdamW::new([w.clone()], 0.1).warmup_steps(10);
    /// for _ in 0..300 {
    ///     optimizer.zero_grad();
    ///     (&w * &w).backward();
    ///     optimizer.step();
    /// }
    /// optimizer.eval();
    /// assert!(w.item().abs() < 0.05);
    /// ```
    ScheduleFreeAdamW, ScheduleFreeAdamWOptions {
        /// The learning rate, after warmup.
        lr: f64 = 2.5e-3,
        /// The share of the average in the weights for gradients, and the decay rate of the mean squares.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay, of the weights for gradients.
        weight_decay: f64 = 0.0,
        /// The number of steps in which the learning rate increases.
        warmup_steps: usize = 0,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: none;
}

impl Rule for ScheduleFreeAdamWOptions {
    rule_options!("ScheduleFreeAdamW");
    switching!(|options| options.betas.0);

    fn buffers(&self) -> &'static [&'static str] {
        &["z", "exp_avg_sq"]
    }

    fn update<T: Float>(&self, at: Step, state: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [z, v] = buffers else { unreachable!("ScheduleFreeAdamW keeps two buffers") };
        if at.fresh {
            z.copy_from_slice(p);
        }
        let (b1, b2) = self.betas;
        let lr = self.lr * (1.0 - b2.powf(at.number as f64)).sqrt();
        let (rate, share) = rates(lr, self.warmup_steps, at, state, Self::NAME);
        let (along, rate, share) = (T::c(rate * (1.0 - b1 * (1.0 - share))), T::c(rate), T::c(share));
        let (b2, d2, eps, decay) = (T::c(b2), T::c(1.0 - b2), T::c(self.eps), T::c(self.weight_decay));
        let sign = at.factor::<T>(self.maximize);
        update2(p, g, z, v, |y, g, z, v| {
            let g = sign * g;
            let v = b2 * v + d2 * (g * g);
            let step = g / (v.sqrt() + eps) + decay * y;
            (y + (z - y) * share - along * step, z - rate * step, v)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Optimizer;
    use tapegrad_tape::{DType, Tensor, Var};

    fn w() -> Var {
        Var::parameter(Tensor::ones_with(&[2], DType::F64))
    }

    fn step(p: &Var, optimizer: &mut dyn Optimizer) {
        p.set_grad(Some(p.detach()));
        optimizer.step();
    }

    #[test]
    fn both_weights_come_back_and_the_mode_is_saved() {
        let (a, b) = (w(), w());
        let mut first = ScheduleFreeAdamW::new([a.clone()], 0.1);
        // Nothing to switch before the first step.
        first.eval();
        first.train();
        (0..3).for_each(|_| step(&a, &mut first));
        let y = a.to_vec::<f64>();
        first.eval();
        first.eval();
        let x = a.to_vec::<f64>();
        assert_ne!(x, y);
        b.set_value(a.tensor());
        let mut second = ScheduleFreeAdamW::new([b.clone()], 0.1);
        second.load_state_dict(&first.state_dict()).unwrap();
        second.train();
        assert!(b.to_vec::<f64>().iter().zip(y).all(|(b, y)| (b - y).abs() < 1e-15));
        first.train();
        step(&a, &mut first);
        step(&b, &mut second);
        assert_eq!(a.to_vec::<f64>(), b.to_vec::<f64>());
    }

    #[test]
    #[should_panic(expected = "ScheduleFreeSGD: the parameters are averages; call train() before a step")]
    fn averages_are_not_stepped() {
        let w = w();
        let mut optimizer = ScheduleFreeSGD::new([w.clone()], 0.1);
        step(&w, &mut optimizer);
        optimizer.eval();
        step(&w, &mut optimizer);
    }

    #[test]
    #[should_panic(expected = "ScheduleFreeSGD: the momentum (the first of the betas) must be above 0")]
    fn without_a_momentum_there_is_no_average() {
        let w = w();
        step(&w, &mut ScheduleFreeSGD::new([w.clone()], 0.1).momentum(0.0));
    }
}
