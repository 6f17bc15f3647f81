//! Archives of CIFAR, with and without compression.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = tapegrad_datasets::Cifar::parse_archive("f", bytes);
});
