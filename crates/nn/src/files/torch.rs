//! PyTorch's own files: what `torch.save` writes and `torch.load(weights_only=True)` reads.

use super::elements::{decode, stored};
use super::{FileError, LoadOptions};
use crate::StateDict;
use crate::state_dict::same_elements;
use std::collections::HashMap;
use std::io::{Cursor, Read, Write};
use tapegrad_pickle::{Pickle, TensorRef, TorchType, Value};
use tapegrad_tape::Tensor;
use tapegrad_tape::shape::checked_numel;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// More levels of dictionaries and lists than any checkpoint has.
const DEPTH: usize = 32;
/// More values than any checkpoint has.
const MOST_VALUES: usize = 1 << 20;
/// Begins files of PyTorch before 1.6: a pickled number.
const LEGACY: &[u8] = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";

impl StateDict {
    /// A state dict from the bytes of a file that `torch.save` wrote: a state dict, or dictionaries and lists with tensors in
    /// them, whose names are joined by dots. Numbers and strings become [metadata](StateDict::metadata). No code is run:
    /// a pickled module is refused.
    ///
    /// # Errors
    /// If the bytes are not such a file, or it holds anything but tensors and plain values.
    pub fn from_torch(bytes: &[u8]) -> Result<StateDict, FileError> {
        LoadOptions::new().from_torch(bytes)
    }

    /// The bytes of a file that `torch.load(weights_only=True)` reads as an `OrderedDict` of tensors. Tensors that share
    /// their memory share it there, too. The metadata is omitted.
    ///
    /// # Errors
    /// If there are more tensors or sizes than the format can count.
    pub fn to_torch(&self) -> Result<Vec<u8>, FileError> {
        write(self)
    }
}

pub(super) fn read(bytes: &[u8], options: &LoadOptions) -> Result<StateDict, FileError> {
    if bytes.starts_with(LEGACY) {
        return read_legacy(bytes, options);
    }
    let wrong = |e: zip::result::ZipError| {
        FileError::new(format!("not a file of torch.save, which is a zip archive: {e}"))
    };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(wrong)?;
    let names: Vec<String> =
        archive.file_names().map(|n| n.map(|n| n.into_owned())).collect::<Result<_, _>>().map_err(wrong)?;
    let Some(folder) = names.iter().find_map(|n| n.strip_suffix("data.pkl")) else {
        return Err(FileError::new("not a file of torch.save: the archive holds no data.pkl"));
    };
    let mut left = options.budget(bytes.len());
    let mut member = |name: &str, most: usize| -> Result<Vec<u8>, FileError> {
        let entry = archive
            .by_name(&format!("{folder}{name}"))
            .map_err(|e| FileError::of_key(name, e.to_string()))?;
        let mut data = Vec::new();
        entry
            .take(most as u64 + 1)
            .read_to_end(&mut data)
            .map_err(|e| FileError::of_key(name, e.to_string()))?;
        if data.len() > most {
            return Err(FileError::of_key(name, format!("is larger than {most} bytes")));
        }
        Ok(data)
    };
    if names.iter().any(|n| n == &format!("{folder}byteorder")) && member("byteorder", 16)? != b"little" {
        return Err(FileError::new("was written on a big-endian machine, which is not supported"));
    }
    let pickled = member("data.pkl", left)?;
    let (pickle, _) = Pickle::parse_torch("data.pkl", &pickled).map_err(|e| FileError::new(e.to_string()))?;
    let mut storages: HashMap<String, Vec<u8>> = HashMap::new();
    let mut storage = |t: &TensorRef<'_>, key: &str| -> Result<Vec<u8>, FileError> {
        if let Some(data) = storages.get(t.storage) {
            return gather(data, t, &mut left).map_err(|e| FileError::of_key(key, e));
        }
        let data = member(&format!("data/{}", t.storage), t.storage_bytes.min(left))
            .map_err(|e| FileError::of_key(key, e.to_string()))?;
        left -= data.len();
        let found = gather(&data, t, &mut left).map_err(|e| FileError::of_key(key, e))?;
        // Other tensors may be on the rest of a storage; of a whole one, only its copies, which are known by then.
        if found.len() < data.len() {
            storages.insert(t.storage.into(), data);
        }
        Ok(found)
    };
    collect(&pickle, options, &mut storage)
}

