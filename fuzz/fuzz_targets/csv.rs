//! Images as text: each line that is not blank is an image, or the header.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for pixels in [1, 3] {
        if let Ok(images) = tapegrad_datasets::csv::parse("f", bytes, pixels, 10) {
            let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let lines =
                text.split(|b| b"\r\n".contains(b)).filter(|line| !line.trim_ascii().is_empty()).count();
            assert!(images.labels.len() == lines || images.labels.len() + 1 == lines);
            assert_eq!(images.pixels.len(), pixels * images.labels.len());
            assert!(images.labels.iter().all(|&label| label < 10));
        }
    }
});
