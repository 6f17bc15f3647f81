//! `Trainer`.

mod distributed;
mod epoch_end;
mod error;
mod resume;
mod settings;
mod setup;
mod single;
mod step;
mod stop;

pub use error::{Nonfinite, TrainError};
pub use step::OnNonfinite;
pub use stop::StopHandle;

use super::average::WeightAverage;
use super::metric::Metric;
use super::metrics::{EpochRecord, Score, evaluate_weighted};
use super::replicas::Replicas;
use super::source::Source;
use super::tensorboard::TensorBoard;
use crate::files::{FileError, RunFolder};
use crate::lr_scheduler::{PlateauScheduler, Scheduler};
use crate::module::Forward;
use crate::optim::Optimizer;
use crate::state_dict::StateDict;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use step::Group;
use tapegrad_tape::Var;

/// What decides which epoch was the best. NaN is never the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Best {
    /// The smallest loss.
    Loss,
    /// The largest accuracy.
    Accuracy,
}

/// What a callback receives after each step.
pub struct StepEvent<'a> {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The step, from 1, counted over all epochs.
    pub step: u64,
    /// The step's loss: the mean over the accumulated batches.
    pub loss: f64,
    /// The metrics of the epoch so far.
    pub score: &'a Score,
    /// The first group's learning rate.
    pub lr: f64,
    stop: &'a Cell<bool>,
}

impl StepEvent<'_> {
    /// Ends training after this step: the epoch ends with the batches so far.
    pub fn stop(&self) {
        self.stop.set(true);
    }
}

type Loss<'a> = Box<dyn Fn(&Var, &Var) -> Var + 'a>;
type BatchWeight<'a> = Box<dyn Fn(&Var, &Var) -> f64 + 'a>;
type BeforeStep<'a> = Box<dyn FnMut(u64) + 'a>;
type OnStep<'a> = Box<dyn FnMut(&StepEvent) + 'a>;
type OnEpoch<'a> = Box<dyn FnMut(&[EpochRecord]) + 'a>;
type OnWarning<'a> = Box<dyn FnMut(&str) + 'a>;

/// Trains a model: epochs or steps, schedules, accumulated and clipped gradients, averaged weights, validation, early
/// stopping, and checkpoints from which training resumes bit for bit.
///
/// ```
/// use tapegrad_nn::{Linear, optim::SGD, train::{Source, Trainer}};
/// use tapegrad_tape::{Generator, Var};
/// tapegrad_tape::manual_seed(0);
/// let x = Var::from(Generator::manual_seed(1).normal(&[64, 2], 0.0, 1.0));
/// let target = x.narrow(1, 0, 1).gt(0.0).cast(tapegrad_tape::DType::I64).squeeze(1);
/// let model = Linear::new(2, 2);
/// let mut trainer = Trainer::new(&model, SGD::new(tapegrad_nn::Module::parameters(&model), 0.5))
///     .epochs(20)
///     .loss(|y, t| tapegrad_ops::cross_entropy(y, t));
/// let batches = || (0..4).map(|i| (x.narrow(0, i * 16, 16), target.narrow(0, i * 16, 16)));
/// let history = trainer.fit(Source::new(batches), None).unwrap();
/// assert!(history.last().unwrap().train.accuracy().unwrap() > 0.9);
/// ```
pub struct Trainer<'a> {
    model: &'a dyn Forward,
    optimizer: Box<dyn Optimizer + 'a>,
    loss: Loss<'a>,
    batch_weight: BatchWeight<'a>,
    metrics: Vec<Box<dyn Metric + 'a>>,
    epochs: u64,
    max_steps: Option<u64>,
    step_scheduler: Option<Scheduler>,
    epoch_scheduler: Option<Scheduler>,
    plateau: Option<(PlateauScheduler, Best)>,
    accumulate: usize,
    clip_norm: Option<f64>,
    on_nonfinite: OnNonfinite,
    skipped: u64,
    ema: Option<(WeightAverage, f64)>,
    lookahead: Option<Lookahead<'a>>,
    before_step: Vec<BeforeStep<'a>>,
    patience: Option<u64>,
    best_by: Best,
    folder: Option<Folder>,
    events: Option<PathBuf>,
    board: Option<TensorBoard>,
    #[cfg(feature = "plots")]
    curves: bool,
    every: Option<u64>,
    interval: Duration,
    written: Instant,
    resume: bool,
    settings: BTreeMap<String, String>,
    made_with: StateDict,
    stop: StopHandle,
    replicas: Option<Rc<dyn Replicas + 'a>>,
    all_stopped: bool,
    on_step: Vec<OnStep<'a>>,
    on_epoch: Vec<OnEpoch<'a>>,
    on_warning: OnWarning<'a>,
    progress: Progress,
    rejected_checkpoints: Vec<FileError>,
}

