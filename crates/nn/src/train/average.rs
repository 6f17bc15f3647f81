//! Averages of weights over steps: exponential moving averages and lookahead.

use crate::fields::walk;
use crate::fields::{Item, Module};
use crate::state_dict::{StateDict, StateDictError, load};
use tapegrad_tape::kernels::update::update0;
use tapegrad_tape::{Float, Tensor, Var};

/// An average of a model's floating-point parameters and buffers.
///
/// ```
/// use tapegrad_nn::{Linear, Forward, train::WeightAverage};
/// let model = Linear::new(2, 1);
/// let mut average = WeightAverage::new(&model);
/// tapegrad_nn::init::ones_(&model.weight);
/// average.update(0.0);
/// tapegrad_nn::init::zeros_(&model.weight);
/// average.swap();
/// assert_eq!(model.weight.to_vec::<f32>(), [1.0, 1.0]);
/// ```
pub struct WeightAverage {
    /// The variables and their averages.
    entries: Vec<(String, Var, Tensor)>,
}

impl WeightAverage {
    /// An average initialized with the model's current weights.
    pub fn new<M: Module + ?Sized>(model: &M) -> WeightAverage {
        let mut entries = Vec::new();
        walk(model, &mut |name, item| {
            let v: &Var = match item {
                Item::Parameter(p) => p,
                Item::Buffer(b) if b.dtype().is_float() => b,
                _ => return,
            };
            entries.push((name.to_string(), v.clone(), v.tensor()));
        });
        WeightAverage { entries }
    }

    /// Moves the average toward the model: `average = decay * average + (1 - decay) * weight`. Called after every
    /// step, this is an exponential moving average.
    ///
    /// # Panics
    /// If the decay is not in `[0, 1]`.
    #[track_caller]
    pub fn update(&mut self, decay: f64) {
        assert!((0.0..=1.0).contains(&decay), "WeightAverage: the decay must be in [0, 1], got {decay}");
        for (_, v, slow) in &mut self.entries {
            let fast = v.tensor().cast(slow.dtype()).contiguous();
            if !slow.is_contiguous() {
                *slow = slow.contiguous();
            }
            tapegrad_tape::dispatch!(float: slow.dtype(), "WeightAverage", T => {
                let share = <T as Float>::c(1.0 - decay);
                let fast = fast.as_slice::<T>().expect("made contiguous");
                update0(slow.make_mut::<T>(), fast, |s, f| (s + (f - s) * share,));
            });
        }
    }

    /// Lookahead (Zhang et al. 2019): moves the average toward the model, and sets the model to the average. Called
    /// every few steps.
    ///
    /// # Panics
    /// If the decay is not in `[0, 1]`.
    #[track_caller]
    pub fn lookahead(&mut self, decay: f64) {
        self.update(decay);
        for (_, v, slow) in &self.entries {
            v.set_value(slow.clone());
        }
    }

    /// Swaps the model's weights and the average: call it before an evaluation and again after it.
    pub fn swap(&mut self) {
        for (_, v, slow) in &mut self.entries {
            v.update(|fast| std::mem::swap(fast, slow));
        }
    }

    /// The averages by name.
    pub fn state_dict(&self) -> StateDict {
        self.entries.iter().map(|(name, _, slow)| (name.clone(), slow.clone())).collect()
    }

    /// Sets the averages.
    ///
    /// # Errors
    /// If keys or shapes differ. Then nothing is changed.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<(), StateDictError> {
        let slots: Vec<(String, Var)> =
            self.entries.iter().map(|(name, _, slow)| (name.clone(), Var::buffer(slow.clone()))).collect();
        load("the weight average", &slots, state, true)?;
        for ((_, _, slow), (_, slot)) in self.entries.iter_mut().zip(slots) {
            *slow = slot.tensor();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "WeightAverage: the decay must be in [0, 1], got 1.5")]
    fn a_decay_outside_its_range_is_refused() {
        WeightAverage::new(&crate::Linear::new(2, 1)).update(1.5);
    }
}
