//! `LambdaLR` and `MultiplicativeLR`.

use super::Schedule;
use std::cell::Cell;

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

/// Multiplies the learning rate at each step by a function of the step (`MultiplicativeLR`): the product of all factors so
/// far.
///
/// ```
/// use tapegrad_nn::lr_scheduler::{MultiplicativeLR, Schedule};
/// let schedule = MultiplicativeLR::new(|step| if step == 2 { 0.5 } else { 1.0 });
/// assert_eq!([0, 1, 2, 3].map(|step| schedule.lr(0.1, step)), [0.1, 0.1, 0.05, 0.05]);
/// ```
pub struct MultiplicativeLR {
    factor: Box<dyn Fn(u64) -> f64 + Send>,
    /// A step and the product of the factors up to it: the next step multiplies once.
    known: Cell<(u64, f64)>,
}

impl MultiplicativeLR {
    /// A schedule with these factors, from step 1 on.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + 'static) -> MultiplicativeLR {
        MultiplicativeLR { factor: Box::new(factor), known: Cell::new((0, 1.0)) }
    }
}

impl Schedule for MultiplicativeLR {
    fn lr(&self, base: f64, step: u64) -> f64 {
        let (begin, product) = if self.known.get().0 <= step { self.known.get() } else { (0, 1.0) };
        let product = (begin + 1..=step).fold(product, |product, i| product * (self.factor)(i));
        self.known.set((step, product));
        base * product
    }
}
