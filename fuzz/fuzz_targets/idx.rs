//! Arrays in IDX files, raw or compressed: nothing more than the input holds comes out.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for dims in [1, 3] {
        if let Ok(array) = tapegrad_datasets::idx::parse("f", bytes, dims) {
            assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
            assert!(bytes.starts_with(&[0x1f, 0x8b]) || array.data.len() + 4 + 4 * dims == bytes.len());
        }
    }
});
