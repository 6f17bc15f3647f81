//! The safetensors format.

use super::elements::{decode, stored};
use super::{FileError, LoadOptions};
use crate::StateDict;
use ::safetensors::tensor::TensorView;
use ::safetensors::{Dtype, SafeTensors, serialize};
use std::collections::BTreeMap;
use tapegrad_pickle::TorchType;
use tapegrad_tape::Tensor;

const TYPES: [(TorchType, Dtype); 15] = [
    (TorchType::F64, Dtype::F64),
    (TorchType::F32, Dtype::F32),
    (TorchType::F16, Dtype::F16),
    (TorchType::BF16, Dtype::BF16),
    (TorchType::F8E4M3, Dtype::F8_E4M3),
    (TorchType::F8E5M2, Dtype::F8_E5M2),
    (TorchType::I64, Dtype::I64),
    (TorchType::I32, Dtype::I32),
    (TorchType::I16, Dtype::I16),
    (TorchType::I8, Dtype::I8),
    (TorchType::U64, Dtype::U64),
    (TorchType::U32, Dtype::U32),
    (TorchType::U16, Dtype::U16),
    (TorchType::U8, Dtype::U8),
    (TorchType::Bool, Dtype::BOOL),
];

/// Sorts the notes in the header: they come from a hash map, and the same state must give the same file.
fn sort_notes(bytes: &mut [u8], notes: &BTreeMap<String, String>) {
    const BEGIN: &[u8] = b"{\"__metadata__\":";
    let sorted = serde_json::to_vec(notes).expect("text is JSON");
    // After the header's length.
    let header = &mut bytes[8..];
    let place = BEGIN.len()..BEGIN.len() + sorted.len();
    assert!(header.starts_with(BEGIN) && header[place.end - 1] == b'}', "the header begins with the notes");
    header[place].copy_from_slice(&sorted);
}

impl StateDict {
    /// The bytes of a safetensors file, as PyTorch reads it. A tensor of several names, such as a tied weight, is written
    /// once, and the notes say what its other names are, as `safetensors.torch.save_model` does.
    ///
    /// # Errors
    /// If the format cannot hold a name.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, FileError> {
        let entry = |(key, t): (_, &Tensor)| {
            let (kind, bytes) = stored(t, self.stored_type(key));
            let dtype = TYPES.iter().find(|(k, _)| *k == kind).expect("all of ours are listed").1;
            (key, dtype, t.shape().to_vec(), bytes)
        };
        let tied = self.tied();
        let data: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> =
            self.iter().filter(|(key, _)| !tied.contains_key(key)).map(entry).collect();
        let views = data.iter().map(|(key, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit the shape");
            (*key, view)
        });
        let mut notes: BTreeMap<String, String> = self.metadata.clone().into_iter().collect();
        notes.extend(tied.iter().map(|(key, first)| (key.to_string(), first.to_string())));
        // PyTorch's readers expect this.
        notes.entry("format".into()).or_insert_with(|| "pt".into());
        let unsorted = Some(notes.clone().into_iter().collect());
        let mut bytes = serialize(views, unsorted).map_err(|e| FileError::new(e.to_string()))?;
        sort_notes(&mut bytes, &notes);
        Ok(bytes)
    }

    /// A state dict from the bytes of a safetensors file, in the order of its tensors in the file. Integers of other widths
    /// become I64, and are saved in their own type again ([`StateDict::stored_type`]); floats of eight bits become F32.
    ///
    /// # Errors
    /// If the bytes are not such a file, or contain elements of an unsupported type.
    pub fn from_safetensors(bytes: &[u8]) -> Result<StateDict, FileError> {
        LoadOptions::new().from_safetensors(bytes)
    }
}

pub(super) fn read(bytes: &[u8], options: &LoadOptions) -> Result<StateDict, FileError> {
    let wrong = |e: ::safetensors::SafeTensorError| FileError::new(format!("not a safetensors file: {e}"));
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
    let file = SafeTensors::deserialize(bytes).map_err(wrong)?;
    let mut state = StateDict::new();
    for key in metadata.offset_keys() {
        let view = file.tensor(&key).map_err(wrong)?;
        let kind = TYPES.iter().find(|(_, dtype)| *dtype == view.dtype());
        let read = match kind {
            Some(&(kind, _)) => decode(view.data(), view.shape(), kind),
            None => Err(format!("elements of type {:?} are not supported", view.dtype())),
        };
        match read {
            Ok((t, kept)) => state.insert_stored(key, t, kept),
            Err(reason) if options.skip_unsupported => state.skipped.push((key, reason)),
            Err(reason) => return Err(FileError::of_key(&key, reason)),
        }
    }
    state.metadata = notes(metadata.metadata().clone().unwrap_or_default());
    state.tie();
    Ok(state)
}

