//! `OneCycleLR`.

use super::Schedule;

/// How a learning rate goes from one value to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anneal {
    /// Along half a cosine.
    Cos,
    /// Along a line.
    Linear,
}

/// Up to `max_lr` and down to almost nothing, with the momentum cycled inversely; stepped after each batch
/// (`OneCycleLR`). The optimizer's own learning rate does not matter.
///
/// ```
/// use tapegrad_nn::lr_scheduler::{OneCycleLR, Schedule};
/// let schedule = OneCycleLR::new(1.0, 100);
/// assert_eq!(schedule.lr(0.0, 29), 1.0);
/// assert!((schedule.lr(0.0, 0) - 0.04).abs() < 1e-12 && schedule.lr(0.0, 99) < 1e-5);
/// ```
#[derive(Clone, Debug)]
pub struct OneCycleLR {
    /// The highest learning rate.
    pub max_lr: f64,
    /// The number of steps.
    pub total_steps: u64,
    /// The fraction of the steps in which the learning rate increases.
    pub pct_start: f64,
    /// The annealing curve.
    pub anneal_strategy: Anneal,
    /// Whether the momentum (or first beta) is cycled inversely.
    pub cycle_momentum: bool,
    /// The momentum at the highest learning rate.
    pub base_momentum: f64,
    /// The momentum at the start and at the end.
    pub max_momentum: f64,
    /// The first learning rate is `max_lr / div_factor`.
    pub div_factor: f64,
    /// The last learning rate is the first one divided by this.
    pub final_div_factor: f64,
    /// Three phases: down to the initial learning rate as fast as up, and only then to the last.
    pub three_phase: bool,
}

macro_rules! options {
    ($($field:ident: $ty:ty),*) => {$(
        #[doc = concat!("This schedule with the option `", stringify!($field), "`.")]
        ///
        /// # Panics
        /// If it is outside its range.
        #[track_caller]
        pub fn $field(mut self, $field: $ty) -> OneCycleLR {
            self.$field = $field;
            self.check();
            self
        }
    )*};
}

/// The values at both ends of a phase.
struct Phase {
    end: f64,
    lr: [f64; 2],
    momentum: [f64; 2],
}

impl OneCycleLR {
    /// A cycle with this maximum and length.
    ///
    /// # Panics
    /// If it has no steps, or the maximum is negative or not finite.
    #[track_caller]
    pub fn new(max_lr: f64, total_steps: u64) -> OneCycleLR {
        assert!(total_steps > 0, "OneCycleLR: total_steps must be positive");
        let schedule = OneCycleLR {
            max_lr,
            total_steps,
            pct_start: 0.3,
            anneal_strategy: Anneal::Cos,
            cycle_momentum: true,
            base_momentum: 0.85,
            max_momentum: 0.95,
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
        };
        schedule.check();
        schedule
    }

    #[track_caller]
    fn check(&self) {
        assert!(
            self.max_lr >= 0.0 && self.max_lr.is_finite(),
            "OneCycleLR: max_lr must be finite and at least 0, got {}",
            self.max_lr
        );
        assert!(
            (0.0..=1.0).contains(&self.pct_start),
            "OneCycleLR: pct_start must be in [0, 1], got {}",
            self.pct_start
        );
        assert!(
            [self.base_momentum, self.max_momentum].iter().all(|m| (0.0..=1.0).contains(m)),
            "OneCycleLR: base_momentum and max_momentum must be in [0, 1], got {} and {}",
            self.base_momentum,
            self.max_momentum
        );
        assert!(
            self.div_factor > 0.0 && self.final_div_factor > 0.0,
            "OneCycleLR: div_factor and final_div_factor must be above 0, got {} and {}",
            self.div_factor,
            self.final_div_factor
        );
    }

    options! {
        pct_start: f64, anneal_strategy: Anneal, cycle_momentum: bool, base_momentum: f64, max_momentum: f64,
        div_factor: f64, final_div_factor: f64, three_phase: bool
    }

    fn phases(&self) -> Vec<Phase> {
        let first = self.max_lr / self.div_factor;
        let last = first / self.final_div_factor;
        let (low, high) = (self.base_momentum, self.max_momentum);
        let total = self.total_steps as f64;
        let up = Phase { end: self.pct_start * total - 1.0, lr: [first, self.max_lr], momentum: [high, low] };
        let end = total - 1.0;
        if self.three_phase {
            let down = Phase {
                end: 2.0 * self.pct_start * total - 2.0,
                lr: [self.max_lr, first],
                momentum: [low, high],
            };
            vec![up, down, Phase { end, lr: [first, last], momentum: [high, high] }]
        } else {
            vec![up, Phase { end, lr: [self.max_lr, last], momentum: [low, high] }]
        }
    }

    /// The value at a step, of the quantity that `pick` selects from a phase.
    #[track_caller]
    fn value(&self, step: u64, pick: impl Fn(&Phase) -> [f64; 2]) -> f64 {
        assert!(
            step <= self.total_steps,
            "OneCycleLR: step {step} is past the {} steps of the cycle",
            self.total_steps
        );
        let step = step as f64;
        let phases = self.phases();
        let i = phases.iter().position(|p| step <= p.end).unwrap_or(phases.len() - 1);
        let begin = if i == 0 { 0.0 } else { phases[i - 1].end };
        let way = (step - begin) / (phases[i].end - begin);
        let [from, to] = pick(&phases[i]);
        match self.anneal_strategy {
            Anneal::Cos => to + (from - to) / 2.0 * ((std::f64::consts::PI * way).cos() + 1.0),
            Anneal::Linear => (to - from) * way + from,
        }
    }
}

impl Schedule for OneCycleLR {
    #[track_caller]
    fn lr(&self, _base: f64, step: u64) -> f64 {
        self.value(step, |p| p.lr)
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        self.cycle_momentum.then(|| self.value(step, |p| p.momentum))
    }
}
