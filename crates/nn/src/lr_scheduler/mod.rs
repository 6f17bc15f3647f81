//! Learning-rate schedules, with PyTorch's arguments and defaults (`torch.optim.lr_scheduler`).
//!
//! A schedule is made, then attached to an optimizer, whose learning rates it sets immediately, and again at
//! every step:
//!
//! ```
//! use tapegrad_nn::{lr_scheduler::{Schedule, StepLR}, optim::{Optimizer, SGD}};
//! use tapegrad_tape::{Tensor, Var};
//! let mut optimizer = SGD::new([Var::parameter(Tensor::scalar(1.0))], 0.1);
//! let mut scheduler = StepLR::new(2).gamma(0.5).attach(&mut optimizer);
//! let mut rates = Vec::new();
//! for _epoch in 0..4 {
//!     rates.push(optimizer.lr(0));
//!     scheduler.step(&mut optimizer);
//! }
//! assert_eq!(rates, [0.1, 0.1, 0.05, 0.05]);
//! ```

mod chained;
mod cosine;
mod cyclic;
mod lambda;
mod one_cycle;
mod plateau;
mod sequential;
mod simple;
mod swa;

pub use chained::ChainedScheduler;
pub use cosine::{CosineAnnealingLR, CosineAnnealingWarmRestarts};
pub use cyclic::{CyclicLR, CyclicMode, ScaleMode};
pub use lambda::{LambdaLR, MultiplicativeLR};
pub use one_cycle::{Anneal, OneCycleLR};
pub use plateau::{Mode, PlateauScheduler, ReduceLROnPlateau, ThresholdMode};
pub use sequential::SequentialLR;
pub use simple::{ConstantLR, ExponentialLR, LinearLR, MultiStepLR, PolynomialLR, StepLR};
pub use swa::SWALR;

use crate::StateDict;
use crate::optim::{Optimizer, OptimizerStateError};
use tapegrad_tape::Tensor;

/// A learning rate as a function of the number of steps (of the schedule: epochs, or batches).
pub trait Schedule: Send {
    /// The learning rate at a step, from the one that the optimizer was made with.
    fn lr(&self, base: f64, step: u64) -> f64;

    /// The momentum at a step; `None` for a schedule that does not change it.
    fn momentum(&self, step: u64) -> Option<f64> {
        let _ = step;
        None
    }

    /// True for a schedule whose base is the learning rate that the optimizer has before the first step, not the one that it
    /// had when the schedule was attached.
    fn begins_at_first_step(&self) -> bool {
        false
    }

    /// Attaches the schedule to an optimizer and sets the learning rates of step 0.
    ///
    /// # Panics
    /// If the schedule changes the momentum and the optimizer has none.
    #[track_caller]
    fn attach(self, optimizer: &mut dyn Optimizer) -> Scheduler
    where
        Self: Sized + 'static,
    {
        Scheduler::new(Box::new(self), optimizer)
    }
}

impl Schedule for Box<dyn Schedule> {
    fn lr(&self, base: f64, step: u64) -> f64 {
        (**self).lr(base, step)
    }
    fn momentum(&self, step: u64) -> Option<f64> {
        (**self).momentum(step)
    }
    fn begins_at_first_step(&self) -> bool {
        (**self).begins_at_first_step()
    }
}

/// A schedule attached to an optimizer: its step and the base learning rates.
pub struct Scheduler {
    schedule: Box<dyn Schedule>,
    base_lrs: Vec<f64>,
    step: u64,
}

impl Scheduler {
    #[track_caller]
    fn new(schedule: Box<dyn Schedule>, optimizer: &mut dyn Optimizer) -> Scheduler {
        let without = (0..optimizer.num_groups()).find(|&g| optimizer.momentum(g).is_none());
        if let (Some(_), Some(group)) = (schedule.momentum(0), without) {
            panic!(
                "scheduler: changes the momentum, which the optimizer does not have (group {group}); \
                 OneCycleLR and CyclicLR leave it alone with cycle_momentum(false)"
            );
        }
        let scheduler = Scheduler { schedule, base_lrs: optimizer.lrs(), step: 0 };
        scheduler.apply(optimizer);
        scheduler
    }

    /// Advances by one step: call it after each epoch, or after each batch for a schedule of batches.
    ///
    /// # Panics
    /// If the optimizer has another number of groups than the one attached to, or the schedule has ended
    /// ([`OneCycleLR`]).
    #[track_caller]
    pub fn step(&mut self, optimizer: &mut dyn Optimizer) {
        if self.step == 0 && self.schedule.begins_at_first_step() {
            self.base_lrs = optimizer.lrs();
        }
        self.step += 1;
        self.apply(optimizer);
    }

    /// The learning rates that the optimizer had when it was attached.
    pub(crate) fn base_lrs(&self) -> &[f64] {
        &self.base_lrs
    }

