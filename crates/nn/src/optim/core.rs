//! What optimizers share: parameter groups, per-parameter state, saving it, and the loop over parameters.

mod bounds;
#[macro_use]
mod macros;
mod rows;
mod saved;
#[cfg(test)]
mod tests;

pub(crate) use bounds::check_option;

use super::rule::{Rule, Step};
use crate::StateDict;
use std::collections::HashSet;
use std::fmt::Debug;
use tapegrad_tape::kernels::parallel::parallel_chunks;
use tapegrad_tape::{DType, MemoryFormat, Tensor, Var};

/// Parameters with options of their own.
#[derive(Clone, Debug)]
pub struct ParamGroup<O> {
    /// The parameters.
    pub params: Vec<Var>,
    /// The options, which may change between steps.
    pub options: O,
}

/// A saved state does not fit an optimizer. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved state does not fit {optimizer}: {key}: {reason}")]
pub struct OptimizerStateError {
    /// The optimizer that was to load the state.
    pub optimizer: &'static str,
    /// The entry that does not fit.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An option that can be saved as a list of numbers.
pub(crate) trait Hyper: Copy + Debug {
    fn to_numbers(self) -> Vec<f64>;
    fn from_numbers(numbers: &[f64]) -> Option<Self>;
}

macro_rules! hyper {
    ($($ty:ty: $x:ident => $numbers:expr, $list:pat => $back:expr;)*) => {$(
        impl Hyper for $ty {
            fn to_numbers(self) -> Vec<f64> { let $x = self; $numbers.to_vec() }
            fn from_numbers(numbers: &[f64]) -> Option<Self> {
                match numbers { $list => Some($back), _ => None }
            }
        }
    )*};
}
hyper! {
    f64: x => [x], [x] => *x;
    bool: x => [f64::from(u8::from(x))], [x] => *x != 0.0;
    usize: x => [x as f64], [x] => *x as usize;
    (f64, f64): x => [x.0, x.1], [a, b] => (*a, *b);
    (f64, f64, f64): x => [x.0, x.1, x.2], [a, b, c] => (*a, *b, *c);
}

#[derive(Clone, Default)]
struct State {
    step: u64,
    scalars: Vec<f64>,
    buffers: Vec<(&'static str, Tensor)>,
    /// The F32 copy of an F16 or BF16 parameter: steps are too small for these types.
    master: Option<Tensor>,
    /// What was last written to such a parameter. If it has another value by now, the copy is out of date.
    written: Option<Tensor>,
}

/// A parameter's gradient.
enum Gradient {
    Dense(Var),
    /// Of some rows, and their values.
    Rows(Tensor, Tensor),
}

impl Gradient {
    /// By rows where it is sparse and `rows` are asked for.
    fn of(p: &Var, rows: bool) -> Option<Gradient> {
        let sparse = if rows { p.grad_rows() } else { None };
        match sparse {
            Some((rows, values)) => Some(Gradient::Rows(rows, values)),
            None => p.grad().map(Gradient::Dense),
        }
    }

    fn numel(&self) -> usize {
        match self {
            Gradient::Dense(g) => g.numel(),
            Gradient::Rows(_, values) => values.numel(),
        }
    }
}

/// One parameter's step.
struct Job<'a, R> {
    rule: R,
    parameter: &'a Var,
    gradient: Gradient,
    state: &'a mut State,
}

/// Parameters with gradients of more elements are updated on all threads, smaller ones each on one of them.
const LARGE: usize = 1 << 18;
/// With fewer elements in total all parameters are updated on the calling thread.
const SMALL: usize = 32 * 1024;

/// The groups of an optimizer and the state of their parameters.
pub(crate) struct Core<R> {
    pub(crate) groups: Vec<ParamGroup<R>>,
    states: Vec<Vec<State>>,
    /// False if a parameter is given twice: its steps then have to follow one another.
    distinct: bool,
}

impl<R: Rule> Core<R> {
    #[track_caller]
    pub(crate) fn new(params: Vec<Var>, options: R) -> Core<R> {
        let mut core = Core { groups: Vec::new(), states: Vec::new(), distinct: true };
        core.add_group(params, options);
        core
    }

    #[track_caller]
    pub(crate) fn add_group(&mut self, params: Vec<Var>, options: R) {
        check_params(R::NAME, &params);
        params.iter().for_each(|p| options.check(p.shape()));
        check_options(&options);
        let known: Vec<Option<u64>> = self.parameters().iter().map(Var::id).collect();
        if let Some(p) = params.iter().find(|p| known.contains(&p.id())) {
            panic!("{}: a parameter of shape {:?} is in more than one group", R::NAME, p.shape());
        }
        let ids: HashSet<Option<u64>> = params.iter().map(Var::id).collect();
        self.distinct &= ids.len() == params.len();
        self.states.push(vec![State::default(); params.len()]);
        self.groups.push(ParamGroup { params, options });
    }

