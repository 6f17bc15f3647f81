//! How files of weights are read.

use super::FileError;
use crate::StateDict;
use std::fs;
use std::path::Path;

/// How a file of weights is read, where [`StateDict::load`] is too strict.
///
/// ```
/// use tapegrad_nn::{LoadOptions, StateDict};
/// use tapegrad_tape::Tensor;
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("old.npz");
/// StateDict::from_iter([("module.norm.gamma".to_string(), Tensor::scalar(1f32))]).save(&path)?;
/// let state = LoadOptions::new().rename("module.*", "*").rename("*.gamma", "*.weight").load(&path)?;
/// assert!(state.get("norm.weight").is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    pub(super) skip_unsupported: bool,
    pub(super) max_bytes: Option<usize>,
    renames: Vec<(String, String)>,
}

impl LoadOptions {
    /// The options of [`StateDict::load`]: nothing is skipped, and a file may not expand more than 64-fold.
    pub fn new() -> LoadOptions {
        LoadOptions::default()
    }

    /// Whether tensors with elements of an unsupported type are left out; [`StateDict::skipped`] lists them.
    #[must_use]
    pub fn skip_unsupported(mut self, skip: bool) -> LoadOptions {
        self.skip_unsupported = skip;
        self
    }

    /// The number of bytes that the tensors of a compressed file may take, in place of 64 times the file: a file of zeros
    /// shrinks a thousandfold.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> LoadOptions {
        self.max_bytes = Some(bytes);
        self
    }

    /// Renames the tensors whose names fit a pattern, in which one `*` stands for any text, which takes the place of `*` in
    /// the new name. Patterns are applied one after the other.
    ///
    /// # Panics
    /// If the pattern or the new name has more than one `*`, or only one of them has one.
    #[must_use]
    #[track_caller]
    pub fn rename(mut self, pattern: &str, name: &str) -> LoadOptions {
        let stars = |s: &str| s.matches('*').count();
        assert!(
            stars(pattern) <= 1 && stars(pattern) == stars(name),
            "rename: {pattern:?} and {name:?} should both have one `*`, or none"
        );
        self.renames.push((pattern.into(), name.into()));
        self
    }

    /// Reads a file: `.npz`, PyTorch's `.pt`, `.pth` and `.bin`, and `.index.json` of sharded safetensors by their names,
    /// everything else as safetensors.
    ///
    /// # Errors
    /// If the file cannot be read, its bytes are not what its name says, or two tensors would have one name.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<StateDict, FileError> {
        let path = path.as_ref();
        if path.to_string_lossy().to_ascii_lowercase().ends_with(".index.json") {
            let mut file = super::TensorFile::open(path)?;
            let state = file.read_all(self);
            return self.renamed(state?).map_err(|e| e.in_file(path));
        }
        let bytes = fs::read(path).map_err(|e| FileError::of_io(path, e))?;
        let state = match super::kind_of(path) {
            super::Kind::Npz => self.from_npz(&bytes),
            super::Kind::Torch => self.from_torch(&bytes),
            super::Kind::Safetensors => self.from_safetensors(&bytes),
        };
        state.map_err(|e| e.in_file(path))
    }

    /// As [`load`](Self::load), from the bytes of a `.npz` file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_npz(&self, bytes: &[u8]) -> Result<StateDict, FileError> {
        self.renamed(super::npz::read(bytes, self)?)
    }

    /// As [`load`](Self::load), from the bytes of a file that `torch.save` wrote.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_torch(&self, bytes: &[u8]) -> Result<StateDict, FileError> {
        self.renamed(super::torch::read(bytes, self)?)
    }

    /// As [`load`](Self::load), from the bytes of a safetensors file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_safetensors(&self, bytes: &[u8]) -> Result<StateDict, FileError> {
        self.renamed(super::safetensors::read(bytes, self)?)
    }

    /// The total size that tensors may have which come from a file of this size.
    pub(super) fn budget(&self, file: usize) -> usize {
        self.max_bytes.unwrap_or(file.saturating_mul(super::GROWTH))
    }

    fn renamed(&self, mut state: StateDict) -> Result<StateDict, FileError> {
        for (pattern, name) in &self.renames {
            state = rename(state, pattern, name)?;
        }
        Ok(state)
    }
}

/// The name that one gets which fits the pattern.
fn replaced(key: &str, pattern: &str, name: &str) -> Option<String> {
    match (pattern.split_once('*'), name.split_once('*')) {
        (Some((before, after)), Some((new_before, new_after))) => {
            let inner = key.strip_prefix(before)?.strip_suffix(after)?;
            Some(format!("{new_before}{inner}{new_after}"))
        }
        _ => (key == pattern).then(|| name.to_string()),
    }
}

fn rename(state: StateDict, pattern: &str, name: &str) -> Result<StateDict, FileError> {
    let mut out = StateDict::new();
    out.metadata = state.metadata.clone();
    for (key, t) in state.iter() {
        let new = replaced(key, pattern, name).unwrap_or_else(|| key.into());
        if out.get(&new).is_some() {
            let reason = format!("two tensors have this name after {pattern:?} was renamed to {name:?}");
            return Err(FileError::of_key(&new, reason));
        }
        out.insert_stored(new, t.clone(), state.stored_type(key));
    }
    out.skipped = state.skipped;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::Tensor;

    #[test]
    fn names_by_pattern() {
        let state: StateDict = ["a.gamma", "a.beta", "gamma"]
            .map(|k| (k.to_string(), Tensor::scalar(1f32)))
            .into_iter()
            .collect();
        let options =
            LoadOptions::new().rename("*.gamma", "*.weight").rename("*.beta", "*.bias").rename("*", "m.*");
        let keys = |s: StateDict| s.keys().map(String::from).collect::<Vec<_>>();
        assert_eq!(keys(options.renamed(state.clone()).unwrap()), ["m.a.weight", "m.a.bias", "m.gamma"]);
        let message = LoadOptions::new().rename("*.beta", "*.gamma").renamed(state).unwrap_err().to_string();
        assert!(message.starts_with("a.gamma: two tensors have this name"), "{message}");
        assert_eq!(replaced("ab", "ab*b", "x*"), None, "prefix and suffix do not overlap");
        assert!(std::panic::catch_unwind(|| LoadOptions::new().rename("*.*", "*")).is_err());
    }
}
