//! `Var`: a value and its node in the graph.

use crate::cost::note_saved;
use crate::dtype::{DType, Element, Scalar};
use crate::forward::Tangents;
use crate::int_list::{Int, IntList};
use crate::node::{Leaf, Node};
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A tensor in the graph: a cheap handle to a value and, if it requires a gradient, to the operation that made it.
///
/// A clone is the same variable. Most operations are methods with PyTorch's names; `+ - * /` work between variables and
/// scalars.
///
/// ```
/// use tapegrad_tape::{Tensor, Var};
/// let x = Var::parameter(Tensor::from_vec(vec![1f32, 2.0, 3.0], &[3]));
/// let loss = (&x * &x).sum_all();
/// loss.backward();
/// assert_eq!(x.grad().unwrap().to_vec::<f32>(), [2.0, 4.0, 6.0]);
/// ```
#[derive(Clone)]
pub struct Var {
    /// `None` for a leaf, whose value is in its node and can be replaced.
    value: Option<Tensor>,
    node: Option<Arc<Node>>,
    /// In forward mode only.
    tangents: Option<Arc<Tangents>>,
}

impl From<Tensor> for Var {
    /// A constant.
    fn from(value: Tensor) -> Var {
        Var { value: Some(value), node: None, tangents: None }
    }
}

impl From<&Tensor> for Var {
    /// A constant.
    fn from(value: &Tensor) -> Var {
        Var::from(value.clone())
    }
}

impl<T: Into<Scalar>> From<T> for Var {
    /// A constant of one element and no dimension.
    fn from(value: T) -> Var {
        Var::from(Tensor::scalar(value))
    }
}

impl Var {
    /// A leaf that requires a gradient: `backward` accumulates it in [`Var::grad`].
    ///
    /// # Panics
    /// If the values are not floating point.
    #[track_caller]
    pub fn parameter(value: Tensor) -> Var {
        assert!(
            value.dtype().is_float(),
            "parameter: only floating-point tensors have gradients, not {}",
            value.dtype()
        );
        Var::of_leaf(Node::leaf(value, true))
    }

    /// A leaf without a gradient whose value can be replaced, such as a running mean.
    pub fn buffer(value: Tensor) -> Var {
        Var::of_leaf(Node::leaf(value, false))
    }

    /// A constant with the values of `data`, in row-major order.
    ///
    /// # Panics
    /// If their number does not match the shape.
    #[track_caller]
    pub fn from_vec<T: Element>(data: Vec<T>, shape: impl IntList) -> Var {
        let shape = &shape.to_sizes("from_vec");
        Tensor::from_vec(data, shape).into()
    }

    /// The result of a recorded operation.
    pub(crate) fn of_node(value: Tensor, node: Arc<Node>) -> Var {
        Var { value: Some(value), node: Some(node), tangents: None }
    }

    /// The variable of a leaf's node.
    pub(crate) fn of_leaf(node: Arc<Node>) -> Var {
        Var { value: None, node: Some(node), tangents: None }
    }