    /// A step with gradients multiplied by `scale`.
    #[track_caller]
    pub(crate) fn step(&mut self, scale: f64) {
        if let Some(conflict) = self.groups.iter().find_map(|g| g.options.conflict()) {
            panic!("{}: {conflict}", R::NAME);
        }
        let mut jobs: Vec<Job<R>> = Vec::new();
        let mut elements = 0;
        for (group, states) in self.groups.iter().zip(&mut self.states) {
            for (parameter, state) in group.params.iter().zip(states) {
                let Some(gradient) = Gradient::of(parameter, group.options.steps_rows()) else { continue };
                assert!(
                    !R::NEEDS_ROWS || matches!(gradient, Gradient::Rows(..)),
                    "{}: takes sparse gradients only, got a dense one for a parameter of shape {:?}",
                    R::NAME,
                    parameter.shape()
                );
                elements += gradient.numel();
                jobs.push(Job { rule: group.options.clone(), parameter, gradient, state });
            }
        }
        if elements < SMALL || !self.distinct {
            return jobs.iter_mut().for_each(|job| job.run(scale));
        }
        let (mut large, mut small): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.gradient.numel() > LARGE);
        large.iter_mut().for_each(|job| job.run(scale));
        parallel_chunks(&mut small, 1, |_, jobs| jobs.iter_mut().for_each(|job| job.run(scale)));
    }

    pub(crate) fn set_training(&mut self, training: bool) {
        if !R::SWITCHES {
            return;
        }
        for (group, states) in self.groups.iter().zip(&mut self.states) {
            for (p, state) in group.params.iter().zip(states).filter(|(_, state)| state.step > 0) {
                p.update(|value| {
                    state.with_master(value, |value, state| switch(&group.options, value, state, training))
                });
            }
        }
    }

    pub(crate) fn switches(&self) -> bool {
        R::SWITCHES
    }

    pub(crate) fn parameters(&self) -> Vec<Var> {
        let lists: Vec<&[Var]> = self.groups.iter().map(|g| g.params.as_slice()).collect();
        lists.concat()
    }

    pub(crate) fn save(&self) -> StateDict {
        let mut out = StateDict::new();
        for (g, (group, states)) in self.groups.iter().zip(&self.states).enumerate() {
            out.insert(format!("group.{g}.params"), Tensor::scalar(group.params.len() as i64));
            saved::put(&mut out, g, group.options.save(), R::SCALARS, states);
        }
        out
    }

    pub(crate) fn load(&mut self, saved: &StateDict) -> Result<(), OptimizerStateError> {
        let mut saved = saved::Saved::new(saved, R::NAME);
        let mut groups: Vec<R> = Vec::new();
        let mut states: Vec<Vec<State>> = Vec::new();
        for (g, group) in self.groups.iter().enumerate() {
            saved.check_params(g, group.params.len())?;
            let mut options = group.options.clone();
            for (name, _) in group.options.save() {
                let numbers = saved.option(g, name)?;
                if !options.restore(name, &numbers) {
                    return Err(saved.misfit(g, name, numbers.len()));
                }
                check_option(R::NAME, name, &numbers).map_err(|e| saved.outside(g, name, e))?;
            }
            states.push(saved.states(g, &group.params, &options)?);
            groups.push(options);
        }
        saved.check_all_used()?;
        for (group, options) in self.groups.iter_mut().zip(groups) {
            group.options = options;
        }
        self.states = states;
        Ok(())
    }
}

/// Checks what an optimizer is given.
#[track_caller]
pub(crate) fn check_params(name: &str, params: &[Var]) {
    assert!(!params.is_empty(), "{name}: the list of parameters is empty");
    for (i, p) in params.iter().enumerate() {
        assert!(
            p.is_leaf() && p.id().is_some(),
            "{name}: parameter {i} of shape {:?} is not a leaf: make it with Var::parameter",
            p.shape()
        );
        assert!(
            p.dtype().is_float(),
            "{name}: parameter {i} of shape {:?} is {}; optimizers step floating-point types",
            p.shape(),
            p.dtype()
        );
    }
}

/// Checks every option against the range that PyTorch accepts.
#[track_caller]
fn check_options<R: Rule>(options: &R) {
    for (name, numbers) in options.save() {
        if let Err(e) = check_option(R::NAME, name, &numbers) {
            panic!("{e}");
        }
    }
}

impl<R: Rule> Job<'_, R> {
    #[track_caller]
    fn run(&mut self, scale: f64) {
        let Job { rule, parameter, gradient, state } = self;
        parameter.update(&mut |value: &mut Tensor| {
            state.with_master(value, |value, state| match gradient {
                Gradient::Dense(g) => update(rule, value, g, state, scale),
                Gradient::Rows(rows, values) => rows::update(rule, value, rows, values, state, scale),
            });
        });
    }
}

