//! Cosine schedules.

use super::Schedule;
use std::f64::consts::PI;

fn cosine(eta_min: f64, base: f64, way: f64) -> f64 {
    eta_min + (base - eta_min) * (1.0 + (PI * way).cos()) / 2.0
}

/// Anneals the learning rate along half a cosine, then lets it rise again (`CosineAnnealingLR`).
///
/// ```
/// use tapegrad_nn::lr_scheduler::{CosineAnnealingLR, Schedule};
/// let schedule = CosineAnnealingLR::new(10).eta_min(0.02);
/// assert!((schedule.lr(0.1, 5) - 0.06).abs() < 1e-12);
/// ```
#[derive(Clone, Debug)]
pub struct CosineAnnealingLR {
    /// The number of steps from the highest to the lowest.
    pub t_max: u64,
    /// The lowest learning rate.
    pub eta_min: f64,
}

impl CosineAnnealingLR {
    /// Anneals to zero in `t_max` steps.
    pub fn new(t_max: u64) -> CosineAnnealingLR {
        CosineAnnealingLR { t_max, eta_min: 0.0 }
    }

    /// This schedule with another lowest learning rate.
    pub fn eta_min(mut self, eta_min: f64) -> CosineAnnealingLR {
        self.eta_min = eta_min;
        self
    }
}

impl Schedule for CosineAnnealingLR {
    fn lr(&self, base: f64, step: u64) -> f64 {
        cosine(self.eta_min, base, step as f64 / self.t_max.max(1) as f64)
    }
}

/// Anneals the learning rate along half a cosine with restarts, each cycle `t_mult` times as long
/// (`CosineAnnealingWarmRestarts`).
///
/// ```
/// use tapegrad_nn::lr_scheduler::{CosineAnnealingWarmRestarts, Schedule};
/// let schedule = CosineAnnealingWarmRestarts::new(2).t_mult(2);
/// assert_eq!([schedule.lr(0.1, 0), schedule.lr(0.1, 2), schedule.lr(0.1, 6)], [0.1; 3]);
/// ```
#[derive(Clone, Debug)]
pub struct CosineAnnealingWarmRestarts {
    /// The number of steps to the first restart.
    pub t_0: u64,
    /// The factor by which the cycle length grows.
    pub t_mult: u64,
    /// The lowest learning rate.
    pub eta_min: f64,
}

impl CosineAnnealingWarmRestarts {
    /// Anneals to zero, in `t_0` steps the first time.
    ///
    /// # Panics
    /// If `t_0` is zero.
    #[track_caller]
    pub fn new(t_0: u64) -> CosineAnnealingWarmRestarts {
        assert!(t_0 > 0, "CosineAnnealingWarmRestarts: t_0 must be positive");
        CosineAnnealingWarmRestarts { t_0, t_mult: 1, eta_min: 0.0 }
    }

    /// This schedule with another growth factor of the cycle length.
    ///
    /// # Panics
    /// If `t_mult` is zero.
    #[track_caller]
    pub fn t_mult(mut self, t_mult: u64) -> CosineAnnealingWarmRestarts {
        assert!(t_mult > 0, "CosineAnnealingWarmRestarts: t_mult must be positive");
        self.t_mult = t_mult;
        self
    }

    /// This schedule with another lowest learning rate.
    pub fn eta_min(mut self, eta_min: f64) -> CosineAnnealingWarmRestarts {
        self.eta_min = eta_min;
        self
    }
}

impl Schedule for CosineAnnealingWarmRestarts {
    fn lr(&self, base: f64, step: u64) -> f64 {
        let (mut since, mut length) = (step, self.t_0);
        if self.t_mult == 1 {
            since %= length;
        } else {
            while since >= length {
                since -= length;
                length = length.saturating_mul(self.t_mult);
            }
        }
        cosine(self.eta_min, base, since as f64 / length as f64)
    }
}
