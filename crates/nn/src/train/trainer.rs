//! `Trainer`.

mod resume;
mod setup;

use super::average::WeightAverage;
use super::metrics::{EpochRecord, Score, evaluate};
use super::source::Source;
use super::tensorboard::TensorBoard;
use crate::files::FileError;
use crate::lr_scheduler::{PlateauScheduler, Scheduler};
use crate::module::Module;
use crate::optim::{Optimizer, OptimizerStateError, clip_grad_norm_};
use crate::state_dict::StateDictError;
use std::cell::Cell;
use std::path::PathBuf;
use std::time::Instant;
use tape::Var;

/// What decides which epoch was the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Best {
    /// The smallest loss.
    Loss,
    /// The largest accuracy.
    Accuracy,
}

/// What a callback is told after each step.
pub struct StepEvent<'a> {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The step, from 1, counted over all epochs.
    pub step: u64,
    /// The step's loss: the mean over what was accumulated.
    pub loss: f64,
    /// The numbers of the epoch so far.
    pub score: &'a Score,
    /// The first group's learning rate.
    pub lr: f64,
    stop: &'a Cell<bool>,
}

impl StepEvent<'_> {
    /// Ends the training after this step.
    pub fn stop(&self) {
        self.stop.set(true);
    }
}

/// Training could not go on, or its results not be written.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A checkpoint or another file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The checkpoint is of another model.
    #[error(transparent)]
    Model(#[from] StateDictError),
    /// The checkpoint is of another optimizer or schedule.
    #[error(transparent)]
    Optimizer(#[from] OptimizerStateError),
    /// The checkpoint is of other data.
    #[error("the checkpoint does not fit the data: {0}")]
    Source(String),
}

type Loss<'a> = Box<dyn Fn(&Var, &Var) -> Var + 'a>;
type BeforeStep<'a> = Box<dyn FnMut(u64) + 'a>;
type OnStep<'a> = Box<dyn FnMut(&StepEvent) + 'a>;
type OnEpoch<'a> = Box<dyn FnMut(&[EpochRecord]) + 'a>;

/// Trains a model: epochs or steps, schedules, accumulated and clipped gradients, averaged weights, validation, early
/// stopping, and checkpoints from which training goes on with the same bits.
///
/// ```
/// use nn::{Linear, optim::SGD, train::{Source, Trainer}};
/// use tape::{Generator, Var};
/// tape::manual_seed(0);
/// let x = Var::from(Generator::manual_seed(1).normal(&[64, 2], 0.0, 1.0));
/// let target = x.narrow(1, 0, 1).gt(0.0).cast(tape::DType::I64).squeeze(1);
/// let model = Linear::new(2, 2);
/// let mut trainer = Trainer::new(&model, SGD::new(nn::Fields::parameters(&model), 0.5))
///     .epochs(20)
///     .loss(|y, t| ops::cross_entropy(y, t, Default::default()));
/// let batches = || (0..4).map(|i| (x.narrow(0, i * 16, 16), target.narrow(0, i * 16, 16)));
/// let history = trainer.fit(Source::new(batches), None).unwrap();
/// assert!(history.last().unwrap().train.accuracy().unwrap() > 0.9);
/// ```
pub struct Trainer<'a> {
    model: &'a dyn Module,
    optimizer: Box<dyn Optimizer + 'a>,
    loss: Loss<'a>,
    epochs: u64,
    max_steps: Option<u64>,
    step_scheduler: Option<Scheduler>,
    epoch_scheduler: Option<Scheduler>,
    plateau: Option<(PlateauScheduler, Best)>,
    accumulate: usize,
    clip_norm: Option<f64>,
    ema: Option<(WeightAverage, f64)>,
    lookahead: Option<Lookahead<'a>>,
    before_step: Vec<BeforeStep<'a>>,
    patience: Option<u64>,
    best_by: Best,
    folder: Option<PathBuf>,
    events: Option<PathBuf>,
    board: Option<TensorBoard>,
    #[cfg(feature = "plots")]
    curves: bool,
    every: Option<u64>,
    resume: bool,
    on_step: Vec<OnStep<'a>>,
    on_epoch: Vec<OnEpoch<'a>>,
    progress: Progress,
    passed_over: Vec<FileError>,
}

