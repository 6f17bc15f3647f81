//! The trainer's checkpoints: their contents, and resuming from them.

use super::super::metrics::{EpochRecord, Score, to_csv};
use super::super::source::Source;
use super::{Progress, TrainError, Trainer, settings};
use crate::checkpoint::Checkpoint;
use crate::files::{FileError, RunFolder, rename_with_reason, write_atomically};
use crate::lr_scheduler::Scheduler;
use crate::state_dict::StateDict;
use std::time::Instant;
use tapegrad_tape::Tensor;

const LAST: &str = "last.safetensors";

/// The note in the checkpoint of a finished training run.
const FINISHED: &str = "finished";

impl Trainer<'_> {
    /// Writes the checkpoint and the metrics of the epochs.
    pub(super) fn write(&mut self, run: Option<&RunFolder>, source: &Source<'_>) -> Result<(), TrainError> {
        if run.is_none() && self.replicas.is_none() {
            return Ok(());
        }
        // Made in all processes: an optimizer may have to gather its state.
        let checkpoint = self.checkpoint(source);
        self.written = Instant::now();
        let Some(run) = run else { return Ok(()) };
        checkpoint.save(run.file(LAST))?;
        write_atomically(run.file("metrics.csv"), to_csv(&self.progress.history).as_bytes())?;
        self.written = Instant::now();
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
            ("lookahead", self.lookahead.as_ref().map(|l| l.slow.state_dict())),
        ];
        for (name, state) in parts {
            c.put(name, &state.unwrap_or_default());
        }
        c.put_generator("default", tapegrad_tape::default_generator_state());
        c.put("made_with", &self.made_with);
        settings::put(&mut c, self.own_settings());
        if self.is_finished() {
            c.put_note(FINISHED, "true");
        }
        let p = &self.progress;
        c.put_numbers("position", &source.position());
        let counts = [p.epoch, p.step, p.epochs_since_best, p.batch];
        c.put_numbers("progress", &counts.map(|n| n as i64));
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
            for (name, value) in &r.metrics {
                floats.insert(format!("epoch.{}.metric.{name}", r.epoch), list(vec![*value]));
            }
        }
        c.put("progress", &floats);
        c
    }

    /// Resumes from the newest checkpoint that can be read, or starts over. All problems are reported here, before the
    /// first step, and no unreadable file is overwritten.
    pub(super) fn begin(
        &mut self,
        run: Option<&RunFolder>,
        source: &mut Source<'_>,
    ) -> Result<(), TrainError> {
        // The schedules are set up and no step has been made: a later resumption is compared with this.
        if self.progress.step == 0 {
            self.made_with = self.made_with();
        }
        self.agree(source)?;
        if !self.resume {
            return run.map_or(Ok(()), |run| self.rename_unfinished(run));
        }
        let (newest, mut rejected_checkpoints) =
            run.map_or_else(Default::default, |run| Checkpoint::newest(run.file(LAST)));
        let found = if newest.is_none() && !rejected_checkpoints.is_empty() {
            Err(TrainError::Unreadable(std::mem::take(&mut rejected_checkpoints)))
        } else {
            Ok(newest)
        };
        let Some(c) = self.shared(found)? else { return Ok(()) };
        let before = self.model.state_dict();
        if let Err(e) = self.resume_from(&c, source) {
            self.model.load_state_dict(&before)?;
            return Err(e);
        }
        let Some(run) = run else { return Ok(()) };
        if rejected_checkpoints.is_empty() && !run.file(LAST).exists() {
            let step = self.progress.step;
            self.warn(&format!(
                "there is no {LAST}: training resumes from the previous checkpoint, after step {step}"
            ));
        }
        for e in &rejected_checkpoints {
            let kept = match &e.file {
                Some(file) => rename_with_reason(file, "unreadable")?.display().to_string(),
                None => String::new(),
            };
            self.warn(&format!(
                "a checkpoint was rejected: {e}; it is kept as {kept}, and training resumes from the previous one, \
                 after step {}",
                self.progress.step
            ));
        }
        self.rejected_checkpoints = rejected_checkpoints;
        Ok(())
    }

    /// Renames the checkpoints that training from the start must not overwrite: those that cannot be read, and the
    /// newest of an unfinished training run.
    fn rename_unfinished(&mut self, run: &RunFolder) -> Result<(), TrainError> {
        let last = run.file(LAST);
        for path in [Checkpoint::previous_path(&last), last] {
            let (why, reason) = match Checkpoint::load(&path) {
                Err(e) if e.is_absent() => continue,
                Err(e) => (format!("cannot be read ({})", e.reason), "unreadable"),
                Ok(c) if path != run.file(LAST) || c.note(FINISHED).is_some() => continue,
                Ok(_) => ("belongs to a training run that has not finished".to_string(), "unfinished"),
            };
            let kept = rename_with_reason(&path, reason)?;
            self.warn(&format!("{} {why}; it is kept as {}", path.display(), kept.display()));
        }
        Ok(())
    }

    fn resume_from(&mut self, c: &Checkpoint, source: &mut Source<'_>) -> Result<(), TrainError> {
        let progress = read_progress(c)?;
        let generator = c.generator("default")?;
        self.model.load_state_dict(&c.part("model"))?;
        let made_with = c.part("made_with");
        let ignored = settings::ignored_options(&made_with, &self.made_with);
        let changed = self.changed_settings(c);
        let position = c.numbers("position")?;
        let placed = if position.is_empty() { Ok(()) } else { source.set_position(&position) };
        match placed {
            Err(e) if ignored.is_empty() => {
                return Err(TrainError::Source([vec![e], changed].concat().join("; ")));
            }
            Err(e) => return Err(TrainError::Settings([ignored, vec![e], changed].concat())),
            Ok(()) if !ignored.is_empty() => return Err(TrainError::Settings([ignored, changed].concat())),
            Ok(()) => {}
        }
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
        if let Some(l) = &mut self.lookahead {
            l.slow.load_state_dict(&c.part("lookahead"))?;
        }
        tapegrad_tape::set_default_generator_state(generator);
        self.progress = progress;
        for change in changed {
            self.warn(&format!("resumed with another setting: {change}"));
        }
        self.check_schedules(c);
        Ok(())
    }

    /// A schedule whose learning rate at this step differs from the checkpoint's takes effect, with a warning.
    fn check_schedules(&mut self, c: &Checkpoint) {
        let names = ["step_scheduler", "epoch_scheduler"];
        let gone = [self.step_scheduler.is_none(), self.epoch_scheduler.is_none()];
        for (name, gone) in names.into_iter().zip(gone) {
            if gone && !c.part(name).is_empty() {
                let lr = self.optimizer.lr(0);
                self.warn(&format!(
                    "resumed without the checkpoint's {name}: the learning rate stays at {lr}"
                ));
            }
        }
        if self.is_finished()
            || self.plateau.is_some()
            || (self.step_scheduler.is_some() && self.epoch_scheduler.is_some())
        {
            return;
        }
        let before = self.optimizer.lrs();
        let Some(scheduler) = self.step_scheduler.as_ref().or(self.epoch_scheduler.as_ref()) else { return };
        scheduler.apply(&mut *self.optimizer);
        let now = self.optimizer.lrs();
        if before != now {
            self.warn(&format!(
                "resumed with another schedule: after step {} the learning rate was {}, and is {}",
                self.progress.step, before[0], now[0]
            ));
        }
    }
}

