//! Schedules in closed form.

use super::Schedule;

/// The number of milestones reached.
pub(super) fn passed(milestones: &[u64], step: u64) -> usize {
    milestones.iter().filter(|m| **m <= step).count()
}

macro_rules! schedules {
    ($(
        $(#[$meta:meta])*
        $name:ident($($(#[$given_meta:meta])* $given:ident: $given_ty:ty),* $(,)?) {
            $($(#[$field_meta:meta])* $field:ident: $ty:ty = $default:expr,)*
        }
        $(check |$c:ident| $fits:expr, $range:literal;)?
        |$s:ident, $base:ident, $step:ident| $lr:expr;
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[$given_meta])* pub $given: $given_ty,)*
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        #[allow(clippy::new_without_default)]
        impl $name {
            /// A schedule with defaults for the other options.
            ///
            /// # Panics
            /// If an option is outside its range.
            #[track_caller]
            pub fn new($($given: $given_ty),*) -> $name {
                $name { $($given,)* $($field: $default,)* }.checked()
            }

            #[track_caller]
            fn checked(self) -> $name {
                $({
                    let $c = &self;
                    assert!($fits, "{}: {}, got {self:?}", stringify!($name), $range);
                })?
                self
            }

            $(
                #[doc = concat!("This schedule with the option `", stringify!($field), "`.")]
                ///
                $(#[$field_meta])*
                ///
                /// # Panics
                /// If it is outside its range.
                #[track_caller]
                pub fn $field(mut self, $field: $ty) -> $name {
                    self.$field = $field;
                    self.checked()
                }
            )*
        }

        impl Schedule for $name {
            fn lr(&self, $base: f64, $step: u64) -> f64 {
                let $s = self;
                $lr
            }
        }
    )*};
}

schedules! {
    /// Multiplies the learning rate by `gamma` every `step_size` steps (`StepLR`).
    ///
    /// ```
    /// use tapegrad_nn::lr_scheduler::{Schedule, StepLR};
    /// assert_eq!(StepLR::new(30).gamma(0.5).lr(0.1, 60), 0.025);
    /// ```
    StepLR(
        /// The steps between changes.
        step_size: u64,
    ) {
        /// The factor.
        gamma: f64 = 0.1,
    }
    check |s| s.step_size > 0 && !s.gamma.is_nan(), "step_size must be above 0, and gamma must not be NaN";
    |s, base, step| base * s.gamma.powi((step / s.step_size.max(1)) as i32);

    /// Multiplies the learning rate by `gamma` at each milestone (`MultiStepLR`).
    ///
    /// ```
    /// use tapegrad_nn::lr_scheduler::{MultiStepLR, Schedule};
    /// assert_eq!(MultiStepLR::new(vec![2, 5]).gamma(0.5).lr(0.1, 5), 0.025);
    /// ```
    MultiStepLR(
        /// The steps at which it changes.
        milestones: Vec<u64>,
    ) {
        /// The factor.
        gamma: f64 = 0.1,
    }
    check |s| !s.gamma.is_nan(), "gamma must not be NaN";
    |s, base, step| base * s.gamma.powi(passed(&s.milestones, step) as i32);

    /// Multiplies the learning rate by `gamma` at every step (`ExponentialLR`).
    ///
    /// ```
    /// use tapegrad_nn::lr_scheduler::{ExponentialLR, Schedule};
    /// assert_eq!(ExponentialLR::new(0.5).lr(0.1, 2), 0.025);
    /// ```
    ExponentialLR(
        /// The factor.
        gamma: f64,
    ) {}
    check |s| !s.gamma.is_nan(), "gamma must not be NaN";
    |s, base, step| base * s.gamma.powi(step as i32);

    /// Multiplies the learning rate by `factor` for the first steps (`ConstantLR`).
    ///
    /// ```
    /// use tapegrad_nn::lr_scheduler::{ConstantLR, Schedule};
    /// let schedule = ConstantLR::new().factor(0.5).total_iters(4);
    /// assert_eq!([schedule.lr(0.1, 3), schedule.lr(0.1, 4)], [0.05, 0.1]);
    /// ```
    ConstantLR() {
        /// The factor.
        factor: f64 = 1.0 / 3.0,
        /// The number of steps with the factor.
        total_iters: u64 = 5,
    }
    check |s| (0.0..=1.0).contains(&s.factor), "factor must be in [0, 1]";
    |s, base, step| if step < s.total_iters { base * s.factor } else { base };

    /// Multiplies the learning rate by a factor that changes linearly, for warmup (`LinearLR`).
    ///
    /// ```
    /// use tapegrad_nn::lr_scheduler::{LinearLR, Schedule};
    /// let schedule = LinearLR::new().start_factor(0.5).total_iters(4);
    /// assert_eq!([schedule.lr(0.1, 0), schedule.lr(0.1, 9)], [0.05, 0.1]);
    /// ```
    LinearLR() {
        /// The first factor.
        start_factor: f64 = 1.0 / 3.0,
        /// The last factor.
        end_factor: f64 = 1.0,
        /// The number of steps from the first to the last.
        total_iters: u64 = 5,
    }
    check |s| 0.0 < s.start_factor && s.start_factor <= 1.0 && (0.0..=1.0).contains(&s.end_factor),
        "start_factor must be above 0, and both factors at most 1";
    |s, base, step| {
        let way = step.min(s.total_iters) as f64 / s.total_iters.max(1) as f64;
        base * (s.start_factor + (s.end_factor - s.start_factor) * way)
    };

    /// Decays the learning rate to zero by a power of the remaining steps (`PolynomialLR`).
    ///
    /// ```
    /// use tapegrad_nn::lr_scheduler::{PolynomialLR, Schedule};
    /// assert_eq!(PolynomialLR::new().total_iters(4).power(2.0).lr(0.1, 2), 0.025);
    /// ```
    PolynomialLR() {
        /// The number of steps to zero.
        total_iters: u64 = 5,
        /// The power.
        power: f64 = 1.0,
    }
    check |s| !s.power.is_nan(), "power must not be NaN";
    |s, base, step| {
        let way = step.min(s.total_iters) as f64 / s.total_iters.max(1) as f64;
        base * (1.0 - way).powf(s.power)
    };
}
