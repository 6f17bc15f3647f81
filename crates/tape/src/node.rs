//! The tape: nodes, and the functions that record operations.

use crate::cost::Cost;
use crate::dtype::DType;
pub use crate::forward::RecordOptions;
use crate::forward::{self, Dual, Level};
use crate::grad_mode::{self, Mode};
use crate::row_grad::{Grad, RowRule};
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
pub(crate) type Gradients = SmallVec<[Option<Var>; 2]>;
pub(crate) type Rule = Arc<dyn Fn(Cotangent) -> Gradients + Send + Sync>;
/// Adds the input's gradient, which follows from that of the result, to the sum that the input has received.
pub(crate) type Accumulate = Arc<dyn Fn(&Tensor, Tensor) -> Tensor + Send + Sync>;
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
    pub(crate) leaf: Option<Leaf>,
    pub(crate) cost: Cost,
    /// Where the operation was recorded in forward mode; outer levels first.
    pub(crate) levels: SmallVec<[Arc<Level>; 1]>,
    /// Whether the rule can give the gradients of single samples.
    pub(crate) by_sample: bool,
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
    rule: Option<Rule>,
    /// May replace the rule if the only input has already received a gradient.
    accumulate: Option<Accumulate>,
    /// May replace the rule if the only input is a leaf.
    rows: Option<RowRule>,
    /// The operation's result, kept where its rule needs it.
    output: Option<Tensor>,
    hooks: Vec<(u64, Hook)>,
    accumulated_hooks: Vec<(u64, LeafHook)>,
    retains_grad: bool,
    grad: Option<Grad>,
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
            leaf: Some(Leaf {
                value: RwLock::new(value),
                requires_grad: AtomicBool::new(requires_grad),
                substituted: AtomicU32::new(0),
            }),
            cost: Cost::default(),
            levels: SmallVec::new(),
            by_sample: false,
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
        let grad = self.state().grad.clone();
        grad.map(|g| g.into_dense(&self.shape))
    }

    pub(crate) fn grad_rows(&self) -> Option<(Tensor, Tensor)> {
        self.state().grad.as_mut()?.rows()
    }

    /// Sets the gradient and returns the one before.
    pub(crate) fn replace_grad(&self, grad: Option<Var>) -> Option<Grad> {
        std::mem::replace(&mut self.state().grad, grad.map(Grad::Dense))
    }

    /// Adds to the gradient atomically: several threads may do so at once.
    pub(crate) fn accumulate_grad(&self, grad: Var, add: impl FnOnce(Var, Var) -> Var) {
        let mut state = self.state();
        state.grad = Some(Grad::Dense(match state.grad.take() {
            Some(sum) => add(sum.into_dense(&self.shape), grad),
            None => grad,
        }));
    }

    /// Adds the gradients of some rows, as atomically.
    pub(crate) fn accumulate_rows(&self, rows: Tensor, values: Tensor) {
        let mut state = self.state();
        state.grad = Some(Grad::plus_rows(state.grad.take(), rows, values));
    }

    pub(crate) fn retain_grad(&self) {
        self.state().retains_grad = true;
    }

    pub(crate) fn retains_grad(&self) -> bool {
        self.state().retains_grad
    }

    pub(crate) fn add_hook(&self, hook: Hook) -> u64 {
        let id = next_number();
        self.state().hooks.push((id, hook));
        id
    }

    pub(crate) fn add_accumulated_hook(&self, hook: LeafHook) -> u64 {
        let id = next_number();
        self.state().accumulated_hooks.push((id, hook));
        id
    }

    pub(crate) fn remove_hook(&self, id: u64) {
        let mut state = self.state();
        state.hooks.retain(|(i, _)| *i != id);
        state.accumulated_hooks.retain(|(i, _)| *i != id);
    }

    /// True if a hook wants to see the gradient.
    pub(crate) fn has_hooks(&self) -> bool {
        !self.state().hooks.is_empty()
    }

    pub(crate) fn hooks(&self) -> Vec<Hook> {
        self.state().hooks.iter().map(|(_, hook)| hook.clone()).collect()
    }

    pub(crate) fn accumulated_hooks(&self) -> Vec<LeafHook> {
        self.state().accumulated_hooks.iter().map(|(_, hook)| hook.clone()).collect()
    }

    /// What the operation saved for its derivative; the node keeps it only to `retain` it.
    pub(crate) fn saved(&self, retain: bool) -> Saved {
        let mut state = self.state();
        let (rule, accumulate, rows, output) = if retain {
            (state.rule.clone(), state.accumulate.clone(), state.rows.clone(), state.output.clone())
        } else {
            (state.rule.take(), state.accumulate.take(), state.rows.take(), state.output.take())
        };
        drop(state);
        let Some(rule) = rule else {
            panic!(
                "backward: the graph of `{}` (recorded at {}) was freed by an earlier backward; \
                 to go through it again, pass retain_graph = true to the earlier one",
                self.op, self.location
            )
        };
        Saved { rule, accumulate, rows, output }
    }

    /// Calls the derivative rule.
    pub(crate) fn apply_rule(
        self: &Arc<Node>,
        saved: Saved,
        grad: Var,
        wants: SmallVec<[bool; 4]>,
        by_sample: SmallVec<[bool; 4]>,
    ) -> Gradients {
        let output = saved.output.map(|value| {
            let tangents = forward::tangents_of_output(&self.levels, self.seq);
            Var::of_node(value, self.clone()).with_tangents(tangents)
        });
        (saved.rule)(Cotangent::new(self.op, grad, wants, output, by_sample))
    }
}

