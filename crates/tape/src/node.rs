//! The tape: nodes, and the functions that record operations.

mod rule;

pub(crate) use rule::Rule;

use crate::cost::Cost;
use crate::dtype::DType;
use crate::grad_mode;
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::var::Var;
use rule::{Part, Plain, WithOutput};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Set once there is a hook or the gradient is to be kept: a backward pass looks for them only then.
    watched: AtomicBool,
    state: Mutex<State>,
}

/// Present in a leaf: a value that can be replaced.
pub(crate) struct Leaf {
    pub(crate) value: RwLock<Tensor>,
    pub(crate) requires_grad: AtomicBool,
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
    grad: Option<Var>,
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
            })),
            cost: Cost::default(),
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

    pub(crate) fn grad(&self) -> Option<Var> {
        self.state().extras.as_ref()?.grad.clone()
    }

    pub(crate) fn set_grad(&self, grad: Option<Var>) -> Option<Var> {
        let mut state = self.state();
        if grad.is_none() && state.extras.is_none() {
            return None;
        }
        let extras = state.extras.get_or_insert_default();
        extras.walk = None;
        std::mem::replace(&mut extras.grad, grad)
    }

    /// Adds to the gradient atomically: several threads may do so at once.
    pub(crate) fn accumulate_grad(&self, grad: Var, add: impl FnOnce(Var, Var) -> Var) {
        let mut state = self.state();
        let extras = state.extras.get_or_insert_default();
        extras.walk = None;
        extras.grad = Some(match extras.grad.take() {
            Some(sum) => add(sum, grad),
            None => grad,
        });
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
        extras.grad = Some(match extras.grad.take() {
            Some(sum) => add(sum, grad),
            None => grad,
        });
        None
    }

    /// Changes the gradient that a leaf has received in the backward pass with this number; false if there is none, or it is to
    /// be added to another.
    pub(crate) fn change_part(&self, walk: u64, change: impl FnOnce(&mut Var) -> bool) -> bool {
        match self.state().extras.as_deref_mut() {
            Some(Extras { grad: Some(grad), walk: Some(own), .. }) if *own == walk => change(grad),
            _ => false,
        }
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

    pub(crate) fn retain_grad(&self) {
        self.watch(|extras| extras.retains_grad = true);
    }

    pub(crate) fn retains_grad(&self) -> bool {
        self.is_watched() && self.state().extras.as_ref().is_some_and(|extras| extras.retains_grad)
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

    pub(crate) fn hooks(&self) -> Vec<Hook> {
        if !self.is_watched() {
            return Vec::new();
        }
        let state = self.state();
        state.extras.iter().flat_map(|extras| &extras.hooks).map(|(_, hook)| hook.clone()).collect()
    }

    pub(crate) fn accumulated_hooks(&self) -> Vec<LeafHook> {
        let state = self.state();
        state
            .extras
            .iter()
            .flat_map(|extras| &extras.accumulated_hooks)
            .map(|(_, hook)| hook.clone())
            .collect()
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
    ) -> Gradients {
        rule.apply(self, Cotangent { grad, wants, output: None, op: self.op })
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

/// The argument of a derivative rule: the gradient of the result, and which inputs require theirs.
pub struct Cotangent {
    grad: Var,
    wants: SmallVec<[bool; 4]>,
    output: Option<Var>,
    op: &'static str,
}

impl Cotangent {
    /// The gradient of the loss for the operation's result; it has the result's shape.
    pub fn grad(&self) -> &Var {
        &self.grad
    }

    /// [`Cotangent::grad`] by value, so that an operation may reuse its memory.
    pub fn into_grad(self) -> Var {
        self.grad
    }

    /// True if the gradient for input `i` is required; otherwise the rule returns `None` for it. False for an absent
    /// input.
    pub fn wants(&self, i: usize) -> bool {
        self.wants[i]
    }

    /// The operation's result.
    ///
    /// # Panics
    /// If the operation was recorded without [`record_with_output`].
    pub fn output(&self) -> Var {
        self.output
            .clone()
            .unwrap_or_else(|| panic!("{}: its rule asks for an output that was not kept", self.op))
    }
}

/// The inputs of an operation that is recorded: an array, a slice or a list of `&Var`, or of `Option<&Var>` where one may
/// be absent. Places are fixed: an absent input keeps its place, and no gradient is wanted for it.
pub trait Inputs<'v> {
    /// One gradient for each input: an array for an array, otherwise a `Vec`.
    type Gradients: IntoIterator<Item = Option<Var>>;

    /// The variables in their places.
    #[doc(hidden)]
    fn places(&self) -> SmallVec<[Option<&'v Var>; 4]>;
}

impl<'v, V: Into<Option<&'v Var>> + Copy, const N: usize> Inputs<'v> for [V; N] {
    type Gradients = [Option<Var>; N];
    fn places(&self) -> SmallVec<[Option<&'v Var>; 4]> {
        self.iter().map(|v| (*v).into()).collect()
    }
}

impl<'v, V: Into<Option<&'v Var>> + Copy> Inputs<'v> for &[V] {
    type Gradients = Vec<Option<Var>>;
    fn places(&self) -> SmallVec<[Option<&'v Var>; 4]> {
        self.iter().map(|v| (*v).into()).collect()
    }
}

impl<'v, V: Into<Option<&'v Var>> + Copy> Inputs<'v> for &Vec<V> {
    type Gradients = Vec<Option<Var>>;
    fn places(&self) -> SmallVec<[Option<&'v Var>; 4]> {
        self.as_slice().places()
    }
}