/// One step on a value. Parameter, gradient and buffers are brought into one memory order first.
#[track_caller]
fn update<R: Rule>(rule: &R, value: &mut Tensor, g: &Var, state: &mut State, scale: f64) {
    let scaled = (!R::SCALES_GRADIENT && scale != 1.0).then(|| super::clip::scaled(g, scale));
    let format = format_of::<R>(value);
    align(value, format);
    let mut g = scaled.as_ref().unwrap_or(g).tensor();
    if g.dtype() != value.dtype() {
        g = g.cast(value.dtype());
    }
    align(&mut g, format);
    let shape = value.shape().to_vec();
    let at = state.begin(rule, value, &shape, format, scale);
    tapegrad_tape::dispatch!(float: value.dtype(), R::NAME, T => {
        let g = memory::<T>(&g, format);
        let mut buffers = buffers::<T>(&mut state.buffers);
        rule.update(at, &mut state.scalars, value.make_mut::<T>(), g, &mut buffers);
    });
}

/// [`Rule::switch`] on a value.
fn switch<R: Rule>(rule: &R, value: &mut Tensor, state: &mut State, training: bool) {
    let format = format_of::<R>(value);
    align(value, format);
    state.buffers.iter_mut().for_each(|(_, b)| align(b, format));
    tapegrad_tape::dispatch!(float: value.dtype(), R::NAME, T => {
        let mut buffers = buffers::<T>(&mut state.buffers);
        rule.switch(training, &mut state.scalars, value.make_mut::<T>(), &mut buffers);
    });
}

/// The buffers that a rule keeps for a parameter of this shape: their names and shapes.
fn buffers_of<R: Rule>(rule: &R, shape: &[usize]) -> Vec<(&'static str, Vec<usize>)> {
    let names = rule.buffers().iter();
    names.filter_map(|&name| rule.buffer_shape(name, shape).map(|shape| (name, shape))).collect()
}

/// The memory order in which a rule steps a value.
fn format_of<R: Rule>(value: &Tensor) -> MemoryFormat {
    let by_channels = !value.is_contiguous() && value.is_contiguous_in(MemoryFormat::ChannelsLast);
    if by_channels && !R::ROW_MAJOR { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous }
}

impl State {
    /// Runs a change of a parameter's value, on its F32 copy where it is of a shorter type.
    fn with_master(&mut self, value: &mut Tensor, change: impl FnOnce(&mut Tensor, &mut State)) {
        let dtype = value.dtype();
        if step_type(dtype) == dtype {
            return change(value, self);
        }
        let mut master = self.take_master(value);
        change(&mut master, self);
        *value = master.cast(dtype);
        (self.master, self.written) = (Some(master), Some(value.clone()));
    }

    /// The F32 copy of a parameter of a shorter type, made anew where that was changed by others.
    fn take_master(&mut self, value: &Tensor) -> Tensor {
        let master = self.master.take().filter(|master| match &self.written {
            Some(written) => written.shares_memory_with(value),
            // Loaded.
            None => master.cast(value.dtype()).to_vec::<f32>() == value.to_vec::<f32>(),
        });
        self.written = None;
        master.unwrap_or_else(|| value.cast(step_type(value.dtype())))
    }

    /// Begins a step of a parameter of this shape.
    fn begin<'a, R: Rule>(
        &mut self,
        rule: &R,
        value: &Tensor,
        shape: &'a [usize],
        format: MemoryFormat,
        scale: f64,
    ) -> Step<'a> {
        if self.step == 0 {
            self.scalars = rule.scalars_start();
        }
        let fresh = self.prepare(value, format, buffers_of(rule, shape), &|name| rule.buffer_start(name));
        Step { number: self.step, fresh, shape, scale }
    }

    /// Makes the buffers that are missing, aligns them and counts the step. True if some were missing.
    fn prepare(
        &mut self,
        value: &Tensor,
        format: MemoryFormat,
        wanted: Vec<(&'static str, Vec<usize>)>,
        start: &dyn Fn(&str) -> f64,
    ) -> bool {
        let mut fresh = false;
        self.buffers.truncate(wanted.len());
        for (i, (name, shape)) in wanted.into_iter().enumerate() {
            if self.buffers.get(i).is_none_or(|(n, b)| *n != name || b.dtype() != value.dtype()) {
                let start = Tensor::full_with(&shape, start(name), value.dtype());
                self.buffers.truncate(i);
                self.buffers.push((name, start));
                fresh = true;
            }
        }
        self.buffers.iter_mut().for_each(|(_, b)| align(b, format));
        self.step += 1;
        fresh
    }
}

fn buffers<'a, T: tapegrad_tape::Element>(list: &'a mut [(&'static str, Tensor)]) -> Vec<&'a mut [T]> {
    list.iter_mut().map(|(_, b)| b.make_mut::<T>()).collect()
}

fn align(t: &mut Tensor, format: MemoryFormat) {
    if !t.is_contiguous_in(format) {
        *t = t.to_format(format);
    }
}

fn memory<T: tapegrad_tape::Element>(t: &Tensor, format: MemoryFormat) -> &[T] {
    match format {
        MemoryFormat::Contiguous => t.as_slice::<T>(),
        MemoryFormat::ChannelsLast => t.as_channels_last_slice::<T>(),
    }
    .expect("brought into this format")
}

/// The type in which a parameter of a type is updated, and in which its buffers are kept.
pub(crate) fn step_type(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}
