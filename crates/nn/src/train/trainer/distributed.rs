//! Training together with other processes.

use super::step::{Group, buffers};
use super::{OnNonfinite, Pass, TrainError, Trainer};
use crate::checkpoint::Checkpoint;
use crate::files::{FileError, RunFolder};
use crate::optim::{all_finite, grad_norm};
use crate::summary::Modes;
use crate::train::metrics::Score;
use crate::train::replicas::Replicas;
use crate::train::source::Source;
use std::cell::Cell;
use std::rc::Rc;
use tapegrad_tape::{Tensor, Var, no_grad};

/// A batch, of which this rank has some samples, or none.
struct Share {
    batch: Option<(Var, Var)>,
    /// The samples of each rank.
    samples: Vec<usize>,
}

impl<'a> Trainer<'a> {
    /// This trainer together with those of other processes: the model's gradients are the means over the batches of all of
    /// them. Sources give each process its samples, as loaders do with `distributed(rank, size)`, in training and in validation.
    /// The first process writes the files and calls the callbacks of steps and epochs; metrics are computed over the samples
    /// of all, so all agree on the best epoch and when to stop. A checkpoint can be resumed by any number of processes.
    ///
    /// # Panics
    /// In `fit`, if a metric has no [`sums`](crate::train::Metric::sums).
    pub fn distributed(mut self, replicas: impl Replicas + 'a) -> Self {
        self.replicas = Some(Rc::new(replicas));
        self
    }

    /// Whether this process writes files and messages.
    pub(super) fn is_first(&self) -> bool {
        self.replicas.as_ref().is_none_or(|r| r.rank() == 0)
    }

    /// Whether training was stopped; of several processes, all have agreed on it.
    pub(super) fn is_stopped(&self) -> bool {
        if self.replicas.is_some() { self.all_stopped } else { self.stop.is_stopped() }
    }

    /// Compares what the processes' training depends on.
    pub(super) fn agree(&self, source: &Source<'_>) -> Result<(), TrainError> {
        let Some(replicas) = &self.replicas else { return Ok(()) };
        let unsummed = self.metrics.iter().find(|m| m.sums().is_none());
        assert!(
            unsummed.is_none(),
            "Trainer: the metric {} cannot be computed over several processes: it has no sums",
            unsummed.map(|m| m.name()).unwrap_or_default()
        );
        let mut lines: Vec<String> =
            self.own_settings().iter().map(|(name, value)| format!("the setting {name} = {value}")).collect();
        let options = self.made_with.iter();
        lines.extend(options.map(|(key, t)| format!("the optimizer's {key} = {:?}", t.to_vec::<f64>())));
        lines.push(format!("the source's position {:?}", source.position()));
        lines.push(format!("resume = {}", self.resume));
        Ok(replicas.agree(&lines)?)
    }

    /// The checkpoint that the first process has found, in all of them.
    pub(super) fn shared(
        &self,
        found: Result<Option<Checkpoint>, TrainError>,
    ) -> Result<Option<Checkpoint>, TrainError> {
        let Some(replicas) = self.replicas.as_ref().filter(|r| r.size() > 1) else { return found };
        let mut bytes = Vec::new();
        match &found {
            Ok(None) => bytes.push(0),
            Ok(Some(c)) => {
                bytes.push(1);
                bytes.extend(c.to_bytes()?);
            }
            Err(_) => bytes.push(2),
        }
        let bytes = replicas.broadcast(&bytes)?;
        match bytes.first() {
            _ if self.is_first() => found,
            Some(0) => Ok(None),
            Some(1) => Ok(Some(Checkpoint::from_bytes(&bytes[1..])?)),
            _ => Err(FileError::new("the first process cannot resume").into()),
        }
    }

    /// [`train_epoch`](Self::train_epoch) with other processes.
    pub(super) fn train_epoch_together(
        &mut self,
        replicas: &dyn Replicas,
        source: &mut Source<'_>,
        run: Option<&RunFolder>,
        ended: &Cell<bool>,
    ) -> Result<Pass, TrainError> {
        self.model.train();
        self.optimizer.zero_grad();
        let params = self.optimizer.parameters();
        let mut batches = source.epoch().fuse();
        let mut pass = Pass::default();
        loop {
            let shares = next_shares(replicas, &mut batches, self.accumulate)?;
            if shares.is_empty() {
                break;
            }
            self.before_step.iter_mut().for_each(|f| f(self.progress.step));
            pass.batches += shares.len() as u64;
            self.progress.batch += shares.len() as u64;
            if let Some(group) = self.step_together(replicas, &shares, &params)? {
                drop(shares);
                self.update(&params, &group);
                self.tell(&group, ended);
                if let Some(scheduler) = &mut self.step_scheduler {
                    scheduler.step(&mut *self.optimizer);
                }
            }
            let due = self.is_due();
            let flags = [ended.get(), self.stop.is_stopped(), due].map(|x| f64::from(u8::from(x)));
            let all = replicas.all_gather(&flags)?;
            ended.set(all[0][0] != 0.0);
            let over = ended.get() || self.is_done();
            self.all_stopped = all.iter().any(|f| f[1] != 0.0);
            pass.stopped = !over && self.all_stopped;
            if over || pass.stopped {
                break;
            }
            if all[0][2] != 0.0 && source.is_resumable() {
                self.write(run, source)?;
            }
        }
        Ok(pass)
    }

