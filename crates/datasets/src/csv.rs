//! MNIST as text: one picture a row, the label first, then its 784 pixels, with or without a header.

use std::io::Read;
use std::path::Path;

use crate::error::{DataError, Result};

/// Pictures and labels as a text file holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvImages {
    /// The label of each row.
    pub labels: Vec<u8>,
    /// The pixels of all rows, one row after the other.
    pub pixels: Vec<u8>,
}

/// Reads a file of rows `label, pixel, pixel, ...` with `pixels` pixels each and labels below `classes`.
///
/// A first row that does not begin with a number is a header.
///
/// # Errors
/// If the file cannot be read, or a row has another number of fields, a label out of range or a pixel that is not
/// a number from 0 to 255; the error names the row.
///
/// ```no_run
/// let train = datasets::csv::read("data/mnist_train.csv", 784, 10)?;
/// assert_eq!(train.labels.len(), 60000);
/// # Ok::<(), datasets::DataError>(())
/// ```
pub fn read(path: impl AsRef<Path>, pixels: usize, classes: usize) -> Result<CsvImages> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(|e| DataError::io(path, e))?;
    parse(&path.display().to_string(), file, pixels, classes)
}

/// Parses rows from any reader (see [`read`]); `name` stands in the errors.
///
/// # Errors
/// As [`read`].
///
/// ```
/// let two = datasets::csv::parse("memory", &b"label,a,b\n3,0,255\n1,7,9\n"[..], 2, 10)?;
/// assert_eq!((two.labels, two.pixels), (vec![3, 1], vec![0, 255, 7, 9]));
/// # Ok::<(), datasets::DataError>(())
/// ```
pub fn parse(name: &str, input: impl Read, pixels: usize, classes: usize) -> Result<CsvImages> {
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(1 << 18)
        .trim(::csv::Trim::None)
        .from_reader(input);
    let mut record = ::csv::ByteRecord::with_capacity(4 * pixels, pixels + 1);
    let (mut labels, mut values) = (Vec::new(), Vec::new());
    let mut row = 0;
    loop {
        let more = reader.read_byte_record(&mut record);
        row += 1;
        match more {
            Ok(true) => {}
            Ok(false) => break,
            Err(e) => {
                return Err(DataError::row(name, row, e.to_string().replace('\n', " "), "a row of numbers"));
            }
        }
        let fields = record.len();
        let first = record.get(0).unwrap_or_default();
        if row == 1 && fields == pixels + 1 && number(first).is_none() {
            continue;
        }
        if fields != pixels + 1 {
            let expected = format!("{} (a label and {pixels} pixels)", pixels + 1);
            return Err(DataError::row(name, row, format!("{fields} fields"), expected));
        }
        match number(first) {
            Some(label) if (label as usize) < classes => labels.push(label),
            _ => {
                let found = format!("label {}", shown(first));
                return Err(DataError::row(name, row, found, format!("a number from 0 to {}", classes - 1)));
            }
        }
        values.reserve(pixels);
        for (i, field) in record.iter().enumerate().skip(1) {
            let Some(value) = number(field) else {
                let found = format!("{} in field {}", shown(field), i + 1);
                return Err(DataError::row(name, row, found, "a pixel from 0 to 255"));
            };
            values.push(value);
        }
    }
    if labels.is_empty() {
        return Err(DataError::row(name, row, "no pictures", "at least one row"));
    }
    Ok(CsvImages { labels, pixels: values })
}

/// A whole number from 0 to 255 with blanks around it, or written as `12.0`.
fn number(field: &[u8]) -> Option<u8> {
    let field = field.trim_ascii();
    let digits = match field.iter().position(|&b| b == b'.') {
        Some(dot) if field[dot + 1..].iter().all(|&b| b == b'0') => &field[..dot],
        Some(_) => return None,
        None => field,
    };
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    let mut value = 0u32;
    for &b in digits {
        value = 10 * value + u32::from(b.is_ascii_digit().then(|| b - b'0')?);
    }
    value.try_into().ok()
}

/// A field as text, shortened, for a message of one line.
fn shown(field: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(field).chars().take(20).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(text: &str) -> String {
        let message = parse("f.csv", text.as_bytes(), 3, 10).unwrap_err().to_string();
        assert!(!message.contains('\n'));
        message
    }

    #[test]
    fn header_blanks_and_line_ends() {
        let plain = parse("f", &b"5,0,1,255\n9,3,4,5\n"[..], 3, 10).unwrap();
        assert_eq!(plain.labels, [5, 9]);
        assert_eq!(plain.pixels, [0, 1, 255, 3, 4, 5]);
        let other = "label,1x1,1x2,1x3\r\n5, 0,1.0,\"255\"\r\n9,3,4,5";
        assert_eq!(parse("f", other.as_bytes(), 3, 10).unwrap(), plain);
    }

    #[test]
    fn errors_name_the_row() {
        assert_eq!(
            message("1,2,3,4\n1,2,3\n"),
            "f.csv: row 2: found 3 fields, expected 4 (a label and 3 pixels)"
        );
        assert_eq!(
            message("label,a,b,c\n1,2,3,4\n10,2,3,4\n"),
            "f.csv: row 3: found label \"10\", expected a number from 0 to 9"
        );
        assert_eq!(
            message("1,2,3,256\n"),
            "f.csv: row 1: found \"256\" in field 4, expected a pixel from 0 to 255"
        );
        assert_eq!(
            message("1,2,x,4\n"),
            "f.csv: row 1: found \"x\" in field 3, expected a pixel from 0 to 255"
        );
        assert_eq!(
            message("x,2,3,4\nx,2,3,4\n"),
            "f.csv: row 2: found label \"x\", expected a number from 0 to 9"
        );
        assert!(message("").contains("no pictures"));
        let missing = read("/nowhere/mnist_train.csv", 784, 10).unwrap_err().to_string();
        assert!(missing.starts_with("/nowhere/mnist_train.csv: "), "{missing}");
        let long = format!("1{}\n", ",0".repeat(782));
        let found = parse("f", long.as_bytes(), 784, 10).unwrap_err().to_string();
        assert_eq!(found, "f: row 1: found 783 fields, expected 785 (a label and 784 pixels)");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse("f", &bytes[..], 3, 10);
        }

        #[test]
        fn mutated_text_never_panics(at in 0usize..24, to in any::<u8>()) {
            let mut text = b"1,2,3,4\n5,60,70,80\n9,9,9".to_vec();
            text[at] = to;
            if let Ok(images) = parse("f", &text[..], 3, 10) {
                prop_assert_eq!(images.pixels.len(), 3 * images.labels.len());
                prop_assert!(images.pixels.capacity() <= 4 * text.len() + 16);
            }
        }

        #[test]
        fn what_was_written_is_read(rows in proptest::collection::vec((0u8..10, any::<[u8; 3]>()), 1..20)) {
            let text: String = rows.iter().map(|(l, [a, b, c])| format!("{l},{a},{b},{c}\n")).collect();
            let images = parse("f", text.as_bytes(), 3, 10).unwrap();
            prop_assert_eq!(images.labels, rows.iter().map(|r| r.0).collect::<Vec<_>>());
            prop_assert_eq!(images.pixels, rows.iter().flat_map(|r| r.1).collect::<Vec<_>>());
        }
    }
}
