//! Averages of weights over steps: equal and exponential moving averages, lookahead.

use crate::fields::walk;
use crate::fields::{Item, Module};
use crate::norm::{BatchNorm1d, BatchNorm2d, BatchNorm3d, with_cumulative_statistics};
use crate::state_dict::{StateDict, StateDictError, load};
use std::any::TypeId;
use tapegrad_tape::kernels::update::update0;
use tapegrad_tape::{DType, Float, Tensor, Var};

const COUNT: &str = "n_averaged";

/// An average of a model's floating-point parameters and buffers over the steps of its training
/// (`torch.optim.swa_utils.AveragedModel`).
///
/// [`WeightAverage::update_parameters`] takes the model's weights into the average: all equally, as in stochastic weight
/// averaging (Izmailov et al. 2018), or with [`WeightAverage::ema`] as an exponential moving average.
/// [`WeightAverage::swap`] gives the model the average.
///
/// ```
/// use tapegrad_nn::{Linear, Forward, init::constant_, train::WeightAverage};
/// let model = Linear::new(2, 1);
/// let mut average = WeightAverage::new(&model);
/// for step in 1..=4 {
///     constant_(&model.weight, step as f64);
///     average.update_parameters();
/// }
/// average.swap();
/// assert_eq!(model.weight.to_vec::<f32>(), [2.5, 2.5]);
/// ```
pub struct WeightAverage {
    entries: Vec<Entry>,
    n_averaged: u64,
    use_buffers: bool,
    decay: Option<f64>,
}

/// A variable and its average.
struct Entry {
    name: String,
    var: Var,
    average: Tensor,
    is_parameter: bool,
}

impl WeightAverage {
    /// An equal average, initialized with the model's current weights.
    pub fn new<M: Module + ?Sized>(model: &M) -> WeightAverage {
        let mut entries = Vec::new();
        walk(model, &mut |name, item| {
            let (var, is_parameter): (&Var, bool) = match item {
                Item::Parameter(p) => (p, true),
                Item::Buffer(b) if b.dtype().is_float() => (b, false),
                _ => return,
            };
            entries.push(Entry {
                name: name.to_string(),
                var: var.clone(),
                average: var.tensor(),
                is_parameter,
            });
        });
        WeightAverage { entries, n_averaged: 0, use_buffers: true, decay: None }
    }

    /// This average as an exponential moving one: `average = decay * average + (1 - decay) * weight`
    /// (`get_ema_avg_fn(decay)`).
    ///
    /// # Panics
    /// If the decay is not in `[0, 1]`.
    #[track_caller]
    pub fn ema(mut self, decay: f64) -> WeightAverage {
        check(decay);
        self.decay = Some(decay);
        self
    }

    /// This average over the buffers, too, as is the default, or with `false` over the parameters alone: buffers then are
    /// the model's own, and [`update_bn`] computes the running statistics that belong to averaged weights. (PyTorch's default
    /// is `False`.)
    pub fn use_buffers(mut self, use_buffers: bool) -> WeightAverage {
        self.use_buffers = use_buffers;
        self
    }

    /// The number of times that the model's weights were taken into the average.
    pub fn n_averaged(&self) -> u64 {
        self.n_averaged
    }

    /// Takes the model's current weights into the average; the first time, they become the average
    /// (`AveragedModel.update_parameters`).
    pub fn update_parameters(&mut self) {
        let n = self.n_averaged;
        self.move_by(match self.decay {
            _ if n == 0 => 1.0,
            Some(decay) => 1.0 - decay,
            None => 1.0 / (n + 1) as f64,
        });
    }

    /// Moves the average toward the model: `average = decay * average + (1 - decay) * weight`. Called after every
    /// step, this is an exponential moving average that begins with the weights at its creation.
    ///
    /// # Panics
    /// If the decay is not in `[0, 1]`.
    #[track_caller]
    pub fn update(&mut self, decay: f64) {
        check(decay);
        self.move_by(1.0 - decay);
    }

    /// `average += share * (weight - average)`
    fn move_by(&mut self, share: f64) {
        for Entry { var, average: slow, is_parameter, .. } in &mut self.entries {
            if share == 1.0 || !(self.use_buffers || *is_parameter) {
                *slow = var.tensor().cast(slow.dtype());
                continue;
            }
            let fast = var.tensor().cast(slow.dtype()).contiguous();
            if !slow.is_contiguous() {
                *slow = slow.contiguous();
            }
            tapegrad_tape::dispatch!(float: slow.dtype(), "WeightAverage", T => {
                let share = <T as Float>::c(share);
                let fast = fast.as_slice::<T>().expect("made contiguous");
                update0(slow.make_mut::<T>(), fast, |s, f| (s + (f - s) * share,));
            });
        }
        self.n_averaged += 1;
    }

