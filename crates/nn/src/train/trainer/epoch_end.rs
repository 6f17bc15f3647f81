//! What follows an epoch: its record, the best weights, schedules, files.

use super::{Best, TrainError, Trainer};
use crate::files::{FileError, RunFolder};
use crate::train::metrics::{EpochRecord, Score, values};
use crate::train::source::Source;
use crate::train::tensorboard::TensorBoard;

impl Trainer<'_> {
    /// The value by which epochs are compared, the larger the better. Without an accuracy, it is the
    /// negated loss.
    fn value(&mut self, score: Score) -> f64 {
        match (self.best_by, score.accuracy()) {
            (Best::Accuracy, Some(accuracy)) => accuracy,
            (Best::Accuracy, None) => {
                if self.progress.epoch == 1 {
                    self.warn("Best::Accuracy: the targets are not classes, so the best epoch is the one with the smallest loss");
                }
                -score.loss()
            }
            (Best::Loss, _) => -score.loss(),
        }
    }

    /// Judges an epoch, steps the schedules of epochs, and writes what it has led to.
    pub(super) fn end_epoch(
        &mut self,
        run: Option<&RunFolder>,
        source: &Source<'_>,
        lr: f64,
        validation: Option<Score>,
        seconds: f64,
    ) -> Result<(), TrainError> {
        let p = &mut self.progress;
        p.epoch += 1;
        p.batch = 0;
        let train = std::mem::take(&mut p.score);
        let metrics = if validation.is_some() { values(&self.metrics) } else { Vec::new() };
        let record = EpochRecord { epoch: p.epoch, step: p.step, lr, train, validation, seconds, metrics };
        p.history.push(record.clone());
        let judged = validation.unwrap_or(train);
        let value = self.value(judged);
        let p = &mut self.progress;
        // NaN is worse than any number.
        let improved = !value.is_nan() && p.best.is_none_or(|best| best.is_nan() || value > best);
        if improved {
            p.best = Some(value);
            p.epochs_since_best = 0;
        } else {
            p.epochs_since_best += 1;
        }
        if let Some((plateau, by)) = &mut self.plateau {
            let metric = match by {
                Best::Accuracy => judged.accuracy().unwrap_or(f64::NAN),
                Best::Loss => judged.loss(),
            };
            plateau.step(metric, &mut *self.optimizer);
        }
        if let Some(scheduler) = &mut self.epoch_scheduler {
            scheduler.step(&mut *self.optimizer);
        }
        if improved && let Some(run) = run {
            self.optimizer.eval();
            let mut state = self.model.state_dict();
            self.optimizer.train();
            if let Some((ema, _)) = &self.ema {
                ema.averages().for_each(|(k, v)| state.insert(k, v.clone()));
            }
            state.metadata.insert("epoch".into(), record.epoch.to_string());
            state.save(run.file("best.safetensors"))?;
        }
        self.write(run, source)?;
        if self.is_first() {
            self.on_epoch.iter_mut().for_each(|f| f(&self.progress.history));
            self.draw(run, &record);
        }
        Ok(())
    }

    /// Plots and events: a failure is only a warning, since the weights are already saved.
    fn draw(&mut self, run: Option<&RunFolder>, record: &EpochRecord) {
        if let Some(folder) = &self.events {
            let board = match self.board.take() {
                Some(board) => Ok(board),
                None => TensorBoard::create(folder),
            };
            let drawn = board.and_then(|mut board| board.epoch(record).map(|()| board));
            match drawn {
                Ok(board) => self.board = Some(board),
                Err(e) => self.warn(&format!("events for TensorBoard: {}", FileError::of_io(folder, e))),
            }
        }
        #[cfg(feature = "plots")]
        if self.curves
            && let Some(run) = run
        {
            let file = run.file("curves.png");
            if let Err(e) =
                crate::plots::training_curves(file, &self.progress.history, "training", "validation")
            {
                self.warn(&e.to_string());
            }
        }
        #[cfg(not(feature = "plots"))]
        let _ = run;
    }
}
