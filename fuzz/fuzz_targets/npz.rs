//! `.npz` files: zip archives of arrays.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = tapegrad_nn::StateDict::from_npz(bytes);
});
