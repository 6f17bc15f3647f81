//! The tape: nodes, and the functions that record operations.

mod record;
mod rule;

pub use crate::forward::RecordOptions;
pub use record::{Cotangent, Inputs, record, record_with, record_with_output};
pub(crate) use record::{ONCE, enter, gradients, record_linear, record_part};
pub(crate) use rule::{Rule, Shortcut};

use crate::cost::Cost;
use crate::dtype::DType;
use crate::forward::{Level, Levels};
use crate::row_grad::Grad;
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::var::Var;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

/// Gradients for an operation's inputs, in their order.
pub(crate) type Gradients = SmallVec<[Option<Var>; 3]>;
pub(crate) type Hook = Arc<dyn Fn(&Var) -> Option<Var> + Send + Sync>;
/// Called with a leaf that has its gradient.
pub(crate) type LeafHook = Arc<dyn Fn(&Var) + Send + Sync>;

/// One recorded operation, or a leaf.
pub(crate) struct Node {
    /// Increases as the program runs: an operation's number is larger than those of its inputs.
    pub(crate) seq: u64,
    pub(crate) op: &'static str,
    pub(crate) location: &'static Location<'static>,
    pub(crate) shape: Dims,
    dtype: DType,
    /// The nodes of the inputs that require a gradient.
    pub(crate) inputs: SmallVec<[Option<Arc<Node>>; 2]>,
    pub(crate) leaf: Option<Box<Leaf>>,
    pub(crate) cost: Cost,
    /// Where the operation was recorded in forward mode; outer levels first.
    levels: Option<Box<Levels>>,
    /// Whether the rule can give the gradients of single samples.
    pub(crate) by_sample: bool,
    /// Set once there is a hook or the gradient is to be kept: a backward pass looks for them only then.
    watched: AtomicBool,
    state: Mutex<State>,
}

/// Present in a leaf: a value that can be replaced.
pub(crate) struct Leaf {
    pub(crate) value: RwLock<Tensor>,
    pub(crate) requires_grad: AtomicBool,
    /// The calls of `substitute` that have something in its place.
    pub(crate) substituted: AtomicU32,
}

#[derive(Default)]
struct State {
    rule: Option<Arc<dyn Rule>>,
    /// What few nodes have.
    extras: Option<Box<Extras>>,
}

#[derive(Default)]
struct Extras {
    hooks: Vec<(u64, Hook)>,
    accumulated_hooks: Vec<(u64, LeafHook)>,
    retains_grad: bool,
    grad: Option<Grad>,
    /// The backward pass whose gradients alone `grad` is the sum of, so that more of them may be added to it.
    walk: Option<u64>,
}

pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Node {
    pub(crate) fn leaf(value: Tensor, requires_grad: bool) -> Arc<Node> {
        Arc::new(Node {
            seq: next_number(),
            op: "leaf",
            location: Location::caller(),
            shape: value.shape().into(),
            dtype: value.dtype(),
            inputs: SmallVec::new(),
            leaf: Some(Box::new(Leaf {
                value: RwLock::new(value),
                requires_grad: AtomicBool::new(requires_grad),
                substituted: AtomicU32::new(0),
            })),
            cost: Cost::default(),
            levels: None,
            by_sample: false,
            watched: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn dtype(&self) -> DType {
        match &self.leaf {
            Some(leaf) => leaf.value.read().unwrap_or_else(|e| e.into_inner()).dtype(),
            None => self.dtype,
        }
    }

    pub(crate) fn requires_grad(&self) -> bool {
        self.leaf.as_ref().is_none_or(|leaf| leaf.requires_grad.load(Ordering::Relaxed))
    }

    pub(crate) fn levels(&self) -> &[Arc<Level>] {
        self.levels.as_deref().map_or(&[], |levels| levels.as_slice())
    }

    pub(crate) fn grad(&self) -> Option<Var> {
        let grad = self.state().extras.as_ref()?.grad.clone();
        grad.map(|g| g.into_dense(&self.shape))
    }

    pub(crate) fn grad_rows(&self) -> Option<(Tensor, Tensor)> {
        self.state().extras.as_mut()?.grad.as_mut()?.rows()
    }

    /// Sets the gradient and returns the one before.
    pub(crate) fn replace_grad(&self, grad: Option<Var>) -> Option<Grad> {
        let mut state = self.state();
        if grad.is_none() && state.extras.is_none() {
            return None;
        }
        let extras = state.extras.get_or_insert_default();
        extras.walk = None;
        std::mem::replace(&mut extras.grad, grad.map(Grad::Dense))
    }

    /// Adds to the gradient atomically: several threads may do so at once.
    pub(crate) fn accumulate_grad(&self, grad: Var, add: impl FnOnce(Var, Var) -> Var) {
        let mut state = self.state();
        let extras = state.extras.get_or_insert_default();
        extras.walk = None;
        extras.add(grad, &self.shape, add);
    }

    /// Like [`Node::accumulate_grad`], for one of the gradients that a leaf receives in a backward pass with this number. Where
    /// hooks wait for their sum, or other gradients are there that it is to be added to, the gradient is handed back.
    pub(crate) fn accumulate_part(
        &self,
        grad: Var,
        walk: u64,
        add: impl FnOnce(Var, Var) -> Var,
    ) -> Option<Var> {
        if self.is_watched() {
            return Some(grad);
        }
        let mut state = self.state();
        let extras = state.extras.get_or_insert_default();
        if extras.grad.is_some() && extras.walk != Some(walk) {
            return Some(grad);
        }
        extras.walk = Some(walk);
        extras.add(grad, &self.shape, add);
        None
    }

    /// Changes the gradient that a leaf has received in the backward pass with this number; false if there is none, it is of
    /// rows, or it is to be added to another.
    pub(crate) fn change_part(&self, walk: u64, change: impl FnOnce(&mut Var) -> bool) -> bool {
        match self.state().extras.as_deref_mut() {
            Some(Extras { grad: Some(Grad::Dense(grad)), walk: Some(own), .. }) if *own == walk => {
                change(grad)
            }
            _ => false,
        }
    }

    /// Adds the gradients of some rows that a leaf receives in the backward pass with this number, as atomically.
    pub(crate) fn accumulate_rows(&self, rows: Tensor, values: Tensor, walk: u64) {
        let mut state = self.state();
        let extras = state.extras.get_or_insert_default();
        if extras.grad.is_none() {
            extras.walk = Some(walk);
        } else if extras.walk != Some(walk) {
            extras.walk = None;
        }
        extras.grad = Some(Grad::plus_rows(extras.grad.take(), rows, values));
    }

    /// Changes what makes the node watched.
    fn watch<R>(&self, change: impl FnOnce(&mut Extras) -> R) -> R {
        let mut state = self.state();
        self.watched.store(true, Ordering::Relaxed);
        change(state.extras.get_or_insert_default())
    }

    /// True if a backward pass has to look for hooks or keep the gradient.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// What a watched node has to look for.
    fn watched<R: Default>(&self, look: impl FnOnce(&Extras) -> R) -> R {
        if !self.is_watched() {
            return R::default();
        }
        self.state().extras.as_deref().map_or_else(R::default, look)
    }

    pub(crate) fn retain_grad(&self) {
        self.watch(|extras| extras.retains_grad = true);
    }

    pub(crate) fn retains_grad(&self) -> bool {
        self.watched(|extras| extras.retains_grad)
    }

    pub(crate) fn add_hook(&self, hook: Hook) -> u64 {
        let id = next_number();
        self.watch(|extras| extras.hooks.push((id, hook)));
        id
    }

    pub(crate) fn add_accumulated_hook(&self, hook: LeafHook) -> u64 {
        let id = next_number();
        self.watch(|extras| extras.accumulated_hooks.push((id, hook)));
        id
    }

    pub(crate) fn remove_hook(&self, id: u64) {
        self.watch(|extras| {
            extras.hooks.retain(|(i, _)| *i != id);
            extras.accumulated_hooks.retain(|(i, _)| *i != id);
        });
    }

    /// True if a hook wants to see the gradient.
    pub(crate) fn has_hooks(&self) -> bool {
        self.watched(|extras| !extras.hooks.is_empty())
    }

    pub(crate) fn hooks(&self) -> Vec<Hook> {
        self.watched(|extras| extras.hooks.iter().map(|(_, hook)| hook.clone()).collect())
    }

    pub(crate) fn accumulated_hooks(&self) -> Vec<LeafHook> {
        self.watched(|extras| extras.accumulated_hooks.iter().map(|(_, hook)| hook.clone()).collect())
    }

    /// The derivative rule, with what it has captured; the node keeps it only to `retain` it.
    pub(crate) fn rule(&self, retain: bool) -> Arc<dyn Rule> {
        let mut state = self.state();
        let rule = if retain { state.rule.clone() } else { state.rule.take() };
        drop(state);
        rule.unwrap_or_else(|| {
            panic!(
                "backward: the graph of `{}` (recorded at {}) was freed by an earlier backward; \
                 to go through it again, pass retain_graph = true to the earlier one",
                self.op, self.location
            )
        })
    }

    /// Calls the derivative rule.
    pub(crate) fn apply_rule(
        self: &Arc<Node>,
        rule: &dyn Rule,
        grad: Var,
        wants: SmallVec<[bool; 4]>,
        by_sample: SmallVec<[bool; 4]>,
    ) -> Gradients {
        rule.apply(Some(self), Cotangent::new(self.op, grad, wants, None, by_sample))
    }
}

impl Extras {
    fn add(&mut self, grad: Var, shape: &Dims, add: impl FnOnce(Var, Var) -> Var) {
        self.grad = Some(Grad::Dense(match self.grad.take() {
            Some(sum) => add(sum.into_dense(shape), grad),
            None => grad,
        }));
    }
}

/// What a dropped node held, deferred to the outermost drop on its thread.
struct Deferred {
    _inputs: SmallVec<[Option<Arc<Node>>; 2]>,
    _state: State,
}

thread_local! {
    /// True during a drop.
    static DROPPING: Cell<bool> = const { Cell::new(false) };
    /// What is deferred to the outermost drop; empty and without an allocation outside of one. Never destroyed: the
    /// graph that another thread-local variable holds may be dropped last of all.
    static DEFERRED: ManuallyDrop<RefCell<Vec<Deferred>>> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// A long chain is dropped by a loop: each node hands what it held to the outermost drop.
impl Drop for Node {
    fn drop(&mut self) {
        let state = std::mem::take(self.state.get_mut().unwrap_or_else(|e| e.into_inner()));
        let held = Deferred { _inputs: std::mem::take(&mut self.inputs), _state: state };
        if DROPPING.get() {
            DEFERRED.with(|deferred| deferred.borrow_mut().push(held));
            return;
        }
        /// Also if dropping what a rule captured panics.
        struct Done;
        impl Drop for Done {
            fn drop(&mut self) {
                DROPPING.set(false);
            }
        }
        let _done = (DROPPING.set(true), Done);
        drop(held);
        while let Some(next) = DEFERRED.with(|deferred| deferred.borrow_mut().pop()) {
            drop(next);
        }
        DEFERRED.with(|deferred| deferred.take());
    }
}