    /// Takes the place of a variable for as long as that is being changed; it has no value.
    pub(crate) fn placeholder() -> Var {
        Var { value: None, node: None, tangents: None }
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The leaf of a parameter or buffer.
    pub(crate) fn own_leaf(&self) -> Option<&Leaf> {
        if self.value.is_some() { None } else { self.leaf() }
    }

    /// True if something may stand for this variable on some thread.
    fn may_be_substituted(&self) -> bool {
        self.own_leaf().is_some_and(|leaf| leaf.substituted.load(Ordering::Relaxed) != 0)
    }

    /// What stands for this variable on this thread, if anything does: see [`crate::substitute`].
    fn stand_in(&self) -> Option<Var> {
        if self.may_be_substituted() { crate::substitute::find(self.id()?) } else { None }
    }

    /// True if this variable has no tangents, and nothing stands for it.
    pub(crate) fn is_plain(&self) -> bool {
        self.tangents.is_none() && !self.may_be_substituted()
    }

    /// This variable, or what stands for it.
    pub(crate) fn resolved(&self) -> Var {
        self.stand_in().unwrap_or_else(|| self.clone())
    }

    pub(crate) fn tangents(&self) -> Option<&Arc<Tangents>> {
        self.tangents.as_ref()
    }

    /// This variable with other tangents.
    pub(crate) fn with_tangents(self, tangents: Option<Arc<Tangents>>) -> Var {
        Var { tangents, ..self }
    }

    /// True if this variable has tangents that operations pass on.
    pub(crate) fn is_dual(&self) -> bool {
        self.tangents.as_ref().is_some_and(|t| t.is_live())
    }

    /// True if a gradient can flow to this variable.
    pub(crate) fn in_graph(&self) -> bool {
        self.node.as_ref().is_some_and(|n| n.requires_grad())
    }

    /// The current value with its tangents, but without its node in the graph.
    pub(crate) fn without_graph(&self) -> Var {
        Var { value: Some(self.tensor()), node: None, tangents: self.tangents.clone() }
    }

    /// This variable with its current value, which changes of a parameter do not affect.
    pub(crate) fn pinned(&self) -> Var {
        let pinned =
            |v: &Var| Var { value: Some(v.own_tensor()), node: v.node.clone(), tangents: v.tangents.clone() };
        self.stand_in().map_or_else(|| pinned(self), |v| pinned(&v))
    }

    /// The current value: a cheap handle that later changes of a leaf do not affect.
    pub fn tensor(&self) -> Tensor {
        self.stand_in().map_or_else(|| self.own_tensor(), |v| v.own_tensor())
    }

    fn own_tensor(&self) -> Tensor {
        match (&self.value, self.leaf()) {
            (Some(value), _) => value.clone(),
            (None, Some(leaf)) => leaf.value.read().unwrap_or_else(|e| e.into_inner()).clone(),
            (None, None) => unreachable!("a variable without a value is a leaf"),
        }
    }

    /// The value of a temporary, so that an operation may reuse its memory if nothing else needs it.
    pub fn into_tensor(self) -> Tensor {
        match self.value {
            Some(value) => value,
            None => self.tensor(),
        }
    }

    /// Takes the value out, for an operation that may change it in place; the node in the graph is kept. `None` for a
    /// leaf, and where the value may be needed elsewhere.
    pub(crate) fn take_value(&mut self) -> Option<Tensor> {
        let is_leaf = self.node.as_ref().is_some_and(|n| n.leaf.is_some());
        if is_leaf || self.tangents.is_some() || crate::grad_mode::is_anomaly_detected() {
            None
        } else {
            self.value.take()
        }
    }

    fn leaf(&self) -> Option<&Leaf> {
        self.node.as_ref().and_then(|n| n.leaf.as_deref())
    }

    /// The sizes.
    pub fn shape(&self) -> &[usize] {
        match (&self.value, &self.node) {
            (Some(value), _) => value.shape(),
            (None, Some(node)) => &node.shape,
            (None, None) => unreachable!("a variable without a value is a leaf"),
        }
    }

    /// The number of dimensions.
    pub fn ndim(&self) -> usize {
        self.shape().len()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        shape::numel(self.shape())
    }

    /// The size of a dimension; negative ones count from the back.
    ///
    /// # Panics
    /// If there is no such dimension.
    #[track_caller]
    pub fn size(&self, dim: impl Int) -> usize {
        self.shape().get(shape::dim("size", dim, self.ndim())).copied().unwrap_or(1)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match (&self.value, &self.node) {
            (Some(value), _) => value.dtype(),
            (None, Some(node)) => self.stand_in().map_or_else(|| node.dtype(), |v| v.own_tensor().dtype()),
            (None, None) => unreachable!("a variable without a value is a leaf"),
        }
    }

    /// The only element as `f64`.
    ///
    /// # Panics
    /// If there is not exactly one element.
    #[track_caller]
    pub fn item(&self) -> f64 {
        self.tensor().item::<f64>()
    }

    /// The elements in row-major order, converted to `T`.
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        self.tensor().to_vec()
    }

    /// True if operations on this variable are recorded, or pass on its tangent (in forward mode).
    pub fn requires_grad(&self) -> bool {
        let trained = |v: &Var| v.in_graph() || v.is_dual();
        self.stand_in().map_or_else(|| trained(self), |v| trained(&v))
    }

