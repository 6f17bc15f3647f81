//! State dicts: tensors by name, in a fixed order.

use crate::files::StoredType;
use std::collections::{BTreeMap, HashMap, HashSet};
use tapegrad_tape::{Tensor, Var};

/// Tensors by name, in insertion order, with notes (`torch.nn.Module.state_dict`).
///
/// ```
/// use tapegrad_nn::StateDict;
/// use tapegrad_tape::Tensor;
/// let mut state = StateDict::new();
/// state.insert("weight", Tensor::from_vec(vec![1f32, 2.0], &[2]));
/// assert_eq!(state.get("weight").unwrap().shape(), [2]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct StateDict {
    entries: Vec<(String, Tensor)>,
    places: HashMap<String, usize>,
    /// Notes that are saved with the tensors, such as a model's name.
    pub metadata: BTreeMap<String, String>,
    /// The types that tensors had in their file, where they were widened.
    stored: HashMap<String, StoredType>,
    /// What the file held besides these tensors, and why it was left out.
    pub(crate) skipped: Vec<(String, String)>,
}

impl StateDict {
    /// An empty one.
    pub fn new() -> StateDict {
        StateDict::default()
    }

    /// Inserts a tensor, replacing an earlier one of the same name.
    pub fn insert(&mut self, key: impl Into<String>, value: Tensor) {
        let key = key.into();
        self.stored.remove(&key);
        match self.places.get(&key) {
            Some(&i) => self.entries[i].1 = value,
            None => {
                self.places.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    /// Inserts a tensor that had another type in its file.
    pub(crate) fn insert_stored(&mut self, key: String, value: Tensor, stored: Option<StoredType>) {
        self.insert(key.clone(), value);
        if let Some(stored) = stored {
            self.stored.insert(key, stored);
        }
    }

    /// The type that a tensor of I64 had in the file that it was read from; it is saved as that type again if its values
    /// fit.
    pub fn stored_type(&self, key: &str) -> Option<StoredType> {
        self.stored.get(key).copied()
    }

    /// The members of the file that were left out when it was read, with the reason: arrays of strings, and
    /// elements of unsupported types ([`LoadOptions::skip_unsupported`](crate::LoadOptions::skip_unsupported)).
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// The tensor with this name.
    pub fn get(&self, key: &str) -> Option<&Tensor> {
        self.places.get(key).map(|&i| &self.entries[i].1)
    }

    /// Removes a tensor; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Tensor> {
        let i = self.places.remove(key)?;
        self.stored.remove(key);
        self.places.values_mut().filter(|p| **p > i).for_each(|p| *p -= 1);
        Some(self.entries.remove(i).1)
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The names in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(k, _)| k.as_str())
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Inserts all tensors of another state dict, with `prefix` and a dot before each name.
    pub fn insert_all(&mut self, prefix: &str, other: &StateDict) {
        for (key, value) in other.iter() {
            self.insert_stored(format!("{prefix}.{key}"), value.clone(), other.stored_type(key));
        }
    }

    /// The names whose tensors are also those of a name before them in the alphabet, with that name: files hold such a
    /// tensor once. (The rule of `safetensors.torch.save_model`.)
    pub(crate) fn tied(&self) -> BTreeMap<&str, &str> {
        let mut names: Vec<(&str, &Tensor)> = self.iter().collect();
        names.sort_by_key(|(key, _)| *key);
        let mut kept: Vec<(&str, &Tensor)> = Vec::new();
        let mut tied = BTreeMap::new();
        for (key, t) in names {
            match kept.iter().find(|(_, u)| same_elements(t, u)) {
                Some((first, _)) => drop(tied.insert(key, *first)),
                None => kept.push((key, t)),
            }
        }
        tied
    }

    /// Adds the tensors that the notes name as those of another name, and removes these notes.
    pub(crate) fn tie(&mut self) {
        for (key, first) in std::mem::take(&mut self.metadata) {
            match self.get(&first).filter(|_| self.get(&key).is_none()) {
                Some(t) => self.insert_stored(key, t.clone(), self.stored_type(&first)),
                None => drop(self.metadata.insert(key, first)),
            }
        }
    }

    /// The tensors whose names begin with `prefix` and a dot, without it.
    pub fn part(&self, prefix: &str) -> StateDict {
        let strip = |key: &str| key.strip_prefix(prefix)?.strip_prefix('.').map(String::from);
        let mut part = StateDict::new();
        for (key, value) in self.iter() {
            if let Some(name) = strip(key) {
                part.insert_stored(name, value.clone(), self.stored_type(key));
            }
        }
        part
    }
}

impl FromIterator<(String, Tensor)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(items: I) -> StateDict {
        let mut state = StateDict::new();
        items.into_iter().for_each(|(k, v)| state.insert(k, v));
        state
    }
}

/// Keys that a load without `strict` ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncompatibleKeys {
    /// In the module, but not in the state dict.
    pub missing: Vec<String>,
    /// In the state dict, but not in the module.
    pub unexpected: Vec<String>,
}