    /// Lookahead (Zhang et al. 2019): moves the average toward the model, and sets the model to the average. Called
    /// every few steps.
    ///
    /// # Panics
    /// If the decay is not in `[0, 1]`.
    #[track_caller]
    pub fn lookahead(&mut self, decay: f64) {
        self.update(decay);
        for entry in &self.entries {
            entry.var.set_value(entry.average.clone());
        }
    }

    /// Swaps the model's weights and the average: call it before an evaluation and again after it.
    pub fn swap(&mut self) {
        for entry in &mut self.entries {
            entry.var.update(|fast| std::mem::swap(fast, &mut entry.average));
        }
    }

    pub(crate) fn averages(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|e| (e.name.as_str(), &e.average))
    }

    /// The averages by name, and `n_averaged`.
    pub fn state_dict(&self) -> StateDict {
        let mut state: StateDict = self.averages().map(|(name, t)| (name.to_string(), t.clone())).collect();
        state.insert(COUNT, Tensor::scalar(self.n_averaged as i64));
        state
    }

    /// Sets the averages. A state without `n_averaged` counts as one update.
    ///
    /// # Errors
    /// If keys or shapes differ. Then nothing is changed.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<(), StateDictError> {
        let slot = |e: &Entry| (e.name.clone(), Var::buffer(e.average.clone()));
        let mut slots: Vec<(String, Var)> = self.entries.iter().map(slot).collect();
        let count = Var::buffer(Tensor::scalar(1i64));
        if state.get(COUNT).is_some() {
            slots.push((COUNT.into(), count.clone()));
        }
        load("the weight average", &slots, state, true)?;
        for (entry, (_, slot)) in self.entries.iter_mut().zip(slots) {
            entry.average = slot.tensor();
        }
        self.n_averaged = count.tensor().item::<i64>().max(0) as u64;
        Ok(())
    }
}

#[track_caller]
fn check(decay: f64) {
    assert!((0.0..=1.0).contains(&decay), "WeightAverage: the decay must be in [0, 1], got {decay}");
}

/// Computes the running statistics of all batch norms in a model anew, as the averages over these batches, on each of which
/// `forward` runs the model in training mode and without gradients (`torch.optim.swa_utils.update_bn`). Afterward every
/// module is in the mode that the model was in.
///
/// ```
/// use tapegrad_nn::{BatchNorm1d, Forward, Module, train::update_bn};
/// use tapegrad_tape::Var;
/// let model = BatchNorm1d::new(1);
/// let batches = [vec![1f32, 3.0], vec![5.0, 7.0]].map(|values| Var::from_vec(values, (2, 1)));
/// update_bn(&model, batches, |x| model.forward(&x));
/// assert_eq!(model.running_mean.as_ref().unwrap().item(), 4.0);
/// ```
pub fn update_bn<M: Module + ?Sized, B>(
    model: &M,
    batches: impl IntoIterator<Item = B>,
    mut forward: impl FnMut(B) -> Var,
) {
    if reset_batch_norms(model) == 0 {
        return;
    }
    let was_training = model.is_training();
    model.train();
    with_cumulative_statistics(|| {
        tapegrad_tape::no_grad(|| batches.into_iter().for_each(|b| drop(forward(b))))
    });
    model.set_training(was_training);
}

/// Resets the running statistics of the batch norms in a model, and counts these.
fn reset_batch_norms<M: Module + ?Sized>(model: &M) -> usize {
    let norms = [TypeId::of::<BatchNorm1d>(), TypeId::of::<BatchNorm2d>(), TypeId::of::<BatchNorm3d>()];
    let (own, mut inside) = (norms.contains(&model.type_of()), 0);
    model.visit_fields(&mut |name, item| match item {
        Item::Module(m) => inside += reset_batch_norms(m),
        Item::Buffer(b) if own => b.update(|t| {
            *t = match (name, t.dtype()) {
                (_, DType::I64) => Tensor::scalar(0i64),
                ("running_var", dtype) => Tensor::ones_with(t.shape(), dtype),
                (_, dtype) => Tensor::zeros_with(t.shape(), dtype),
            }
        }),
        _ => {}
    });
    usize::from(own) + inside
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
