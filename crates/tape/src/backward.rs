//! The backward pass over the tape.

mod pending;
mod samples;
mod search;

use crate::autocast;
use crate::dtype::Number;
use crate::forward;
use crate::grad_mode::{self, Mode};
use crate::kernels::strided;
use crate::node::{Node, Rule, Shortcut, next_number};
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;
use pending::{Numbers, Pending};
pub(crate) use samples::grads_by_sample;
use samples::{Flags, fit_samples};
pub(crate) use search::external_nodes;
use search::{consumers_of_leaves, reaching};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How [`Var::backward_with`] traverses the graph.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackwardOptions {
    /// Keeps what the operations saved, so that the graph can be traversed again.
    pub retain_graph: bool,
    /// Records the derivative too, for derivatives of higher order. Retains the graph.
    ///
    /// A parameter then holds its gradient, and the gradient's graph holds the parameter: as in PyTorch, this memory is freed
    /// only when the gradient is ([`Var::zero_grad`]). [`grad`] has no such cycle.
    pub create_graph: bool,
}

/// How [`grad`] traverses the graph.
#[derive(Clone, Debug, Default)]
pub struct GradOptions {
    /// The gradients of the outputs; without them each is one, which requires outputs of one element.
    pub grad_outputs: Option<Vec<Var>>,
    /// Keeps what the operations saved, so that the graph can be traversed again.
    pub retain_graph: bool,
    /// Records the derivative too, for derivatives of higher order. Retains the graph.
    pub create_graph: bool,
}

impl BackwardOptions {
    crate::setters! { retain_graph: bool, create_graph: bool }
}

impl GradOptions {
    crate::setters! { retain_graph: bool, create_graph: bool; grad_outputs: Vec<Var> }
}

impl Var {
    /// Computes the gradients of this scalar for all leaves that it depends on, and adds them to theirs
    /// (`torch.Tensor.backward`). Frees what the operations saved.
    ///
    /// Several threads may do this at once for graphs that share parameters: each adds to a parameter's gradient
    /// atomically, so no gradient is lost. The order of the additions is that in which the threads arrive, and the last
    /// bits of a floating-point sum depend on it; where they matter, let each thread compute its gradients with
    /// [`grad`] and add them in a fixed order. Anything that reads the gradients and writes them back (clipping, an
    /// optimizer's step) must wait until all threads are done.
    ///
    /// # Panics
    /// If there is more than one element, nothing here requires a gradient, or the graph was freed.
    #[track_caller]
    pub fn backward(&self) {
        self.backward_with(None, BackwardOptions::new());
    }

    /// Like [`Var::backward`], from the gradient of this variable (`None` for one), and with options.
    ///
    /// ```
    /// use tapegrad_tape::{BackwardOptions, Tensor, Var};
    /// let x = Var::parameter(Tensor::from_vec(vec![1f32, 2.0], 2));
    /// let g = Var::from_vec(vec![3f32, 5.0], 2);
    /// (&x * &x).backward_with(&g, BackwardOptions::new());
    /// assert_eq!(x.grad().unwrap().to_vec::<f32>(), [6.0, 20.0]);
    /// ```
    ///
    /// # Panics
    /// If the gradient is absent for more than one element or of another shape, nothing here requires a gradient, or
    /// the graph was freed.
    #[track_caller]
    pub fn backward_with<'a>(&self, grad: impl Into<Option<&'a Var>>, options: BackwardOptions) {
        let root = root("backward", self, grad.into());
        let mode = Kind {
            retain: options.retain_graph || options.create_graph,
            create: options.create_graph,
            targets: None,
            samples: None,
        };
        run(vec![root], mode);
    }
}

/// The gradient of `output` for `input`, which may be any variable of the graph (`torch.autograd.grad` of one pair). Nothing
/// is accumulated.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, grad, grad_with};
/// let x = Var::parameter(Tensor::scalar(3.0));
/// assert_eq!(grad(&(&x * &x), &x).item(), 6.0);
/// ```
///
/// # Panics
/// If the output has more than one element or does not depend on the input, the input does not require a gradient, or the
/// graph was freed.
#[track_caller]
pub fn grad(output: &Var, input: &Var) -> Var {
    let gradient = grad_with(&[output], &[input], GradOptions::new()).pop().flatten();
    gradient.unwrap_or_else(|| {
        panic!("grad: the output does not depend on the input of shape {:?}", input.shape())
    })
}

