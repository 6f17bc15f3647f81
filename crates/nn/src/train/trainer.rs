//! `Trainer`.

mod resume;

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

    /// This trainer for so many epochs.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.epochs = epochs;
        self
    }

    /// This trainer for so many steps, in however many epochs.
    pub fn steps(mut self, steps: u64) -> Self {
        self.max_steps = Some(steps);
        self.epochs = u64::MAX;
        self
    }

    /// This trainer with a loss of output and target.
    pub fn loss(mut self, loss: impl Fn(&Var, &Var) -> Var + 'a) -> Self {
        self.loss = Box::new(loss);
        self
    }

    /// This trainer with a schedule that goes on after each step.
    pub fn schedule_steps(mut self, schedule: impl crate::lr_scheduler::Schedule + 'static) -> Self {
        self.step_scheduler = Some(schedule.attach(&mut *self.optimizer));
        self
    }

    /// This trainer with a schedule that goes on after each epoch.
    pub fn schedule_epochs(mut self, schedule: impl crate::lr_scheduler::Schedule + 'static) -> Self {
        self.epoch_scheduler = Some(schedule.attach(&mut *self.optimizer));
        self
    }

    /// This trainer with a learning rate that falls when the validation's loss or accuracy (or training's, without
    /// validation) no longer gets better.
    pub fn schedule_plateau(mut self, plateau: crate::lr_scheduler::ReduceLROnPlateau, by: Best) -> Self {
        self.plateau = Some((plateau.attach(&*self.optimizer), by));
        self
    }

    /// This trainer with one step for every so many batches, on the mean of their gradients.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn accumulate(mut self, batches: usize) -> Self {
        assert!(batches > 0, "Trainer: a step takes at least one batch");
        self.accumulate = batches;
        self
    }

    /// This trainer with the gradients' norm bounded.
    pub fn clip_grad_norm(mut self, max_norm: f64) -> Self {
        self.clip_norm = Some(max_norm);
        self
    }

    /// This trainer with an exponential moving average of the weights, by which it validates and which the model has
    /// in the end.
    pub fn ema(mut self, decay: f64) -> Self {
        self.ema = Some((WeightAverage::new(self.model), decay));
        self
    }

    /// This trainer with slow weights (Zhang et al. 2019, "Lookahead optimizer"): every so many steps they follow the
    /// model, keeping the share `decay(step)` of themselves, and the model goes back to them. In the end it has them.
    ///
    /// # Panics
    /// If the number is zero.
    #[track_caller]
    pub fn lookahead(mut self, every: u64, decay: impl Fn(u64) -> f64 + 'a) -> Self {
        assert!(every > 0, "Trainer: lookahead needs a number of steps");
        self.lookahead =
            Some(Lookahead { slow: WeightAverage::new(self.model), every, decay: Box::new(decay) });
        self
    }

    /// This trainer, ending when so many epochs in a row were not the best.
    pub fn early_stopping(mut self, patience: u64) -> Self {
        self.patience = Some(patience);
        self
    }

    /// This trainer with another idea of the best epoch; by default, the highest accuracy.
    pub fn best_by(mut self, best: Best) -> Self {
        self.best_by = best;
        self
    }

    /// This trainer with files in a folder: `last.safetensors` (a checkpoint, after each epoch),
    /// `best.safetensors` (the weights of the best epoch) and `metrics.csv`.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// This trainer with event files for TensorBoard in a folder: losses, accuracies and the learning rate of each epoch.
    pub fn tensorboard(mut self, folder: impl Into<PathBuf>) -> Self {
        self.events = Some(folder.into());
        self
    }

    /// This trainer with loss and error drawn as `curves.png` in its [folder](Trainer::folder) after each epoch. Needs the
    /// feature `plots`. [`plots::training_curves`](crate::plots::training_curves) draws them elsewhere, and
    /// [`plots::confusion`](crate::plots::confusion) the confusion matrix.
    #[cfg(feature = "plots")]
    pub fn curves(mut self) -> Self {
        self.curves = true;
        self
    }

    /// This trainer with a checkpoint after every so many steps too.
    pub fn checkpoint_every(mut self, steps: u64) -> Self {
        self.every = Some(steps.max(1));
        self
    }

    /// This trainer going on from the newest good checkpoint in its folder, if there is one.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// This trainer with a function that is called before each step with the number of steps made so far, also when it
    /// goes on from a checkpoint: for what changes in the course of training, such as layers that are frozen.
    pub fn before_step(mut self, f: impl FnMut(u64) + 'a) -> Self {
        self.before_step.push(Box::new(f));
        self
    }

    /// This trainer with a function that is called after each step.
    pub fn on_step(mut self, f: impl FnMut(&StepEvent) + 'a) -> Self {
        self.on_step.push(Box::new(f));
        self
    }

    /// This trainer with a function that is called after each epoch with the numbers of all epochs so far.
    pub fn on_epoch(mut self, f: impl FnMut(&[EpochRecord]) + 'a) -> Self {
        self.on_epoch.push(Box::new(f));
        self
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