/// A tensor whose shape is not the module's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its name.
    pub key: String,
    /// The shape in the state dict.
    pub found: Vec<usize>,
    /// The shape in the module.
    pub expected: Vec<usize>,
}

/// A state dict does not fit a module. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct StateDictError {
    /// What the state was loaded into, such as `LeNet5`.
    pub target: String,
    /// In the module, but not in the state dict.
    pub missing: Vec<String>,
    /// In the state dict, but not in the module.
    pub unexpected: Vec<String>,
    /// Of another shape.
    pub mismatched: Vec<Mismatch>,
}

impl StateDictError {
    fn message(&self) -> String {
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("missing keys: {}", shortened(&self.missing)));
        }
        if !self.unexpected.is_empty() {
            parts.push(format!("unexpected keys: {}", shortened(&self.unexpected)));
        }
        if !self.mismatched.is_empty() {
            let list: Vec<String> = self
                .mismatched
                .iter()
                .map(|m| format!("{} has shape {:?}, expected {:?}", m.key, m.found, m.expected))
                .collect();
            parts.push(format!("shapes that differ: {}", shortened(&list)));
        }
        format!("the state dict does not fit {}: {}", self.target, parts.join("; "))
    }
}

/// True if two tensors are the same elements of the same memory.
pub(crate) fn same_elements(a: &Tensor, b: &Tensor) -> bool {
    let place = |t: &Tensor| (t.offset(), t.dtype());
    a.numel() > 0
        && a.shares_memory_with(b)
        && place(a) == place(b)
        && (a.shape(), a.strides()) == (b.shape(), b.strides())
}

/// A list in one line; the fields of the error hold all of it.
fn shortened(list: &[String]) -> String {
    const SHOWN: usize = 12;
    let rest = list.len().saturating_sub(SHOWN);
    let shown = list[..list.len() - rest].join(", ");
    if rest > 0 { format!("{shown}, and {rest} more") } else { shown }
}

/// Sets variables from the tensors with their names, all or none. A variable of several names needs one of them.
pub(crate) fn load(
    target: &str,
    variables: &[(String, Var)],
    state: &StateDict,
    strict: bool,
) -> Result<IncompatibleKeys, StateDictError> {
    let given: HashSet<u64> =
        variables.iter().filter(|(k, _)| state.get(k).is_some()).filter_map(|(_, v)| v.id()).collect();
    let is_missing =
        |k: &str, v: &Var| state.get(k).is_none() && v.id().is_none_or(|id| !given.contains(&id));
    let known: HashMap<&str, &Var> = variables.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let keys = IncompatibleKeys {
        missing: variables.iter().filter(|(k, v)| is_missing(k, v)).map(|(k, _)| k.clone()).collect(),
        unexpected: state.keys().filter(|k| !known.contains_key(k)).map(String::from).collect(),
    };
    let mismatched: Vec<Mismatch> = state
        .iter()
        .filter_map(|(key, t)| {
            let v = known.get(key).filter(|v| v.shape() != t.shape())?;
            Some(Mismatch { key: key.into(), found: t.shape().into(), expected: v.shape().into() })
        })
        .collect();
    if !mismatched.is_empty() || (strict && !(keys.missing.is_empty() && keys.unexpected.is_empty())) {
        let (missing, unexpected) = if strict { (keys.missing, keys.unexpected) } else { Default::default() };
        return Err(StateDictError { target: target.into(), missing, unexpected, mismatched });
    }
    for (key, v) in variables {
        if let Some(t) = state.get(key) {
            v.set_value(t.cast(v.dtype()).contiguous());
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_parts() {
        let mut s = StateDict::new();
        for (i, k) in ["b", "a", "c"].into_iter().enumerate() {
            s.insert(k, Tensor::scalar(i as i64));
        }
        s.remove("a");
        s.insert("c", Tensor::scalar(7i64));
        let mut all = StateDict::new();
        all.insert_all("model", &s);
        all.insert("modelled.x", Tensor::scalar(1i64));
        let back = all.part("model");
        assert_eq!(back.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(back.get("c").unwrap().item::<i64>(), 7);
    }

    #[test]
    fn the_message_names_the_keys() {
        let v = vec![("w".to_string(), Var::parameter(Tensor::scalar(1f32)))];
        let s: StateDict = [("x".to_string(), Tensor::scalar(1f32))].into_iter().collect();
        let message = load("Net", &v, &s, true).unwrap_err().to_string();
        assert_eq!(message, "the state dict does not fit Net: missing keys: w; unexpected keys: x");
    }
}
