//! Single tensors of safetensors files, one or many, without reading the rest.

use super::elements::decode;
use super::{FileError, LoadOptions, StoredType, safetensors};
use crate::StateDict;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tapegrad_pickle::TorchType;
use tapegrad_tape::Tensor;

/// A header of more bytes is refused, as by the other readers of the format.
const LARGEST_HEADER: u64 = 100_000_000;

/// A safetensors file, or the index of several (`model.safetensors.index.json`), whose tensors are read one at a time.
///
/// ```
/// use tapegrad_nn::{Module, Linear, TensorFile};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("model.safetensors");
/// Linear::new(3, 2).state_dict().save(&path)?;
/// let mut file = TensorFile::open(&path)?;
/// assert_eq!(file.keys().collect::<Vec<_>>(), ["bias", "weight"]);
/// assert_eq!(file.shape("weight"), Some(&[2, 3][..]));
/// assert_eq!(file.tensor("bias")?.shape(), [2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TensorFile {
    path: PathBuf,
    shards: Vec<Shard>,
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

struct Shard {
    path: PathBuf,
    file: File,
}

struct Entry {
    key: String,
    shard: usize,
    /// The name of its type, and the type if it is one that can be read.
    named: String,
    dtype: Option<TorchType>,
    shape: Vec<usize>,
    start: u64,
    len: usize,
}

