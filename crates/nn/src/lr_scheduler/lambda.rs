//! `LambdaLR`.

use super::Schedule;

/// Multiplies the learning rate by any function of the step (`LambdaLR`).
///
/// ```
/// use tapegrad_nn::lr_scheduler::{LambdaLR, Schedule};
/// let schedule = LambdaLR::new(|step| 1.0 / (1.0 + step as f64));
/// assert_eq!(schedule.lr(0.1, 1), 0.05);
/// ```
pub struct LambdaLR {
    factor: Box<dyn Fn(u64) -> f64 + Send>,
}

impl LambdaLR {
    /// A schedule with this factor.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + 'static) -> LambdaLR {
        LambdaLR { factor: Box::new(factor) }
    }
}

impl Schedule for LambdaLR {
    fn lr(&self, base: f64, step: u64) -> f64 {
        base * (self.factor)(step)
    }
}