fn read_progress(c: &Checkpoint) -> Result<Progress, FileError> {
    let wrong = || FileError::new("is not a checkpoint of a trainer: its progress is missing");
    let numbers = c.numbers("progress")?;
    // Earlier checkpoints did not count the batches of an epoch, nor weigh their losses.
    let (epoch, step, epochs_since_best, batch) = match numbers[..] {
        [epoch, step, since_best] => (epoch, step, since_best, 0),
        [epoch, step, since_best, batch] => (epoch, step, since_best, batch),
        _ => return Err(wrong()),
    };
    let floats = c.part("progress");
    let list = |key: &str| floats.get(key).map(Tensor::to_vec::<f64>).ok_or_else(wrong);
    let score = Score::from_numbers(&list("score")?).ok_or_else(wrong)?;
    let best = list("best")?.first().copied();
    let mut history = Vec::new();
    for number in 1..=epoch {
        let row = list(&format!("epoch.{number}"))?;
        let (head, scores) = row.split_at_checked(4).ok_or_else(wrong)?;
        let width =
            if scores.len().is_multiple_of(Score::NUMBERS) { Score::NUMBERS } else { Score::NUMBERS - 1 };
        let mut scores = scores.chunks(width).map(Score::from_numbers);
        let prefix = format!("epoch.{number}.metric.");
        let metric = |(key, t): (&str, &Tensor)| {
            let value = t.to_vec::<f64>().first().copied()?;
            Some((key.strip_prefix(&prefix)?.to_string(), value))
        };
        history.push(EpochRecord {
            epoch: head[0] as u64,
            step: head[1] as u64,
            lr: head[2],
            seconds: head[3],
            train: scores.next().flatten().ok_or_else(wrong)?,
            validation: scores.next().flatten(),
            metrics: floats.iter().filter_map(metric).collect(),
        });
    }
    let [epoch, step, epochs_since_best, batch] =
        [epoch, step, epochs_since_best, batch].map(|n| n.max(0) as u64);
    Ok(Progress { epoch, step, batch, score, best, epochs_since_best, history })
}
