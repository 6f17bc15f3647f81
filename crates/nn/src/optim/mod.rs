//! Optimizers, with PyTorch's arguments and defaults (`torch.optim`).
//!
//! ```
//! use tapegrad_nn::{Module, Linear, Forward, optim::{Optimizer, SGD}};
//! use tapegrad_tape::{DType, Tensor, Var};
//! let model = Linear::new(3, 1);
//! let mut optimizer = SGD::new(model.parameters(), 0.1).momentum(0.9);
//! let x = Var::from(Tensor::ones_with(&[8, 3], DType::F32));
//! let before = model.forward(&x).sum_all().item();
//! optimizer.zero_grad();
//! model.forward(&x).sum_all().backward();
//! optimizer.step();
//! assert!(model.forward(&x).sum_all().item() < before);
//! ```

#[macro_use]
mod core;

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamax;
mod asgd;
mod clip;
mod in_backward;
mod lbfgs;
mod line_search;
mod lion;
mod muon;
mod nadam;
mod radam;
mod rmsprop;
mod rprop;
mod rule;
mod schedule_free;
mod sgd;
mod sparse_adam;

pub use adadelta::{Adadelta, AdadeltaOptions};
pub use adafactor::{Adafactor, AdafactorOptions};
pub use adagrad::{Adagrad, AdagradOptions};
pub use adam::{Adam, AdamOptions, AdamW, AdamWOptions};
pub use adamax::{Adamax, AdamaxOptions};
pub use asgd::{ASGD, ASGDOptions};
pub(crate) use clip::{all_finite, grad_norm};
pub use clip::{clip_factor, clip_grad_norm_, clip_grad_norm_with, clip_grad_value_};
pub use core::{OptimizerStateError, ParamGroup};
pub use in_backward::InBackward;
pub use lbfgs::{LBFGS, LBFGSOptions, LineSearch};
pub use lion::{Lion, LionOptions};
pub use muon::{AdjustLr, Muon, MuonOptions};
pub use nadam::{NAdam, NAdamOptions};
pub use radam::{RAdam, RAdamOptions};
pub use rmsprop::{RMSprop, RMSpropOptions};
pub use rprop::{Rprop, RpropOptions};
pub use rule::{Custom, Rule, Step};
pub use schedule_free::{
    ScheduleFreeAdamW, ScheduleFreeAdamWOptions, ScheduleFreeSGD, ScheduleFreeSGDOptions,
};
pub use sgd::{SGD, SGDOptions};
pub use sparse_adam::{SparseAdam, SparseAdamOptions};

use crate::StateDict;
use tapegrad_tape::Var;

/// What every optimizer can do.
pub trait Optimizer: Send {
    /// Updates the parameters by their gradients; parameters without one stay unchanged.
    ///
    /// # Panics
    /// If the optimizer needs a closure ([`LBFGS`]); then use [`Optimizer::step_with`].
    fn step(&mut self);

    /// Like [`Optimizer::step`], with all gradients multiplied by a factor: the same bits as if they had been multiplied before,
    /// without a pass over memory for it. The gradients themselves stay as they are. With [`clip_factor`] it clips their norm:
    ///
    /// ```
    /// use tapegrad_nn::optim::{Optimizer, SGD, clip_factor};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::from_vec(vec![3.0, 4.0], &[2]));
    /// let mut sgd = SGD::new([w.clone()], 1.0);
    /// (&w * &w).sum_all().backward();
    /// let (norm, factor) = clip_factor(&sgd.parameters(), 1.0, 2.0);
    /// sgd.step_scaled(factor);
    /// assert_eq!(norm, 10.0);
    /// assert!((w.to_vec::<f64>()[0] - 2.4).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// Same as [`Optimizer::step`].
    fn step_scaled(&mut self, factor: f64) {
        clip::scale_gradients(&self.parameters(), factor);
        self.step();
    }

    /// Calls the closure, which clears the gradients, computes the loss and its gradients and returns the loss; then
    /// steps. Some optimizers call it several times. Returns the first loss.
    fn step_with(&mut self, closure: &mut dyn FnMut() -> Var) -> f64 {
        let loss = closure().item();
        self.step();
        loss
    }

    /// The parameters of all groups.
    fn parameters(&self) -> Vec<Var>;

    /// Clears the gradients of all parameters.
    fn zero_grad(&self) {
        self.parameters().iter().for_each(Var::zero_grad);
    }

