//! `CyclicLR`.

use super::Schedule;

/// How the height of a cycle of [`CyclicLR`] changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CyclicMode {
    /// It stays.
    Triangular,
    /// It is halved after each cycle.
    Triangular2,
    /// It is multiplied by `gamma` at each step.
    ExpRange,
}

/// What the function that scales the cycles of [`CyclicLR`] is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleMode {
    /// The number of the cycle, from 1.
    Cycle,
    /// The number of the step, from 0.
    Iterations,
}

type Scale = Box<dyn Fn(f64) -> f64 + Send>;

/// Up from `base_lr` to `max_lr` and down again, over and over, with the momentum cycled inversely; stepped after each
/// batch (`CyclicLR`, Smith 2017). The optimizer's own learning rate does not matter.
///
/// ```
/// use tapegrad_nn::lr_scheduler::{CyclicLR, CyclicMode, Schedule};
/// let schedule = CyclicLR::new(0.25, 1.25).step_size_up(2).mode(CyclicMode::Triangular2);
/// let rates: Vec<f64> = (0..7).map(|step| schedule.lr(0.0, step)).collect();
/// assert_eq!(rates, [0.25, 0.75, 1.25, 0.75, 0.25, 0.5, 0.75]);
/// ```
pub struct CyclicLR {
    /// The lower bound of the learning rate.
    pub base_lr: f64,
    /// The upper bound.
    pub max_lr: f64,
    /// The number of steps from the lower bound to the upper one.
    pub step_size_up: u64,
    /// The number of steps back; as many as up, if absent.
    pub step_size_down: Option<u64>,
    /// How the height of the cycles changes, if no function is given.
    pub mode: CyclicMode,
    /// The factor of [`CyclicMode::ExpRange`].
    pub gamma: f64,
    /// What the function that scales the cycles is given.
    pub scale_mode: ScaleMode,
    /// Whether the momentum (or first beta) is cycled inversely.
    pub cycle_momentum: bool,
    /// The lower bound of the momentum, at the highest learning rate.
    pub base_momentum: f64,
    /// The upper bound of the momentum, at the lowest learning rate.
    pub max_momentum: f64,
    scale_fn: Option<Scale>,
}

macro_rules! options {
    ($($field:ident: $ty:ty),*) => {$(
        #[doc = concat!("This schedule with the option `", stringify!($field), "`.")]
        ///
        /// # Panics
        /// If it is outside its range.
        #[track_caller]
        pub fn $field(mut self, $field: $ty) -> CyclicLR {
            self.$field = $field;
            self.check();
            self
        }
    )*};
}

impl CyclicLR {
    /// Cycles between these bounds, of 2000 steps up and 2000 down.
    ///
    /// # Panics
    /// If a bound is negative or not finite.
    #[track_caller]
    pub fn new(base_lr: f64, max_lr: f64) -> CyclicLR {
        let schedule = CyclicLR {
            base_lr,
            max_lr,
            step_size_up: 2000,
            step_size_down: None,
            mode: CyclicMode::Triangular,
            gamma: 1.0,
            scale_mode: ScaleMode::Cycle,
            cycle_momentum: true,
            base_momentum: 0.8,
            max_momentum: 0.9,
            scale_fn: None,
        };
        schedule.check();
        schedule
    }

    options! {
        step_size_up: u64, mode: CyclicMode, gamma: f64, scale_mode: ScaleMode, cycle_momentum: bool,
        base_momentum: f64, max_momentum: f64
    }

    /// This schedule with another number of steps down than up.
    pub fn step_size_down(mut self, step_size_down: u64) -> CyclicLR {
        self.step_size_down = Some(step_size_down);
        self
    }

    /// This schedule with a function that scales the height of the cycles, in place of a mode: of the number of the cycle,
    /// or of the step with [`ScaleMode::Iterations`].
    ///
    /// ```
    /// use tapegrad_nn::lr_scheduler::{CyclicLR, Schedule};
    /// let schedule = CyclicLR::new(0.0, 1.0).step_size_up(1).scale_fn(|cycle| 1.0 / cycle);
    /// assert_eq!([1, 3, 5].map(|step| schedule.lr(0.0, step)), [1.0, 0.5, 1.0 / 3.0]);
    /// ```
    pub fn scale_fn(mut self, scale: impl Fn(f64) -> f64 + Send + 'static) -> CyclicLR {
        self.scale_fn = Some(Box::new(scale));
        self
    }

    #[track_caller]
    fn check(&self) {
        assert!(
            [self.base_lr, self.max_lr].iter().all(|lr| *lr >= 0.0 && lr.is_finite()),
            "CyclicLR: base_lr and max_lr must be finite and at least 0, got {} and {}",
            self.base_lr,
            self.max_lr
        );
        assert!(self.step_size_up > 0, "CyclicLR: step_size_up must be above 0, got {}", self.step_size_up);
        assert!(!self.gamma.is_nan(), "CyclicLR: gamma must not be NaN");
        assert!(
            [self.base_momentum, self.max_momentum].iter().all(|m| (0.0..=1.0).contains(m)),
            "CyclicLR: base_momentum and max_momentum must be in [0, 1], got {} and {}",
            self.base_momentum,
            self.max_momentum
        );
    }

    /// The distance from the lower bound at a step, as a share of the distance between the bounds.
    fn height(&self, step: u64) -> f64 {
        let up = self.step_size_up as f64;
        let total = up + self.step_size_down.map_or(up, |down| down as f64);
        let (ratio, place) = (up / total, 1.0 + step as f64 / total);
        let cycle = place.floor();
        let x = place - cycle;
        let height = if x <= ratio { x / ratio } else { (x - 1.0) / (ratio - 1.0) };
        let scale = match (&self.scale_fn, self.mode) {
            (Some(scale), _) if self.scale_mode == ScaleMode::Cycle => scale(cycle),
            (Some(scale), _) => scale(step as f64),
            (None, CyclicMode::Triangular) => 1.0,
            (None, CyclicMode::Triangular2) => 0.5f64.powf(cycle - 1.0),
            (None, CyclicMode::ExpRange) => self.gamma.powf(step as f64),
        };
        height * scale
    }
}

impl Schedule for CyclicLR {
    fn lr(&self, _base: f64, step: u64) -> f64 {
        self.base_lr + (self.max_lr - self.base_lr) * self.height(step)
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        let span = self.max_momentum - self.base_momentum;
        self.cycle_momentum.then(|| self.max_momentum - span * self.height(step))
    }
}
