//! The named fields of a module, and what is derived from them.

mod shown;

use crate::state_dict::{IncompatibleKeys, StateDict, StateDictError};
use shown::{Shown, fields_of};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use tapegrad_tape::{DType, Tensor, Var};

pub(crate) use shown::walk;

/// A tensor of a module that is saved with it but not trained, such as a running mean
/// (`torch.nn.Module.register_buffer`).
#[derive(Clone)]
pub struct Buffer(Var);

impl Buffer {
    /// A buffer with this value.
    pub fn new(value: Tensor) -> Buffer {
        Buffer(Var::buffer(value))
    }
}

impl Deref for Buffer {
    type Target = Var;
    fn deref(&self) -> &Var {
        &self.0
    }
}

/// The training mode that a module's `forward` reads; initially true.
///
/// [`Module::train`] and [`Module::eval`] set the mode of a whole model.
#[derive(Debug)]
pub struct Training(AtomicBool);

impl Training {
    /// True while training.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the mode of this module only.
    pub fn set(&self, training: bool) {
        self.0.store(training, Ordering::Relaxed);
    }
}

impl Default for Training {
    fn default() -> Training {
        Training(AtomicBool::new(true))
    }
}

/// What a module passes to a visitor.
#[derive(Clone, Copy)]
pub enum Item<'a> {
    /// A trainable tensor.
    Parameter(&'a Var),
    /// A saved tensor that is not trained.
    Buffer(&'a Buffer),
    /// A module inside the module.
    Module(&'a dyn Module),
    /// A training mode.
    Training(&'a Training),
}

/// A type that can be a field of a [`module!`](crate::module): it visits its contents under its name.
///
/// Modules, [`Var`] (a parameter), [`Buffer`], [`Training`], lists and options of them, and plain values are
/// fields. A plain type of your own becomes one with `impl tapegrad_nn::Field for MyEnum {}`.
pub trait Field {
    /// Calls `f` with each item. A plain value has none.
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        let _ = (name, f);
    }
}

macro_rules! plain_fields {
    ($($ty:ty)*) => {$(impl Field for $ty {})*};
}
plain_fields! { usize isize u64 i64 u32 i32 u8 bool f32 f64 String &'static str DType }

impl Field for () {}

impl<T> Field for fn(&T) -> T {}

impl Field for Var {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        if self.id().is_some() {
            f(name, Item::Parameter(self));
        }
    }
}

impl Field for Buffer {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        f(name, Item::Buffer(self));
    }
}

impl Field for Training {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        f(name, Item::Training(self));
    }
}

impl<F: Field> Field for Option<F> {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        if let Some(field) = self {
            field.visit(name, f);
        }
    }
}

fn visit_list<'a, F: Field>(list: &'a [F], name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
    for (i, field) in list.iter().enumerate() {
        field.visit(&format!("{name}.{i}"), f);
    }
}

impl<F: Field> Field for Vec<F> {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        visit_list(self, name, f);
    }
}

impl<F: Field, const N: usize> Field for [F; N] {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        visit_list(self, name, f);
    }
}

/// A map, in the order of its keys (`torch.nn.ModuleDict`, `ParameterDict`).
impl<K: Display + Ord, F: Field> Field for BTreeMap<K, F> {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        for (key, field) in self {
            field.visit(&format!("{name}.{key}"), f);
        }
    }
}

macro_rules! tuples {
    ($($field:ident $place:tt),*) => {
        impl<$($field: Field),*> Field for ($($field,)*) {
            fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
                $(self.$place.visit(&format!(concat!("{}.", stringify!($place)), name), f);)*
            }
        }
    };
}
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);

impl<M: Module> Field for M {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        f(name, Item::Module(self));
    }
}

