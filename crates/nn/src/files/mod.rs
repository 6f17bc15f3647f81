//! State dicts in files: safetensors, NumPy's `.npz`, PyTorch's `.pt`.

mod elements;
mod folder;
mod npy;
mod npz;
mod options;
mod safetensors;
mod tensor_file;
mod torch;

pub use elements::StoredType;
pub use folder::RunFolder;
pub(crate) use folder::rename_with_reason;
pub use options::LoadOptions;
pub use tensor_file::TensorFile;

use crate::StateDict;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tapegrad_tape::shape::checked_numel;
use tapegrad_tape::{DType, Element, Tensor, bf16, f16};

/// A file of tensors could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}{}{reason}", self.prefix(.file.as_ref().map(|f| f.display().to_string())), self.prefix(.key.clone()))]
pub struct FileError {
    /// The file, unless the bytes came from elsewhere.
    pub file: Option<PathBuf>,
    /// The tensor that is invalid, if it is one.
    pub key: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// The operating system's error, if it is one.
    #[source]
    pub source: Option<io::Error>,
}

impl FileError {
    fn prefix(&self, part: Option<String>) -> String {
        part.map_or(String::new(), |p| format!("{p}: "))
    }

    /// True if there is no such file.
    pub(crate) fn is_absent(&self) -> bool {
        self.source.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn new(reason: impl Into<String>) -> FileError {
        FileError { file: None, key: None, reason: reason.into(), source: None }
    }

    pub(crate) fn of_key(key: &str, reason: impl Into<String>) -> FileError {
        FileError { key: Some(key.into()), ..FileError::new(reason) }
    }

    pub(crate) fn of_io(path: &Path, error: io::Error) -> FileError {
        FileError { file: Some(path.into()), key: None, reason: error.to_string(), source: Some(error) }
    }

    pub(crate) fn in_file(mut self, path: &Path) -> FileError {
        self.file.get_or_insert_with(|| path.into());
        self
    }
}

impl StateDict {
    /// Reads a file: `.npz`, PyTorch's `.pt`, `.pth` and `.bin`, and `.index.json` of sharded safetensors by their names,
    /// everything else as safetensors. [`LoadOptions`] renames tensors and skips what is not supported; [`TensorFile`] reads
    /// single tensors.
    ///
    /// # Errors
    /// If the file cannot be read, or its bytes are not what its name says.
    pub fn load(path: impl AsRef<Path>) -> Result<StateDict, FileError> {
        LoadOptions::new().load(path)
    }

    /// Writes a file: `.npz`, and PyTorch's `.pt`, `.pth` and `.bin` by their names, everything else as safetensors. The write is atomic:
    /// the data goes to a temporary file, which is flushed to disk and renamed.
    ///
    /// # Errors
    /// If it cannot be written.
    ///
    /// ```
    /// use tapegrad_nn::{Module, Linear, StateDict};
    /// let dir = tempfile::tempdir().unwrap();
    /// let (a, b) = (Linear::new(3, 2), Linear::new(3, 2));
    /// for name in ["model.safetensors", "model.npz", "model.pt"] {
    ///     a.state_dict().save(dir.path().join(name)).unwrap();
    ///     b.load_state_dict(&StateDict::load(dir.path().join(name)).unwrap()).unwrap();
    ///     assert_eq!(a.weight.to_vec::<f32>(), b.weight.to_vec::<f32>());
    /// }
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let path = path.as_ref();
        let bytes = match kind_of(path) {
            Kind::Npz => self.to_npz(),
            Kind::Torch => self.to_torch(),
            Kind::Safetensors => self.to_safetensors(),
        };
        let bytes = bytes.map_err(|e| e.in_file(path))?;
        write_atomically(path, &bytes)
    }
}

/// The largest allowed ratio of tensors to the file that they come from. Weights compress little; a zip bomb a
/// thousandfold.
const GROWTH: usize = 64;

enum Kind {
    Npz,
    Torch,
    Safetensors,
}

/// The format that a file's name stands for.
fn kind_of(path: &Path) -> Kind {
    let extension = path.extension().map(|e| e.to_ascii_lowercase());
    match extension.as_ref().and_then(|e| e.to_str()) {
        Some("npz") => Kind::Npz,
        Some("pt" | "pth" | "bin") => Kind::Torch,
        _ => Kind::Safetensors,
    }
}