/// A file of PyTorch before 1.6: a magic number, a version, the system's sizes, the values and the names of the storages,
/// each pickled, then the storages.
fn read_legacy(bytes: &[u8], options: &LoadOptions) -> Result<StateDict, FileError> {
    let mut at = LEGACY.len();
    let mut pickle = || {
        let (pickle, end) =
            Pickle::parse_torch("the file", &bytes[at..]).map_err(|e| FileError::new(e.to_string()))?;
        at += end;
        Ok::<_, FileError>(pickle)
    };
    let (version, _system, values, keys) = (pickle()?, pickle()?, pickle()?, pickle()?);
    if version.root() != Value::Int(1001) {
        return Err(FileError::new(format!("version {:?} of the old format, expected 1001", version.root())));
    }
    let keys = keys.texts(keys.root()).ok_or_else(|| FileError::new("the storages have no names"))?;
    // Each is preceded by the number of its elements; their size is known from the tensors.
    let mut sizes = HashMap::new();
    visit(&values, values.root(), &mut |_, found| {
        if let Found::Tensor(t) = found {
            sizes.insert(t.storage.to_string(), t.storage_bytes);
        }
        Ok(())
    })?;
    let mut storages: HashMap<String, &[u8]> = HashMap::new();
    for key in keys {
        let size = *sizes.get(&key).ok_or_else(|| FileError::of_key(&key, "no tensor is on this storage"))?;
        let data = bytes.get(at..).and_then(|rest| rest.get(8..)).and_then(|rest| rest.get(..size));
        let data = data.ok_or_else(|| {
            FileError::of_key(&key, format!("the file ends before the {size} bytes of this storage"))
        })?;
        at += 8 + size;
        storages.insert(key, data);
    }
    let mut left = options.budget(bytes.len());
    collect(&values, options, &mut |t, key| {
        let data = storages
            .get(t.storage)
            .ok_or_else(|| FileError::of_key(key, "its storage is not in the file"))?;
        gather(data, t, &mut left).map_err(|e| FileError::of_key(key, e))
    })
}

/// The elements of a tensor in row-major order.
fn gather(storage: &[u8], t: &TensorRef<'_>, left: &mut usize) -> Result<Vec<u8>, String> {
    let size = t.dtype.size();
    let bytes = checked_numel(t.shape).and_then(|n| n.checked_mul(size));
    let bytes = bytes.filter(|&n| n <= *left).ok_or_else(|| {
        format!(
            "a tensor of shape {:?} is larger than the file justifies: see LoadOptions::max_bytes",
            t.shape
        )
    })?;
    *left -= bytes;
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let sizes = || t.shape.iter().zip(t.strides);
    // An overflow is outside, too.
    let last = sizes().fold(t.offset, |at, (&n, &s)| at.saturating_add(s.saturating_mul(n - 1)));
    if last.checked_add(1).and_then(|n| n.checked_mul(size)).is_none_or(|end| end > storage.len()) {
        return Err(format!(
            "shape {:?}, strides {:?} and offset {} lie outside the {} bytes of its storage",
            t.shape,
            t.strides,
            t.offset,
            storage.len()
        ));
    }
    // Dimensions whose elements are neighbors are copied at once.
    let mut run = 1;
    let mut outer = t.shape.len();
    while outer > 0 && (t.strides[outer - 1] == run || t.shape[outer - 1] == 1) {
        outer -= 1;
        run *= t.shape[outer];
    }
    let mut out = Vec::with_capacity(bytes);
    let mut index = vec![0; outer];
    let mut at = t.offset;
    while out.len() < bytes {
        out.extend_from_slice(&storage[at * size..(at + run) * size]);
        for d in (0..outer).rev() {
            index[d] += 1;
            at += t.strides[d];
            if index[d] < t.shape[d] {
                break;
            }
            at -= t.strides[d] * t.shape[d];
            index[d] = 0;
        }
    }
    Ok(out)
}

/// A value in a pickle that is no container.
enum Found<'s> {
    Tensor(TensorRef<'s>),
    Text(String),
}

