//! What a trainer is told before it begins.

use super::{Best, Folder, Lookahead, OnNonfinite, StepEvent, StopHandle, Trainer};
use crate::files::RunFolder;
use crate::lr_scheduler::{ReduceLROnPlateau, Schedule};
use crate::train::average::WeightAverage;
use crate::train::metrics::EpochRecord;
use std::path::PathBuf;
use std::time::Duration;
use tapegrad_tape::Var;

impl<'a> Trainer<'a> {
    /// This trainer for this many epochs.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.epochs = epochs;
        self
    }

    /// This trainer for this many steps, in however many epochs.
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
    pub fn schedule_steps(mut self, schedule: impl Schedule + 'static) -> Self {
        self.step_scheduler = Some(schedule.attach(&mut *self.optimizer));
        self
    }

    /// This trainer with a schedule that goes on after each epoch.
    pub fn schedule_epochs(mut self, schedule: impl Schedule + 'static) -> Self {
        self.epoch_scheduler = Some(schedule.attach(&mut *self.optimizer));
        self
    }

    /// This trainer with a learning rate that falls when the validation's loss or accuracy (or training's, without
    /// validation) no longer gets better.
    pub fn schedule_plateau(mut self, plateau: ReduceLROnPlateau, by: Best) -> Self {
        self.plateau = Some((plateau.attach(&*self.optimizer), by));
        self
    }

    /// This trainer with one step for every this many batches, on the gradient of the batch that they are together: each
    /// counts by its [weight](Trainer::batch_weight), and the last step of an epoch may have fewer.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn accumulate(mut self, batches: usize) -> Self {
        assert!(batches > 0, "Trainer: a step needs at least one batch");
        self.accumulate = batches;
        self
    }

    /// This trainer with another weight of a batch, of its output and target: what the loss's mean is over. By default
    /// it is the number of targets, those of class -100 (the `ignore_index` of cross-entropy) left out, which holds
    /// for every loss of this crate that is a mean without weights of classes. A batch of weight 0 is passed over.
    ///
    /// ```
    /// use tapegrad_nn::{Fields, Linear, optim::SGD, train::Trainer};
    /// let model = Linear::new(2, 3);
    /// let class_weight = [1.0, 2.0, 4.0];
    /// // Cross-entropy with weights of classes divides by the sum of its targets' weights.
    /// let weight = move |_: &tapegrad_tape::Var, t: &tapegrad_tape::Var| t.to_vec::<i64>().iter().map(|&c| class_weight[c as usize]).sum::<f64>();
    /// let trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).accumulate(4).batch_weight(weight);
    /// # drop(trainer);
    /// ```
    pub fn batch_weight(mut self, weight: impl Fn(&Var, &Var) -> f64 + 'a) -> Self {
        self.batch_weight = Box::new(weight);
        self
    }

    /// This trainer with another answer to a loss or a gradient that is not finite; by default it stops, before weights
    /// or checkpoints are touched, and names the operation.
    pub fn on_nonfinite(mut self, answer: OnNonfinite) -> Self {
        self.on_nonfinite = answer;
        self
    }

    /// This trainer with the gradients' norm bounded.
    ///
    /// # Panics
    /// If the bound is negative or not a number.
    #[track_caller]
    pub fn clip_grad_norm(mut self, max_norm: f64) -> Self {
        assert!(
            max_norm >= 0.0,
            "Trainer: the bound of the gradients' norm must be at least 0, got {max_norm}"
        );
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

    /// This trainer, stopping when this many epochs in a row brought no improvement.
    pub fn early_stopping(mut self, patience: u64) -> Self {
        self.patience = Some(patience);
        self
    }

    /// This trainer with another idea of the best epoch; by default, the smallest loss.
    pub fn best_by(mut self, best: Best) -> Self {
        self.best_by = best;
        self
    }

    /// This trainer with files in a folder: `last.safetensors` (a checkpoint, after each epoch and, where the source has a
    /// position, every five minutes), `best.safetensors` (the weights of the best epoch) and `metrics.csv`. The folder
    /// is a [`RunFolder`] while the trainer is at work.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(Folder::Path(folder.into()));
        self
    }

    /// This trainer with its files in a folder that the program has opened, and goes on to write to.
    pub fn run_folder(mut self, run: &RunFolder) -> Self {
        self.folder = Some(Folder::Open(run.clone()));
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

    /// This trainer with a checkpoint when the last one is this old, instead of five minutes.
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// This trainer stopping when a handle says so: it finishes its step, writes the checkpoint and returns.
    pub fn stop_on(mut self, handle: &StopHandle) -> Self {
        self.stop = handle.clone();
        self
    }

    /// This trainer with a note of one more thing that it depends on, such as the data. When it resumes from a
    /// checkpoint with another value, a [warning](Trainer::on_warning) says so.
    pub fn setting(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.settings.insert(name.into(), value.to_string());
        self
    }

    /// This trainer with another way to tell of what does not end it: a checkpoint that was passed over, a setting that
    /// has changed, a step that was left out, an image that could not be drawn. By default it goes to standard error.
    pub fn on_warning(mut self, f: impl FnMut(&str) + 'a) -> Self {
        self.on_warning = Box::new(f);
        self
    }

    /// This trainer going on from the newest checkpoint in its folder, if there is one. Where the newest cannot be read,
    /// it is kept under another name, and the one before is taken, with a warning; where none can be read, `fit` ends
    /// with [`TrainError::Unreadable`](super::TrainError::Unreadable). Without `resume`, the checkpoint of a training
    /// that has not ended is kept under another name too.
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
}
