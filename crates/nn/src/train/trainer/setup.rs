//! The builder methods of a trainer.

use super::{Best, Folder, Lookahead, OnNonfinite, StepEvent, StopHandle, Trainer};
use crate::files::RunFolder;
use crate::lr_scheduler::{ReduceLROnPlateau, Schedule};
use crate::train::average::WeightAverage;
use crate::train::metric::Metric;
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

    /// This trainer for this many steps, over as many epochs as that takes.
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

    /// Computes a metric over the validation batches of each epoch: [`EpochRecord::metrics`](crate::train::EpochRecord) has
    /// its value.
    ///
    /// ```
    /// use tapegrad_nn::{Module, Linear, optim::SGD, train::{MeanAbsoluteError, Source, Trainer}};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let model = Linear::new(2, 1);
    /// let batch = || (Var::from(Tensor::ones_with(&[4, 2], DType::F32)), Var::from(Tensor::zeros_with(&[4, 1], DType::F32)));
    /// let source = || Source::new(move || [batch()].into_iter());
    /// let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.01))
    ///     .loss(|y, t| tapegrad_ops::mse_loss(y, t))
    ///     .metric(MeanAbsoluteError::default());
    /// let history = trainer.fit(source(), Some(source())).unwrap();
    /// assert_eq!(history[0].metrics[0].0, "mae");
    /// ```
    pub fn metric(mut self, metric: impl Metric + 'a) -> Self {
        self.metrics.push(Box::new(metric));
        self
    }

    /// This trainer with a schedule that advances after each step.
    pub fn schedule_steps(mut self, schedule: impl Schedule + 'static) -> Self {
        self.step_scheduler = Some(schedule.attach(&mut *self.optimizer));
        self
    }

    /// This trainer with a schedule that advances after each epoch.
    pub fn schedule_epochs(mut self, schedule: impl Schedule + 'static) -> Self {
        self.epoch_scheduler = Some(schedule.attach(&mut *self.optimizer));
        self
    }

    /// This trainer with a learning rate that is reduced when the validation loss or accuracy (training's, without
    /// validation) stops improving.
    pub fn schedule_plateau(mut self, plateau: ReduceLROnPlateau, by: Best) -> Self {
        self.plateau = Some((plateau.attach(&*self.optimizer), by));
        self
    }

    /// This trainer with one step per this many batches, on the gradient of the joined batch: each
    /// batch has a [weight](Trainer::batch_weight), and the last step of an epoch may have fewer.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn accumulate(mut self, batches: usize) -> Self {
        assert!(batches > 0, "Trainer: a step needs at least one batch");
        self.accumulate = batches;
        self
    }

    /// This trainer with another weight of a batch, computed from its output and target: the size over which the loss
    /// averages. By default it is the number of targets, those of class -100 (the `ignore_index` of cross-entropy)
    /// left out, which holds for every loss of this crate that is a mean without weights of classes. A batch of
    /// weight 0 is skipped.
    ///
    /// ```
    /// use tapegrad_nn::{Module, Linear, optim::SGD, train::Trainer};
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

    /// This trainer with another reaction to a loss or a gradient that is not finite; by default it stops before weights
    /// or checkpoints are changed, and names the operation.
    pub fn on_nonfinite(mut self, answer: OnNonfinite) -> Self {
        self.on_nonfinite = answer;
        self
    }

    /// This trainer with gradients clipped to a norm.
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

    /// This trainer with an exponential moving average of the weights, with which it validates and which the model has
    /// at the end.
    pub fn ema(mut self, decay: f64) -> Self {
        self.ema = Some((WeightAverage::new(self.model), decay));
        self
    }

    /// This trainer with slow weights (Zhang et al. 2019, "Lookahead optimizer"): every so many steps they follow the
    /// model, keeping the fraction `decay(step)` of themselves, and the model is set to them. At the end it has them.
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

    /// This trainer with another criterion for the best epoch; by default, the smallest loss.
    pub fn best_by(mut self, best: Best) -> Self {
        self.best_by = best;
        self
    }

    /// This trainer with files in a folder: `last.safetensors` (a checkpoint, after each epoch and, where the source
    /// has a position, every five minutes), `best.safetensors` (the weights of the best epoch) and `metrics.csv`. The
    /// folder is a [`RunFolder`] while the trainer runs.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(Folder::Path(folder.into()));
        self
    }

    /// This trainer with its files in a folder that the program has already opened.
    pub fn run_folder(mut self, run: &RunFolder) -> Self {
        self.folder = Some(Folder::Open(run.clone()));
        self
    }

    /// This trainer with event files for TensorBoard in a folder: losses, accuracies and the learning rate of each epoch.
    pub fn tensorboard(mut self, folder: impl Into<PathBuf>) -> Self {
        self.events = Some(folder.into());
        self
    }

    /// This trainer with loss and error drawn as `curves.png` in its [folder](Trainer::folder) after each epoch.
    /// Needs the feature `plots`. [`plots::training_curves`](crate::plots::training_curves) draws them elsewhere, and
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

    /// This trainer with a handle that stops it: it finishes its step, writes the checkpoint and returns.
    pub fn stop_on(mut self, handle: &StopHandle) -> Self {
        self.stop = handle.clone();
        self
    }

    /// This trainer with one more setting that it depends on, such as the data. When it resumes from a
    /// checkpoint with another value, a [warning](Trainer::on_warning) says so.
    pub fn setting(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.settings.insert(name.into(), value.to_string());
        self
    }

    /// This trainer with another handler for warnings: a checkpoint that was rejected, a setting that
    /// has changed, a step that was skipped, an image that could not be drawn. By default they go to standard error.
    pub fn on_warning(mut self, f: impl FnMut(&str) + 'a) -> Self {
        self.on_warning = Box::new(f);
        self
    }

    /// This trainer resuming from the newest checkpoint in its folder, if there is one. If the newest cannot be read,
    /// it is kept under another name and the previous one is used, with a warning; if none can be read, `fit` ends
    /// with [`TrainError::Unreadable`](super::TrainError::Unreadable). Without `resume`, the checkpoint of an unfinished
    /// training run is kept under another name too.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// This trainer with a function that is called before each step with the number of steps made so far, also when it
    /// resumes from a checkpoint: for changes in the course of training, such as freezing layers.
    pub fn before_step(mut self, f: impl FnMut(u64) + 'a) -> Self {
        self.before_step.push(Box::new(f));
        self
    }

    /// This trainer with a function that is called after each step.
    pub fn on_step(mut self, f: impl FnMut(&StepEvent) + 'a) -> Self {
        self.on_step.push(Box::new(f));
        self
    }

    /// This trainer with a function that is called after each epoch with the metrics of all epochs so far.
    pub fn on_epoch(mut self, f: impl FnMut(&[EpochRecord]) + 'a) -> Self {
        self.on_epoch.push(Box::new(f));
        self
    }
}
