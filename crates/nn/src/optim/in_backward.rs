//! Steps inside the backward pass.

use super::Optimizer;
use crate::StateDict;
use crate::optim::OptimizerStateError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tapegrad_tape::{HookHandle, Var};

type Shared = Arc<Mutex<Vec<Box<dyn Optimizer>>>>;

/// Optimizers that step inside `backward`: each parameter is updated as soon as its gradient is complete, and the gradient
/// is freed at once. So a training step never holds the gradients of all parameters, at the price that nothing can be
/// computed from all of them, such as their norm.
///
/// ```
/// use tapegrad_nn::{Module, Linear, Forward, optim::{InBackward, SGD}};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let model = Linear::new(3, 1);
/// let optimizers = InBackward::new(model.parameters(), |p| SGD::new([p], 0.1));
/// let x = Var::from(Tensor::ones_with(&[8, 3], DType::F32));
/// let before = model.forward(&x).sum_all().item();
/// model.forward(&x).sum_all().backward(); // also steps
/// assert!(model.forward(&x).sum_all().item() < before);
/// assert!(model.weight.grad().is_none());
/// # drop(optimizers);
/// ```
///
/// Dropping it ends this: the parameters then keep their gradients again.
pub struct InBackward {
    optimizers: Shared,
    hooks: Vec<HookHandle>,
}

impl InBackward {
    /// One optimizer for each parameter, made by `make`.
    ///
    /// # Panics
    /// If a parameter does not require a gradient.
    #[track_caller]
    pub fn new<O: Optimizer + 'static>(
        parameters: impl IntoIterator<Item = Var>,
        mut make: impl FnMut(Var) -> O,
    ) -> InBackward {
        let parameters: Vec<Var> = parameters.into_iter().collect();
        let optimizers: Vec<Box<dyn Optimizer>> =
            parameters.iter().map(|p| Box::new(make(p.clone())) as Box<dyn Optimizer>).collect();
        let optimizers: Shared = Arc::new(Mutex::new(optimizers));
        let hooks = parameters.iter().enumerate().map(|(i, p)| {
            // The optimizer holds the parameter, which holds the hook: a strong reference would be a cycle.
            let weak = Arc::downgrade(&optimizers);
            p.register_post_accumulate_grad_hook(move |p| {
                if let Some(optimizers) = weak.upgrade() {
                    lock(&optimizers)[i].step();
                    p.zero_grad();
                }
            })
        });
        InBackward { hooks: hooks.collect(), optimizers }
    }

    /// Sets the learning rate of all optimizers, in all their groups.
    pub fn set_lr(&self, lr: f64) {
        for optimizer in lock(&self.optimizers).iter_mut() {
            (0..optimizer.num_groups()).for_each(|group| optimizer.set_lr(group, lr));
        }
    }

    /// The states of all optimizers, each under its number.
    pub fn state_dict(&self) -> StateDict {
        let mut all = StateDict::new();
        for (i, optimizer) in lock(&self.optimizers).iter().enumerate() {
            all.insert_all(&i.to_string(), &optimizer.state_dict());
        }
        all
    }

    /// Restores saved states.
    ///
    /// # Errors
    /// If a state is of another optimizer, or of another parameter. The optimizers before it have their states then.
    pub fn load_state_dict(&self, state: &StateDict) -> Result<(), OptimizerStateError> {
        let mut optimizers = lock(&self.optimizers);
        optimizers
            .iter_mut()
            .enumerate()
            .try_for_each(|(i, o)| o.load_state_dict(&state.part(&i.to_string())))
    }
}

impl Drop for InBackward {
    fn drop(&mut self) {
        self.hooks.drain(..).for_each(HookHandle::remove);
    }
}

fn lock(optimizers: &Shared) -> MutexGuard<'_, Vec<Box<dyn Optimizer>>> {
    optimizers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Adam;
    use crate::{Forward, Module, ReLU, sequential};
    use tapegrad_tape::{manual_seed, with_default_generator};

    #[test]
    fn the_same_bits_as_steps_after_backward() {
        let make = || {
            manual_seed(1);
            sequential![crate::Linear::new(3, 8), ReLU::new(), crate::Linear::new(8, 2)]
        };
        let (inside, after) = (make(), make());
        let x = Var::from(with_default_generator(|g| g.normal(&[5, 3], 0.0, 1.0)));
        let optimizers = InBackward::new(inside.parameters(), |p| Adam::new([p], 0.1));
        let mut adam = Adam::new(after.parameters(), 0.1);
        for step in 0..4 {
            optimizers.set_lr(0.1 / (step + 1) as f64);
            adam.set_lr(0, 0.1 / (step + 1) as f64);
            inside.forward(&x).square().sum_all().backward();
            adam.zero_grad();
            after.forward(&x).square().sum_all().backward();
            adam.step();
        }
        let values = |m: &dyn Forward| m.parameters().iter().map(|p| p.to_vec::<f32>()).collect::<Vec<_>>();
        assert_eq!(values(&inside), values(&after));
        assert!(inside.parameters().iter().all(|p| p.grad().is_none()));
        let state = optimizers.state_dict();
        assert_eq!(state.get("0.state.0.0.step").unwrap().item::<i64>(), 4);
        optimizers.load_state_dict(&state).unwrap();
        drop(optimizers);
        let before = values(&inside);
        inside.forward(&x).square().sum_all().backward();
        assert_eq!(values(&inside), before);
        assert!(inside.parameters().iter().all(|p| p.grad().is_some()));
    }
}
