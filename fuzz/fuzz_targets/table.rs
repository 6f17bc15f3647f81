//! Tables with named columns: as many fields in each row as there are names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(table) = tapegrad_datasets::Table::parse("f", bytes) {
        for name in table.names() {
            assert_eq!(table.column(name).unwrap().len(), table.len());
            let _ = table.numbers(name, Some(0.0));
        }
    }
});