    /// True for variables that no recorded operation made: parameters, buffers and constants.
    pub fn is_leaf(&self) -> bool {
        self.node.as_ref().is_none_or(|n| n.leaf.is_some())
    }

    /// Freezes (`false`) or unfreezes (`true`) a parameter (`torch.Tensor.requires_grad_`).
    ///
    /// # Panics
    /// If this is not a parameter or buffer.
    #[track_caller]
    pub fn set_requires_grad(&self, requires_grad: bool) {
        let leaf =
            self.leaf().expect("set_requires_grad: only a parameter or buffer can be frozen or thawed");
        assert!(
            !requires_grad || self.dtype().is_float(),
            "set_requires_grad: {} has no gradients",
            self.dtype()
        );
        leaf.requires_grad.store(requires_grad, Ordering::Relaxed);
    }

    /// The name of the operation that made this variable, if one was recorded.
    pub fn op(&self) -> Option<&'static str> {
        self.node.as_ref().filter(|n| n.leaf.is_none()).map(|n| n.op)
    }

    /// The same value as a constant, without a node in the graph and without a tangent.
    pub fn detach(&self) -> Var {
        Var::from(self.tensor())
    }

    /// This variable for capture by a derivative rule: with its node in the graph and its current value.
    ///
    /// A parameter that is changed between the forward and the backward pass does not affect the gradient.
    pub fn saved(&self) -> Var {
        let saved = self.pinned();
        note_saved(saved.value.as_ref().map_or(0, Tensor::bytes));
        saved
    }

    /// Replaces a parameter's or buffer's value.
    ///
    /// # Panics
    /// If this is not a parameter or buffer, or the shape differs.
    #[track_caller]
    pub fn set_value(&self, value: Tensor) {
        self.update(|v| {
            assert_eq!(
                v.shape(),
                value.shape(),
                "set_value: the variable has shape {:?}, the value {:?}",
                v.shape(),
                value.shape()
            );
            *v = value;
        });
    }

    /// Changes a parameter's or buffer's value in place; what the graph has saved keeps the old one.
    ///
    /// # Panics
    /// If this is not a parameter or buffer, or `f` changes the shape.
    #[track_caller]
    pub fn update<R>(&self, f: impl FnOnce(&mut Tensor) -> R) -> R {
        let leaf = match (&self.value, self.leaf()) {
            (None, Some(leaf)) => leaf,
            _ => panic!("update: only a parameter or buffer can be changed in place"),
        };
        assert!(
            self.stand_in().is_none(),
            "update: another variable stands for this parameter of shape {:?}, which cannot be changed now",
            self.shape()
        );
        let mut value = leaf.value.write().unwrap_or_else(|e| e.into_inner());
        let result = f(&mut value);
        assert_eq!(value.shape(), self.shape(), "update: the shape of a variable cannot change");
        result
    }

    /// The accumulated gradient of a leaf, or of a variable that retains it.
    pub fn grad(&self) -> Option<Var> {
        self.node.as_ref().and_then(|n| n.grad())
    }

    /// The accumulated gradient of a leaf that operations such as a sparse `embedding` gave for some rows only (`coalesce`d, as
    /// PyTorch calls it): the rows in increasing order, `[n]`, and their gradients, `[n, ...]`. All other rows of
    /// [`Var::grad`] are zero. `None` where there is no gradient, or it is of all rows.
    ///
    /// The time that this takes is that of the rows, while [`Var::grad`] makes a tensor of all.
    pub fn grad_rows(&self) -> Option<(Tensor, Tensor)> {
        self.node.as_ref().and_then(|n| n.grad_rows())
    }

    /// Sets or clears the gradient.
    ///
    /// # Panics
    /// If this is a constant, or the shape differs.
    #[track_caller]
    pub fn set_grad(&self, grad: Option<Var>) {
        let node = self.node.as_ref().expect("set_grad: a constant has no gradient");
        if let Some(g) = &grad {
            assert_eq!(
                g.shape(),
                self.shape(),
                "set_grad: the variable has shape {:?}, the gradient {:?}",
                self.shape(),
                g.shape()
            );
        }
        node.replace_grad(grad);
    }

    /// Takes the gradient out, leaving none.
    pub fn take_grad(&self) -> Option<Var> {
        let node = self.node.as_ref()?;
        node.replace_grad(None).map(|grad| grad.into_dense(&node.shape))
    }

    /// Clears the gradient (`zero_grad(set_to_none=True)`).
    pub fn zero_grad(&self) {
        if let Some(node) = &self.node {
            node.replace_grad(None);
        }
    }

    /// Makes `backward` keep the gradient of a variable that is not a leaf (`torch.Tensor.retain_grad`).
    ///
    /// # Panics
    /// If the variable does not require a gradient.
    #[track_caller]
    pub fn retain_grad(&self) {
        assert!(self.in_graph(), "retain_grad: the variable does not require a gradient");
        self.node.as_ref().expect("requires a gradient").retain_grad();
    }

    /// Calls a function with the gradient of this variable each time that `backward` has computed it; what it returns,
    /// if anything, replaces the gradient.
    ///
    /// # Panics
    /// If the variable does not require a gradient.
    #[track_caller]
    pub fn register_hook(&self, hook: impl Fn(&Var) -> Option<Var> + Send + Sync + 'static) -> HookHandle {
        assert!(self.in_graph(), "register_hook: the variable does not require a gradient");
        let node = self.node.clone().expect("requires a gradient");
        let id = node.add_hook(Arc::new(hook));
        HookHandle { node: Arc::downgrade(&node), id }
    }

    /// Calls a function with this parameter each time that `backward` has added to its gradient
    /// (`torch.Tensor.register_post_accumulate_grad_hook`). `backward` does so as soon as no operation is left that uses the
    /// parameter, long before it ends: the hook of a last layer runs before the backward pass of the first one.
    ///
    /// The hook may change the value and take the gradient: what the backward pass still needs was saved. So an
    /// optimizer can step while the pass goes on, and no gradient outlives its step.
    ///
    /// ```
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::scalar(3.0));
    /// w.register_post_accumulate_grad_hook(|w| {
    ///     let g = w.take_grad().unwrap();
    ///     w.set_value((w.detach() - 0.1 * g).tensor());
    /// });
    /// (&w * &w).backward();
    /// assert!((w.item() - 2.4).abs() < 1e-6 && w.grad().is_none());
    /// ```
    ///
    /// A hook that holds the variable keeps it alive: use the argument. Where several threads run `backward` at once, the
    /// hook runs after each of their additions, on their threads.
    ///
    /// # Panics
    /// If this is not a parameter that requires a gradient.
    #[track_caller]
    pub fn register_post_accumulate_grad_hook(
        &self,
        hook: impl Fn(&Var) + Send + Sync + 'static,
    ) -> HookHandle {
        assert!(
            self.in_graph() && self.is_leaf(),
            "register_post_accumulate_grad_hook: only a parameter that requires a gradient accumulates one; see register_hook"
        );
        let node = self.node.clone().expect("requires a gradient");
        let id = node.add_accumulated_hook(Arc::new(hook));
        HookHandle { node: Arc::downgrade(&node), id }
    }

    /// A number that identifies a variable: equal for clones, `None` for constants.
    pub fn id(&self) -> Option<u64> {
        self.node.as_ref().map(|n| n.seq)
    }

    /// Dimensions checked for an operation of this name; none given means all.
    #[track_caller]
    pub fn dims(&self, op: &str, dims: impl IntList) -> Dims {
        shape::dims(op, &dims.to_isizes(), self.ndim())
    }
}

impl std::fmt::Debug for Var {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Var({:?}, {}", self.shape(), self.dtype())?;
        match self.op() {
            Some(op) => write!(f, ", op={op})"),
            None if self.requires_grad() => f.write_str(", requires_grad=true)"),
            None => f.write_str(")"),
        }
    }
}

/// Removes a hook again.
pub struct HookHandle {
    node: std::sync::Weak<Node>,
    id: u64,
}

impl HookHandle {
    /// Removes the hook; without this call it stays as long as its variable.
    pub fn remove(self) {
        if let Some(node) = self.node.upgrade() {
            node.remove_hook(self.id);
        }
    }
}
