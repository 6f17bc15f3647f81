//! The Python form of CIFAR: a batch, and the names of the classes.
#![no_main]

use tapegrad_datasets::{Cifar, Dataset};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for (train, test, meta) in [
        (
            &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"][..],
            "test_batch",
            "batches.meta",
        ),
        (&["train"][..], "test", "meta"),
    ] {
        let files = train.iter().chain([&test]).map(|&name| (name, bytes));
        if let Ok(set) = Cifar::parse_files(files) {
            assert_eq!(set.train.len(), train.len() * set.test.len());
        }
        let _ = Cifar::parse_files([(train[0], bytes), (meta, bytes)]);
        let _ = Cifar::parse_files([(meta, bytes), (train[0], bytes)]);
    }
});
