//! The arrays inside of `.npz` files.
#![no_main]

use tapegrad_nn::StateDict;
use std::io::{Cursor, Write};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    archive.start_file("x.npy", options).unwrap();
    archive.write_all(bytes).unwrap();
    let archive = archive.finish().unwrap().into_inner();
    if let Ok(state) = StateDict::from_npz(&archive) {
        // What was read is written and read alike.
        let again = StateDict::from_npz(&state.to_npz().unwrap()).unwrap();
        let (one, two) = (state.get("x").unwrap(), again.get("x").unwrap());
        assert_eq!((one.shape(), one.dtype()), (two.shape(), two.dtype()));
    }
});