/// What an operation saved for its derivative.
pub(crate) struct Saved {
    rule: Rule,
    pub(crate) accumulate: Option<Accumulate>,
    pub(crate) rows: Option<RowRule>,
    output: Option<Tensor>,
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
    record_with(op, inputs, value, RecordOptions::new(), rule)
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
    record_with(op, inputs, value, RecordOptions::new().keep_output(true), rule)
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
    enter_rule(op, &inputs.places(), value, options, move |c| gradients(rule(c)))
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
    record_with(op, [x], value, RecordOptions::new().linear(&again), rule)
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
    enter(op, &[Some(x)], value, RecordOptions::new().linear(&again), &mut || {
        let (rule, accumulate) = both.take().expect("asked for once");
        let rule = Arc::new(move |c| gradients([Some(rule(&c))]));
        Rules { accumulate: Some(Arc::new(accumulate)), ..Rules::of(rule) }
    })
}

/// The derivative of an operation, and shorter ways to it.
pub(crate) struct Rules {
    pub(crate) rule: Rule,
    pub(crate) accumulate: Option<Accumulate>,
    pub(crate) rows: Option<RowRule>,
}

impl Rules {
    pub(crate) fn of(rule: Rule) -> Rules {
        Rules { rule, accumulate: None, rows: None }
    }
}

#[inline(never)]
pub(crate) fn gradients(list: impl IntoIterator<Item = Option<Var>>) -> Gradients {
    list.into_iter().collect()
}

/// The part that is compiled for each rule.
#[track_caller]
#[inline]
fn enter_rule(
    op: &'static str,
    inputs: &[Option<&Var>],
    value: Tensor,
    options: RecordOptions<'_>,
    rule: impl Fn(Cotangent) -> Gradients + Send + Sync + 'static,
) -> Var {
    let mut rule = Some(rule);
    enter(op, inputs, value, options, &mut || Rules::of(Arc::new(rule.take().expect("asked for once"))))
}

#[track_caller]
pub(crate) fn enter(
    op: &'static str,
    inputs: &[Option<&Var>],
    value: Tensor,
    options: RecordOptions<'_>,
    rules: &mut dyn FnMut() -> Rules,
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
    let levels = forward::levels(inputs);
    let Rules { rule, accumulate, rows } = rules();
    if grad_mode::mode() == Mode::Forward || !inputs.iter().flatten().any(|v| v.in_graph()) {
        return Dual { op, inputs, rule: &rule, options }.propagate(Var::from(value), &levels);
    }
    if options.keeps_output {
        cost.add_saved(value.bytes());
    }
    let node = Arc::new(Node {
        seq: next_number(),
        op,
        location: Location::caller(),
        shape: value.shape().into(),
        dtype: value.dtype(),
        inputs: inputs.iter().map(|v| v.and_then(Var::trained_node)).collect(),
        leaf: None,
        cost,
        levels: levels.clone(),
        by_sample: options.by_sample,
        state: Mutex::new(State {
            rule: Some(rule.clone()),
            accumulate,
            rows,
            output: options.keeps_output.then(|| value.clone()),
            ..State::default()
        }),
    });
    let result = Var::of_node(value, node);
    if levels.is_empty() {
        result
    } else {
        Dual { op, inputs, rule: &rule, options }.propagate(result, &levels)
    }
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