    #[track_caller]
    pub(crate) fn apply(&self, optimizer: &mut dyn Optimizer) {
        assert_eq!(
            self.base_lrs.len(),
            optimizer.num_groups(),
            "scheduler: the optimizer has another number of groups than the one that it was attached to"
        );
        for (group, &base) in self.base_lrs.iter().enumerate() {
            optimizer.set_lr(group, self.schedule.lr(base, self.step));
            if let Some(momentum) = self.schedule.momentum(self.step) {
                optimizer.set_momentum(group, momentum);
            }
        }
    }

    /// The number of steps made (`last_epoch`).
    pub fn last_step(&self) -> u64 {
        self.step
    }

    /// The learning rates that the schedule set last (`get_last_lr`).
    pub fn last_lrs(&self) -> Vec<f64> {
        self.base_lrs.iter().map(|&base| self.schedule.lr(base, self.step)).collect()
    }

    /// The state of the schedule, to resume from.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new();
        state.insert("step", Tensor::scalar(self.step as i64));
        state.insert("base_lrs", Tensor::from_slice(&self.base_lrs, &[self.base_lrs.len()]));
        state
    }

    /// Restores a saved state. The optimizer's learning rates come from its own state.
    ///
    /// # Errors
    /// If the state is not of a schedule of as many groups. Then nothing is changed.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<(), OptimizerStateError> {
        let step = number(state, "step")?;
        let lrs = numbers(state, "base_lrs", self.base_lrs.len())?;
        (self.step, self.base_lrs) = (step as u64, lrs);
        Ok(())
    }
}

fn numbers(state: &StateDict, key: &str, count: usize) -> Result<Vec<f64>, OptimizerStateError> {
    let fail = |reason: String| OptimizerStateError { optimizer: "the scheduler", key: key.into(), reason };
    let t = state.get(key).ok_or_else(|| fail("is missing".into()))?;
    if t.numel() != count {
        return Err(fail(format!("has {} values, expected {count}", t.numel())));
    }
    Ok(t.to_vec::<f64>())
}

fn number(state: &StateDict, key: &str) -> Result<f64, OptimizerStateError> {
    Ok(numbers(state, key, 1)?[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::SGD;
    use tapegrad_tape::Var;

    /// PyTorch 2.15 raises ValueError for each (`step_size` 0: ZeroDivisionError), `max_lr` and momenta excepted,
    /// which it does not check.
    fn discard<T>(_: T) {}

    #[test]
    fn ranges_are_those_of_pytorch() {
        let refused = |f: fn(), message: &str| {
            let error = std::panic::catch_unwind(f).unwrap_err();
            let text = error.downcast::<String>().expect("a message");
            assert!(text.contains(message), "{text}");
        };
        refused(|| discard(StepLR::new(0)), "StepLR: step_size must be above 0");
        refused(|| discard(ConstantLR::new().factor(1.5)), "ConstantLR: factor must be in [0, 1]");
        refused(|| discard(LinearLR::new().start_factor(0.0)), "LinearLR: start_factor must be above 0");
        refused(|| discard(LinearLR::new().end_factor(-0.1)), "LinearLR: start_factor");
        refused(
            || discard(OneCycleLR::new(0.1, 10).pct_start(1.5)),
            "OneCycleLR: pct_start must be in [0, 1]",
        );
        refused(|| discard(CyclicLR::new(-0.1, 1.0)), "CyclicLR: base_lr and max_lr");
        refused(|| discard(CyclicLR::new(0.1, 1.0).step_size_up(0)), "CyclicLR: step_size_up");
        refused(|| discard(CyclicLR::new(0.1, 1.0).base_momentum(-0.5)), "CyclicLR: base_momentum");
        refused(|| discard(SWALR::new(f64::INFINITY)), "SWALR: swa_lr");
        refused(|| discard(OneCycleLR::new(f64::NAN, 10)), "OneCycleLR: max_lr");
        refused(
            || discard(OneCycleLR::new(0.1, 10).max_momentum(2.0)),
            "OneCycleLR: base_momentum and max_momentum",
        );
        refused(|| discard(ReduceLROnPlateau::new(Mode::Min).factor(1.0)), "ReduceLROnPlateau: factor");
        refused(
            || discard(ReduceLROnPlateau::new(Mode::Min).min_lr(-1.0)),
            "ReduceLROnPlateau: threshold, min_lr",
        );
        refused(
            || {
                let mut rprop = crate::optim::Rprop::new([Var::parameter(Tensor::scalar(1.0))], 0.1);
                OneCycleLR::new(0.1, 10).attach(&mut rprop);
            },
            "changes the momentum, which the optimizer does not have (group 0)",
        );
    }

    #[test]
    fn a_loaded_state_goes_on() {
        let mut sgd = SGD::new([Var::parameter(Tensor::scalar(1.0))], 0.1);
        let mut a = ExponentialLR::new(0.5).attach(&mut sgd);
        a.step(&mut sgd);
        let saved = a.state_dict();
        let mut b = ExponentialLR::new(0.5).attach(&mut sgd);
        b.load_state_dict(&saved).unwrap();
        b.step(&mut sgd);
        assert_eq!((sgd.lr(0), b.last_step()), (0.025, 2));
        assert!(b.load_state_dict(&StateDict::new()).is_err());
    }
}
