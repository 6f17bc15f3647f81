//! Derivatives of functions (`torch.func`, `torch.autograd.functional`).
//!
//! They may be nested in any way. What a function returns depends on the graph and has tangents where its inputs, or what it
//! captures, do.

use crate::backward::{GradOptions, external_nodes, grad_with};
use crate::forward::Scope;
use crate::grad_mode::{self, Mode, enable_grad};
use crate::movement::stack;
use crate::node::{next_number, record_linear};
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

/// The most tangents that are computed in one call of a function.
const DIRECTIONS: usize = 64;

fn zeros_like(x: &Var) -> Var {
    Tensor::zeros_with(x.shape(), x.dtype()).into()
}

/// A variable of its own with the value of `x`, to differentiate for. Outer derivatives pass through.
#[track_caller]
fn fresh(x: &Var) -> Var {
    if grad_mode::mode() == Mode::On && x.in_graph() {
        return record_linear("alias", x, x.tensor(), Var::clone, |c| [Some(c.into_grad())]);
    }
    Var::parameter(x.tensor()).with_tangents(x.tangents().cloned())
}

/// A function's value, and what is needed for its gradients.
struct Traced {
    inputs: Vec<Var>,
    y: Var,
    /// Whether the gradients may be differentiated in turn.
    create: bool,
}

impl Traced {
    #[track_caller]
    fn new(f: impl Fn(&[Var]) -> Var, inputs: &[Var]) -> Traced {
        let (mode, start) = (grad_mode::mode(), next_number());
        let inputs: Vec<Var> = inputs.iter().map(fresh).collect();
        let y = enable_grad(|| f(&inputs));
        // The graph leads out of the function.
        let create = mode == Mode::On && !external_nodes(&y, start).is_empty();
        Traced { inputs, y, create }
    }

    /// The gradients of the inputs from that of the value, which is one by default.
    #[track_caller]
    fn gradients(&self, v: Option<Var>, again: bool) -> Vec<Var> {
        let zeros = || self.inputs.iter().map(zeros_like).collect();
        if !self.y.in_graph() {
            return zeros();
        }
        let inner = v.as_ref().is_some_and(|v| grad_mode::mode() == Mode::On && v.in_graph());
        let mut options = GradOptions::new().retain_graph(again).create_graph(self.create || inner);
        options.grad_outputs = v.map(|v| vec![v]);
        let gradients = grad_with(&[&self.y], &self.inputs.iter().collect::<Vec<_>>(), options);
        gradients.into_iter().zip(&self.inputs).map(|(g, x)| g.unwrap_or_else(|| zeros_like(x))).collect()
    }

    fn value(self) -> Var {
        if self.create { self.y } else { self.y.without_graph() }
    }
}

/// Runs a function in which tangents are passed on. Inside [`no_grad`](crate::no_grad) no graph is kept.
fn forward<R>(f: impl FnOnce() -> R) -> R {
    let _guard = (grad_mode::mode() == Mode::Off).then(|| grad_mode::set_mode(Mode::Forward));
    f()
}

/// A function's value at `inputs`, and the product of `v` with its Jacobian: `v` has the shape of the value,
/// the products those of the inputs (`torch.func.vjp`). One forward and one backward pass.
///
/// # Panics
/// If the shape of `v` is not that of the value, or an input is not floating point.
///
/// ```
/// use tapegrad_tape::{Var, vjp};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2]);
/// let (y, g) = vjp(|x| &x[0] * &x[0], &[x], &Var::from_vec(vec![1f64, 10.0], &[2]));
/// assert_eq!((y.to_vec::<f64>(), g[0].to_vec::<f64>()), (vec![1.0, 4.0], vec![2.0, 40.0]));
/// ```
#[track_caller]
pub fn vjp(f: impl Fn(&[Var]) -> Var, inputs: &[Var], v: &Var) -> (Var, Vec<Var>) {
    let traced = Traced::new(f, inputs);
    assert_eq!(traced.y.shape(), v.shape(), "vjp: the vector has to have the shape of the function's value");
    let gradients = traced.gradients(Some(v.clone()), false);
    (traced.value(), gradients)
}

