//! The binary form of CIFAR: the input is a head and the start of pixels, or the names of the classes.
#![no_main]

use tapegrad_datasets::{Cifar, Dataset};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (names, head) = bytes.split_at(bytes.len() / 2);
    for (train, test, meta, record) in [
        (
            &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
            ][..],
            "test_batch.bin",
            "batches.meta.txt",
            3073,
        ),
        (&["train.bin"][..], "test.bin", "fine_label_names.txt", 3074),
    ] {
        let mut batch = head.to_vec();
        // Most inputs are to be whole records.
        if head.first().is_some_and(|&b| b < 250) {
            batch.resize(head.len().next_multiple_of(record), 0);
        }
        let files: Vec<_> = train.iter().chain([&test]).map(|&name| (name, &batch[..])).collect();
        if let Ok(set) = Cifar::parse_files(files.iter().copied()) {
            assert_eq!(set.test.len() * record, batch.len());
            assert_eq!(set.train.len(), train.len() * set.test.len());
        }
        let _ = Cifar::parse_files(files.into_iter().chain([(meta, names)]));
    }
});
