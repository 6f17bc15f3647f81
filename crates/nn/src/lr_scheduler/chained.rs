//! `ChainedScheduler`.

use super::Schedule;

/// Several schedules at once (`ChainedScheduler`): each takes the learning rate of the one before it for its base, so factors
/// are multiplied. A momentum is that of the last schedule that has one.
///
/// A schedule that ignores its base, such as [`OneCycleLR`](super::OneCycleLR), replaces what those before it give.
///
/// ```
/// use tapegrad_nn::lr_scheduler::{ChainedScheduler, ConstantLR, ExponentialLR, Schedule};
/// let schedule = ChainedScheduler::new()
///     .add(ConstantLR::new().factor(0.5).total_iters(2))
///     .add(ExponentialLR::new(0.5));
/// assert_eq!([0, 1, 2].map(|step| schedule.lr(0.8, step)), [0.4, 0.2, 0.2]);
/// ```
#[derive(Default)]
pub struct ChainedScheduler {
    schedules: Vec<Box<dyn Schedule>>,
}

impl ChainedScheduler {
    /// No schedule yet; the learning rate stays.
    pub fn new() -> ChainedScheduler {
        ChainedScheduler::default()
    }

    /// This chain with one more schedule at its end.
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, schedule: impl Schedule + 'static) -> ChainedScheduler {
        self.schedules.push(Box::new(schedule));
        self
    }
}

impl Schedule for ChainedScheduler {
    #[track_caller]
    fn lr(&self, base: f64, step: u64) -> f64 {
        self.schedules.iter().fold(base, |lr, schedule| schedule.lr(lr, step))
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        self.schedules.iter().rev().find_map(|schedule| schedule.momentum(step))
    }
}