/// Slow weights, after how many steps they follow, and how much of them stays at a step.
struct Lookahead<'a> {
    slow: WeightAverage,
    every: u64,
    decay: Box<dyn Fn(u64) -> f64 + 'a>,
}

/// Where training stands.
#[derive(Clone, Default)]
struct Progress {
    epoch: u64,
    step: u64,
    score: Score,
    best: Option<f64>,
    epochs_since_best: u64,
    history: Vec<EpochRecord>,
}

impl<'a> Trainer<'a> {
    /// A trainer of this model with this optimizer: one epoch, cross-entropy.
    pub fn new(model: &'a dyn Module, optimizer: impl Optimizer + 'a) -> Trainer<'a> {
        Trainer {
            model,
            optimizer: Box::new(optimizer),
            loss: Box::new(|y, t| ops::cross_entropy(y, t, Default::default())),
            epochs: 1,
            max_steps: None,
            step_scheduler: None,
            epoch_scheduler: None,
            plateau: None,
            accumulate: 1,
            clip_norm: None,
            ema: None,
            lookahead: None,
            before_step: Vec::new(),
            patience: None,
            best_by: Best::Accuracy,
            folder: None,
            events: None,
            board: None,
            #[cfg(feature = "plots")]
            curves: false,
            every: None,
            resume: false,
            on_step: Vec::new(),
            on_epoch: Vec::new(),
            progress: Progress::default(),
            passed_over: Vec::new(),
        }
    }

    /// The checkpoints that were there but could not be gone on from, with the reason: cut short, or altered.
    pub fn passed_over(&self) -> &[FileError] {
        &self.passed_over
    }

    /// The optimizer.
    pub fn optimizer(&mut self) -> &mut dyn Optimizer {
        &mut *self.optimizer
    }

    /// Trains, and gives the numbers of all epochs, also of those before a resumption.
    ///
    /// # Errors
    /// If a file cannot be written, or a checkpoint does not fit.
    pub fn fit(
        &mut self,
        mut source: Source<'_>,
        mut validation: Option<Source<'_>>,
    ) -> Result<Vec<EpochRecord>, TrainError> {
        if self.resume {
            self.take_up(&mut source)?;
        }
        let stop = Cell::new(false);
        while self.progress.epoch < self.epochs && !stop.get() && !self.is_done() {
            let begin = Instant::now();
            self.train_epoch(&mut source, &stop)?;
            if self.progress.score.count == 0 {
                // Nothing to train on: no epoch would ever end it.
                break;
            }
            let lr = self.optimizer.lr(0);
            let validated = validation.as_mut().map(|v| self.validate(v));
            self.end_epoch(lr, validated, begin.elapsed().as_secs_f64())?;
            if self.patience.is_some_and(|p| self.progress.epochs_since_best >= p) {
                stop.set(true);
            }
            self.write(&source)?;
        }
        self.model.eval();
        if let Some(mut l) = self.lookahead.take() {
            l.slow.swap();
        }
        if let Some((mut ema, _)) = self.ema.take() {
            ema.swap();
        }
        Ok(self.progress.history.clone())
    }

    fn is_done(&self) -> bool {
        self.max_steps.is_some_and(|max| self.progress.step >= max)
    }

    fn train_epoch(&mut self, source: &mut Source<'_>, stop: &Cell<bool>) -> Result<(), TrainError> {
        self.model.train();
        self.optimizer.zero_grad();
        let params = self.optimizer.parameters();
        let mut batches = source.epoch();
        let mut next = batches.next();
        let (mut pending, mut pending_loss) = (0, 0.0);
        while let Some((x, target)) = next.take() {
            if pending == 0 {
                self.before_step.iter_mut().for_each(|f| f(self.progress.step));
            }
            let y = self.model.forward(&x);
            let loss = (self.loss)(&y, &target);
            let value = loss.item();
            self.progress.score.add(value, &y, &target);
            drop(y);
            if self.accumulate == 1 {
                loss.backward()
            } else {
                (loss * (1.0 / self.accumulate as f64)).backward()
            }
            pending += 1;
            pending_loss += value;
            if pending < self.accumulate {
                next = batches.next();
                if next.is_some() {
                    continue;
                }
            }
            if pending < self.accumulate {
                // The last step of an epoch has fewer batches: back to their mean.
                let scale = self.accumulate as f64 / pending as f64;
                for p in &params {
                    if let Some(g) = p.grad() {
                        p.set_grad(Some(g * scale));
                    }
                }
            }
            self.update(&params);
            let event = StepEvent {
                epoch: self.progress.epoch + 1,
                step: self.progress.step,
                loss: pending_loss / pending as f64,
                score: &self.progress.score,
                lr: self.optimizer.lr(0),
                stop,
            };
            self.on_step.iter_mut().for_each(|f| f(&event));
            (pending, pending_loss) = (0, 0.0);
            if let Some(scheduler) = &mut self.step_scheduler {
                scheduler.step(&mut *self.optimizer);
            }
            if self.every.is_some_and(|n| self.progress.step.is_multiple_of(n)) && source.is_resumable() {
                self.write(source)?;
            }
            if stop.get() || self.is_done() {
                break;
            }
            next = batches.next();
        }
        Ok(())
    }

    fn update(&mut self, params: &[Var]) {
        if let Some(max_norm) = self.clip_norm {
            clip_grad_norm_(params, max_norm, 2.0);
        }
        self.optimizer.step();
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

    fn validate(&mut self, source: &mut Source<'_>) -> Score {
        if let Some((ema, _)) = &mut self.ema {
            ema.swap();
        }
        let score = evaluate(self.model, source.epoch(), &self.loss);
        if let Some((ema, _)) = &mut self.ema {
            ema.swap();
        }
        score
    }

    fn end_epoch(&mut self, lr: f64, validation: Option<Score>, seconds: f64) -> Result<(), TrainError> {
        let p = &mut self.progress;
        p.epoch += 1;
        let train = std::mem::take(&mut p.score);
        let record = EpochRecord { epoch: p.epoch, step: p.step, lr, train, validation, seconds };
        let judged = validation.unwrap_or(train);
        let value = match self.best_by {
            Best::Accuracy => judged.accuracy().unwrap_or_else(|| -judged.loss()),
            Best::Loss => -judged.loss(),
        };
        let improved = p.best.is_none_or(|best| value > best);
        if improved {
            p.best = Some(value);
            p.epochs_since_best = 0;
        } else {
            p.epochs_since_best += 1;
        }
        p.history.push(record.clone());
        if let Some((plateau, by)) = &mut self.plateau {
            let metric = match by {
                Best::Accuracy => judged.accuracy().unwrap_or(0.0),
                Best::Loss => judged.loss(),
            };
            plateau.step(metric, &mut *self.optimizer);
        }
        if let Some(scheduler) = &mut self.epoch_scheduler {
            scheduler.step(&mut *self.optimizer);
        }
        self.on_epoch.iter_mut().for_each(|f| f(&self.progress.history));
        if let Some(folder) = &self.events {
            let fail = |e| FileError::of_io(folder, e);
            if self.board.is_none() {
                self.board = Some(TensorBoard::create(folder).map_err(fail)?);
            }
            self.board.as_mut().expect("just made").epoch(&record).map_err(fail)?;
        }
        #[cfg(feature = "plots")]
        if self.curves
            && let Some(folder) = &self.folder
        {
            make_folder(folder)?;
            let file = folder.join("curves.png");
            crate::plots::training_curves(file, &self.progress.history, "training", "validation")?;
        }
        if improved && let Some(folder) = &self.folder {
            let mut state = self.model.state_dict();
            if let Some((ema, _)) = &self.ema {
                ema.state_dict().iter().for_each(|(k, v)| state.insert(k, v.clone()));
            }
            state.metadata.insert("epoch".into(), record.epoch.to_string());
            make_folder(folder)?;
            state.save(folder.join("best.safetensors"))?;
        }
        Ok(())
    }
}

fn make_folder(folder: &std::path::Path) -> Result<(), FileError> {
    std::fs::create_dir_all(folder).map_err(|e| FileError::of_io(folder, e))
}

#[cfg(test)]
mod tests;
