//! What is derived from a module's fields, compiled once rather than for each type of module.

use super::{Buffer, Item, Module};
use crate::state_dict::{IncompatibleKeys, StateDict, StateDictError};
use std::collections::HashSet;
use tapegrad_tape::{DType, Var};

/// Calls its argument with each field of a module.
type Show<'s, 'a> = &'s dyn Fn(&mut dyn FnMut(&str, Item<'a>));

/// The type-erased fields of a module.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'s, 'a>(pub(crate) Show<'s, 'a>);

/// The function that [`Shown`] takes.
pub(crate) fn fields_of<'a, M: Module + ?Sized>(module: &'a M) -> impl Fn(&mut dyn FnMut(&str, Item<'a>)) {
    |f| module.visit_fields(f)
}

/// Walks a module: first its own fields, then the modules inside it, each before its contents.
pub(crate) fn walk<'a, M: Module + ?Sized>(module: &'a M, f: &mut dyn FnMut(&str, Item<'a>)) {
    Shown(&fields_of(module)).walk("", f);
}

impl<'a> Shown<'_, 'a> {
    fn walk(self, prefix: &str, f: &mut dyn FnMut(&str, Item<'a>)) {
        let path = |name: &str| if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        let mut children = Vec::new();
        (self.0)(&mut |name, item| match item {
            Item::Module(m) => children.push((path(name), m)),
            own => f(&path(name), own),
        });
        for (path, child) in children {
            f(&path, Item::Module(child));
            Shown(&fields_of(child)).walk(&path, f);
        }
    }

    pub(crate) fn named_parameters(self) -> Vec<(String, Var)> {
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        self.walk("", &mut |name, item| {
            if let Item::Parameter(p) = item
                && seen.insert(p.id())
            {
                list.push((name.to_string(), p.clone()));
            }
        });
        list
    }

    pub(crate) fn own_parameters(self) -> Vec<(String, Var)> {
        let mut list = Vec::new();
        (self.0)(&mut |name, item| {
            if let Item::Parameter(p) = item {
                list.push((name.to_string(), p.clone()));
            }
        });
        list
    }

    pub(crate) fn named_buffers(self) -> Vec<(String, Buffer)> {
        let mut list = Vec::new();
        self.walk("", &mut |name, item| {
            if let Item::Buffer(b) = item {
                list.push((name.to_string(), b.clone()));
            }
        });
        list
    }

    pub(crate) fn children(self) -> Vec<(String, &'a dyn Module)> {
        let mut list = Vec::new();
        (self.0)(&mut |name, item| {
            if let Item::Module(m) = item {
                list.push((name.to_string(), m));
            }
        });
        list
    }

    pub(crate) fn named_modules(self) -> Vec<(String, &'a dyn Module)> {
        let mut list = Vec::new();
        self.walk("", &mut |name, item| {
            if let Item::Module(m) = item {
                list.push((name.to_string(), m));
            }
        });
        list
    }

    pub(crate) fn set_training(self, training: bool) {
        self.walk("", &mut |_, item| {
            if let Item::Training(t) = item {
                t.set(training);
            }
        });
    }

    pub(crate) fn is_training(self) -> bool {
        let mut mode = None;
        self.walk("", &mut |_, item| {
            if let Item::Training(t) = item {
                mode.get_or_insert(t.get());
            }
        });
        mode.unwrap_or(true)
    }

    #[track_caller]
    pub(crate) fn to_dtype(self, dtype: DType) {
        assert!(dtype.is_float(), "to_dtype: a module's dtype must be floating point, got {dtype}");
        self.walk("", &mut |_, item| {
            let v: &Var = match item {
                Item::Parameter(p) => p,
                Item::Buffer(b) if b.dtype().is_float() => b,
                _ => return,
            };
            v.update(|t| *t = t.cast(dtype));
            if let Some(g) = v.grad() {
                v.set_grad(Some(g.cast(dtype)));
            }
        });
    }

    pub(crate) fn state_dict(self) -> StateDict {
        let mut state = StateDict::new();
        for (name, v) in self.targets() {
            state.insert(name, v.tensor());
        }
        state
    }

    pub(crate) fn load(
        self,
        class: &str,
        state: &StateDict,
        strict: bool,
    ) -> Result<IncompatibleKeys, StateDictError> {
        crate::state_dict::load(class, &self.targets(), state, strict)
    }

    /// The parameters and buffers, which a state dict holds.
    fn targets(self) -> Vec<(String, Var)> {
        let mut targets = Vec::new();
        self.walk("", &mut |name, item| match item {
            Item::Parameter(p) => targets.push((name.to_string(), p.clone())),
            Item::Buffer(b) => targets.push((name.to_string(), (**b).clone())),
            _ => {}
        });
        targets
    }
}

pub(crate) fn without_names(list: Vec<(String, Var)>) -> Vec<Var> {
    list.into_iter().map(|(_, p)| p).collect()
}

pub(crate) fn zero_grad(parameters: Vec<Var>) {
    parameters.iter().for_each(Var::zero_grad);
}

pub(crate) fn set_requires_grad(parameters: Vec<Var>, requires_grad: bool) {
    parameters.iter().for_each(|p| p.set_requires_grad(requires_grad));
}

pub(crate) fn count(parameters: Vec<Var>) -> usize {
    parameters.iter().map(Var::numel).sum()
}