/// Where the files go.
enum Folder {
    Path(PathBuf),
    Open(RunFolder),
}

/// How an epoch ended.
#[derive(Default)]
struct Pass {
    batches: u64,
    stopped: bool,
}

/// Lookahead's slow weights, their update interval and their decay.
struct Lookahead<'a> {
    slow: WeightAverage,
    every: u64,
    decay: Box<dyn Fn(u64) -> f64 + 'a>,
}

/// The progress of training.
#[derive(Clone, Default)]
struct Progress {
    epoch: u64,
    step: u64,
    /// The number of batches of this epoch so far.
    batch: u64,
    score: Score,
    best: Option<f64>,
    epochs_since_best: u64,
    history: Vec<EpochRecord>,
}

impl<'a> Trainer<'a> {
    /// A trainer of this model with this optimizer, for one epoch with cross-entropy.
    pub fn new(model: &'a dyn Forward, optimizer: impl Optimizer + 'a) -> Trainer<'a> {
        Trainer {
            model,
            optimizer: Box::new(optimizer),
            loss: Box::new(|y, t| tapegrad_ops::cross_entropy(y, t)),
            batch_weight: Box::new(super::metrics::batch_weight),
            metrics: Vec::new(),
            epochs: 1,
            max_steps: None,
            step_scheduler: None,
            epoch_scheduler: None,
            plateau: None,
            accumulate: 1,
            clip_norm: None,
            on_nonfinite: OnNonfinite::Stop,
            skipped: 0,
            ema: None,
            lookahead: None,
            before_step: Vec::new(),
            patience: None,
            best_by: Best::Loss,
            folder: None,
            events: None,
            board: None,
            #[cfg(feature = "plots")]
            curves: false,
            every: None,
            interval: Duration::from_secs(300),
            written: Instant::now(),
            resume: false,
            settings: BTreeMap::new(),
            made_with: StateDict::new(),
            stop: StopHandle::new(),
            replicas: None,
            all_stopped: false,
            on_step: Vec::new(),
            on_epoch: Vec::new(),
            on_warning: Box::new(|text| {
                // Standard error may be closed, which must not end training.
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    format!("warning: {text}\n").as_bytes(),
                );
            }),
            progress: Progress::default(),
            rejected_checkpoints: Vec::new(),
        }
    }

    /// The checkpoints that could not be resumed from, with the reason: truncated, or modified.
    pub fn rejected_checkpoints(&self) -> &[FileError] {
        &self.rejected_checkpoints
    }

    /// The optimizer.
    pub fn optimizer(&mut self) -> &mut dyn Optimizer {
        &mut *self.optimizer
    }

    /// Trains, and returns the metrics of all epochs, including those before a resumption. Problems with the folder or
    /// its checkpoint are reported before the first step.
    ///
    /// # Errors
    /// If a file cannot be written, a checkpoint does not fit, or a loss or gradient is not finite
    /// ([`Trainer::on_nonfinite`]).
    pub fn fit(
        &mut self,
        mut source: Source<'_>,
        mut validation: Option<Source<'_>>,
    ) -> Result<Vec<EpochRecord>, TrainError> {
        let run = self.open_folder()?;
        self.begin(run.as_ref(), &mut source)?;
        self.written = Instant::now();
        self.optimizer.train();
        let ended = Cell::new(false);
        while !self.is_finished() && !ended.get() && !self.is_stopped() {
            let begin = Instant::now();
            let pass = match self.replicas.clone() {
                Some(all) => self.train_epoch_together(&*all, &mut source, run.as_ref(), &ended)?,
                None => self.train_epoch(&mut source, run.as_ref(), &ended)?,
            };
            if pass.stopped {
                // In the middle of an epoch, as far as is known: the rest follows when training is resumed.
                if source.is_resumable() {
                    self.write(run.as_ref(), &source)?;
                }
                break;
            }
            if pass.batches == 0 && self.progress.score.count == 0 {
                // Nothing to train on: no epoch would ever end training.
                break;
            }
            let lr = self.optimizer.lr(0);
            let validated = validation.as_mut().map(|v| self.validate(v)).transpose()?;
            self.end_epoch(run.as_ref(), &source, lr, validated, begin.elapsed().as_secs_f64())?;
        }
        self.model.eval();
        self.optimizer.eval();
        if let Some(mut l) = self.lookahead.take() {
            l.slow.swap();
        }
        if let Some((mut ema, _)) = self.ema.take() {
            ema.swap();
        }
        Ok(self.progress.history.clone())
    }

    fn open_folder(&self) -> Result<Option<RunFolder>, FileError> {
        match &self.folder {
            _ if !self.is_first() => Ok(None),
            None => Ok(None),
            Some(Folder::Open(run)) => Ok(Some(run.clone())),
            Some(Folder::Path(path)) => RunFolder::open(path).map(Some),
        }
    }

    fn is_done(&self) -> bool {
        self.max_steps.is_some_and(|max| self.progress.step >= max)
    }

    fn is_finished(&self) -> bool {
        self.progress.epoch >= self.epochs
            || self.is_done()
            || self.patience.is_some_and(|p| self.progress.epochs_since_best >= p)
    }

    fn warn(&mut self, text: &str) {
        if self.is_first() {
            (self.on_warning)(text);
        }
    }

    /// Trains until the epoch ends or training is stopped.
    fn train_epoch(
        &mut self,
        source: &mut Source<'_>,
        run: Option<&RunFolder>,
        ended: &Cell<bool>,
    ) -> Result<Pass, TrainError> {
        self.model.train();
        self.optimizer.zero_grad();
        let params = self.optimizer.parameters();
        let buffers = step::buffers(self.model);
        // If polled again after its end, a source may start the next epoch.
        let mut batches = source.epoch().fuse();
        let mut next = batches.next();
        let mut group = Group::default();
        let mut pass = Pass::default();
        while let Some((x, target)) = next.take() {
            if pass.batches == 0 {
                single::check(self.model, source, &x)?;
            }
            if group.batches == 0 {
                self.before_step.iter_mut().for_each(|f| f(self.progress.step));
            }
            pass.batches += 1;
            self.progress.batch += 1;
            if !self.take_batch(&x, &target, &params, &buffers, &mut group)? {
                group = Group::default();
                pass.stopped = self.stop.is_stopped();
                if pass.stopped {
                    break;
                }
                next = batches.next();
                continue;
            }
            drop((x, target));
            if group.batches < self.accumulate {
                next = batches.next();
                if next.is_some() {
                    continue;
                }
            }
            self.update(&params, &group);
            self.tell(&group, ended);
            group = Group::default();
            if let Some(scheduler) = &mut self.step_scheduler {
                scheduler.step(&mut *self.optimizer);
            }
            let due = self.is_due();
            let over = ended.get() || self.is_done();
            pass.stopped = !over && self.stop.is_stopped();
            if over || pass.stopped {
                break;
            }
            if due && source.is_resumable() {
                self.write(run, source)?;
            }
            next = batches.next();
        }
        Ok(pass)
    }

    /// Whether a checkpoint is to be written after this step.
    fn is_due(&self) -> bool {
        self.every.is_some_and(|n| self.progress.step.is_multiple_of(n))
            || self.written.elapsed() >= self.interval
    }

    /// Calls the callbacks of a step.
    fn tell(&mut self, group: &Group, ended: &Cell<bool>) {
        if !self.is_first() {
            return;
        }
        let event = StepEvent {
            epoch: self.progress.epoch + 1,
            step: self.progress.step,
            loss: group.loss(),
            score: &self.progress.score,
            lr: self.optimizer.lr(0),
            stop: ended,
        };
        self.on_step.iter_mut().for_each(|f| f(&event));
    }

    fn validate(&mut self, source: &mut Source<'_>) -> Result<Score, TrainError> {
        self.optimizer.eval();
        if let Some((ema, _)) = &mut self.ema {
            ema.swap();
        }
        let score = match self.replicas.clone() {
            Some(all) => self.evaluate_together(&*all, source),
            None => Ok(evaluate_weighted(
                self.model,
                source.epoch(),
                &self.loss,
                &self.batch_weight,
                &mut self.metrics,
            )),
        };
        if let Some((ema, _)) = &mut self.ema {
            ema.swap();
        }
        self.optimizer.train();
        score
    }
}

#[cfg(test)]
mod tests;
