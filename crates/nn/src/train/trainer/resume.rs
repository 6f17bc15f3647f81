//! The trainer's checkpoints: what is in them, and going on from them.

use super::super::metrics::{EpochRecord, Score, to_csv};
use super::super::source::Source;
use super::{Progress, TrainError, Trainer, make_folder};
use crate::checkpoint::Checkpoint;
use crate::files::{FileError, write_atomically};
use crate::lr_scheduler::Scheduler;
use crate::state_dict::StateDict;
use tape::Tensor;

impl Trainer<'_> {
    /// Writes the checkpoint and the numbers of the epochs.
    pub(super) fn write(&self, source: &Source<'_>) -> Result<(), TrainError> {
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
            ("lookahead", self.lookahead.as_ref().map(|l| l.slow.state_dict())),
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
    pub(super) fn take_up(&mut self, source: &mut Source<'_>) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (newest, passed_over) = Checkpoint::newest(folder.join("last.safetensors"));
        self.passed_over = passed_over;
        let Some(c) = newest else { return Ok(()) };
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
        if let Some(l) = &mut self.lookahead {
            l.slow.load_state_dict(&c.part("lookahead"))?;
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
