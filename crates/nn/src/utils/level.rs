//! Where the computed parameters of a model are, and what they are computed from.

use super::parametrize::Parametrization;
use super::prune::Pruned;
use crate::fields::{Item, Module};
use std::any::TypeId;
use std::sync::Arc;
use tapegrad_tape::Var;

/// Where a parameter is in a model.
pub(super) struct Place {
    /// The names of the modules on the way.
    pub(super) path: Vec<String>,
    /// Its name in the last of them.
    pub(super) name: String,
    pub(super) leaf: Var,
    /// The type of that module.
    pub(super) owner: TypeId,
}

pub(super) fn locate(module: &dyn Module, name: &str) -> Option<Place> {
    let mut found = None;
    module.visit_fields(&mut |field, item| match item {
        Item::Parameter(p) if field == name => {
            let owner = module.type_of();
            found = Some(Place { path: Vec::new(), name: name.into(), leaf: p.clone(), owner });
        }
        Item::Module(m) if found.is_none() => {
            if let Some(rest) = name.strip_prefix(field).and_then(|rest| rest.strip_prefix('.')) {
                found = locate(m, rest);
                if let Some(place) = &mut found {
                    place.path.insert(0, field.into());
                }
            }
        }
        _ => {}
    });
    found
}

/// A module of the model that has computed parameters, or modules with such.
pub(super) struct Level<M> {
    pub(super) model: Arc<M>,
    /// The way to the module.
    path: Vec<String>,
    pub(super) entries: Vec<Entry>,
    pub(super) children: Vec<(String, Level<M>)>,
}

impl<M: Module> Level<M> {
    pub(super) fn new(model: Arc<M>, path: Vec<String>) -> Level<M> {
        Level { model, path, entries: Vec::new(), children: Vec::new() }
    }

    /// The module itself.
    fn module(&self) -> &dyn Module {
        let mut module: &dyn Module = &*self.model;
        for name in &self.path {
            let mut found = None;
            module.visit_fields(&mut |field, item| match item {
                Item::Module(m) if field == name => found = Some(m),
                _ => {}
            });
            module = found.expect("it was there when its parameter was parametrized");
        }
        module
    }

    pub(super) fn entry(&self, path: &[String], name: &str) -> Option<&Entry> {
        let level = path.iter().try_fold(self, |level, name| child_of(level, name))?;
        level.entries.iter().find(|e| e.name == name)
    }

    /// The level of a module on this way.
    pub(super) fn below_mut(&mut self, path: &[String]) -> Option<&mut Level<M>> {
        path.iter().try_fold(self, |level, name| {
            level.children.iter_mut().find(|(n, _)| n == name).map(|(_, child)| child)
        })
    }

    pub(super) fn each_entry(&self, f: &mut dyn FnMut(&Entry)) {
        self.entries.iter().for_each(&mut *f);
        self.children.iter().for_each(|(_, child)| child.each_entry(f));
    }

    pub(super) fn end_all(&mut self) {
        self.entries.drain(..).for_each(|entry| entry.end());
        self.children.iter_mut().for_each(|(_, child)| child.end_all());
    }
}

fn child_of<'a, M>(level: &'a Level<M>, name: &str) -> Option<&'a Level<M>> {
    level.children.iter().find(|(n, _)| n == name).map(|(_, child)| child)
}

/// The module, with what is trained in the place of its computed parameters.
impl<M: Module> Module for Level<M> {
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
        self.module().visit_fields(&mut |name, item| match item {
            Item::Parameter(_) if self.entries.iter().any(|e| e.name == name) => {}
            Item::Module(_) => match child_of(self, name) {
                Some(child) => f(name, Item::Module(child)),
                None => f(name, item),
            },
            _ => f(name, item),
        });
        let pruned = |e: &'a Entry| match &e.source {
            Source::Pruned(pruned) => Some((e, pruned)),
            Source::Parametrizations(_) => None,
        };
        for (entry, _) in self.entries.iter().filter_map(pruned) {
            f(&format!("{}_orig", entry.name), Item::Parameter(&entry.leaf));
        }
        for (entry, pruned) in self.entries.iter().filter_map(pruned) {
            f(&format!("{}_mask", entry.name), Item::Buffer(&pruned.mask));
        }
        for entry in &self.entries {
            if let Source::Parametrizations(list) = &entry.source {
                f(&format!("parametrizations.{}", entry.name), Item::Module(list));
            }
        }
    }
    fn class(&self) -> &'static str {
        self.module().class()
    }
    fn address(&self) -> *const () {
        self.module().address()
    }
    fn type_of(&self) -> TypeId {
        self.module().type_of()
    }
}

/// A parameter that is computed.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) leaf: Var,
    pub(super) source: Source,
}

/// What a parameter is computed from.
pub(super) enum Source {
    Parametrizations(ParametrizationList),
    Pruned(Pruned),
}

impl Entry {
    pub(super) fn value(&self) -> Var {
        let value = match &self.source {
            Source::Parametrizations(list) => list.value(),
            Source::Pruned(pruned) => pruned.value(&self.leaf),
        };
        let (got, wanted) = (value.shape(), self.leaf.shape());
        assert!(got == wanted, "{}: computed in shape {got:?}, but the parameter has {wanted:?}", self.name);
        value
    }

    /// Makes the current value the parameter's own.
    pub(super) fn end(&self) {
        let value = tapegrad_tape::no_grad(|| self.value());
        let frozen = match &self.source {
            Source::Parametrizations(list) => list.originals.iter().all(|p| !p.requires_grad()),
            Source::Pruned(_) => !self.leaf.requires_grad(),
        };
        self.leaf.set_value(value.tensor());
        self.leaf.set_requires_grad(!frozen);
        self.leaf.zero_grad();
    }
}

/// The parametrizations of one tensor, and what is trained.
pub(super) struct ParametrizationList {
    pub(super) originals: Vec<Var>,
    pub(super) parametrizations: Vec<Box<dyn Parametrization>>,
}

impl ParametrizationList {
    fn value(&self) -> Var {
        let (first, later) = self.parametrizations.split_first().expect("never empty");
        let start = first.compute(&self.originals);
        later.iter().fold(start, |value, p| p.compute(std::slice::from_ref(&value)))
    }
}

impl Module for ParametrizationList {
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
        match &self.originals[..] {
            [one] => f("original", Item::Parameter(one)),
            several => {
                for (i, original) in several.iter().enumerate() {
                    f(&format!("original{i}"), Item::Parameter(original));
                }
            }
        }
        for (i, parametrization) in self.parametrizations.iter().enumerate() {
            f(&i.to_string(), Item::Module(&**parametrization));
        }
    }
    fn class(&self) -> &'static str {
        "ParametrizationList"
    }
}
