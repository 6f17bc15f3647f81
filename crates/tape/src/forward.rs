//! Forward mode: variables that carry tangents, and how an operation passes them on.
//!
//! A call of [`jvp`](crate::jvp) opens a [`Level`]. A variable may have tangents of several levels; the tangent of an inner
//! level may itself have tangents of outer ones, never the other way round. While the tangents of a level are computed, that
//! level and those inside it are masked, so that the tangents of different levels are not confused.

use crate::backward::{GradOptions, grad_with};
use crate::grad_mode::{self, Mode, enable_grad};
use crate::node::{Cotangent, Gradients, Rule, next_number};
use crate::tensor::Tensor;
use crate::var::Var;
use smallvec::SmallVec;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The tangents of one level: one for each direction, `None` where it is zero.
pub(crate) type Directions = SmallVec<[Option<Var>; 1]>;

thread_local! {
    /// The levels, from the first number to before the second, that are not propagated at present.
    static MASK: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// One call of a function in forward mode.
pub(crate) struct Level {
    /// Inner levels have larger numbers.
    id: u64,
    /// False when the call has returned: what is left of its tangents is ignored.
    alive: AtomicBool,
    /// The tangents of results that rules ask for, by the numbers of their nodes. A node that held the tangents of its own
    /// result would be part of a reference cycle, as these may have a graph that leads to it.
    outputs: Mutex<HashMap<u64, Directions>>,
}

impl Level {
    fn is_live(&self) -> bool {
        let (low, high) = MASK.get();
        !(low..high).contains(&self.id) && self.alive.load(Ordering::Relaxed)
    }

    fn outputs(&self) -> MutexGuard<'_, HashMap<u64, Directions>> {
        self.outputs.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The levels of an operation, outer ones first.
pub(crate) type Levels = SmallVec<[Arc<Level>; 1]>;

/// The tangents of a variable, outer levels first.
#[derive(Clone, Default)]
pub(crate) struct Tangents(SmallVec<[(Arc<Level>, Directions); 1]>);

impl Tangents {
    pub(crate) fn is_live(&self) -> bool {
        self.0.iter().any(|(level, _)| level.is_live())
    }

    fn of(&self, level: &Arc<Level>) -> Option<&Directions> {
        self.0.iter().find(|(l, _)| Arc::ptr_eq(l, level)).map(|(_, d)| d)
    }

    fn without(&self, level: &Arc<Level>) -> Option<Arc<Tangents>> {
        Tangents(self.0.iter().filter(|(l, _)| !Arc::ptr_eq(l, level)).cloned().collect()).shared()
    }

    fn shared(self) -> Option<Arc<Tangents>> {
        (!self.0.is_empty()).then(|| Arc::new(self))
    }
}

/// A call of a function in forward mode, from the tangents of its inputs to those of its results.
pub(crate) struct Scope(Arc<Level>);

impl Scope {
    pub(crate) fn open() -> Scope {
        let outputs = Mutex::default();
        Scope(Arc::new(Level { id: next_number(), alive: AtomicBool::new(true), outputs }))
    }

    /// `x` with a tangent for each direction.
    pub(crate) fn dual(&self, x: &Var, tangents: impl IntoIterator<Item = Option<Var>>) -> Var {
        let mut all = x.tangents().map_or_else(Tangents::default, |t| (**t).clone());
        all.0.push((self.0.clone(), tangents.into_iter().collect()));
        x.pinned().with_tangents(Some(Arc::new(all)))
    }

    /// The tangents of a result for each of `count` directions, and the result without them.
    pub(crate) fn split(&self, y: Var, count: usize) -> (Var, Vec<Option<Var>>) {
        let Some(tangents) = y.tangents().cloned() else { return (y, vec![None; count]) };
        let mut found: Vec<_> = tangents.of(&self.0).into_iter().flatten().cloned().collect();
        found.resize(count, None);
        (y.with_tangents(tangents.without(&self.0)), found)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Relaxed);
        let outputs = std::mem::take(&mut *self.0.outputs());
        drop(outputs);
    }
}

/// Restores the mask when dropped.
struct Mask((u64, u64));

impl Mask {
    /// Masks a level and those inside it; levels that are opened from now on are not.
    fn from(level: &Level) -> Mask {
        Mask(MASK.replace((level.id, next_number())))
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        MASK.set(self.0);
    }
}

/// How the tangent of an operation's result follows from those of its inputs.
#[derive(Clone, Copy, Default)]
pub(crate) enum Forward<'a> {
    /// By the transpose of the derivative rule.
    #[default]
    Transposed,
    /// By the derivative rule itself.
    Pointwise,
    /// By the operation itself, which is linear and has one input.
    Linear(&'a dyn Fn(&Var) -> Var),
    /// As a sum of functions of the inputs' tangents.
    Terms(&'a dyn Fn(&[Option<Var>]) -> Vec<Option<Var>>),
}

/// How [`record_with`](crate::record_with) records an operation. Without options, the tangent of the result in forward mode
/// comes from the derivative rule, which is transposed: right for every operation, at the price of recording and
/// differentiating the rule.
#[derive(Clone, Copy, Default)]
pub struct RecordOptions<'a> {
    pub(crate) keeps_output: bool,
    pub(crate) by_sample: bool,
    pub(crate) forward: Forward<'a>,
}

impl<'a> RecordOptions<'a> {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rule uses the result, by [`Cotangent::output`].
    pub fn keep_output(mut self, keep: bool) -> Self {
        self.keeps_output = keep;
        self
    }

    /// Each element of the result depends on one element of each input (after broadcasting), and the rule's gradients have
    /// the result's shape: then the rule, applied to a tangent, gives the tangent of the result.
    pub fn pointwise(mut self) -> Self {
        self.forward = Forward::Pointwise;
        self.by_sample = true;
        self
    }

    /// The rule gives the gradients of single samples where [`Cotangent::by_sample`] asks for them.
    pub fn by_sample(mut self, by_sample: bool) -> Self {
        self.by_sample = by_sample;
        self
    }

    /// The operation has one input, in which it is linear: the function is the operation, to be applied to the tangent.
    pub fn linear(mut self, operation: &'a dyn Fn(&Var) -> Var) -> Self {
        self.forward = Forward::Linear(operation);
        self
    }

    /// The function gives terms of which the tangent of the result is the sum, from the tangents of the inputs; `None` is zero.
    /// It is written in differentiable operations, and the sum may have a shape that broadcasts to that of the result.
    pub fn forward(mut self, terms: &'a dyn Fn(&[Option<Var>]) -> Vec<Option<Var>>) -> Self {
        self.forward = Forward::Terms(terms);
        self
    }
}

/// The levels in which an operation with these inputs has a tangent, outer ones first.
pub(crate) fn levels(inputs: &[Option<&Var>]) -> Levels {
    let mut levels = Levels::new();
    for (level, _) in inputs.iter().flatten().filter_map(|v| v.tangents()).flat_map(|t| &t.0) {
        if level.is_live() && !levels.iter().any(|l| l.id == level.id) {
            levels.push(level.clone());
        }
    }
    levels.sort_by_key(|level| level.id);
    levels
}

/// An operation whose result gets tangents.
pub(crate) struct Dual<'a> {
    pub(crate) op: &'static str,
    pub(crate) inputs: &'a [Option<&'a Var>],
    pub(crate) rule: &'a dyn Rule,
    pub(crate) options: RecordOptions<'a>,
}

