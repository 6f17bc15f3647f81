//! safetensors files: what is read is written and read alike.
#![no_main]

use tapegrad_nn::StateDict;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = StateDict::from_safetensors(bytes) {
        let again = StateDict::from_safetensors(&state.to_safetensors().unwrap()).unwrap();
        assert_eq!((again.len(), &again.metadata), (state.len(), &state.metadata));
        for (key, t) in state.iter() {
            let other = again.get(key).unwrap();
            assert_eq!((t.shape(), t.dtype()), (other.shape(), other.dtype()));
        }
    }
});