/// The gradients of `outputs` for `inputs`, which may be any variables of the graph
/// (`torch.autograd.grad`). Nothing is accumulated; `None` where the outputs do not depend on an input.
///
/// ```
/// use tapegrad_tape::{GradOptions, Tensor, Var, grad, grad_with};
/// let x = Var::parameter(Tensor::scalar(3.0));
/// let y = &x * &x * &x;
/// let first = grad_with(&[&y], &[&x], GradOptions::new().create_graph(true))[0].clone().unwrap();
/// assert_eq!((first.item(), grad(&first, &x).item()), (27.0, 18.0));
/// ```
///
/// # Panics
/// If an output has more than one element and no gradient is given for it, an input does not require a gradient, or the
/// graph was freed.
#[track_caller]
pub fn grad_with(outputs: &[&Var], inputs: &[&Var], options: GradOptions) -> Vec<Option<Var>> {
    grad_through(outputs, inputs, options, true)
}

/// Like [`grad`]; unless `through`, the walk ends at the inputs, and an input that depends on another gives it no
/// gradient.
#[track_caller]
pub(crate) fn grad_through(
    outputs: &[&Var],
    inputs: &[&Var],
    options: GradOptions,
    through: bool,
) -> Vec<Option<Var>> {
    if let Some(given) = &options.grad_outputs {
        assert_eq!(
            given.len(),
            outputs.len(),
            "grad: {} outputs, but {} grad_outputs",
            outputs.len(),
            given.len()
        );
    }
    let roots: Vec<_> = outputs
        .iter()
        .enumerate()
        .filter(|(_, y)| y.in_graph() || outputs.len() == 1)
        .map(|(i, y)| root("grad", y, options.grad_outputs.as_ref().map(|g| &g[i])))
        .collect();
    let ids: Vec<u64> = inputs
        .iter()
        .enumerate()
        .map(|(i, x)| {
            assert!(x.in_graph(), "grad: input {i} of shape {:?} does not require a gradient", x.shape());
            x.id().expect("requires a gradient")
        })
        .collect();
    let targets: HashSet<u64, Numbers> = ids.iter().copied().collect();
    let mode = Kind {
        retain: options.retain_graph || options.create_graph,
        create: options.create_graph,
        targets: Some(Targets { needed: reaching(&roots, &targets, through), ids: targets, through }),
        samples: None,
    };
    let found = run(roots, mode);
    ids.iter().map(|id| found.get(id).cloned()).collect()
}

/// The node where a walk starts, and the gradient that it starts with.
#[track_caller]
fn root(op: &str, y: &Var, grad: Option<&Var>) -> (Arc<Node>, Var) {
    assert!(
        y.in_graph(),
        "{op}: the variable of shape {:?} does not require a gradient: it was made from constants only, or under no_grad",
        y.shape()
    );
    let grad = match grad {
        Some(g) => {
            assert_eq!(
                g.shape(),
                y.shape(),
                "{op}: the gradient has shape {:?}, the variable {:?}",
                g.shape(),
                y.shape()
            );
            g.clone()
        }
        None => {
            assert_eq!(
                y.numel(),
                1,
                "{op}: the gradient can be left out only for one element, not for shape {:?}: sum first, or pass one",
                y.shape()
            );
            Var::from(Tensor::ones_with(y.shape(), y.dtype()))
        }
    };
    (y.node().expect("requires a gradient").clone(), grad)
}

/// How a walk goes.
struct Kind {
    retain: bool,
    create: bool,
    targets: Option<Targets>,
    /// The number of samples, where the gradients of each are to be told apart.
    samples: Option<usize>,
}

struct Targets {
    /// The nodes whose gradients are requested.
    ids: HashSet<u64, Numbers>,
    /// The nodes on the way to them.
    needed: HashSet<u64, Numbers>,
    /// Whether to continue past a target.
    through: bool,
}

/// The state of a walk.
struct Walk {
    mode: Kind,
    number: u64,
    roots: Vec<Arc<Node>>,
    pending: Pending,
    /// The operations that each leaf still waits for; counted once a leaf waits.
    consumers: Option<HashMap<u64, usize, Numbers>>,
    found: HashMap<u64, Var, Numbers>,
    /// The leaves with hooks that wait for their gradients, and have received those of rows but no others so far.
    by_rows: HashSet<u64, Numbers>,
}

/// Walks from the largest sequence number down, so that a node is reached after all nodes that use it. A leaf has a small
/// number, but is delivered as soon as no operation is left that uses it.
fn run(roots: Vec<(Arc<Node>, Var)>, mode: Kind) -> HashMap<u64, Var, Numbers> {
    let _guard = grad_mode::set_grad_enabled(mode.create);
    // Rules compute in the types of the forward pass.
    let _types = autocast::Mode::enter(None);
    let create = mode.create;
    let mut walk = Walk {
        mode,
        number: next_number(),
        roots: roots.iter().map(|(node, _)| node.clone()).collect(),
        pending: Pending::default(),
        consumers: None,
        found: HashMap::default(),
        by_rows: HashSet::default(),
    };
    for (node, grad) in roots {
        walk.receive(&node, grad, u64::MAX);
    }
    while let Some((node, grad)) = walk.pending.pop() {
        // Gradients have tangents, too.
        let dual = !create && (grad.is_dual() || forward::any_live(node.levels()));
        let _guard = dual.then(|| grad_mode::set_mode(Mode::Forward));
        let grad = walk.deliver(&node, grad);
        if node.leaf.is_none() {
            if let Some(grad) = grad {
                walk.pass_on(&node, grad);
            }
            walk.release_leaves(&node);
        }
    }
    walk.found
}