impl Dual<'_> {
    /// The result with its tangents.
    #[track_caller]
    pub(crate) fn propagate(&self, mut y: Var, levels: &[Arc<Level>]) -> Var {
        for level in levels {
            let _mask = Mask::from(level);
            let given: SmallVec<[Option<&Directions>; 4]> =
                self.inputs.iter().map(|v| v.and_then(|v| v.tangents()?.of(level))).collect();
            let count = given.iter().flatten().map(|d| d.len()).max().unwrap_or(0);
            let directions: Directions = (0..count)
                .map(|k| {
                    let ts: SmallVec<[Option<Var>; 4]> =
                        given.iter().map(|d| d.and_then(|d| d.get(k)?.clone())).collect();
                    self.tangent(&ts, &y).map(|t| fit(t, &y))
                })
                .collect();
            if directions.iter().all(Option::is_none) {
                continue;
            }
            if let (true, Some(node)) = (self.options.keeps_output, y.node()) {
                level.outputs().insert(node.seq, directions.clone());
            }
            let mut all = y.tangents().map_or_else(Tangents::default, |t| (**t).clone());
            all.0.push((level.clone(), directions));
            y = y.with_tangents(Some(Arc::new(all)));
        }
        y
    }

    #[track_caller]
    fn tangent(&self, ts: &[Option<Var>], y: &Var) -> Option<Var> {
        if ts.iter().all(Option::is_none) {
            return None;
        }
        match self.options.forward {
            Forward::Transposed => self.transposed(ts, y),
            Forward::Pointwise => self.pointwise(ts, y),
            Forward::Linear(f) => ts[0].as_ref().map(f),
            Forward::Terms(f) => sum(f(ts)),
        }
    }

    fn rule(&self, grad: Var, wants: SmallVec<[bool; 4]>, y: &Var) -> Gradients {
        let c = Cotangent::new(self.op, grad, wants, Some(y.clone()), SmallVec::new());
        self.rule.apply(None, c)
    }

    /// The Jacobian is diagonal, so its own transpose.
    #[track_caller]
    fn pointwise(&self, ts: &[Option<Var>], y: &Var) -> Option<Var> {
        sum(ts.iter().enumerate().map(|(i, t)| {
            let wants = (0..ts.len()).map(|j| j == i).collect();
            let d = self.rule(fit(t.clone()?, y), wants, y).into_iter().nth(i).flatten()?;
            assert_eq!(
                d.shape(),
                y.shape(),
                "{}: the rule of a pointwise operation changed a shape",
                self.op
            );
            Some(d)
        }))
    }

    /// The rule is linear in the gradient `u` of the result: `u J`. The derivative of `u J t` for `u` is `J t`.
    #[track_caller]
    fn transposed(&self, ts: &[Option<Var>], y: &Var) -> Option<Var> {
        let u = Var::parameter(Tensor::zeros_with((), y.dtype()).expand(y.shape()));
        let rows = enable_grad(|| self.rule(u.clone(), ts.iter().map(Option::is_some).collect(), y));
        let (mut outputs, mut tangents) = (Vec::new(), Vec::new());
        for ((row, t), input) in rows.into_iter().zip(ts).zip(self.inputs) {
            if let (Some(row), Some(t), Some(input)) = (row, t, input)
                && row.in_graph()
            {
                outputs.push(enable_grad(|| row.sum_to(input.shape()).cast(input.dtype())));
                tangents.push(t.clone());
            }
        }
        if outputs.is_empty() {
            return None;
        }
        let in_graph = |v: &Var| v.in_graph();
        let create = grad_mode::mode() == Mode::On
            && (self.inputs.iter().copied().flatten().any(in_graph) || tangents.iter().any(in_graph));
        let options = GradOptions::new().grad_outputs(tangents).create_graph(create);
        grad_with(&outputs.iter().collect::<Vec<_>>(), &[&u], options).remove(0)
    }
}

fn sum(terms: impl IntoIterator<Item = Option<Var>>) -> Option<Var> {
    terms.into_iter().flatten().reduce(|a, b| a + b)
}

/// A tangent in the type and the shape of its variable.
#[track_caller]
fn fit(t: Var, y: &Var) -> Var {
    let t = if t.dtype() == y.dtype() { t } else { t.cast(y.dtype()) };
    if t.shape() == y.shape() { t } else { t.expand(y.shape()) }
}

/// The tangents that a rule sees in the result of its node.
pub(crate) fn tangents_of_output(levels: &[Arc<Level>], seq: u64) -> Option<Arc<Tangents>> {
    let live = levels.iter().filter(|level| level.is_live());
    Tangents(live.filter_map(|level| Some((level.clone(), level.outputs().get(&seq)?.clone()))).collect())
        .shared()
}

/// True if a node was recorded in a level that has not ended.
pub(crate) fn any_live(levels: &[Arc<Level>]) -> bool {
    levels.iter().any(|level| level.is_live())
}