/// Records an operation in the graph, one of the library's or a custom one.
///
/// `value` is the result, `rule` gives the gradients for `inputs` from that of the result. A gradient may have the
/// broadcast shape or the promoted type of the result: it is summed and cast to the input's. Values that the rule needs
/// are captured as [`Var::saved`]; the result itself by [`record_with_output`]. With recording off, or no input that
/// requires a gradient, the result is a constant and the rule is dropped.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, record};
/// fn double(x: &Var) -> Var {
///     let value = (x.detach() * 2.0).tensor();
///     record("double", [x], value, |c| [Some(c.grad() * 2.0)])
/// }
/// let x = Var::parameter(Tensor::scalar(3.0));
/// double(&x).backward();
/// assert_eq!(x.grad().unwrap().item(), 2.0);
/// ```
///
/// An input may be absent. It keeps its place, and its gradient is not wanted:
///
/// ```
/// use tapegrad_tape::{Tensor, Var, record};
/// /// `3 x`, plus a bias if there is one.
/// fn affine(x: &Var, bias: Option<&Var>) -> Var {
///     let product = x.detach() * 3.0;
///     let value = bias.map_or(product.tensor(), |b| (&product + b.detach()).tensor());
///     record("affine", [Some(x), bias], value, |c| {
///         [c.wants(0).then(|| c.grad() * 3.0), c.wants(1).then(|| c.grad().clone())]
///     })
/// }
/// let (x, bias) = (Var::parameter(Tensor::scalar(1.0)), Var::parameter(Tensor::scalar(2.0)));
/// (affine(&x, None) + affine(&x, Some(&bias))).backward();
/// assert_eq!((x.grad().unwrap().item(), bias.grad().unwrap().item()), (6.0, 1.0));
/// ```
#[track_caller]
pub fn record<'v, I: Inputs<'v>>(
    op: &'static str,
    inputs: I,
    value: Tensor,
    rule: impl Fn(Cotangent) -> I::Gradients + Send + Sync + 'static,
) -> Var {
    let mut rule = Some(rule);
    enter(op, &inputs.places(), value, false, &mut |_| {
        let rule = rule.take().expect(ONCE);
        Arc::new(Plain(move |c| gradients(rule(c))))
    })
}

/// Like [`record`], for a rule that uses the result through [`Cotangent::output`]: capturing it would make a reference
/// cycle.
#[track_caller]
pub fn record_with_output<'v, I: Inputs<'v>>(
    op: &'static str,
    inputs: I,
    value: Tensor,
    rule: impl Fn(Cotangent) -> I::Gradients + Send + Sync + 'static,
) -> Var {
    let mut rule = Some(rule);
    enter(op, &inputs.places(), value, true, &mut |value| {
        let rule = rule.take().expect(ONCE);
        Arc::new(WithOutput(move |c| gradients(rule(c)), value.clone()))
    })
}

/// Like [`record`], for an operation that reads few elements of `x`. Where other operations read `x` too,
/// `accumulate(gradient, sum)` adds what the rule would give to the sum of their gradients, in its memory: its cost is
/// that of the elements that were read, while the rule makes a gradient of all of `x`.
#[track_caller]
pub(crate) fn record_part(
    op: &'static str,
    x: &Var,
    value: Tensor,
    rule: impl Fn(&Cotangent) -> Var + Send + Sync + 'static,
    accumulate: impl Fn(&Tensor, Tensor) -> Tensor + Send + Sync + 'static,
) -> Var {
    let mut both = Some((rule, accumulate));
    enter(op, &[Some(x)], value, false, &mut |_| {
        let (rule, accumulate) = both.take().expect(ONCE);
        Arc::new(Part(rule, accumulate))
    })
}

const ONCE: &str = "the rule is asked for once";

#[inline]
fn gradients(list: impl IntoIterator<Item = Option<Var>>) -> Gradients {
    list.into_iter().collect()
}

#[track_caller]
fn enter(
    op: &'static str,
    inputs: &[Option<&Var>],
    value: Tensor,
    keeps_output: bool,
    rule: &mut dyn FnMut(&Tensor) -> Arc<dyn Rule>,
) -> Var {
    if grad_mode::is_anomaly_detected() {
        check_finite(op, inputs, &value);
    }
    let cost = Cost::take();
    let wanted = grad_mode::is_grad_enabled()
        && value.dtype().is_float()
        && inputs.iter().flatten().any(|v| v.requires_grad());
    if !wanted {
        return Var::from(value);
    }
    if keeps_output {
        cost.add_saved(value.bytes());
    }
    let trained = |v: &Var| v.node().filter(|n| n.requires_grad()).cloned();
    let node = Arc::new(Node {
        seq: next_number(),
        op,
        location: Location::caller(),
        shape: Dims::from_slice(value.shape()),
        dtype: value.dtype(),
        inputs: inputs.iter().map(|v| v.and_then(trained)).collect(),
        leaf: None,
        cost,
        watched: AtomicBool::new(false),
        state: Mutex::new(State { rule: Some(rule(&value)), extras: None }),
    });
    Var::of_node(value, node)
}

#[track_caller]
fn check_finite(op: &str, inputs: &[Option<&Var>], value: &Tensor) {
    let place = Location::caller();
    let inputs: Vec<&Var> = inputs.iter().copied().flatten().collect();
    grad_mode::report_nonfinite(value, &inputs, |what| {
        let shapes = inputs.iter().map(|v| v.shape()).collect::<Vec<_>>();
        format!("{op}: made the first {what}, called at {place}, from inputs of shapes {shapes:?}")
    });
}
