//! Pickles: whatever the program is, it only makes values.
#![no_main]

use tapegrad_datasets::pickle::{Pickle, Value};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(pickle) = Pickle::parse("f", bytes) else { return };
    let look = |value: Value<'_>| {
        let _ = (
            pickle.text(value),
            pickle.ints(value),
            pickle.texts(value),
            pickle.items(value).map(<[_]>::len),
        );
        if let Some((shape, data)) = pickle.array(value) {
            assert_eq!(shape.iter().product::<usize>(), data.len());
        }
    };
    look(pickle.root());
    ["data", "labels", "fine_labels", "filenames"].iter().filter_map(|key| pickle.get(key)).for_each(look);
});
