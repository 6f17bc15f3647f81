//! Checkpoints: everything that training resumes from, in one file.

use crate::files::{FileError, to_bytes, write_atomically};
use crate::state_dict::StateDict;
use crc::{CRC_64_XZ, Crc, Table};
use std::fs;
use std::path::{Path, PathBuf};
use tapegrad_tape::{GeneratorState, Tensor};

const VERSION: &str = "2";
const VERSION_KEY: &str = "tapegrad.checkpoint";
const CHECKSUM_KEY: &str = "tapegrad.crc64";

/// State dicts by name (model, optimizer, scheduler, ...), the states of random generators, and integers, in one
/// safetensors file with a version and a checksum.
///
/// ```
/// use tapegrad_nn::{Checkpoint, Module, Linear, optim::{Adam, Optimizer}};
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("last.safetensors");
/// let model = Linear::new(3, 2);
/// let mut optimizer = Adam::new(model.parameters(), 1e-3);
///
/// let mut checkpoint = Checkpoint::new();
/// checkpoint.put("model", &model.state_dict());
/// checkpoint.put("optimizer", &optimizer.state_dict());
/// checkpoint.put_generator("default", tapegrad_tape::default_generator_state());
/// checkpoint.put_numbers("epoch", &[3]);
/// checkpoint.save(&path).unwrap();
///
/// let checkpoint = Checkpoint::load(&path).unwrap();
/// model.load_state_dict(&checkpoint.part("model")).unwrap();
/// optimizer.load_state_dict(&checkpoint.part("optimizer")).unwrap();
/// tapegrad_tape::set_default_generator_state(checkpoint.generator("default").unwrap());
/// assert_eq!(checkpoint.numbers("epoch").unwrap(), [3]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    state: StateDict,
}

impl Checkpoint {
    /// An empty one.
    pub fn new() -> Checkpoint {
        Checkpoint::default()
    }

    /// Adds a state dict under a name.
    pub fn put(&mut self, part: &str, state: &StateDict) -> &mut Checkpoint {
        self.state.insert_all(part, state);
        self
    }

    /// The state dict of a name; empty if there is none.
    pub fn part(&self, part: &str) -> StateDict {
        self.state.part(part)
    }

    /// Adds the state of a random generator.
    pub fn put_generator(&mut self, name: &str, generator: GeneratorState) -> &mut Checkpoint {
        let bytes: Vec<u8> = generator.seed.into_iter().chain(generator.word_pos.to_le_bytes()).collect();
        self.state.insert(format!("generator.{name}"), Tensor::from_vec(bytes, &[48]));
        self
    }