impl Walk {
    /// The first gradient of a node is moved, the later ones are added to it. A leaf to whose gradient nothing else is added
    /// receives it at once; otherwise it waits for the operations up to the number `last`.
    fn receive(&mut self, node: &Arc<Node>, gradient: Var, last: u64) {
        if let Some(held) = self.pending.get_mut(node) {
            let old = std::mem::replace(held, Var::placeholder());
            *held = add(old, gradient);
            return;
        }
        if node.leaf.is_none() || self.mode.targets.is_some() {
            return self.pending.insert(node.clone(), gradient);
        }
        if let Some(gradient) = node.accumulate_part(gradient, self.number, add) {
            self.count_consumers(last);
            self.pending.insert(node.clone(), gradient);
        }
    }

    /// From now on leaves wait for the operations up to the number `last`.
    fn count_consumers(&mut self, last: u64) {
        if self.consumers.is_none() {
            self.consumers = Some(consumers_of_leaves(&self.roots, last));
        }
    }

    /// Runs a node's hooks and keeps its gradient where that is asked for. `None` where the walk ends.
    fn deliver(&mut self, node: &Arc<Node>, mut grad: Var) -> Option<Var> {
        for hook in node.hooks() {
            if let Some(replaced) = hook(&grad) {
                assert_eq!(
                    replaced.shape(),
                    grad.shape(),
                    "hook on `{}`: the gradient's shape cannot change",
                    node.op
                );
                grad = replaced;
            }
        }
        match &self.mode.targets {
            Some(targets) if targets.ids.contains(&node.seq) => {
                self.found.insert(node.seq, grad.clone());
                return targets.through.then_some(grad);
            }
            Some(_) => {}
            None if node.leaf.is_some() => {
                node.accumulate_grad(grad, add);
                call_accumulated_hooks(node);
                return None;
            }
            None if node.retains_grad() => node.accumulate_grad(grad.clone(), add),
            None => {}
        }
        Some(grad)
    }

    /// Computes the gradients of a node's inputs.
    fn pass_on(&mut self, node: &Arc<Node>, grad: Var) {
        let wanted =
            |input: &Arc<Node>| self.mode.targets.as_ref().is_none_or(|t| t.needed.contains(&input.seq));
        let wants = node.inputs.iter().map(|i| i.as_ref().is_some_and(wanted)).collect::<Flags>();
        if !wants.contains(&true) {
            return;
        }
        let by_sample = self.by_sample(node, &wants);
        let clock = node.cost.start();
        let rule = node.rule(self.mode.retain);
        if by_sample.is_empty() && self.take_shortcut(node, &*rule, &grad) {
            node.cost.stop_backward(clock);
            return;
        }
        let gradients =
            grad_mode::pause_search(|| node.apply_rule(&*rule, grad, wants.clone(), by_sample.clone()));
        // What it has captured is freed before more is computed.
        drop(rule);
        node.cost.stop_backward(clock);
        assert_eq!(
            gradients.len(),
            node.inputs.len(),
            "{}: its rule gave {} gradients for {} inputs",
            node.op,
            gradients.len(),
            node.inputs.len()
        );
        for (i, ((input, gradient), wants)) in node.inputs.iter().zip(gradients).zip(wants).enumerate() {
            if let (Some(input), Some(gradient), true) = (input, gradient, wants) {
                if grad_mode::is_anomaly_detected() {
                    grad_mode::report_nonfinite_gradient(&gradient.tensor(), |what| {
                        format!(
                            "backward: `{}`, recorded at {}, made the first {what} gradient",
                            node.op, node.location
                        )
                    });
                }
                let gradient = match self.mode.samples {
                    Some(n) if by_sample.get(i) == Some(&true) => fit_samples(node, input, gradient, n),
                    _ => fit(node, input, gradient),
                };
                self.receive(input, gradient, node.seq);
            }
        }
    }

