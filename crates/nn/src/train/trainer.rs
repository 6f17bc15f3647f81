//! `Trainer`.

use super::average::WeightAverage;
use super::metrics::{EpochRecord, Score, evaluate, to_csv};
use super::source::Source;
use crate::checkpoint::Checkpoint;
use crate::files::{FileError, write_atomically};
use crate::lr_scheduler::{PlateauScheduler, Scheduler};
use crate::module::Module;
use crate::optim::{Optimizer, OptimizerStateError, clip_grad_norm_};
use crate::state_dict::{StateDict, StateDictError};
use std::cell::Cell;
use std::path::PathBuf;
use std::time::Instant;
use tape::{Tensor, Var};

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
type OnStep<'a> = Box<dyn FnMut(&StepEvent) + 'a>;
type OnEpoch<'a> = Box<dyn FnMut(&EpochRecord) + 'a>;

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
    lookahead: Option<(WeightAverage, u64, f64)>,
    patience: Option<u64>,
    best_by: Best,
    folder: Option<PathBuf>,
    every: Option<u64>,
    resume: bool,
    on_step: Vec<OnStep<'a>>,
    on_epoch: Vec<OnEpoch<'a>>,
    progress: Progress,
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
            patience: None,
            best_by: Best::Accuracy,
            folder: None,
            every: None,
            resume: false,
            on_step: Vec::new(),
            on_epoch: Vec::new(),
            progress: Progress::default(),
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

    /// This trainer with slow weights that follow every so many steps, and that the model then goes back to.
    ///
    /// # Panics
    /// If the number is zero.
    #[track_caller]
    pub fn lookahead(mut self, every: u64, decay: f64) -> Self {
        assert!(every > 0, "Trainer: lookahead needs a number of steps");
        self.lookahead = Some((WeightAverage::new(self.model), every, decay));
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

    /// This trainer with a function that is called after each step.
    pub fn on_step(mut self, f: impl FnMut(&StepEvent) + 'a) -> Self {
        self.on_step.push(Box::new(f));
        self
    }

    /// This trainer with a function that is called after each epoch.
    pub fn on_epoch(mut self, f: impl FnMut(&EpochRecord) + 'a) -> Self {
        self.on_epoch.push(Box::new(f));
        self
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
        if let Some((slow, every, decay)) = &mut self.lookahead
            && self.progress.step.is_multiple_of(*every)
        {
            slow.lookahead(*decay);
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
        let measure = |by: Best| match by {
            Best::Accuracy => judged.accuracy().unwrap_or_else(|| -judged.loss()),
            Best::Loss => -judged.loss(),
        };
        let value = measure(self.best_by);
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
        self.on_epoch.iter_mut().for_each(|f| f(&record));
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

    /// Writes the checkpoint and the numbers of the epochs.
    fn write(&self, source: &Source<'_>) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        make_folder(folder)?;
        self.checkpoint(source).save(folder.join("last.safetensors"))?;
        let path = folder.join("metrics.csv");
        write_atomically(&path, to_csv(&self.progress.history).as_bytes())
            .map_err(|e| FileError::of_io(&path, e))?;
        Ok(())
    }

    fn checkpoint(&self, source: &Source<'_>) -> Checkpoint {
        let mut c = Checkpoint::new();
        c.put("model", &self.model.state_dict());
        c.put("optimizer", &self.optimizer.state_dict());
        let parts = [
            ("step_scheduler", self.step_scheduler.as_ref().map(Scheduler::state_dict)),
            ("epoch_scheduler", self.epoch_scheduler.as_ref().map(Scheduler::state_dict)),
            ("plateau", self.plateau.as_ref().map(|(p, _)| p.state_dict())),
            ("ema", self.ema.as_ref().map(|(a, _)| a.state_dict())),
            ("lookahead", self.lookahead.as_ref().map(|(a, _, _)| a.state_dict())),
        ];
        for (name, state) in parts {
            c.put(name, &state.unwrap_or_default());
        }
        c.put_generator("default", tape::default_generator_state());
        let p = &self.progress;
        c.put_numbers("position", &source.position());
        c.put_numbers("progress", &[p.epoch as i64, p.step as i64, p.epochs_since_best as i64]);
        let mut floats = StateDict::new();
        let list = |v: Vec<f64>| {
            let n = v.len();
            Tensor::from_vec(v, &[n])
        };
        floats.insert("score", list(p.score.to_numbers()));
        floats.insert("best", list(p.best.into_iter().collect()));
        for r in &p.history {
            let mut row = vec![r.epoch as f64, r.step as f64, r.lr, r.seconds];
            row.extend(r.train.to_numbers());
            row.extend(r.validation.into_iter().flat_map(Score::to_numbers));
            floats.insert(format!("epoch.{}", r.epoch), list(row));
        }
        c.put("progress", &floats);
        c
    }

    /// Goes on from the newest good checkpoint.
    fn take_up(&mut self, source: &mut Source<'_>) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (Some(c), _) = Checkpoint::newest(folder.join("last.safetensors")) else { return Ok(()) };
        let progress = read_progress(&c)?;
        let generator = c.generator("default")?;
        self.model.load_state_dict(&c.part("model"), true)?;
        self.optimizer.load_state_dict(&c.part("optimizer"))?;
        for (name, scheduler) in
            [("step_scheduler", &mut self.step_scheduler), ("epoch_scheduler", &mut self.epoch_scheduler)]
        {
            if let Some(s) = scheduler {
                s.load_state_dict(&c.part(name))?;
            }
        }
        if let Some((p, _)) = &mut self.plateau {
            p.load_state_dict(&c.part("plateau"))?;
        }
        if let Some((a, _)) = &mut self.ema {
            a.load_state_dict(&c.part("ema"))?;
        }
        if let Some((a, _, _)) = &mut self.lookahead {
            a.load_state_dict(&c.part("lookahead"))?;
        }
        let position = c.numbers("position")?;
        if !position.is_empty() {
            source.set_position(&position).map_err(TrainError::Source)?;
        }
        tape::set_default_generator_state(generator);
        self.progress = progress;
        Ok(())
    }
}

fn make_folder(folder: &std::path::Path) -> Result<(), FileError> {
    std::fs::create_dir_all(folder).map_err(|e| FileError::of_io(folder, e))
}

fn read_progress(c: &Checkpoint) -> Result<Progress, FileError> {
    let wrong = || FileError::new("is not a trainer's checkpoint: its progress is missing");
    let numbers = c.numbers("progress")?;
    let [epoch, step, epochs_since_best] = numbers[..] else { return Err(wrong()) };
    let floats = c.part("progress");
    let list = |key: &str| floats.get(key).map(Tensor::to_vec::<f64>).ok_or_else(wrong);
    let score = Score::from_numbers(&list("score")?).ok_or_else(wrong)?;
    let best = list("best")?.first().copied();
    let mut history = Vec::new();
    for number in 1..=epoch {
        let row = list(&format!("epoch.{number}"))?;
        let (head, scores) = row.split_at_checked(4).ok_or_else(wrong)?;
        let mut scores = scores.chunks(4).map(Score::from_numbers);
        history.push(EpochRecord {
            epoch: head[0] as u64,
            step: head[1] as u64,
            lr: head[2],
            seconds: head[3],
            train: scores.next().flatten().ok_or_else(wrong)?,
            validation: scores.next().flatten(),
        });
    }
    let [epoch, step, epochs_since_best] = [epoch, step, epochs_since_best].map(|n| n.max(0) as u64);
    Ok(Progress { epoch, step, score, best, epochs_since_best, history })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lr_scheduler::{Mode, OneCycleLR, ReduceLROnPlateau, StepLR};
    use crate::optim::{Adam, SGD};
    use crate::{Dropout, Fields, Linear, ReLU, Sequential};
    use std::rc::Rc;
    use tape::{DType, Generator};

    const BATCHES: usize = 6;

    fn net() -> Sequential {
        tape::manual_seed(1);
        crate::sequential![Linear::new(4, 16), ReLU::new(), Dropout::new(0.2), Linear::new(16, 3)]
    }

    fn batch(number: usize) -> (Var, Var) {
        let x = Generator::manual_seed(number as u64).normal(&[8, 4], 0.0, 1.0);
        let labels: Vec<i64> = x.to_vec::<f32>().chunks(4).map(|r| i64::from(r[0] > 0.0)).collect();
        (Var::from(x), Var::from_vec(labels, &[8]))
    }

    /// Batches that depend on the epoch, from a place that can be gone back to.
    fn source() -> Source<'static> {
        let place = Rc::new(Cell::new((0usize, 0usize)));
        let (a, b, c) = (place.clone(), place.clone(), place);
        Source::new(move || {
            let place = a.clone();
            std::iter::from_fn(move || {
                let (epoch, i) = place.get();
                if i == BATCHES {
                    place.set((epoch + 1, 0));
                    return None;
                }
                place.set((epoch, i + 1));
                Some(batch(epoch * BATCHES + i))
            })
        })
        .resumable(
            move || vec![b.get().0 as i64, b.get().1 as i64],
            move |p| {
                c.set((p[0] as usize, p[1] as usize));
                Ok(())
            },
        )
    }

    fn trainer<'a>(model: &'a Sequential) -> Trainer<'a> {
        Trainer::new(model, Adam::new(model.parameters(), 0.01))
            .epochs(4)
            .schedule_steps(OneCycleLR::new(0.02, 4 * BATCHES as u64))
            .clip_grad_norm(1.0)
            .ema(0.9)
            .lookahead(5, 0.5)
    }

    fn weights(model: &Sequential) -> Vec<u32> {
        model.parameters().iter().flat_map(|p| p.to_vec::<f32>()).map(f32::to_bits).collect()
    }

    #[test]
    fn resumed_training_ends_with_the_same_bits() {
        let model = net();
        let history = trainer(&model).fit(source(), None).unwrap();
        let expected = weights(&model);
        for stop_at in [2, 5, 6, 7, 13, 23] {
            let dir = tempfile::tempdir().unwrap();
            let model = net();
            let mut first = trainer(&model).folder(dir.path()).checkpoint_every(1).on_step(|e| {
                if e.step == stop_at {
                    panic!("killed");
                }
            });
            let run = std::panic::AssertUnwindSafe(|| first.fit(source(), None));
            assert!(std::panic::catch_unwind(run).is_err());
            let model = net();
            tape::manual_seed(99);
            let resumed = trainer(&model)
                .folder(dir.path())
                .checkpoint_every(1)
                .resume(true)
                .fit(source(), None)
                .unwrap();
            assert_eq!(weights(&model), expected, "stopped at step {stop_at}");
            let losses = |h: &[EpochRecord]| h.iter().map(|r| r.train.loss()).collect::<Vec<f64>>();
            assert_eq!(losses(&resumed), losses(&history));
            let csv = std::fs::read_to_string(dir.path().join("metrics.csv")).unwrap();
            assert_eq!(csv.lines().count(), 5);
        }
    }

    #[test]
    fn accumulated_gradients_are_those_of_the_whole_batch() {
        let (x, t) = batch(0);
        let run = |accumulate: usize| {
            tape::manual_seed(1);
            let model = Linear::new(4, 3);
            model.to_dtype(DType::F64);
            let size = 8 / accumulate;
            let x = x.cast(DType::F64);
            let parts =
                || (0..accumulate).map(|i| (x.narrow(0, i * size, size), t.narrow(0, i * size, size)));
            let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).accumulate(accumulate);
            trainer.fit(Source::new(parts), None).unwrap();
            model.weight.to_vec::<f64>()
        };
        for (a, b) in run(1).iter().zip(run(4)) {
            assert!((a - b).abs() < 1e-12);
        }
        // A last step of fewer batches takes their own mean.
        let three = {
            tape::manual_seed(1);
            let model = Linear::new(4, 3);
            let parts = || std::iter::once(batch(0));
            let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).accumulate(3);
            trainer.fit(Source::new(parts), None).unwrap();
            model.weight.to_vec::<f32>()
        };
        assert!(run(1).iter().zip(three).all(|(a, b)| (a - f64::from(b)).abs() < 1e-6));
    }

    #[test]
    fn it_stops_early_and_by_steps_and_keeps_the_best() {
        let model = net();
        let dir = tempfile::tempdir().unwrap();
        let mut count = 0;
        let history = Trainer::new(&model, SGD::new(model.parameters(), 0.0))
            .epochs(50)
            .early_stopping(2)
            .best_by(Best::Loss)
            .schedule_epochs(StepLR::new(1).gamma(0.5))
            .schedule_plateau(ReduceLROnPlateau::new(Mode::Min), Best::Loss)
            .folder(dir.path())
            .on_epoch(|_| count += 1)
            .fit(source(), Some(Source::new(|| std::iter::once(batch(7)))))
            .unwrap();
        assert_eq!(history.len(), 3);
        assert!(history[2].validation.unwrap().accuracy().is_some());
        model.load_state_dict(&StateDict::load(dir.path().join("best.safetensors")).unwrap(), true).unwrap();
        drop(model);
        assert_eq!(count, 3);

        let model = net();
        let history =
            Trainer::new(&model, SGD::new(model.parameters(), 0.1)).steps(8).fit(source(), None).unwrap();
        assert_eq!((history.len(), history[1].step, history[1].train.count), (2, 8, 16));
    }

    #[test]
    fn a_checkpoint_of_another_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let model = net();
        trainer(&model).folder(dir.path()).fit(source(), None).unwrap();
        let other = crate::sequential![Linear::new(4, 3)];
        let error = Trainer::new(&other, Adam::new(other.parameters(), 0.01))
            .folder(dir.path())
            .resume(true)
            .fit(source(), None)
            .unwrap_err();
        assert!(matches!(error, TrainError::Model(_)), "{error}");
    }
}
