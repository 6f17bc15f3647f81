//! Files of `torch.save`, in both formats.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = tapegrad_nn::StateDict::from_torch(bytes) {
        let again = tapegrad_nn::StateDict::from_torch(&state.to_torch().unwrap()).unwrap();
        assert_eq!(again.len(), state.len());
    }
});
