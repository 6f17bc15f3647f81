//! Checkpoints: no altered one passes its checksum and then panics.
#![no_main]

use tapegrad_nn::Checkpoint;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_bytes(bytes) {
        let _ = (checkpoint.generator("data"), checkpoint.numbers("step"), checkpoint.part("model").len());
    }
});