impl TensorFile {
    /// Opens a file and reads its header, or an index and the headers of its files.
    ///
    /// # Errors
    /// If a file cannot be read, is no safetensors file, or lacks a tensor that the index says it has.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile, FileError> {
        let path = path.as_ref();
        let mut file = TensorFile {
            path: path.into(),
            shards: Vec::new(),
            entries: Vec::new(),
            places: HashMap::new(),
            metadata: BTreeMap::new(),
        };
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
            file.open_index()?;
        } else {
            file.open_shard(path.into(), None)?;
        }
        // Further names of tied tensors.
        for (key, first) in &file.metadata {
            if let Some(&place) = file.places.get(first) {
                file.places.entry(key.clone()).or_insert(place);
            }
        }
        Ok(file)
    }

    fn open_index(&mut self) -> Result<(), FileError> {
        let path = self.path.clone();
        let wrong = |reason: String| FileError::new(reason).in_file(&path);
        let bytes = fs::read(&path).map_err(|e| FileError::of_io(&path, e))?;
        let index: Json = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("not an index: {e}")))?;
        let map = index["weight_map"]
            .as_object()
            .ok_or_else(|| wrong("not an index: it has no weight_map".into()))?;
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, name) in map {
            let name = name.as_str().filter(|n| is_plain(n));
            let name = name.ok_or_else(|| {
                wrong(format!("{key}: its file is not the name of a file in the same folder"))
            })?;
            shards.entry(name).or_default().push(key);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        for (name, keys) in shards {
            self.open_shard(folder.join(name), Some(&keys))?;
        }
        Ok(())
    }

    /// Opens a file, and lists these tensors of it, or all.
    fn open_shard(&mut self, path: PathBuf, keys: Option<&[&str]>) -> Result<(), FileError> {
        let mut file = File::open(&path).map_err(|e| FileError::of_io(&path, e))?;
        let (data, header) = read_header(&mut file).map_err(|e| e.in_file(&path))?;
        let size = file.metadata().map_err(|e| FileError::of_io(&path, e))?.len();
        let shard = self.shards.len();
        let mut entries = Vec::new();
        for (key, entry) in &header {
            if key == "__metadata__" {
                let notes = entry.as_object().into_iter().flatten();
                let text = |(k, v): (&String, &Json)| Some((k.clone(), v.as_str()?.to_string()));
                self.metadata.extend(safetensors::notes(notes.filter_map(text)));
                continue;
            }
            let entry = parse_entry(key, entry, shard, data, size);
            entries.push(entry.ok_or_else(|| {
                FileError::of_key(key, "its entry in the header is not valid").in_file(&path)
            })?);
        }
        entries.sort_by_key(|e| e.start);
        let found = entries.len();
        entries.retain(|e| keys.is_none_or(|keys| keys.contains(&e.key.as_str())));
        if let Some(keys) = keys
            && entries.len() < keys.len()
        {
            let missing = keys.iter().find(|k| !entries.iter().any(|e| e.key == **k));
            let key = missing.copied().unwrap_or_default();
            return Err(FileError::of_key(key, format!("is not among the {found} tensors of its file"))
                .in_file(&path));
        }
        for entry in entries {
            self.places.insert(entry.key.clone(), self.entries.len());
            self.entries.push(entry);
        }
        self.shards.push(Shard { path, file });
        Ok(())
    }

    /// The names of the tensors, file by file, in their order there.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.key.as_str())
    }

    /// The shape of a tensor.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        Some(&self.entries[*self.places.get(key)?].shape)
    }

    /// The notes of the files.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads one tensor. Integers of other widths become I64, floats of eight bits F32.
    ///
    /// # Errors
    /// If there is none of this name, its elements are of an unsupported type, or the file cannot be read.
    pub fn tensor(&mut self, key: &str) -> Result<Tensor, FileError> {
        let Some(&place) = self.places.get(key) else {
            return Err(FileError::of_key(key, "there is no such tensor").in_file(&self.path));
        };
        Ok(self.read(place)?.0)
    }

    fn read(&mut self, place: usize) -> Result<(Tensor, Option<StoredType>), FileError> {
        let entry = &self.entries[place];
        let shard = &mut self.shards[entry.shard];
        let wrong = |reason: String| FileError::of_key(&entry.key, reason).in_file(&shard.path);
        let Some(dtype) = entry.dtype else {
            return Err(wrong(format!("elements of type {} are not supported", entry.named)));
        };
        let mut bytes = Vec::new();
        let read = shard.file.seek(SeekFrom::Start(entry.start)).and_then(|_| {
            // The file may have shrunk since it was opened.
            (&mut shard.file).take(entry.len as u64).read_to_end(&mut bytes)
        });
        read.map_err(|e| FileError::of_io(&shard.path, e))?;
        decode(&bytes, &entry.shape, dtype).map_err(wrong)
    }

    pub(super) fn read_all(&mut self, options: &LoadOptions) -> Result<StateDict, FileError> {
        let mut state = StateDict::new();
        state.metadata = self.metadata.clone();
        for place in 0..self.entries.len() {
            match self.read(place) {
                Ok((t, kept)) => state.insert_stored(self.entries[place].key.clone(), t, kept),
                Err(e) if options.skip_unsupported && e.source.is_none() => {
                    state.skipped.push((self.entries[place].key.clone(), e.reason));
                }
                Err(e) => return Err(e),
            }
        }
        state.tie();
        Ok(state)
    }
}

/// The name of a file, and of no other folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
        && !name.contains('\\')
}

/// The offset of the data, and the header.
fn read_header(file: &mut File) -> Result<(u64, serde_json::Map<String, Json>), FileError> {
    let wrong = |reason: String| FileError::new(format!("not a safetensors file: {reason}"));
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| wrong(e.to_string()))?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST_HEADER {
        return Err(wrong(format!("a header of {length} bytes")));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(|e| wrong(e.to_string()))?;
    if (header.len() as u64) < length {
        return Err(wrong(format!(
            "the header should be {length} bytes long, but only {} are there",
            header.len()
        )));
    }
    match serde_json::from_slice(&header) {
        Ok(Json::Object(entries)) => Ok((8 + length, entries)),
        Ok(_) => Err(wrong("the header is no list of tensors".into())),
        Err(e) => Err(wrong(e.to_string())),
    }
}