    /// Passes the gradient on to a node's only input in a shorter way than by its rule, if there is one at present.
    #[inline]
    fn take_shortcut(&mut self, node: &Node, rule: &dyn Rule, grad: &Var) -> bool {
        match (rule.shortcut(), node.inputs.as_slice()) {
            (Shortcut::Accumulate, [Some(input)]) => self.accumulate(input, rule, grad),
            (Shortcut::Rows, [Some(input)]) => self.pass_on_rows(node, input, rule, grad),
            _ => false,
        }
    }

    /// Adds the gradient of a node's only input to what that has received, in its memory, if the operation can and no graph
    /// is recorded. Without this, the gradients of `n` parts of a tensor would take `n` passes over the whole tensor.
    fn accumulate(&mut self, input: &Node, rule: &dyn Rule, grad: &Var) -> bool {
        // Anomaly mode checks each gradient separately.
        if grad_mode::is_grad_enabled() || grad_mode::is_anomaly_detected() {
            return false;
        }
        let change = |held: &mut Var| {
            let fits = held.dtype() == grad.dtype() && !held.is_dual();
            if fits {
                let sum = std::mem::replace(held, Var::placeholder());
                *held = Var::from(rule.accumulate(&grad.tensor(), sum.into_tensor()));
            }
            fits
        };
        match self.pending.get_mut(input) {
            Some(held) => change(held),
            None => input.change_part(self.number, change),
        }
    }

    /// Adds the gradient of rows to that of the leaf that they are of, if nothing is to see it before.
    fn pass_on_rows(&mut self, node: &Node, leaf: &Node, rule: &dyn Rule, grad: &Var) -> bool {
        let plain = self.mode.targets.is_none()
            && !self.mode.create
            && !grad_mode::is_anomaly_detected()
            && leaf.leaf.is_some()
            && !leaf.has_hooks()
            && !grad.is_dual()
            && self.pending.get_mut(leaf).is_none();
        if plain {
            let (rows, values) = grad_mode::pause_search(|| rule.rows(grad));
            leaf.accumulate_rows(rows, values, self.number);
            if leaf.is_watched() {
                self.count_consumers(node.seq);
                self.by_rows.insert(leaf.seq);
            }
        }
        plain
    }

    /// Delivers the gradients of those leaves that no operation but this one was left for.
    fn release_leaves(&mut self, node: &Arc<Node>) {
        if self.consumers.is_none() {
            return;
        }
        for input in node.inputs.iter().flatten().filter(|input| input.leaf.is_some()) {
            let left = self.consumers.as_mut().and_then(|c| c.get_mut(&input.seq));
            let left = left.expect("all leaves were counted");
            *left -= 1;
            if *left > 0 {
                continue;
            }
            let has_rows = self.by_rows.remove(&input.seq);
            if let Some((leaf, grad)) = self.pending.remove(input.seq) {
                self.deliver(&leaf, grad);
            } else if has_rows {
                call_accumulated_hooks(input);
            }
        }
    }
}

fn call_accumulated_hooks(leaf: &Arc<Node>) {
    for hook in leaf.accumulated_hooks() {
        hook(&Var::of_leaf(leaf.clone()));
    }
}

/// Sums and casts a gradient to its input's shape and type.
fn fit(node: &Node, input: &Node, gradient: Var) -> Var {
    let mut gradient = gradient;
    if gradient.shape() != input.shape.as_slice() {
        let fits = shape::broadcast(&input.shape, gradient.shape())
            .is_some_and(|s| s.as_slice() == gradient.shape());
        assert!(
            fits,
            "{}: its rule gave a gradient of shape {:?} for an input of shape {:?}",
            node.op,
            gradient.shape(),
            input.shape
        );
        gradient = gradient.sum_to(&input.shape);
    }
    let dtype = input.dtype();
    if gradient.dtype() != dtype { gradient.cast(dtype) } else { gradient }
}

/// `a + b`, in the memory of one of them where it is not shared and no graph is recorded.
fn add(a: Var, b: Var) -> Var {
    if grad_mode::is_grad_enabled() && (a.requires_grad() || b.requires_grad()) {
        return &a + &b;
    }
    if a.is_dual() || b.is_dual() {
        let _guard = grad_mode::set_mode(Mode::Forward);
        return &a + &b;
    }
    fn sum<T: Number>(a: Tensor, b: &Tensor) -> Tensor {
        strided::zip_assign(a, b, |x: T, y: T| x + y)
    }
    let (mut a, mut b) = (a.into_tensor(), b.into_tensor());
    if !a.is_unique() && b.is_unique() {
        std::mem::swap(&mut a, &mut b);
    }
    match (a.dtype(), b.dtype()) {
        (x, y) if x == y && matches!(x, crate::DType::F32 | crate::DType::F64) => {
            Var::from(crate::dispatch!(float: x, "backward", T => sum::<T>(a, &b)))
        }
        _ => &Var::from(a) + &Var::from(b),
    }
}
