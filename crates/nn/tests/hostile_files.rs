//! Mutated files of weights: no panic, and no more memory than the file's size and the format justify.

#[path = "../../datasets/tests/hostile/mod.rs"]
mod hostile;

use hostile::attack;
use std::io::{Cursor, Write};
use tapegrad_nn::{Checkpoint, StateDict};
use tapegrad_tape::{DType, Tensor};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

const KB: usize = 1 << 10;

fn zip(method: CompressionMethod, members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// `numpy.save` of `numpy.array([[1, 2, 3], [4, 5, 6]], dtype='<i2', order='F')`.
const NPY: &[u8] = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }                                                           \n\x01\x00\x04\x00\x02\x00\x05\x00\x03\x00\x06\x00";

/// A single test, since the allocator counts for all threads.
#[test]
fn mutated_files_neither_panic_nor_fill_the_memory() {
    let mut state = StateDict::new();
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::U8, DType::Bool] {
        state.insert(format!("layer.{dtype}"), Tensor::full_with(&[3, 2], 1, dtype));
    }
    state.insert("empty", Tensor::zeros_with(&[0, 3], DType::F32));
    state.metadata.insert("note".into(), "text".into());
    let safetensors = state.to_safetensors().unwrap();
    let npz = state.to_npz().unwrap();
    let mut checkpoint = Checkpoint::new();
    checkpoint.put("model", &state);
    checkpoint.put_numbers("step", &[7]);
    let dir = tempfile::tempdir().unwrap();
    checkpoint.save(dir.path().join("c")).unwrap();
    let checkpoint = std::fs::read(dir.path().join("c")).unwrap();
    let torch = state.to_torch().unwrap();
    let deflated = zip(CompressionMethod::Deflated, &[("a.npy", NPY), ("b.npy", NPY)]);

    let safe = |bytes: &[u8]| drop(StateDict::from_safetensors(bytes));
    let zipped = |bytes: &[u8]| drop(StateDict::from_npz(bytes));
    attack("safetensors", &safetensors, 20_000, 64, 64 * KB, safe);
    attack("checkpoint", &checkpoint, 10_000, 64, 64 * KB, |bytes| drop(Checkpoint::from_bytes(bytes)));
    attack("npz", &npz, 10_000, 64, 256 * KB, zipped);
    attack("compressed npz", &deflated, 10_000, 200, 256 * KB, zipped);
    let pickled = |bytes: &[u8]| drop(StateDict::from_torch(bytes));
    attack("torch", &torch, 10_000, 200, 256 * KB, pickled);
    attack("legacy torch", include_bytes!("../src/files/torch/legacy.pt"), 10_000, 200, 256 * KB, pickled);
    attack("npy", NPY, 20_000, 64, 256 * KB, |bytes| {
        zipped(&zip(CompressionMethod::Stored, &[("a.npy", bytes)]))
    });
}
