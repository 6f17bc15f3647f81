//! The only entries to the graph: the functions that record operations.

use super::rule::{Part, Plain, WithOutput};
use super::{Gradients, Node, Rule, State, next_number};
use crate::cost::Cost;
use crate::forward::{self, Dual, Levels, RecordOptions};
use crate::grad_mode::{self, Mode};
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::var::Var;
use smallvec::SmallVec;
use std::panic::Location;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// The argument of a derivative rule: the gradient of the result, and which inputs require theirs.
pub struct Cotangent {
    grad: Var,
    wants: SmallVec<[bool; 4]>,
    pub(super) output: Option<Var>,
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