/// The named fields of a module, and everything derived from them: parameters, buffers, modes, state dicts.
///
/// The macro [`module!`](crate::module) implements it; by hand, implement [`Module::visit_fields`] and
/// [`Module::class`]. Names are PyTorch's: `features.0.weight`, `layer1.0.bn1.running_mean`.
pub trait Module: Send + Sync + 'static {
    /// Calls `f` with the name and the content of each field, in the order of declaration.
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>));

    /// The name of the type, such as `Conv2d`.
    fn class(&self) -> &'static str;

    /// The module's address, seen through boxes: its identity.
    #[doc(hidden)]
    fn address(&self) -> *const () {
        std::ptr::from_ref(self).cast()
    }

    /// The module's type, seen through boxes: what [`dyn Module::is`](trait.Module.html#method.is) compares. Two types of
    /// the same name are not the same.
    #[doc(hidden)]
    fn type_of(&self) -> TypeId {
        TypeId::of::<Self>()
    }

    /// All parameters and their names, each once, in PyTorch's order: a module's own before those of the
    /// modules inside it (`torch.nn.Module.named_parameters`).
    fn named_parameters(&self) -> Vec<(String, Var)> {
        Shown(&fields_of(self)).named_parameters()
    }

    /// All parameters, each once (`torch.nn.Module.parameters`).
    fn parameters(&self) -> Vec<Var> {
        shown::without_names(self.named_parameters())
    }

    /// All buffers and their names (`torch.nn.Module.named_buffers`).
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        Shown(&fields_of(self)).named_buffers()
    }

    /// The modules that are fields of this one, with their names (`torch.nn.Module.named_children`).
    fn children(&self) -> Vec<(String, &dyn Module)> {
        Shown(&fields_of(self)).children()
    }

    /// All modules inside this one, with their paths; a module before those inside it
    /// (`torch.nn.Module.named_modules` without the module itself).
    fn named_modules(&self) -> Vec<(String, &dyn Module)> {
        Shown(&fields_of(self)).named_modules()
    }

    /// Switches the whole model to training or, with `false`, to evaluation (`torch.nn.Module.train`).
    fn set_training(&self, training: bool) {
        Shown(&fields_of(self)).set_training(training);
    }

    /// Switches the whole model to training: dropout drops, batch norm uses the batch's statistics.
    fn train(&self) {
        self.set_training(true);
    }

    /// Switches the whole model to evaluation.
    fn eval(&self) {
        self.set_training(false);
    }

    /// The mode of the first module that has one; true if there is none.
    fn is_training(&self) -> bool {
        Shown(&fields_of(self)).is_training()
    }

    /// Clears all gradients (`torch.nn.Module.zero_grad`).
    fn zero_grad(&self) {
        shown::zero_grad(self.parameters());
    }

    /// Freezes (`false`) or unfreezes (`true`) all parameters (`torch.nn.Module.requires_grad_`).
    fn set_requires_grad(&self, requires_grad: bool) {
        shown::set_requires_grad(self.parameters(), requires_grad);
    }

    /// Calls `f` with every module inside this one, innermost first (`torch.nn.Module.apply`).
    ///
    /// ```
    /// use tapegrad_nn::{Module, Linear, Sequential, init};
    /// let model = tapegrad_nn::sequential![Linear::new(4, 8), Linear::new(8, 2)];
    /// model.apply(&mut |m| {
    ///     for (name, p) in m.own_parameters() {
    ///         if name == "weight" {
    ///             init::ones_(&p);
    ///         }
    ///     }
    /// });
    /// assert_eq!(model.parameters()[0].to_vec::<f32>()[0], 1.0);
    /// ```
    fn apply(&self, f: &mut dyn FnMut(&dyn Module)) {
        self.visit_fields(&mut |_, item| {
            if let Item::Module(m) = item {
                m.apply(f);
                f(m);
            }
        });
    }

    /// The parameters that are fields of this module itself.
    fn own_parameters(&self) -> Vec<(String, Var)> {
        Shown(&fields_of(self)).own_parameters()
    }

    /// Converts all floating-point parameters and buffers (`torch.nn.Module.to(dtype)`).
    ///
    /// # Panics
    /// If `dtype` is not a floating-point type.
    #[track_caller]
    fn to_dtype(&self, dtype: DType) {
        Shown(&fields_of(self)).to_dtype(dtype);
    }

    /// The number of parameter elements, frozen ones included.
    fn num_parameters(&self) -> usize {
        shown::count(self.parameters())
    }

    /// All parameters and buffers by name, in PyTorch's order (`torch.nn.Module.state_dict`). Later training
    /// does not change it.
    fn state_dict(&self) -> StateDict {
        Shown(&fields_of(self)).state_dict()
    }

    /// Sets parameters and buffers from a state dict of the same keys, converting their types
    /// (`torch.nn.Module.load_state_dict`). A parameter of several names needs one of them.
    ///
    /// # Errors
    /// Lists the keys that are missing, unexpected or of another shape. Then nothing is changed.
    fn load_state_dict(&self, state: &StateDict) -> Result<IncompatibleKeys, StateDictError> {
        self.load_state_dict_with(state, true)
    }

    /// [`Module::load_state_dict`], where without `strict` keys may be missing and unexpected: they are returned.
    ///
    /// # Errors
    /// Same as [`Module::load_state_dict`].
    fn load_state_dict_with(
        &self,
        state: &StateDict,
        strict: bool,
    ) -> Result<IncompatibleKeys, StateDictError> {
        Shown(&fields_of(self)).load(self.class(), state, strict)
    }
}

impl dyn Module {
    /// True if this module is of type `M` (`isinstance`), seen through boxes.
    ///
    /// ```
    /// use tapegrad_nn::{Module, Linear, ReLU, sequential};
    /// let model = sequential![Linear::new(4, 8), ReLU::new(), Linear::new(8, 2)];
    /// let linear = model.named_modules().iter().filter(|(_, m)| m.is::<Linear>()).count();
    /// assert_eq!(linear, 2);
    /// ```
    pub fn is<M: Module>(&self) -> bool {
        self.type_of() == TypeId::of::<M>()
    }
}

/// A module as PyTorch prints it: its type, and the modules inside it, each in a line. A module without modules shows the
/// shapes of its parameters.
impl fmt::Debug for dyn Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_module(self, f)
    }
}

/// What `Debug` does for modules, for a type that implements [`Module`] by hand; [`module!`](crate::module) does it itself.
///
/// # Errors
/// If the formatter fails.
pub fn print_module(module: &dyn Module, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    print(module, f, 0)
}

fn print(module: &dyn Module, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    f.write_str(module.class())?;
    f.write_str("(")?;
    let indent = "  ".repeat(depth);
    let children = module.children();
    let mut between = "";
    for (name, p) in module.own_parameters() {
        let (open, frozen) = if children.is_empty() {
            (between.to_string(), if p.requires_grad() { "" } else { " frozen" })
        } else {
            (format!("\n{indent}  "), if p.requires_grad() { "" } else { " frozen" })
        };
        write!(f, "{open}{name}={:?}{frozen}", p.shape())?;
        between = ", ";
    }
    for (name, child) in &children {
        write!(f, "\n{indent}  ({name}): ")?;
        print(*child, f, depth + 1)?;
    }
    if !children.is_empty() {
        write!(f, "\n{indent}")?;
    }
    f.write_str(")")
}
