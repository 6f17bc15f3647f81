//! How the state of an optimizer is saved and read back: what does not depend on its rule.

use super::{OptimizerStateError, State, buffers_of, step_type};
use crate::StateDict;
use crate::optim::Rule;
use tapegrad_tape::{Tensor, Var};

/// The F32 copy of a parameter of a shorter type.
const MASTER: &str = "master";

/// Saves the options of group `g` and the state of its parameters.
pub(super) fn put(
    out: &mut StateDict,
    g: usize,
    options: Vec<(&'static str, Vec<f64>)>,
    scalars: &[&str],
    states: &[State],
) {
    let numbers = |v: Vec<f64>| {
        let n = v.len();
        Tensor::from_vec(v, &[n])
    };
    for (name, values) in options {
        out.insert(format!("group.{g}.{name}"), numbers(values));
    }
    for (i, state) in states.iter().enumerate().filter(|(_, s)| s.step > 0) {
        out.insert(format!("state.{g}.{i}.step"), Tensor::scalar(state.step as i64));
        for (name, value) in scalars.iter().zip(&state.scalars) {
            out.insert(format!("state.{g}.{i}.{name}"), numbers(vec![*value]));
        }
        for (name, buffer) in &state.buffers {
            out.insert(format!("state.{g}.{i}.{name}"), buffer.clone());
        }
        if let Some(master) = &state.master {
            out.insert(format!("state.{g}.{i}.{MASTER}"), master.clone());
        }
    }
}

/// A saved state that is being read.
pub(super) struct Saved<'a> {
    entries: &'a StateDict,
    optimizer: &'static str,
    used: usize,
}

impl<'a> Saved<'a> {
    pub(super) fn new(entries: &'a StateDict, optimizer: &'static str) -> Saved<'a> {
        Saved { entries, optimizer, used: 0 }
    }

    fn fail(&self, key: impl Into<String>, reason: impl Into<String>) -> OptimizerStateError {
        OptimizerStateError { optimizer: self.optimizer, key: key.into(), reason: reason.into() }
    }

    /// Checks that group `g` was saved with as many parameters.
    pub(super) fn check_params(&mut self, g: usize, count: usize) -> Result<(), OptimizerStateError> {
        let key = format!("group.{g}.params");
        match self.entries.get(&key) {
            Some(n) if n.numel() == 1 && n.item::<i64>() == count as i64 => {
                self.used += 1;
                Ok(())
            }
            Some(n) => {
                let reason = format!("holds {:?}, the optimizer has {count} parameters", n.to_vec::<i64>());
                Err(self.fail(key, reason))
            }
            None => Err(self.fail(key, "is missing")),
        }
    }

    /// The numbers of an option of group `g`.
    pub(super) fn option(&mut self, g: usize, name: &str) -> Result<Vec<f64>, OptimizerStateError> {
        let key = format!("group.{g}.{name}");
        let Some(numbers) = self.entries.get(&key) else { return Err(self.fail(key, "is missing")) };
        self.used += 1;
        Ok(numbers.to_vec())
    }

    /// The error for an option whose numbers do not fit.
    pub(super) fn misfit(&self, g: usize, name: &str, count: usize) -> OptimizerStateError {
        self.fail(format!("group.{g}.{name}"), format!("{count} values do not fit"))
    }

    /// The error for an option that is outside its range.
    pub(super) fn outside(&self, g: usize, name: &str, reason: String) -> OptimizerStateError {
        self.fail(format!("group.{g}.{name}"), reason)
    }

    /// The states of the parameters of group `g`.
    pub(super) fn states<R: Rule>(
        &mut self,
        g: usize,
        params: &[Var],
        rule: &R,
    ) -> Result<Vec<State>, OptimizerStateError> {
        let list = params.iter().enumerate();
        list.map(|(i, p)| {
            let buffers = buffers_of(rule, p.shape());
            self.state(&format!("state.{g}.{i}"), p, R::SCALARS, buffers)
        })
        .collect()
    }

    fn state(
        &mut self,
        prefix: &str,
        p: &Var,
        scalars: &[&str],
        buffers: Vec<(&'static str, Vec<usize>)>,
    ) -> Result<State, OptimizerStateError> {
        let mut state = State::default();
        let Some(step) = self.entries.get(&format!("{prefix}.step")) else { return Ok(state) };
        if step.numel() != 1 || step.item::<i64>() < 1 {
            return Err(self.fail(prefix, "the step is not a positive number"));
        }
        state.step = step.item::<i64>() as u64;
        self.used += 1;
        for name in scalars {
            let key = format!("{prefix}.{name}");
            match self.entries.get(&key) {
                Some(value) if value.numel() == 1 => state.scalars.push(value.item()),
                _ => return Err(self.fail(key, "is not a single value")),
            }
            self.used += 1;
        }
        for (name, shape) in buffers {
            // Without it, an option that asks for it was set after the last step.
            if let Some(buffer) = self.buffer(prefix, name, p, &shape)? {
                state.buffers.push((name, buffer));
            }
        }
        if step_type(p.dtype()) != p.dtype() {
            state.master = self.buffer(prefix, MASTER, p, p.shape())?;
        }
        Ok(state)
    }

    /// A buffer of a parameter, if it was saved.
    fn buffer(
        &mut self,
        prefix: &str,
        name: &str,
        p: &Var,
        shape: &[usize],
    ) -> Result<Option<Tensor>, OptimizerStateError> {
        let key = format!("{prefix}.{name}");
        match self.entries.get(&key) {
            Some(b) if b.shape() == shape => {
                self.used += 1;
                Ok(Some(b.cast(step_type(p.dtype()))))
            }
            Some(b) => {
                let reason = format!("has shape {:?}, for the parameter {shape:?} is expected", b.shape());
                Err(self.fail(key, reason))
            }
            None => Ok(None),
        }
    }

    /// Checks that every entry was asked for.
    pub(super) fn check_all_used(&self) -> Result<(), OptimizerStateError> {
        let (count, used) = (self.entries.len(), self.used);
        if used == count {
            return Ok(());
        }
        Err(self
            .fail("state", format!("the state has {count} entries, of which the optimizer expects {used}")))
    }
}