/// The value of a function with one element, and its gradients for `inputs` (`torch.func.grad_and_value`).
///
/// # Panics
/// If the function's value has more than one element, or an input is not floating point.
///
/// ```
/// use tapegrad_tape::{Var, value_and_grad};
/// let (y, g) = value_and_grad(|x| (&x[0] * &x[0]).sum_all(), &[Var::from_vec(vec![1f64, 2.0], &[2])]);
/// assert_eq!((y.item(), g[0].to_vec::<f64>()), (5.0, vec![2.0, 4.0]));
/// ```
#[track_caller]
pub fn value_and_grad(f: impl Fn(&[Var]) -> Var, inputs: &[Var]) -> (Var, Vec<Var>) {
    let traced = Traced::new(f, inputs);
    check_scalar("value_and_grad", &traced.y);
    let gradients = traced.gradients(None, false);
    (traced.value(), gradients)
}

#[track_caller]
fn check_scalar(op: &str, y: &Var) {
    assert_eq!(y.numel(), 1, "{op}: the function's value has to be one number, got shape {:?}", y.shape());
}

/// A function's value at `inputs`, and the product of its Jacobian with the tangents `v`, which have the shapes of the
/// inputs (`torch.func.jvp`). Forward mode: each operation passes its tangent on as it runs, and there is no backward pass.
///
/// Where the function uses parameters, or the inputs are part of a graph, so are the results. Inside
/// [`no_grad`](crate::no_grad), no graph is kept, which is cheaper.
///
/// # Panics
/// If a tangent has another shape than its input, or an input is not floating point.
///
/// ```
/// use tapegrad_tape::{Var, jvp};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2]);
/// let (_, t) = jvp(|x| &x[0] * &x[0], &[x], &[Var::from_vec(vec![1f64, 10.0], &[2])]);
/// assert_eq!(t.to_vec::<f64>(), [2.0, 40.0]);
/// ```
#[track_caller]
pub fn jvp(f: impl Fn(&[Var]) -> Var, inputs: &[Var], v: &[Var]) -> (Var, Var) {
    assert_eq!(inputs.len(), v.len(), "jvp: {} inputs, but {} tangents", inputs.len(), v.len());
    let scope = Scope::open();
    let place = |(i, (x, v)): (usize, (&Var, &Var))| {
        assert_eq!(x.shape(), v.shape(), "jvp: tangent {i} has to have the shape of its input");
        assert!(x.dtype().is_float(), "jvp: input {i} is {}, which has no tangents", x.dtype());
        scope.dual(x, [Some(if v.dtype() == x.dtype() { v.clone() } else { v.cast(x.dtype()) })])
    };
    let duals: Vec<Var> = inputs.iter().zip(v).enumerate().map(place).collect();
    let (y, mut t) = scope.split(forward(|| f(&duals)), 1);
    let t = t.remove(0).unwrap_or_else(|| zeros_like(&y));
    (y, t)
}

/// All first derivatives of a function: the shape is that of the value, then that of the input (`torch.func.jacfwd` or
/// `jacrev`). In forward mode where the input has fewer elements than the value, otherwise by backward passes.
///
/// ```
/// use tapegrad_tape::{Var, jacobian};
/// let j = jacobian(|x| x * x, &Var::from_vec(vec![1f64, 2.0], &[2]));
/// assert_eq!((j.shape(), j.to_vec::<f64>()), (&[2, 2][..], vec![2.0, 0.0, 0.0, 4.0]));
/// ```
#[track_caller]
pub fn jacobian(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    let traced = Traced::new(|x| f(&x[0]), std::slice::from_ref(x));
    if x.numel() < traced.y.numel() {
        drop(traced);
        return jacfwd(f, x);
    }
    rows(&traced)
}

/// The Jacobian of a function in forward mode, one tangent for each element of the input (`torch.func.jacfwd`).
///
/// ```
/// use tapegrad_tape::{Var, jacfwd};
/// let j = jacfwd(|x| x * x, &Var::from_vec(vec![1f64, 2.0], &[2]));
/// assert_eq!((j.shape(), j.to_vec::<f64>()), (&[2, 2][..], vec![2.0, 0.0, 0.0, 4.0]));
/// ```
#[track_caller]
pub fn jacfwd(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    let columns = along_axes("jacfwd", x, f);
    let shape = [columns[0].shape(), x.shape()].concat();
    if x.numel() == 0 {
        return Tensor::zeros_with(&shape, columns[0].dtype()).into();
    }
    stack(&columns.iter().collect::<Vec<_>>(), -1).reshape_to(&shape)
}

