//! One step: batches whose gradients are accumulated, checked, and handed to the optimizer.

use super::{Nonfinite, TrainError, Trainer};
use crate::fields::Item;
use crate::fields::walk;
use crate::module::Forward;
use crate::optim::{all_finite, clip_factor, grad_norm};
use crate::train::metrics::Score;
use tapegrad_tape::{Tensor, Var};

/// What to do with a step whose loss or gradients are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNonfinite {
    /// Training ends with [`TrainError::Nonfinite`]; weights and checkpoints are those before the step.
    Stop,
    /// The step is skipped, with a warning, and does not count. More than this many in a row end training.
    Skip(u64),
    /// Nothing is checked.
    Ignore,
}

/// The batches of one step.
#[derive(Default)]
pub(super) struct Group {
    pub(super) batches: usize,
    /// The weight of the first batch that had one: gradients are accumulated relative to it.
    unit: f64,
    weight: f64,
    loss_sum: f64,
}

impl Group {
    /// The factor of a batch's loss: its fraction of the step if all batches have the weight of the first.
    fn share(&self, weight: f64, accumulate: usize) -> f64 {
        let unit = if self.unit > 0.0 { self.unit } else { weight };
        weight / (unit * accumulate as f64)
    }

    /// The batches of several processes, whose gradients were accumulated relative to a weight of one.
    pub(super) fn of(batches: usize, accumulate: usize, score: &Score) -> Group {
        let Score { weight, loss_sum, .. } = *score;
        Group { batches, unit: 1.0 / accumulate as f64, weight, loss_sum }
    }

    fn add(&mut self, loss: f64, weight: f64) {
        self.batches += 1;
        if weight > 0.0 {
            self.unit = if self.unit > 0.0 { self.unit } else { weight };
            self.weight += weight;
            self.loss_sum += loss * weight;
        }
    }

    /// The correction from the accumulated gradient to the mean, for batches of other sizes, or fewer of them.
    fn correction(&self, accumulate: usize) -> f64 {
        if self.weight > 0.0 { self.unit * accumulate as f64 / self.weight } else { 1.0 }
    }

    /// The loss of the joined batch.
    pub(super) fn loss(&self) -> f64 {
        self.loss_sum / self.weight
    }
}

/// The model's buffers, which a forward pass in training changes.
pub(super) fn buffers(model: &dyn Forward) -> Vec<Var> {
    let mut list = Vec::new();
    walk(model, &mut |_, item| {
        if let Item::Buffer(b) = item {
            let b: &Var = b;
            list.push(b.clone());
        }
    });
    list
}

impl Trainer<'_> {
    /// Accumulates a batch: false if the step it belongs to is skipped.
    pub(super) fn take_batch(
        &mut self,
        x: &Var,
        target: &Var,
        params: &[Var],
        buffers: &[Var],
        group: &mut Group,
    ) -> Result<bool, TrainError> {
        let checked = self.on_nonfinite != super::OnNonfinite::Ignore;
        let before: Vec<Tensor> =
            if checked { buffers.iter().map(Var::tensor).collect() } else { Vec::new() };
        let generator = checked.then(tapegrad_tape::default_generator_state);
        let y = self.model.forward(x);
        let loss = (self.loss)(&y, target);
        let value = loss.item();
        let weight = (self.batch_weight)(&y, target);
        assert!(
            weight >= 0.0 && weight.is_finite(),
            "Trainer: the weight of a batch must be finite and at least 0, got {weight}"
        );
        if weight == 0.0 {
            // No target counts, for example when all are ignored: the mean over nothing is NaN, which is not an error.
            self.progress.score.add_weighted(value, weight, &y, target);
            group.add(value, weight);
            return Ok(true);
        }
        if value.is_finite() || !checked {
            let share = group.share(weight, self.accumulate);
            if share == 1.0 { loss.backward() } else { (loss * share).backward() }
        }
        let finite = |p: &Var| p.grad().is_none_or(|g| all_finite(&g.tensor()));
        if checked && !(value.is_finite() && params.iter().all(finite)) {
            let (what, value) =
                if value.is_finite() { ("gradient norm", grad_norm(params, 2.0)) } else { ("loss", value) };
            drop(y);
            let again = || {
                buffers.iter().zip(&before).for_each(|(b, t)| b.set_value(t.clone()));
                generator.into_iter().for_each(tapegrad_tape::set_default_generator_state);
            };
            let origin = self.origin(x, target, again);
            buffers.iter().zip(before).for_each(|(b, t)| b.set_value(t));
            self.optimizer.zero_grad();
            self.refuse_step(what, value, origin)?;
            return Ok(false);
        }
        self.skipped = 0;
        self.progress.score.add_weighted(value, weight, &y, target);
        group.add(value, weight);
        Ok(true)
    }

    /// The operation that produced the first value that is not finite: the batch is recomputed from the same state.
    pub(super) fn origin(&self, x: &Var, target: &Var, again: impl Fn()) -> String {
        for (name, v) in [("input", x), ("target", target)] {
            if !all_finite(&v.tensor()) {
                return format!("the batch's {name}, of shape {:?}, is not finite", v.shape());
            }
        }
        if let Some((name, _)) = self.model.named_parameters().iter().find(|(_, p)| !all_finite(&p.tensor()))
        {
            return format!("the parameter {name} is not finite");
        }
        let generator = tapegrad_tape::default_generator_state();
        again();
        let ((), origin) = tapegrad_tape::find_nonfinite(|| {
            let loss = (self.loss)(&self.model.forward(x), target);
            if loss.item().is_finite() {
                loss.backward();
            }
        });
        tapegrad_tape::set_default_generator_state(generator);
        origin.unwrap_or_else(|| "no single operation of this batch; sums have overflowed".into())
    }

    /// Ends training, or warns that a step is skipped.
    pub(super) fn refuse_step(
        &mut self,
        what: &'static str,
        value: f64,
        origin: String,
    ) -> Result<(), TrainError> {
        let p = &self.progress;
        let found = Nonfinite { epoch: p.epoch + 1, step: p.step + 1, batch: p.batch, what, value, origin };
        self.skipped += 1;
        match self.on_nonfinite {
            super::OnNonfinite::Skip(most) if self.skipped <= most => {
                self.warn(&format!("{found}; the step is skipped"));
                Ok(())
            }
            _ => Err(found.into()),
        }
    }

    pub(super) fn update(&mut self, params: &[Var], group: &Group) {
        let correction = group.correction(self.accumulate);
        if correction != 1.0 {
            for p in params {
                if let Some(g) = p.grad() {
                    p.set_grad(Some(g * correction));
                }
            }
        }
        match self.clip_norm {
            Some(max_norm) => self.optimizer.step_scaled(clip_factor(params, max_norm, 2.0).1),
            None => self.optimizer.step(),
        }
        self.optimizer.zero_grad();
        self.progress.step += 1;
        if let Some(l) = &mut self.lookahead
            && self.progress.step.is_multiple_of(l.every)
        {
            l.slow.lookahead((l.decay)(self.progress.step));
        }
        if let Some((ema, decay)) = &mut self.ema {
            ema.update(*decay);
        }
    }
}
