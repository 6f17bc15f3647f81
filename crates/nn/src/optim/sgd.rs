//! `SGD`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::{update0, update1};

optimizer! {
    /// Stochastic gradient descent, with momentum (`torch.optim.SGD`). One pass over memory per step.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Optimizer, SGD};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(1.0));
    /// let mut sgd = SGD::new([w.clone()], 0.1).momentum(0.9).nesterov(true);
    /// (&w * &w).backward();
    /// sgd.step();
    /// assert!((w.item() - 0.62).abs() < 1e-6);
    /// ```
    SGD, SGDOptions {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// The momentum factor; zero for none.
        momentum: f64 = 0.0,
        /// Dampening of the momentum.
        dampening: f64 = 0.0,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Nesterov momentum, which takes a momentum and no dampening.
        nesterov: bool = false,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: momentum;
}

impl Rule for SGDOptions {
    rule_options!("SGD");

    fn buffers(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
    }

    fn conflict(&self) -> Option<&'static str> {
        (self.nesterov && (self.momentum <= 0.0 || self.dampening != 0.0))
            .then_some("Nesterov momentum requires a momentum and zero dampening")
    }

    fn steps_rows(&self) -> bool {
        self.momentum == 0.0 && self.weight_decay == 0.0
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let (lr, decay, mu) = (T::c(self.lr), T::c(self.weight_decay), T::c(self.momentum));
        let sign = at.factor::<T>(self.maximize);
        match buffers {
            [] => update0(p, g, |p, g| (p - lr * (sign * g + decay * p),)),
            // The first direction is the gradient itself, undamped.
            [m] => {
                let (keep, join) =
                    if at.fresh { (T::ZERO, T::ONE) } else { (mu, T::c(1.0 - self.dampening)) };
                if self.nesterov {
                    update1(p, g, m, |p, g, m| {
                        let g = sign * g + decay * p;
                        let m = keep * m + join * g;
                        (p - lr * (g + mu * m), m)
                    });
                } else {
                    update1(p, g, m, |p, g, m| {
                        let m = keep * m + join * (sign * g + decay * p);
                        (p - lr * m, m)
                    });
                }
            }
            _ => unreachable!("SGD keeps one buffer at most"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Optimizer;
    use tapegrad_tape::{DType, Tensor, Var};

    #[test]
    fn groups_have_their_own_options() {
        let [a, b] = [(); 2].map(|_| Var::parameter(Tensor::ones_with(&[2], DType::F64)));
        let options = SGDOptions { lr: 1.0, weight_decay: 0.5, ..Default::default() };
        let mut sgd = SGD::new([a.clone()], 0.1).group([b.clone()], options);
        for p in [&a, &b] {
            p.set_grad(Some(Var::from(Tensor::ones_with(&[2], DType::F64))));
        }
        sgd.step();
        assert_eq!(a.to_vec::<f64>(), [0.9; 2]);
        assert_eq!(b.to_vec::<f64>(), [-0.5; 2]);
        assert_eq!(sgd.lrs(), [0.1, 1.0]);
    }

    #[test]
    fn a_loaded_state_goes_on() {
        let w = || Var::parameter(Tensor::from_vec(vec![1f32, -2.0, 3.0], &[3]));
        let (a, b) = (w(), w());
        let step = |p: &Var, o: &mut SGD| {
            p.set_grad(Some(p.detach() * 0.5));
            o.step();
        };
        let mut first = SGD::new([a.clone()], 0.1).momentum(0.9);
        step(&a, &mut first);
        b.set_value(a.tensor());
        let mut second = SGD::new([b.clone()], 7.0).momentum(0.1);
        second.load_state_dict(&first.state_dict()).unwrap();
        step(&a, &mut first);
        step(&b, &mut second);
        assert_eq!(a.to_vec::<f32>(), b.to_vec::<f32>());
        let other = Var::parameter(Tensor::zeros_with(&[2], DType::F32));
        let error = SGD::new([other], 0.1).load_state_dict(&first.state_dict()).unwrap_err();
        assert_eq!(error.key, "state.0.0.momentum_buffer");
    }

    #[test]
    fn the_gradients_memory_order_does_not_matter() {
        let values: Vec<f32> = (0..120).map(|i| i as f32).collect();
        let t = Tensor::from_vec(values, &[2, 3, 4, 5]);
        let results = [tapegrad_tape::MemoryFormat::Contiguous, tapegrad_tape::MemoryFormat::ChannelsLast]
            .map(|format| {
                let p = Var::parameter(t.clone());
                let mut sgd = SGD::new([p.clone()], 0.1).momentum(0.9);
                for _ in 0..2 {
                    p.set_grad(Some(Var::from(t.to_format(format))));
                    sgd.step();
                }
                p.to_vec::<f32>()
            });
        assert_eq!(results[0], results[1]);
    }
}
