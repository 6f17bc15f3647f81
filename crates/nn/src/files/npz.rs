//! NumPy's `.npz`: a zip archive of `.npy` files.

use super::{FileError, GROWTH, LoadOptions, npy};
use crate::StateDict;
use std::io::{Cursor, Read, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

impl StateDict {
    /// The bytes of a `.npz` file, as `numpy.load` reads it. BF16, which NumPy does not support, becomes F32; the
    /// metadata is omitted.
    ///
    /// # Errors
    /// If the format cannot hold a name.
    pub fn to_npz(&self) -> Result<Vec<u8>, FileError> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (key, t) in self.iter() {
            let bytes = npy::write(t);
            let options = options.large_file(bytes.len() >= u32::MAX as usize);
            archive
                .start_file(format!("{key}.npy"), options)
                .map_err(|e| FileError::of_key(key, e.to_string()))?;
            archive.write_all(&bytes).map_err(|e| FileError::of_key(key, e.to_string()))?;
        }
        Ok(archive.finish().map_err(|e| FileError::new(e.to_string()))?.into_inner())
    }

    /// A state dict from the bytes of a `.npz` file. Integers of other widths become I64. Arrays of strings are left out;
    /// [`StateDict::skipped`] lists them.
    ///
    /// # Errors
    /// If the bytes are not such a file, or contain anything but arrays of supported types or of strings, or a name twice, or
    /// expand too much ([`LoadOptions::max_bytes`]).
    pub fn from_npz(bytes: &[u8]) -> Result<StateDict, FileError> {
        LoadOptions::new().from_npz(bytes)
    }
}

pub(super) fn read(bytes: &[u8], options: &LoadOptions) -> Result<StateDict, FileError> {
    let wrong = |e: zip::result::ZipError| FileError::new(format!("not an npz file: {e}"));
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(wrong)?;
    if archive.has_duplicate_names() {
        return Err(FileError::new("holds two arrays with the same name"));
    }
    let mut left = options.budget(bytes.len());
    let mut state = StateDict::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(wrong)?;
        let name = entry.name().map_err(wrong)?.into_owned();
        let Some(key) = name.strip_suffix(".npy") else {
            return Err(FileError::of_key(&name, "is not an array: the name does not end with .npy"));
        };
        let mut data = Vec::new();
        (&mut entry)
            .take(left as u64 + 1)
            .read_to_end(&mut data)
            .map_err(|e| FileError::of_key(key, e.to_string()))?;
        left = left.checked_sub(data.len()).ok_or_else(|| {
            FileError::of_key(key, match options.max_bytes {
                Some(most) => format!("the archive expands to more than {most} bytes"),
                None => format!("the archive expands more than {GROWTH}-fold; LoadOptions::max_bytes sets another limit"),
            })
        })?;
        match npy::read(&data) {
            Ok((t, kept)) => state.insert_stored(key.into(), t, kept),
            Err(npy::Unread { reason, skippable }) if skippable || options.skip_unsupported => {
                state.skipped.push((key.into(), reason));
            }
            Err(e) => return Err(FileError::of_key(key, e.reason)),
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tapegrad_tape::{DType, Tensor};

    fn sample(method: CompressionMethod) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        archive.start_file("layer.weight.npy", options).unwrap();
        archive.write_all(&npy::write(&Tensor::from_vec(vec![1f32, 2.0, 3.0], &[3]))).unwrap();
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn compressed_archives() {
        let state = StateDict::from_npz(&sample(CompressionMethod::Deflated)).unwrap();
        assert_eq!(state.get("layer.weight").unwrap().to_vec::<f32>(), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        archive.start_file("x.npy", options).unwrap();
        archive.write_all(&npy::write(&Tensor::zeros_with(&[1 << 20], DType::F32))).unwrap();
        let bytes = archive.finish().unwrap().into_inner();
        let message = StateDict::from_npz(&bytes).unwrap_err().to_string();
        assert!(message.starts_with("x: the archive expands more than 64-fold"), "{message}");
        let limit = |n: usize| LoadOptions::new().max_bytes(n).from_npz(&bytes);
        assert_eq!(limit((4 << 20) + 128).unwrap().get("x").unwrap().numel(), 1 << 20);
        let message = limit(4 << 20).unwrap_err().to_string();
        assert_eq!(message, "x: the archive expands to more than 4194304 bytes");
    }

    #[test]
    fn arrays_of_strings_are_listed() {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let header = "{'descr': '<U1', 'fortran_order': False, 'shape': (2,)}";
        let names = [b"\x93NUMPY\x01\x00\x37\x00", header.as_bytes(), b"a\0\0\0b\0\0\0"].concat();
        for (name, bytes) in [("names.npy", names), ("x.npy", npy::write(&Tensor::scalar(1f32)))] {
            archive.start_file(name, SimpleFileOptions::default()).unwrap();
            archive.write_all(&bytes).unwrap();
        }
        let state = StateDict::from_npz(&archive.finish().unwrap().into_inner()).unwrap();
        assert_eq!(state.skipped(), [("names".into(), "elements of type \"<U1\" are strings".into())]);
        assert_eq!(state.len(), 1);
    }

    #[test]
    fn no_member_is_passed_over() {
        let archive = |names: [&str; 2]| {
            let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
            for name in names {
                archive.start_file(name, SimpleFileOptions::default()).unwrap();
                archive.write_all(&npy::write(&Tensor::scalar(1f32))).unwrap();
            }
            archive.finish().unwrap().into_inner()
        };
        assert_eq!(StateDict::from_npz(&archive(["a.npy", "b.npy"])).unwrap().len(), 2);
        for other in ["b", "b.npy.bak", "b/"] {
            let message = StateDict::from_npz(&archive(["a.npy", other])).unwrap_err().to_string();
            assert_eq!(message, format!("{other}: is not an array: the name does not end with .npy"));
        }
        // The writer refuses to make such an archive, so rename the second array in the bytes.
        let mut bytes = archive(["a.npy", "b.npy"]);
        while let Some(at) = bytes.windows(5).position(|w| w == b"b.npy") {
            bytes[at] = b'a';
        }
        assert_eq!(
            StateDict::from_npz(&bytes).unwrap_err().to_string(),
            "holds two arrays with the same name"
        );
    }

    proptest! {
        #[test]
        fn altered_archives_do_not_panic(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
                let mut bytes = sample(method);
                let i = at.index(bytes.len());
                bytes[i] = value;
                let _ = StateDict::from_npz(&bytes);
                bytes.truncate(cut.index(bytes.len()));
                let _ = StateDict::from_npz(&bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = StateDict::from_npz(&bytes);
        }
    }
}