/// An entry of a header; `None` if its parts do not fit each other and the file.
fn parse_entry(key: &str, entry: &Json, shard: usize, data: u64, size: u64) -> Option<Entry> {
    let number = |v: &Json| v.as_u64().and_then(|n| usize::try_from(n).ok());
    let shape = entry["shape"].as_array()?.iter().map(number).collect::<Option<Vec<usize>>>()?;
    let [begin, end] = entry["data_offsets"].as_array()?.as_slice() else { return None };
    let (begin, end) = (begin.as_u64()?, end.as_u64()?);
    let start = data.checked_add(begin)?;
    let len = usize::try_from(end.checked_sub(begin)?).ok()?;
    if data.checked_add(end)? > size {
        return None;
    }
    let named: String = entry["dtype"].as_str()?.chars().take(20).collect();
    let dtype = safetensors::type_named(&named);
    if let Some(dtype) = dtype {
        let numel = tapegrad_tape::shape::checked_numel(&shape)?;
        (numel.checked_mul(dtype.size()) == Some(len)).then_some(())?;
    }
    Some(Entry { key: key.into(), shard, named, dtype, shape, start, len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tapegrad_tape::DType;

    fn state(keys: &[&str]) -> StateDict {
        keys.iter()
            .enumerate()
            .map(|(i, k)| (k.to_string(), Tensor::full_with(&[2, i + 1], i as f64, DType::F32)))
            .collect()
    }

    fn index(folder: &Path, map: &str) -> PathBuf {
        let path = folder.join("model.safetensors.index.json");
        fs::write(&path, format!("{{\"metadata\": {{\"total_size\": 9}}, \"weight_map\": {map}}}")).unwrap();
        path
    }

    #[test]
    fn shards_are_one_state_dict() {
        let dir = tempfile::tempdir().unwrap();
        state(&["a", "b"]).save(dir.path().join("1.safetensors")).unwrap();
        state(&["c", "unused"]).save(dir.path().join("2.safetensors")).unwrap();
        let path = index(dir.path(), r#"{"c": "2.safetensors", "b": "1.safetensors", "a": "1.safetensors"}"#);
        let all = StateDict::load(&path).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        let mut file = TensorFile::open(&path).unwrap();
        assert_eq!(file.tensor("b").unwrap().to_vec::<f32>(), [1.0; 4]);
        assert_eq!(file.shape("c"), Some(&[2, 1][..]));
        assert!(file.tensor("unused").unwrap_err().to_string().ends_with("unused: there is no such tensor"));
    }

    #[test]
    fn an_index_stays_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        state(&["a"]).save(dir.path().join("1.safetensors")).unwrap();
        let message = |map: &str| match TensorFile::open(index(dir.path(), map)) {
            Ok(_) => panic!("accepted"),
            Err(e) => e.to_string(),
        };
        for name in ["../1.safetensors", "/etc/passwd", "a/b", "..", "", r"a\\b"] {
            let text = message(&format!(r#"{{"a": "{name}"}}"#));
            assert!(text.contains("a: its file is not the name of a file in the same folder"), "{text}");
        }
        assert!(message(r#"{"z": "1.safetensors"}"#).ends_with("z: is not among the 1 tensors of its file"));
        assert!(message("[]").contains("no weight_map"));
        assert!(message(r#"{"a": "2.safetensors"}"#).contains("2.safetensors: "));
    }

    proptest! {
        #[test]
        fn altered_files_do_not_panic(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.safetensors");
            let mut bytes = state(&["a", "b"]).to_safetensors().unwrap();
            let i = at.index(bytes.len());
            bytes[i] = value;
            bytes.truncate(cut.index(bytes.len() * 2));
            fs::write(&path, &bytes).unwrap();
            if let Ok(mut file) = TensorFile::open(&path) {
                let keys: Vec<String> = file.keys().map(String::from).collect();
                for key in keys {
                    let _ = file.tensor(&key);
                }
            }
        }
    }
}
