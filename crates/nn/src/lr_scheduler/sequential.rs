//! `SequentialLR`.

use super::Schedule;
use super::simple::passed;

/// One schedule after the other (`SequentialLR`): each begins at its milestone with step 0.
///
/// ```
/// use tapegrad_nn::lr_scheduler::{CosineAnnealingLR, LinearLR, Schedule, SequentialLR};
/// let schedule = SequentialLR::new()
///     .then(LinearLR::new().start_factor(0.1).total_iters(5))
///     .at(5, CosineAnnealingLR::new(95));
/// assert_eq!([schedule.lr(0.1, 0), schedule.lr(0.1, 5)], [0.010000000000000002, 0.1]);
/// ```
#[derive(Default)]
pub struct SequentialLR {
    schedules: Vec<Box<dyn Schedule>>,
    milestones: Vec<u64>,
}

impl SequentialLR {
    /// No schedule yet; the learning rate stays.
    pub fn new() -> SequentialLR {
        SequentialLR::default()
    }

    /// This sequence with its first schedule.
    ///
    /// # Panics
    /// If there is one already: the next ones begin [`SequentialLR::at`] a step.
    #[track_caller]
    pub fn then(mut self, schedule: impl Schedule + 'static) -> SequentialLR {
        assert!(
            self.schedules.is_empty(),
            "SequentialLR: the next schedule needs the step at which it begins"
        );
        self.schedules.push(Box::new(schedule));
        self
    }

    /// This sequence with a schedule that takes over at a milestone.
    ///
    /// # Panics
    /// If there is no first schedule, or the step is not after the last milestone.
    #[track_caller]
    pub fn at(mut self, milestone: u64, schedule: impl Schedule + 'static) -> SequentialLR {
        assert!(!self.schedules.is_empty(), "SequentialLR: the first schedule begins at step 0");
        assert!(
            self.milestones.last().is_none_or(|last| *last < milestone),
            "SequentialLR: milestone {milestone} is not after {:?}",
            self.milestones
        );
        self.schedules.push(Box::new(schedule));
        self.milestones.push(milestone);
        self
    }

    fn active(&self, step: u64) -> Option<(&dyn Schedule, u64)> {
        let i = passed(&self.milestones, step);
        let begun = if i == 0 { 0 } else { self.milestones[i - 1] };
        Some((&**self.schedules.get(i)?, step - begun))
    }
}

impl Schedule for SequentialLR {
    fn lr(&self, base: f64, step: u64) -> f64 {
        self.active(step).map_or(base, |(schedule, step)| schedule.lr(base, step))
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        self.active(step).and_then(|(schedule, step)| schedule.momentum(step))
    }
}