/// The Jacobian of a function by backward passes, one for each element of its value (`torch.func.jacrev`).
///
/// ```
/// use tapegrad_tape::{Var, jacrev};
/// let j = jacrev(|x| x * x, &Var::from_vec(vec![1f64, 2.0], &[2]));
/// assert_eq!((j.shape(), j.to_vec::<f64>()), (&[2, 2][..], vec![2.0, 0.0, 0.0, 4.0]));
/// ```
#[track_caller]
pub fn jacrev(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    rows(&Traced::new(|x| f(&x[0]), std::slice::from_ref(x)))
}

/// The tangents of a function for the unit vectors; one of zeros if there are none.
#[track_caller]
fn along_axes(op: &str, x: &Var, f: impl Fn(&Var) -> Var) -> Vec<Var> {
    assert!(x.dtype().is_float(), "{op}: the input is {}, which has no tangents", x.dtype());
    let n = x.numel();
    let axis = |k: usize| {
        let unit = |i: usize| if i == k { 1f64 } else { 0.0 };
        Var::from(Tensor::from_vec((0..n).map(unit).collect(), x.shape()).cast(x.dtype()))
    };
    let mut columns = Vec::with_capacity(n.max(1));
    while columns.len() < n.max(1) {
        let (start, scope) = (columns.len(), Scope::open());
        let count = DIRECTIONS.min(n - start);
        let dual = scope.dual(x, (start..start + count).map(|k| Some(axis(k))));
        let (y, tangents) = scope.split(forward(|| f(&dual)), count.max(1));
        shape::numel_for(op, &[y.shape(), x.shape()].concat());
        columns.extend(tangents.into_iter().map(|t| t.unwrap_or_else(|| zeros_like(&y))));
    }
    columns
}

/// The gradients of each element of the value, concatenated.
#[track_caller]
fn rows(traced: &Traced) -> Var {
    let (x, y) = (&traced.inputs[0], &traced.y);
    let shape = [y.shape(), x.shape()].concat();
    shape::numel_for("jacobian", &shape);
    if !y.in_graph() || y.numel() == 0 {
        return Tensor::zeros_with(&shape, x.dtype()).into();
    }
    let row = |k: usize| {
        let mut seed = vec![0f64; y.numel()];
        seed[k] = 1.0;
        let seed = Tensor::from_vec(seed, y.shape()).cast(y.dtype());
        traced.gradients(Some(seed.into()), true).remove(0)
    };
    let rows: Vec<Var> = (0..y.numel()).map(row).collect();
    stack(&rows.iter().collect::<Vec<_>>(), 0).reshape_to(&shape)
}

/// All second derivatives of a function with one value: the input's shape twice (`torch.func.hessian`). Backward
/// passes over a recorded one, which take less time than forward mode over it.
///
/// # Panics
/// If the function's value has more than one element.
///
/// ```
/// use tapegrad_tape::{Var, hessian};
/// let h = hessian(|x| (x * x * x).sum_all(), &Var::from_vec(vec![1f64, 2.0], &[2]));
/// assert_eq!(h.to_vec::<f64>(), [6.0, 0.0, 0.0, 12.0]);
/// ```
#[track_caller]
pub fn hessian(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    jacrev(|x| gradient("hessian", &f, x), x)
}

/// The gradient of a function with one value at `x`, and the product of its Hessian with `v`: forward mode over a backward pass
/// (`torch.autograd.functional.hvp`, `torch.func.jvp` of `grad`).
///
/// # Panics
/// If the function's value has more than one element, or `v` has another shape than `x`.
///
/// ```
/// use tapegrad_tape::{Var, hvp};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2]);
/// let (g, h) = hvp(|x| (x * x * x).sum_all(), &x, &Var::from_vec(vec![1f64, 10.0], &[2]));
/// assert_eq!((g.to_vec::<f64>(), h.to_vec::<f64>()), (vec![3.0, 12.0], vec![6.0, 120.0]));
/// ```
#[track_caller]
pub fn hvp(f: impl Fn(&Var) -> Var, x: &Var, v: &Var) -> (Var, Var) {
    jvp(|x| gradient("hvp", &f, &x[0]), std::slice::from_ref(x), std::slice::from_ref(v))
}

#[track_caller]
fn gradient(op: &str, f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    let traced = Traced::new(|x| f(&x[0]), std::slice::from_ref(x));
    check_scalar(op, &traced.y);
    traced.gradients(None, false).remove(0)
}