/// All tensors by their names, and the other values as notes. Views of one place are one tensor.
fn collect(
    pickle: &Pickle<'_>,
    options: &LoadOptions,
    data: &mut dyn FnMut(&TensorRef<'_>, &str) -> Result<Vec<u8>, FileError>,
) -> Result<StateDict, FileError> {
    type Place = (String, TorchType, usize, Vec<usize>, Vec<usize>);
    let mut known: HashMap<Place, String> = HashMap::new();
    let mut state = StateDict::new();
    visit(pickle, pickle.root(), &mut |key, found| {
        let t = match found {
            Found::Tensor(t) => t,
            Found::Text(text) => {
                state.metadata.insert(key.into(), text);
                return Ok(());
            }
        };
        let place = (t.storage.into(), t.dtype, t.offset, t.shape.to_vec(), t.strides.to_vec());
        if let Some(first) = known.get(&place) {
            let (tied, kept) = (state.get(first).expect("inserted").clone(), state.stored_type(first));
            state.insert_stored(key.into(), tied, kept);
            return Ok(());
        }
        match decode(&data(&t, key)?, t.shape, t.dtype) {
            Ok((value, kept)) => {
                state.insert_stored(key.into(), value, kept);
                known.insert(place, key.into());
            }
            Err(reason) if options.skip_unsupported => state.skipped.push((key.into(), reason)),
            Err(reason) => return Err(FileError::of_key(key, reason)),
        }
        Ok(())
    })?;
    Ok(state)
}

/// Calls `f` with the name of each value that is no container.
fn visit<'p>(
    pickle: &'p Pickle<'p>,
    root: Value<'p>,
    f: &mut dyn FnMut(&str, Found<'p>) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let mut left = MOST_VALUES;
    walk(pickle, root, "", DEPTH, &mut left, f)
}

fn walk<'p>(
    pickle: &'p Pickle<'p>,
    value: Value<'p>,
    path: &str,
    depth: usize,
    left: &mut usize,
    f: &mut dyn FnMut(&str, Found<'p>) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let too_much = |what| FileError::of_key(path, format!("{what} than a checkpoint has"));
    *left = left.checked_sub(1).ok_or_else(|| too_much("more values"))?;
    // Names of names add up: a path that is used a million times must be short.
    if path.len() > 1 << 10 {
        return Err(FileError::new("a name of more than 1024 bytes"));
    }
    let below = depth.checked_sub(1).ok_or_else(|| too_much("deeper nesting"));
    let join = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    if let Some(entries) = pickle.entries(value) {
        let below = below?;
        for &(key, value) in entries {
            let key = match key {
                Value::Int(n) => n.to_string(),
                Value::Bool(b) => b.to_string(),
                key => pickle.text(key).ok_or_else(|| FileError::of_key(path, "a key that is no name"))?,
            };
            walk(pickle, value, &join(&key), below, left, f)?;
        }
        return Ok(());
    }
    if let Some(items) = pickle.items(value) {
        let below = below?;
        return items
            .iter()
            .enumerate()
            .try_for_each(|(i, &v)| walk(pickle, v, &join(&i.to_string()), below, left, f));
    }
    if let Some(t) = pickle.tensor(value) {
        return f(path, Found::Tensor(t));
    }
    let text = match value {
        Value::None => return Ok(()),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        // Types and other names of PyTorch.
        Value::Global(_) => return Ok(()),
        other => match pickle.text(other) {
            Some(text) => text,
            None => return Err(FileError::of_key(path, "is neither a tensor nor a plain value")),
        },
    };
    f(path, Found::Text(text))
}

/// The class of a storage, or the type of a tensor that needs a storage of bytes.
fn storage_class(dtype: TorchType) -> Result<&'static str, &'static str> {
    match dtype {
        TorchType::F64 => Ok("DoubleStorage"),
        TorchType::F32 => Ok("FloatStorage"),
        TorchType::F16 => Ok("HalfStorage"),
        TorchType::BF16 => Ok("BFloat16Storage"),
        TorchType::I64 => Ok("LongStorage"),
        TorchType::I32 => Ok("IntStorage"),
        TorchType::I16 => Ok("ShortStorage"),
        TorchType::I8 => Ok("CharStorage"),
        TorchType::U8 => Ok("ByteStorage"),
        TorchType::Bool => Ok("BoolStorage"),
        TorchType::U32 => Err("uint32"),
        _ => Err("uint16"),
    }
}

fn write(state: &StateDict) -> Result<Vec<u8>, FileError> {
    let wrong = |e: &dyn std::fmt::Display| FileError::new(e.to_string());
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // PyTorch maps storages into memory, where they begin at a multiple of 64.
    let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64);
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    let mut written: Vec<(&Tensor, TorchType, usize)> = Vec::new();
    let mut storages = Vec::new();
    for (key, t) in state.iter() {
        let (dtype, bytes) = stored(t, state.stored_type(key));
        let same = |(u, kind, _): &&(&Tensor, TorchType, usize)| *kind == dtype && same_elements(u, t);
        let number = match written.iter().find(same) {
            Some(&(_, _, number)) => number,
            None => {
                storages.push(bytes);
                written.push((t, dtype, storages.len() - 1));
                storages.len() - 1
            }
        };
        text(&mut pickle, key)?;
        put_tensor(&mut pickle, dtype, number, t.shape()).map_err(|e| FileError::of_key(key, e))?;
    }
    pickle.extend_from_slice(b"u.");
    let mut member = |name: &str, bytes: &[u8]| {
        let options = plain.large_file(bytes.len() >= u32::MAX as usize);
        archive.start_file(format!("archive/{name}"), options).map_err(|e| wrong(&e))?;
        archive.write_all(bytes).map_err(|e| wrong(&e))
    };
    member("data.pkl", &pickle)?;
    member("byteorder", b"little")?;
    for (number, bytes) in storages.iter().enumerate() {
        member(&format!("data/{number}"), bytes)?;
    }
    member("version", b"3\n")?;
    Ok(archive.finish().map_err(|e| wrong(&e))?.into_inner())
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<(), FileError> {
    let length = u32::try_from(text.len()).map_err(|_| FileError::new("a name of more than 4 GB"))?;
    out.push(b'X');
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// An integer of up to eight bytes.
fn int(out: &mut Vec<u8>, n: usize) {
    match i32::try_from(n) {
        Ok(n) => {
            out.push(b'J');
            out.extend_from_slice(&n.to_le_bytes());
        }
        Err(_) => {
            out.extend_from_slice(b"\x8a\x08");
            out.extend_from_slice(&(n as i64).to_le_bytes());
        }
    }
}

fn put_tensor(out: &mut Vec<u8>, dtype: TorchType, storage: usize, shape: &[usize]) -> Result<(), String> {
    let numel = checked_numel(shape).ok_or("a tensor that is too large")?;
    let class = storage_class(dtype);
    let rebuild = if class.is_ok() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" };
    out.extend_from_slice(format!("ctorch._utils\n{rebuild}\n((").as_bytes());
    text(out, "storage").map_err(|e| e.to_string())?;
    match class {
        Ok(class) => out.extend_from_slice(format!("ctorch\n{class}\n").as_bytes()),
        Err(_) => out.extend_from_slice(b"ctorch.storage\nUntypedStorage\n"),
    }
    text(out, &storage.to_string()).map_err(|e| e.to_string())?;
    text(out, "cpu").map_err(|e| e.to_string())?;
    int(out, if class.is_ok() { numel } else { numel * dtype.size() });
    out.extend_from_slice(b"tQ");
    int(out, 0);
    let mut strides: Vec<usize> = shape
        .iter()
        .rev()
        .scan(1, |stride, &n| {
            let own = *stride;
            *stride *= n.max(1);
            Some(own)
        })
        .collect();
    strides.reverse();
    for numbers in [shape, &strides] {
        out.push(b'(');
        numbers.iter().for_each(|&n| int(out, n));
        out.push(b't');
    }
    out.extend_from_slice(b"\x89ccollections\nOrderedDict\n)R");
    if let Err(dtype) = class {
        out.extend_from_slice(format!("ctorch\n{dtype}\n").as_bytes());
    }
    out.extend_from_slice(b"tR");
    Ok(())
}

#[cfg(test)]
mod tests;
