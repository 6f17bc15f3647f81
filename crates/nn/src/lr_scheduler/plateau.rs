//! `ReduceLROnPlateau`.

use super::{number, numbers};
use crate::StateDict;
use crate::optim::{Optimizer, OptimizerStateError};
use tapegrad_tape::Tensor;

/// Whether a metric is better when it is smaller or larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Smaller is better: a loss.
    Min,
    /// Larger is better: an accuracy.
    Max,
}

/// What a threshold is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdMode {
    /// Relative to the best value.
    Rel,
    /// An absolute difference from the best value.
    Abs,
}

/// Lowers the learning rate when a metric stops improving (`ReduceLROnPlateau`).
///
/// ```
/// use tapegrad_nn::{lr_scheduler::{Mode, ReduceLROnPlateau}, optim::{Optimizer, SGD}};
/// use tapegrad_tape::{Tensor, Var};
/// let mut optimizer = SGD::new([Var::parameter(Tensor::scalar(1.0))], 0.1);
/// let mut scheduler = ReduceLROnPlateau::new(Mode::Min).factor(0.5).patience(1).attach(&optimizer);
/// for loss in [1.0, 0.9, 0.9, 0.9] {
///     scheduler.step(loss, &mut optimizer);
/// }
/// assert_eq!(optimizer.lr(0), 0.05);
/// ```
#[derive(Clone, Debug)]
pub struct ReduceLROnPlateau {
    /// Whether smaller or larger is better.
    pub mode: Mode,
    /// The factor by which the learning rate falls.
    pub factor: f64,
    /// The number of steps without improvement that are tolerated.
    pub patience: u64,
    /// How much better counts as better.
    pub threshold: f64,
    /// What the threshold is relative to.
    pub threshold_mode: ThresholdMode,
    /// The number of steps after a reduction that are not counted.
    pub cooldown: u64,
    /// The lowest learning rate.
    pub min_lr: f64,
    /// Smaller changes of the learning rate are skipped.
    pub eps: f64,
}

macro_rules! options {
    ($($field:ident: $ty:ty),*) => {$(
        #[doc = concat!("This schedule with the option `", stringify!($field), "`.")]
        ///
        /// # Panics
        /// If it is outside its range: a factor below 1, and non-negative thresholds and rates.
        #[track_caller]
        pub fn $field(mut self, $field: $ty) -> ReduceLROnPlateau {
            self.$field = $field;
            assert!(
                (0.0..1.0).contains(&self.factor),
                "ReduceLROnPlateau: factor must be in [0, 1), got {}",
                self.factor
            );
            assert!(
                [self.threshold, self.min_lr, self.eps].iter().all(|x| *x >= 0.0),
                "ReduceLROnPlateau: threshold, min_lr and eps must be finite and at least 0, got {self:?}"
            );
            self
        }
    )*};
}

impl ReduceLROnPlateau {
    /// A schedule with defaults for the other options.
    pub fn new(mode: Mode) -> ReduceLROnPlateau {
        ReduceLROnPlateau {
            mode,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: 0.0,
            eps: 1e-8,
        }
    }

    options! {
        factor: f64, patience: u64, threshold: f64, threshold_mode: ThresholdMode, cooldown: u64, min_lr: f64, eps: f64
    }

    /// Attaches the schedule to an optimizer.
    pub fn attach(self, _optimizer: &dyn Optimizer) -> PlateauScheduler {
        let best = match self.mode {
            Mode::Min => f64::INFINITY,
            Mode::Max => f64::NEG_INFINITY,
        };
        PlateauScheduler { options: self, best, bad_steps: 0, cooldown: 0 }
    }

    fn is_better(&self, metric: f64, best: f64) -> bool {
        match (self.mode, self.threshold_mode) {
            (Mode::Min, ThresholdMode::Rel) => metric < best * (1.0 - self.threshold),
            (Mode::Min, ThresholdMode::Abs) => metric < best - self.threshold,
            (Mode::Max, ThresholdMode::Rel) => metric > best * (1.0 + self.threshold),
            (Mode::Max, ThresholdMode::Abs) => metric > best + self.threshold,
        }
    }
}

/// A [`ReduceLROnPlateau`] attached to an optimizer.
pub struct PlateauScheduler {
    options: ReduceLROnPlateau,
    best: f64,
    bad_steps: u64,
    cooldown: u64,
}

impl PlateauScheduler {
    /// Takes the metric of an epoch, and lowers the learning rates if it has not improved for too long.
    pub fn step(&mut self, metric: f64, optimizer: &mut dyn Optimizer) {
        let o = &self.options;
        if o.is_better(metric, self.best) {
            self.best = metric;
            self.bad_steps = 0;
        } else {
            self.bad_steps += 1;
        }
        if self.cooldown > 0 {
            self.cooldown -= 1;
            self.bad_steps = 0;
        }
        if self.bad_steps > o.patience {
            for group in 0..optimizer.num_groups() {
                let old = optimizer.lr(group);
                let new = (old * o.factor).max(o.min_lr);
                if old - new > o.eps {
                    optimizer.set_lr(group, new);
                }
            }
            self.cooldown = o.cooldown;
            self.bad_steps = 0;
        }
    }

    /// The best metric so far.
    pub fn best(&self) -> f64 {
        self.best
    }

    /// The state of the schedule, to resume from.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new();
        state.insert("best", Tensor::from_slice(&[self.best], &[1]));
        state.insert("counts", Tensor::from_slice(&[self.bad_steps as i64, self.cooldown as i64], &[2]));
        state
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// If the state is not of such a schedule. Then nothing is changed.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<(), OptimizerStateError> {
        let best = number(state, "best")?;
        let counts = numbers(state, "counts", 2)?;
        (self.best, self.bad_steps, self.cooldown) = (best, counts[0] as u64, counts[1] as u64);
        Ok(())
    }
}