    /// The gradients of a step, over the samples of all processes. `None` if the step is skipped.
    fn step_together(
        &mut self,
        replicas: &dyn Replicas,
        shares: &[Share],
        params: &[Var],
    ) -> Result<Option<Group>, TrainError> {
        let checked = self.on_nonfinite != OnNonfinite::Ignore;
        let buffers = buffers(self.model);
        let before: Vec<Tensor> = buffers.iter().map(Var::tensor).collect();
        let numbers = replicas.backward(&mut |shard| {
            let mut score = Score::default();
            let own: Vec<(Var, Var)> = parts(replicas, shares, shard).collect();
            for (i, (x, target)) in own.iter().enumerate() {
                let mut pass = || {
                    let y = self.model.forward(x);
                    let loss = (self.loss)(&y, target);
                    let (value, weight) = (loss.item(), (self.batch_weight)(&y, target));
                    score.add_weighted(value, weight, &y, target);
                    if weight > 0.0 && (value.is_finite() || !checked) {
                        (loss * weight).backward();
                    }
                };
                if i + 1 < own.len() { replicas.accumulate(&mut pass) } else { pass() }
            }
            score.to_numbers()
        })?;
        let score = merged(&numbers);
        let finite = |p: &Var| p.grad().is_none_or(|g| all_finite(&g.tensor()));
        if checked && score.weight > 0.0 && !(score.loss().is_finite() && params.iter().all(finite)) {
            let (what, value) = match score.loss() {
                loss if loss.is_finite() => ("gradient norm", grad_norm(params, 2.0)),
                loss => ("loss", loss),
            };
            let again = || buffers.iter().zip(&before).for_each(|(b, t)| b.set_value(t.clone()));
            again();
            let own = shares.iter().find_map(|s| s.batch.as_ref());
            let origin = own.map_or_else(String::new, |(x, target)| self.origin(x, target, again));
            again();
            self.optimizer.zero_grad();
            self.refuse_step(what, value, origin)?;
            return Ok(None);
        }
        self.skipped = 0;
        self.progress.score.merge(&score);
        Ok(Some(Group::of(shares.len(), self.accumulate, &score)))
    }

    /// [`validate`](Self::validate) with other processes.
    pub(super) fn evaluate_together(
        &mut self,
        replicas: &dyn Replicas,
        source: &mut Source<'_>,
    ) -> Result<Score, TrainError> {
        let modes = Modes::of(self.model);
        self.model.eval();
        self.metrics.iter_mut().for_each(|m| m.reset());
        let each = replicas.shards() / replicas.size();
        let own = replicas.rank() * each..(replicas.rank() + 1) * each;
        let mut scores = vec![Score::default(); each];
        let mut batches = source.epoch().fuse();
        let done: Result<(), TrainError> = no_grad(|| {
            loop {
                let shares = next_shares(replicas, &mut batches, 1)?;
                if shares.is_empty() {
                    return Ok(());
                }
                for (shard, score) in own.clone().zip(&mut scores) {
                    for (x, target) in parts(replicas, &shares, shard) {
                        let y = self.model.forward(&x);
                        let (value, weight) =
                            ((self.loss)(&y, &target).item(), (self.batch_weight)(&y, &target));
                        score.add_weighted(value, weight, &y, &target);
                        self.metrics.iter_mut().for_each(|m| m.update(&y, &target));
                    }
                }
            }
        });
        modes.restore(self.model);
        done?;
        let numbers: Vec<f64> = scores.into_iter().flat_map(Score::to_numbers).collect();
        let all = replicas.all_gather(&numbers)?;
        let all: Vec<Vec<f64>> = all.concat().chunks(Score::NUMBERS).map(<[f64]>::to_vec).collect();
        for m in &mut self.metrics {
            let all = replicas.all_gather(&m.sums().expect("checked before"))?;
            let add = |a: Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(x, y)| x + y).collect();
            m.set_sums(&all[1..].iter().fold(all[0].clone(), add));
        }
        Ok(merged(&all))
    }
}

/// The score of all shards, in their order.
fn merged(numbers: &[Vec<f64>]) -> Score {
    let mut score = Score::default();
    for own in numbers.iter().filter_map(|n| Score::from_numbers(n)) {
        score.merge(&own);
    }
    score
}

/// What belongs to a shard.
fn parts<'s>(
    replicas: &'s dyn Replicas,
    shares: &'s [Share],
    shard: usize,
) -> impl Iterator<Item = (Var, Var)> + 's {
    shares.iter().filter_map(move |share| {
        let (x, target) = share.batch.as_ref()?;
        let part = replicas.part(&share.samples, shard);
        let cut = |v: &Var| v.narrow(0, part.start, part.len());
        (!part.is_empty()).then(|| (cut(x), cut(target)))
    })
}

/// The next batches of all processes, at most so many; fewer at the end of the epoch.
fn next_shares(
    replicas: &dyn Replicas,
    batches: &mut dyn Iterator<Item = (Var, Var)>,
    most: usize,
) -> Result<Vec<Share>, crate::train::ReplicaError> {
    let mut list = Vec::new();
    while list.len() < most {
        let batch = batches.next();
        let samples = batch.as_ref().map_or(0, |(x, _)| x.shape()[0]);
        let row = batch.as_ref().map_or(String::new(), |(x, target)| {
            let tail = |v: &Var| format!("{:?} of {}", &v.shape()[1..], v.dtype());
            format!("samples of shape {} and targets of shape {}", tail(x), tail(target))
        });
        let hash = row.bytes().fold(7u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3) >> 12);
        let all = replicas.all_gather(&[samples as f64, hash as f64])?;
        let samples: Vec<usize> = all.iter().map(|n| n[0] as usize).collect();
        if samples.iter().all(|&n| n == 0) {
            break;
        }
        let first = all.iter().find(|n| n[0] > 0.0).map_or(0.0, |n| n[1]);
        if all.iter().any(|n| n[0] > 0.0 && n[1] != first) {
            replicas.agree(&[row])?;
        }
        list.push(Share { batch, samples });
    }
    Ok(list)
}
