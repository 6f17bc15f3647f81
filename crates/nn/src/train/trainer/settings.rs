//! The settings of a training run, kept in its checkpoints: a change on resumption is reported.

use super::Trainer;
use crate::checkpoint::Checkpoint;
use crate::state_dict::StateDict;
use std::collections::BTreeMap;
use tapegrad_tape::Tensor;

/// The prefix of the names of settings in a checkpoint's notes.
const PREFIX: &str = "setting.";

impl Trainer<'_> {
    /// The trainer's settings, by name.
    pub(super) fn own_settings(&self) -> BTreeMap<String, String> {
        let mut all = self.settings.clone();
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                all.insert(name.into(), value);
            }
        };
        put("epochs", (self.max_steps.is_none()).then(|| self.epochs.to_string()));
        put("steps", self.max_steps.map(|n| n.to_string()));
        put("accumulate", (self.accumulate > 1).then(|| self.accumulate.to_string()));
        put("clip_grad_norm", self.clip_norm.map(|x| x.to_string()));
        put("ema", self.ema.as_ref().map(|(_, decay)| decay.to_string()));
        put("lookahead", self.lookahead.as_ref().map(|l| l.every.to_string()));
        put("early_stopping", self.patience.map(|n| n.to_string()));
        put("best_by", Some(format!("{:?}", self.best_by)));
        all
    }

    /// The optimizer's options as constructed: schedules change its learning rates later.
    pub(super) fn made_with(&self) -> StateDict {
        let options = self.optimizer.state_dict();
        let mut out: StateDict = (options.iter())
            .filter(|(key, _)| key.starts_with("group."))
            .map(|(key, t)| (key.to_string(), t.clone()))
            .collect();
        if let Some(scheduler) = self.step_scheduler.as_ref().or(self.epoch_scheduler.as_ref()) {
            for (g, lr) in scheduler.base_lrs().iter().enumerate() {
                out.insert(format!("group.{g}.lr"), Tensor::from_vec(vec![*lr], &[1]));
            }
        }
        out
    }

    /// Each setting that differs from the checkpoint's and takes effect.
    pub(super) fn changed_settings(&self, c: &Checkpoint) -> Vec<String> {
        let now = self.own_settings();
        let before: BTreeMap<&str, &str> =
            c.notes().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value))).collect();
        if before.is_empty() {
            // A checkpoint from before settings were kept.
            return Vec::new();
        }
        let mut names: Vec<&str> = now.keys().map(String::as_str).chain(before.keys().copied()).collect();
        names.sort_unstable();
        names.dedup();
        let of = |value: Option<&str>| value.unwrap_or("not set").to_string();
        let pairs = names
            .into_iter()
            .map(|name| (name, of(before.get(name).copied()), of(now.get(name).map(String::as_str))));
        pairs.filter(|(_, a, b)| a != b).map(|(name, a, b)| format!("{name} was {a}, and is {b}")).collect()
    }
}

pub(super) fn put(c: &mut Checkpoint, settings: BTreeMap<String, String>) {
    for (name, value) in settings {
        c.put_note(&format!("{PREFIX}{name}"), &value);
    }
}

/// Each option of the optimizer that differs from the checkpoint's and would be ignored: the optimizer continues with
/// those of the checkpoint.
pub(super) fn ignored_options(before: &StateDict, now: &StateDict) -> Vec<String> {
    let number = |t: &Tensor| match t.to_vec::<f64>()[..] {
        [one] => one.to_string(),
        ref several => format!("{several:?}"),
    };
    let differs = |key: &&str| match (before.get(key), now.get(key)) {
        (Some(a), Some(b)) => a.to_vec::<f64>() != b.to_vec::<f64>(),
        _ => false,
    };
    let describe = |key: &str| {
        let (group, name) = key.strip_prefix("group.").and_then(|k| k.split_once('.'))?;
        let place = if group == "0" { String::new() } else { format!(" of group {group}") };
        Some(format!("{name}{place} was {}, and is {}", number(before.get(key)?), number(now.get(key)?)))
    };
    let mut keys: Vec<&str> = before.iter().map(|(key, _)| key).filter(differs).collect();
    keys.sort_unstable();
    keys.into_iter().filter_map(describe).collect()
}