/// The notes of a header, without the one that PyTorch's readers expect.
pub(super) fn notes(notes: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    notes.into_iter().filter(|(k, v)| !(k == "format" && v == "pt")).collect()
}

/// The type of a name in a header.
pub(super) fn type_named(name: &str) -> Option<TorchType> {
    let dtype = serde_json::from_value::<Dtype>(name.into()).ok()?;
    TYPES.iter().find(|(_, d)| *d == dtype).map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tapegrad_tape::Tensor;

    fn sample() -> Vec<u8> {
        let mut state = StateDict::new();
        state.insert("weight", Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]));
        state.insert("count", Tensor::scalar(7i64));
        state.to_safetensors().unwrap()
    }

    #[test]
    fn the_same_state_gives_the_same_bytes() {
        let mut state = StateDict::new();
        state.insert("weight", Tensor::from_vec(vec![1f32, 2.0], &[2]));
        for i in 0..20 {
            state.metadata.insert(format!("note {i}"), "a \"word\"\n \u{e9}".into());
        }
        let bytes = state.to_safetensors().unwrap();
        assert_eq!(StateDict::from_safetensors(&bytes).unwrap().metadata, state.metadata);
        (0..5).for_each(|_| assert_eq!(state.to_safetensors().unwrap(), bytes));
    }

    #[test]
    fn tied_tensors_are_written_once() {
        let t = Tensor::from_vec(vec![1f32; 1000], &[10, 100]);
        let mut state = StateDict::new();
        state.insert("wte", t.clone());
        state.insert("head", t.clone());
        // The same memory, but not the same elements.
        state.insert("part", t.narrow(0, 0, 5));
        state.metadata.insert("other".into(), "nothing".into());
        let bytes = state.to_safetensors().unwrap();
        assert!(bytes.len() < 7000, "{}", bytes.len());
        let back = StateDict::from_safetensors(&bytes).unwrap();
        let mut keys: Vec<&str> = back.keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["head", "part", "wte"]);
        assert_eq!(back.metadata.keys().collect::<Vec<_>>(), ["other"]);
        let [a, b] = ["wte", "head"].map(|key| back.get(key).unwrap());
        assert!(a.shares_memory_with(b));
        assert_eq!(a.to_vec::<f32>(), t.to_vec::<f32>());
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(StateDict::from_safetensors(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn every_byte_belongs_to_a_tensor() {
        let one = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        assert!(StateDict::from_safetensors(&file(&format!("{{{one}}}"), &[0; 4])).is_ok());
        for (header, data) in [
            (format!("{{{one}}}"), 5),
            (format!("{{{one}}}"), 3),
            ("{}".into(), 1),
            // A gap, an overlap, and one name for two tensors.
            (format!(r#"{{{one},"b":{{"dtype":"F32","shape":[1],"data_offsets":[5,9]}}}}"#), 9),
            (format!(r#"{{{one},"b":{{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}}}"#), 6),
            (format!(r#"{{{one},"a":{{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}}}"#), 8),
        ] {
            assert!(StateDict::from_safetensors(&file(&header, &vec![0; data])).is_err(), "{header}");
        }
    }

    #[test]
    fn integers_keep_their_types_and_unknown_types_are_named() {
        let header = r#"{"i":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},"q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[4,6]},"e":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[6,8]}}"#;
        let bytes = file(header, &[255, 255, 7, 0, 0x38, 0xb8, 1, 2]);
        let message = StateDict::from_safetensors(&bytes).unwrap_err().to_string();
        assert_eq!(message, "e: elements of type F8_E8M0 are not supported");
        let state = LoadOptions::new().skip_unsupported(true).from_safetensors(&bytes).unwrap();
        assert_eq!(state.skipped(), [("e".into(), "elements of type F8_E8M0 are not supported".into())]);
        assert_eq!(state.get("i").unwrap().to_vec::<i64>(), [-1, 7]);
        assert_eq!(state.get("q").unwrap().to_vec::<f32>(), [1.0, -1.0]);
        let again = StateDict::from_safetensors(&state.to_safetensors().unwrap()).unwrap();
        assert_eq!(again.stored_type("i"), Some(crate::StoredType::I16));
        assert_eq!(again.get("i").unwrap().to_vec::<i64>(), [-1, 7]);
    }

    #[test]
    fn sizes_do_not_wrap() {
        for shape in
            ["0,4611686018427387904,4611686018427387904", "4611686018427387904,8,0", "18446744073709551615,2"]
        {
            let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,0]}}}}"#);
            assert!(StateDict::from_safetensors(&file(&header, &[])).is_err(), "{shape}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = StateDict::from_safetensors(&bytes);
        }

        #[test]
        fn altered_files_do_not_panic(at in any::<prop::sample::Index>(), value: u8) {
            let mut bytes = sample();
            let i = at.index(bytes.len());
            bytes[i] = value;
            let _ = StateDict::from_safetensors(&bytes);
        }
    }
}
