//! `SWALR`.

use super::{Anneal, Schedule};

/// Anneals the learning rate to a fixed one, with which the weights are then averaged (`torch.optim.swa_utils.SWALR`). It
/// begins with the learning rate that the optimizer has at the first step: another schedule may run before it.
///
/// ```
/// use tapegrad_nn::lr_scheduler::{Anneal, SWALR, Schedule};
/// let schedule = SWALR::new(0.5).anneal_epochs(4).anneal_strategy(Anneal::Linear);
/// assert_eq!([0, 1, 4, 9].map(|step| schedule.lr(1.5, step)), [1.5, 1.25, 0.5, 0.5]);
/// ```
#[derive(Clone, Debug)]
pub struct SWALR {
    /// The learning rate at the end.
    pub swa_lr: f64,
    /// The number of steps to it.
    pub anneal_epochs: u64,
    /// The annealing curve.
    pub anneal_strategy: Anneal,
}

impl SWALR {
    /// Anneals in ten steps along half a cosine.
    ///
    /// # Panics
    /// If the learning rate is negative or not finite.
    #[track_caller]
    pub fn new(swa_lr: f64) -> SWALR {
        assert!(
            swa_lr >= 0.0 && swa_lr.is_finite(),
            "SWALR: swa_lr must be finite and at least 0, got {swa_lr}"
        );
        SWALR { swa_lr, anneal_epochs: 10, anneal_strategy: Anneal::Cos }
    }

    /// This schedule with another number of steps.
    pub fn anneal_epochs(mut self, epochs: u64) -> SWALR {
        self.anneal_epochs = epochs;
        self
    }

    /// This schedule with another curve.
    pub fn anneal_strategy(mut self, strategy: Anneal) -> SWALR {
        self.anneal_strategy = strategy;
        self
    }
}

impl Schedule for SWALR {
    fn lr(&self, base: f64, step: u64) -> f64 {
        let way = match self.anneal_epochs {
            0 => 1.0,
            n => step.min(n) as f64 / n as f64,
        };
        let share = match self.anneal_strategy {
            Anneal::Cos => (1.0 - (std::f64::consts::PI * way).cos()) / 2.0,
            Anneal::Linear => way,
        };
        self.swa_lr * share + base * (1.0 - share)
    }

    fn begins_at_first_step(&self) -> bool {
        true
    }
}