/// Writes a file atomically: a crash at any moment leaves the old one or the new one. The data goes to a temporary
/// file, which is flushed to disk and renamed.
///
/// # Errors
/// If it cannot be written; existing files are then unchanged.
///
/// ```
/// let dir = tempfile::tempdir().unwrap();
/// tapegrad_nn::write_atomically(dir.path().join("a.txt"), b"text").unwrap();
/// assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
/// ```
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FileError> {
    let path = path.as_ref();
    replace(path, bytes).map_err(|e| FileError::of_io(path, e))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(temporary);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The rename is durable once the folder is flushed, which not every system supports.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// The elements in row-major order as little-endian bytes.
pub(crate) fn to_bytes(t: &Tensor) -> Vec<u8> {
    fn bytes<T: Element, const N: usize>(t: &Tensor, encode: fn(T) -> [u8; N]) -> Vec<u8> {
        let mut out = Vec::with_capacity(t.bytes());
        for &x in t.as_slice::<T>().expect("contiguous") {
            out.extend_from_slice(&encode(x));
        }
        out
    }
    let t = &t.contiguous();
    match t.dtype() {
        DType::F32 => bytes(t, f32::to_le_bytes),
        DType::F64 => bytes(t, f64::to_le_bytes),
        DType::F16 => bytes(t, f16::to_le_bytes),
        DType::BF16 => bytes(t, bf16::to_le_bytes),
        DType::I64 => bytes(t, i64::to_le_bytes),
        DType::U8 => bytes(t, |x: u8| [x]),
        DType::Bool => bytes(t, |x: bool| [u8::from(x)]),
    }
}

/// A tensor from little-endian bytes; `None` if their number does not match the shape.
pub(crate) fn from_bytes(data: &[u8], shape: &[usize], dtype: DType) -> Option<Tensor> {
    fn tensor<T: Element, const N: usize>(data: &[u8], shape: &[usize], decode: fn([u8; N]) -> T) -> Tensor {
        let mut t = Tensor::uninit(shape, T::DTYPE);
        let words = data.chunks_exact(N).map(|c| decode(c.try_into().expect("chunks of N bytes")));
        t.data_mut::<T>().iter_mut().zip(words).for_each(|(x, word)| *x = word);
        t
    }
    if checked_numel(shape)? * dtype.size() != data.len() {
        return None;
    }
    Some(match dtype {
        DType::F32 => tensor(data, shape, f32::from_le_bytes),
        DType::F64 => tensor(data, shape, f64::from_le_bytes),
        DType::F16 => tensor(data, shape, f16::from_le_bytes),
        DType::BF16 => tensor(data, shape, bf16::from_le_bytes),
        DType::I64 => tensor(data, shape, i64::from_le_bytes),
        DType::U8 => tensor(data, shape, |[x]: [u8; 1]| x),
        DType::Bool => tensor(data, shape, |[x]: [u8; 1]| x != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_both_formats() {
        let mut state = StateDict::new();
        let values = Tensor::from_vec(vec![0.0f64, 1.0, 2.5, -0.5, 100.0, 1.0], &[2, 3]);
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::U8, DType::Bool] {
            // A view with gaps, a tensor without dimensions, and an empty one.
            state.insert(format!("{dtype}.view"), values.cast(dtype).transpose(0, 1).step(0, 2));
            state.insert(format!("{dtype}.scalar"), Tensor::full_with((), 1, dtype));
            state.insert(format!("{dtype}.empty"), Tensor::zeros_with(&[0, 3], dtype));
        }
        state.metadata.insert("note".into(), "ä \"quoted\"".into());
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.safetensors", "a.npz", "a.pt"] {
            let path = dir.path().join(name);
            state.save(&path).unwrap();
            let back = StateDict::load(&path).unwrap();
            assert_eq!(back.len(), state.len());
            for (key, t) in state.iter() {
                let b = back.get(key).unwrap();
                // NumPy has no bfloat16.
                let dtype =
                    if name.ends_with("npz") && t.dtype() == DType::BF16 { DType::F32 } else { t.dtype() };
                assert_eq!((b.shape(), b.dtype()), (t.shape(), dtype), "{key} in {name}");
                assert_eq!(b.to_vec::<f64>(), t.to_vec::<f64>(), "{key} in {name}");
            }
        }
        assert_eq!(StateDict::load(dir.path().join("a.safetensors")).unwrap().metadata, state.metadata);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.safetensors");
        let message = StateDict::load(&path).unwrap_err().to_string();
        assert!(message.contains("none.safetensors: "), "{message}");
        fs::write(&path, b"short").unwrap();
        assert!(StateDict::load(&path).unwrap_err().to_string().contains("none.safetensors: "));
        let into_nowhere = dir.path().join("no/folder/x.npz");
        assert!(StateDict::new().save(into_nowhere).is_err());
    }
}