    /// The state of a random generator.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn generator(&self, name: &str) -> Result<GeneratorState, FileError> {
        let key = format!("generator.{name}");
        let bytes = self.state.get(&key).map(Tensor::to_vec::<u8>).unwrap_or_default();
        let wrong = || FileError::of_key(&key, "is missing, or not the state of a generator");
        let (seed, word) = bytes.split_at_checked(32).ok_or_else(wrong)?;
        Ok(GeneratorState {
            seed: seed.try_into().map_err(|_| wrong())?,
            word_pos: u128::from_le_bytes(word.try_into().map_err(|_| wrong())?),
        })
    }

    /// Adds integers, such as the epoch.
    pub fn put_numbers(&mut self, name: &str, numbers: &[i64]) -> &mut Checkpoint {
        self.state.insert(format!("numbers.{name}"), Tensor::from_slice(numbers, &[numbers.len()]));
        self
    }

    /// The integers of a name.
    ///
    /// # Errors
    /// If there are none.
    pub fn numbers(&self, name: &str) -> Result<Vec<i64>, FileError> {
        let key = format!("numbers.{name}");
        let t = self.state.get(&key).ok_or_else(|| FileError::of_key(&key, "is missing"))?;
        Ok(t.to_vec())
    }

    /// Adds a note.
    pub fn put_note(&mut self, name: &str, text: &str) -> &mut Checkpoint {
        self.state.metadata.insert(name.into(), text.into());
        self
    }

    /// A note.
    pub fn note(&self, name: &str) -> Option<&str> {
        self.state.metadata.get(name).map(String::as_str)
    }

    /// All notes, by name.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.state.metadata.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// If a tensor cannot be stored.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FileError> {
        let mut state = self.state.clone();
        state.metadata.insert(VERSION_KEY.into(), VERSION.into());
        state.metadata.insert(CHECKSUM_KEY.into(), checksum(&state));
        state.to_safetensors()
    }

    /// Writes the file atomically. An existing file is kept beside it as the previous one:
    /// see [`Checkpoint::previous_path`].
    ///
    /// # Errors
    /// If it cannot be written; existing files are then unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let path = path.as_ref();
        let bytes = self.to_bytes().map_err(|e| e.in_file(path))?;
        let fail = |e| FileError::of_io(path, e);
        if path.exists() {
            // A second name for the old file, so that there is a complete checkpoint at every moment.
            let previous = Checkpoint::previous_path(path);
            let _ = fs::remove_file(&previous);
            fs::hard_link(path, &previous)
                .or_else(|_| fs::copy(path, &previous).map(|_| ()))
                .map_err(fail)?;
        }
        write_atomically(path, &bytes)
    }

    /// Where [`Checkpoint::save`] keeps the previous checkpoint: `last.safetensors` has `last.previous.safetensors`.
    pub fn previous_path(path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        let mut extension = std::ffi::OsString::from("previous");
        if let Some(own) = path.extension() {
            extension.push(".");
            extension.push(own);
        }
        path.with_extension(extension)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is not a checkpoint, has another version, or its checksum does not match: it was truncated
    /// or modified.
    pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint, FileError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|e| FileError::of_io(path, e))?;
        Checkpoint::from_bytes(&bytes).map_err(|e| e.in_file(path))
    }

    /// A checkpoint from the bytes of its file.
    ///
    /// # Errors
    /// As of [`Checkpoint::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, FileError> {
        let mut state = StateDict::from_safetensors(bytes)?;
        match state.metadata.get(VERSION_KEY).map(String::as_str) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(FileError::new(format!("is a checkpoint of version {other}, not {VERSION}")));
            }
            None => return Err(FileError::new("is not a checkpoint: it has no version")),
        }
        let found = state.metadata.remove(CHECKSUM_KEY).unwrap_or_default();
        if found != checksum(&state) {
            return Err(FileError::new("is damaged: its checksum does not match its content"));
        }
        state.metadata.remove(VERSION_KEY);
        Ok(Checkpoint { state })
    }

    /// The newest valid checkpoint: the one at `path`, else the previous one, with the reasons why one was
    /// rejected. `None` if neither exists or is valid.
    pub fn newest(path: impl AsRef<Path>) -> (Option<Checkpoint>, Vec<FileError>) {
        let path = path.as_ref();
        let mut refused = Vec::new();
        for path in [path.to_path_buf(), Checkpoint::previous_path(path)] {
            match Checkpoint::load(&path) {
                Ok(checkpoint) => return (Some(checkpoint), refused),
                Err(e) if e.is_absent() => {}
                Err(e) => refused.push(e),
            }
        }
        (None, refused)
    }
}

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// A digest of all names, types, shapes, values and notes but the checksum itself, in a fixed order.
fn checksum(state: &StateDict) -> String {
    let mut digest = CRC.digest();
    let mut text = |s: &str| {
        digest.update(&(s.len() as u64).to_le_bytes());
        digest.update(s.as_bytes());
    };
    for (key, note) in state.metadata.iter().filter(|(k, _)| *k != CHECKSUM_KEY) {
        text(key);
        text(note);
    }
    let mut entries: Vec<(&str, &Tensor)> = state.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    for (key, t) in entries {
        digest.update(&(key.len() as u64).to_le_bytes());
        digest.update(key.as_bytes());
        digest.update(format!("{} {:?}", t.dtype(), t.shape()).as_bytes());
        digest.update(&to_bytes(t));
    }
    format!("{:016x}", digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Checkpoint {
        let mut c = Checkpoint::new();
        let weights = [("w".to_string(), Tensor::from_vec(vec![1f32, -0.0, f32::NAN], &[3]))];
        c.put("model", &weights.into_iter().collect());
        c.put_generator("data", tapegrad_tape::Generator::manual_seed(5).state());
        c.put_numbers("step", &[7]);
        c.put_note("name", "lenet");
        c
    }

    #[test]
    fn everything_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last.safetensors");
        sample().save(&path).unwrap();
        let c = Checkpoint::load(&path).unwrap();
        let w = c.part("model").get("w").unwrap().to_vec::<f32>();
        assert_eq!(
            w.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            [1f32, -0.0, f32::NAN].map(f32::to_bits)
        );
        assert_eq!(c.generator("data").unwrap(), tapegrad_tape::Generator::manual_seed(5).state());
        assert_eq!((c.numbers("step").unwrap(), c.note("name")), (vec![7], Some("lenet")));
        assert!(c.generator("other").is_err() && c.numbers("other").is_err());
    }

    #[test]
    fn the_previous_one_is_taken_where_the_last_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last.safetensors");
        assert!(Checkpoint::newest(&path).0.is_none());
        let mut c = sample();
        c.save(&path).unwrap();
        c.put_numbers("step", &[8]);
        c.save(&path).unwrap();
        assert_eq!(Checkpoint::newest(&path).0.unwrap().numbers("step").unwrap(), [8]);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (found, refused) = Checkpoint::newest(&path);
        assert_eq!(found.unwrap().numbers("step").unwrap(), [7]);
        assert!(refused[0].to_string().contains("is damaged"), "{}", refused[0]);
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(Checkpoint::load(&path).is_err());
    }

    #[test]
    fn other_files_are_refused() {
        let bytes = StateDict::new().to_safetensors().unwrap();
        assert_eq!(
            Checkpoint::from_bytes(&bytes).unwrap_err().to_string(),
            "is not a checkpoint: it has no version"
        );
    }

    proptest! {
        #[test]
        fn altered_bytes_are_refused(at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<prop::sample::Index>()) {
            let mut state = sample().state;
            state.metadata.insert(VERSION_KEY.into(), VERSION.into());
            state.metadata.insert(CHECKSUM_KEY.into(), checksum(&state));
            let good = state.to_safetensors().unwrap();
            let mut bytes = good.clone();
            let i = at.index(bytes.len());
            bytes[i] ^= flip;
            if let Ok(c) = Checkpoint::from_bytes(&bytes) {
                // The header's whitespace may differ; the contents may not.
                let same = |(key, t): (&str, &Tensor)| {
                    c.state.get(key).is_some_and(|u| to_bytes(u) == to_bytes(t))
                };
                prop_assert!(sample().state.iter().all(same));
            }
            prop_assert!(Checkpoint::from_bytes(&good[..cut.index(good.len())]).is_err());
        }
    }
}