    /// The number of parameter groups.
    fn num_groups(&self) -> usize;

    /// The learning rate of a group.
    ///
    /// # Panics
    /// If there is no such group.
    fn lr(&self, group: usize) -> f64;

    /// Sets the learning rate of a group.
    ///
    /// # Panics
    /// If there is no such group.
    fn set_lr(&mut self, group: usize, lr: f64);

    /// The learning rates of all groups.
    fn lrs(&self) -> Vec<f64> {
        (0..self.num_groups()).map(|g| self.lr(g)).collect()
    }

    /// The momentum of a group, or the first of its betas; `None` for an optimizer without momentum.
    fn momentum(&self, group: usize) -> Option<f64>;

    /// Sets the momentum of a group, or the first of its betas; does nothing for an optimizer without momentum.
    fn set_momentum(&mut self, group: usize, momentum: f64);

    /// Sets the parameters to their values in training or to those to evaluate, for an optimizer where they differ
    /// ([`ScheduleFreeSGD`]); does nothing for others.
    fn set_training(&mut self, training: bool) {
        let _ = training;
    }

    /// Whether the parameters to evaluate are others than those in training, so that
    /// [`set_training`](Optimizer::set_training) changes them.
    fn switches(&self) -> bool {
        false
    }

    /// Sets the parameters to their values in training; see [`Optimizer::set_training`].
    fn train(&mut self) {
        self.set_training(true);
    }

    /// Sets the parameters to those to evaluate; see [`Optimizer::set_training`].
    fn eval(&mut self) {
        self.set_training(false);
    }

    /// Options, step counts and buffers, to resume from (`torch.optim.Optimizer.state_dict`).
    fn state_dict(&self) -> StateDict;

    /// Restores a saved state.
    ///
    /// # Errors
    /// If the state is of another optimizer, or of other parameters. Then nothing is changed.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<(), OptimizerStateError>;
}

/// An optimizer chosen at run time.
///
/// ```
/// use tapegrad_nn::optim::{Adam, Optimizer, SGD};
/// use tapegrad_tape::{Tensor, Var};
/// let w = Var::parameter(Tensor::scalar(1.0));
/// for (method, after) in [("sgd", 0.8), ("adam", 0.9)] {
///     w.set_value(Tensor::scalar(1.0));
///     let mut optimizer: Box<dyn Optimizer> = match method {
///         "sgd" => Box::new(SGD::new([w.clone()], 0.1)),
///         _ => Box::new(Adam::new([w.clone()], 0.1)),
///     };
///     optimizer.step_with(&mut || {
///         w.zero_grad();
///         let loss = &w * &w;
///         loss.backward();
///         loss
///     });
///     assert!((w.item() - after).abs() < 1e-6);
/// }
/// ```
impl<O: Optimizer + ?Sized> Optimizer for Box<O> {
    #[track_caller]
    fn step(&mut self) {
        (**self).step();
    }
    #[track_caller]
    fn step_scaled(&mut self, factor: f64) {
        (**self).step_scaled(factor);
    }
    #[track_caller]
    fn step_with(&mut self, closure: &mut dyn FnMut() -> Var) -> f64 {
        (**self).step_with(closure)
    }
    fn parameters(&self) -> Vec<Var> {
        (**self).parameters()
    }
    fn zero_grad(&self) {
        (**self).zero_grad();
    }
    fn num_groups(&self) -> usize {
        (**self).num_groups()
    }
    #[track_caller]
    fn lr(&self, group: usize) -> f64 {
        (**self).lr(group)
    }
    #[track_caller]
    fn set_lr(&mut self, group: usize, lr: f64) {
        (**self).set_lr(group, lr);
    }
    fn lrs(&self) -> Vec<f64> {
        (**self).lrs()
    }
    #[track_caller]
    fn momentum(&self, group: usize) -> Option<f64> {
        (**self).momentum(group)
    }
    #[track_caller]
    fn set_momentum(&mut self, group: usize, momentum: f64) {
        (**self).set_momentum(group, momentum);
    }
    fn set_training(&mut self, training: bool) {
        (**self).set_training(training);
    }
    fn switches(&self) -> bool {
        (**self).switches()
    }
    fn state_dict(&self) -> StateDict {
        (**self).state_dict()
    }
    fn load_state_dict(&mut self, state: &StateDict) -> Result<(), OptimizerStateError> {
        (**self).load_state_dict(state)
    }
}
