//! What a trainer is told before it begins.

use super::{Best, Lookahead, StepEvent, Trainer};
use crate::lr_scheduler::{ReduceLROnPlateau, Schedule};
use crate::train::average::WeightAverage;
use crate::train::metrics::EpochRecord;
use std::path::PathBuf;
use tape::Var;

impl<'a> Trainer<'a> {
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
}
