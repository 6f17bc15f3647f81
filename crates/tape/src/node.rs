//! The tape: nodes, and the functions that record operations.

mod rule;

pub use crate::forward::RecordOptions;
pub(crate) use rule::{Rule, Shortcut};

use crate::cost::Cost;
use crate::dtype::DType;
use crate::forward::{self, Dual, Level, Levels};
use crate::grad_mode::{self, Mode};
use crate::row_grad::Grad;
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::var::Var;
use rule::{Part, Plain, WithOutput};
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

/// The argument of a derivative rule: the gradient of the result, and which inputs require theirs.
pub struct Cotangent {
    grad: Var,
    wants: SmallVec<[bool; 4]>,
    output: Option<Var>,
    op: &'static str,
    by_sample: SmallVec<[bool; 4]>,
}

impl Cotangent {
    pub(crate) fn new(
        op: &'static str,
        grad: Var,
        wants: SmallVec<[bool; 4]>,
        output: Option<Var>,
        by_sample: SmallVec<[bool; 4]>,
    ) -> Cotangent {
        Cotangent { grad, wants, output, op, by_sample }
    }

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

    /// True if the gradient for input `i`, a parameter, is to be that of each sample: its first dimension is that of the
    /// result, or it has the result's shape. Asked for only of operations recorded with [`RecordOptions::by_sample`].
    pub fn by_sample(&self, i: usize) -> bool {
        self.by_sample.get(i).copied().unwrap_or(false)
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
    enter(op, &inputs.places(), value, RecordOptions::new(), &mut |_| plain::<I>(&mut rule))
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
    let options = RecordOptions::new().keep_output(true);
    enter(op, &inputs.places(), value, options, &mut |value| with_output::<I>(&mut rule, value))
}

/// Like [`record`], and says how the operation passes on tangents in forward mode, where there is a shorter way than by the
/// transpose of its rule.
///
/// ```
/// use tapegrad_tape::{RecordOptions, Tensor, Var, jvp, record_with};
/// fn cube(x: &Var) -> Var {
///     let saved = x.saved();
///     record_with("cube", [x], x.detach().pow(3).tensor(), RecordOptions::new().pointwise(), move |c| {
///         [Some(c.grad() * (saved.square() * 3.0))]
///     })
/// }
/// let x = Var::from(2.0);
/// assert_eq!(jvp(|x| cube(&x[0]), &[x], &[Var::from(10.0)]).1.item(), 120.0);
/// ```
#[track_caller]
pub fn record_with<'v, I: Inputs<'v>>(
    op: &'static str,
    inputs: I,
    value: Tensor,
    options: RecordOptions<'_>,
    rule: impl Fn(Cotangent) -> I::Gradients + Send + Sync + 'static,
) -> Var {
    let mut rule = Some(rule);
    enter(op, &inputs.places(), value, options, &mut |value| {
        if options.keeps_output { with_output::<I>(&mut rule, value) } else { plain::<I>(&mut rule) }
    })
}

/// Like [`record`], for an operation that is linear in its one input: `again` is the operation, for tangents.
#[track_caller]
pub(crate) fn record_linear(
    op: &'static str,
    x: &Var,
    value: Tensor,
    again: impl Fn(&Var) -> Var,
    rule: impl Fn(Cotangent) -> [Option<Var>; 1] + Send + Sync + 'static,
) -> Var {
    let mut rule = Some(rule);
    let options = RecordOptions::new().linear(&again);
    enter(op, &[Some(x)], value, options, &mut |_| plain::<[&Var; 1]>(&mut rule))
}

/// Like [`record_linear`], for an operation that reads few elements of `x`. Where other operations read `x` too,
/// `accumulate(gradient, sum)` adds what the rule would give to the sum of their gradients, in its memory: its cost is
/// that of the elements that were read, while the rule makes a gradient of all of `x`.
#[track_caller]
pub(crate) fn record_part(
    op: &'static str,
    x: &Var,
    value: Tensor,
    again: impl Fn(&Var) -> Var,
    rule: impl Fn(&Cotangent) -> Var + Send + Sync + 'static,
    accumulate: impl Fn(&Tensor, Tensor) -> Tensor + Send + Sync + 'static,
) -> Var {
    let mut both = Some((rule, accumulate));
    enter(op, &[Some(x)], value, RecordOptions::new().linear(&again), &mut |_| {
        let (rule, accumulate) = both.take().expect(ONCE);
        Arc::new(Part(rule, accumulate))
    })
}

pub(crate) const ONCE: &str = "the rule is asked for once";

fn plain<'v, I: Inputs<'v>>(
    rule: &mut Option<impl Fn(Cotangent) -> I::Gradients + Send + Sync + 'static>,
) -> Arc<dyn Rule> {
    let rule = rule.take().expect(ONCE);
    Arc::new(Plain(move |c| gradients(rule(c))))
}

fn with_output<'v, I: Inputs<'v>>(
    rule: &mut Option<impl Fn(Cotangent) -> I::Gradients + Send + Sync + 'static>,
    value: &Tensor,
) -> Arc<dyn Rule> {
    let rule = rule.take().expect(ONCE);
    Arc::new(WithOutput(move |c| gradients(rule(c)), value.clone()))
}

#[inline]
pub(crate) fn gradients(list: impl IntoIterator<Item = Option<Var>>) -> Gradients {
    list.into_iter().collect()
}

#[track_caller]
pub(crate) fn enter(
    op: &'static str,
    inputs: &[Option<&Var>],
    value: Tensor,
    options: RecordOptions<'_>,
    rule: &mut dyn FnMut(&Tensor) -> Arc<dyn Rule>,
) -> Var {
    if grad_mode::is_anomaly_detected() {
        check_finite(op, inputs, &value);
    }
    let cost = Cost::take();
    let mode = grad_mode::mode();
    if mode == Mode::Off || !value.dtype().is_float() {
        return Var::from(value);
    }
    if inputs.iter().flatten().any(|v| !v.is_plain()) {
        return enter_dual(op, inputs, value, options, rule, cost);
    }
    if mode == Mode::Forward || !inputs.iter().flatten().any(|v| v.in_graph()) {
        return Var::from(value);
    }
    let rule = rule(&value);
    with_node(op, inputs, value, options, rule, cost, None)
}

/// The variable of a new node.
#[track_caller]
fn with_node(
    op: &'static str,
    inputs: &[Option<&Var>],
    value: Tensor,
    options: RecordOptions<'_>,
    rule: Arc<dyn Rule>,
    cost: Cost,
    levels: Option<Box<Levels>>,
) -> Var {
    if options.keeps_output {
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
        levels,
        by_sample: options.by_sample,
        watched: AtomicBool::new(false),
        state: Mutex::new(State { rule: Some(rule), extras: None }),
    });
    Var::of_node(value, node)
}

/// [`enter`], where an input has tangents or another variable stands for it.
#[cold]
#[track_caller]
fn enter_dual(
    op: &'static str,
    inputs: &[Option<&Var>],
    value: Tensor,
    options: RecordOptions<'_>,
    rule: &mut dyn FnMut(&Tensor) -> Arc<dyn Rule>,
    cost: Cost,
) -> Var {
    let resolved: SmallVec<[Option<Var>; 4]> = inputs.iter().map(|v| v.map(Var::resolved)).collect();
    let inputs: SmallVec<[Option<&Var>; 4]> = resolved.iter().map(Option::as_ref).collect();
    let levels = forward::levels(&inputs);
    let records = grad_mode::mode() == Mode::On && inputs.iter().flatten().any(|v| v.in_graph());
    if !records && levels.is_empty() {
        return Var::from(value);
    }
    let rule = rule(&value);
    let y = if records {
        let levels = (!levels.is_empty()).then(|| Box::new(levels.clone()));
        with_node(op, &inputs, value, options, rule.clone(), cost, levels)
    } else {
        Var::from(value)
    };
    Dual { op, inputs: &inputs, rule: &*rule, options }.propagate(y, &levels)
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
