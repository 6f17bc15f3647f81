//! MNIST as text: one image a row, the label first, then its 784 pixels, with or without a header.
//!
//! A row is a line: numbers need no line breaks in quotes, and an unbalanced quote would otherwise swallow
//! the rows up to the next one. Every line is an image, a header if it comes first, blank, or an error.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use crate::error::{DataError, Result};

/// Images and labels from a text file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvImages {
    /// The label of each row.
    pub labels: Vec<u8>,
    /// The pixels of all rows, one row after the other.
    pub pixels: Vec<u8>,
}

/// Reads a file of rows `label, pixel, pixel, ...` with `pixels` pixels each and labels below `classes`.
///
/// The first row is a header if it has as many fields, none of them is empty or a number, and no two are the same.
/// Numbers may be quoted, surrounded by spaces, or written as `12.0`. Lines end with `\n`, `\r\n` or `\r`; blank
/// lines and a byte order mark are skipped.
///
/// # Errors
/// If the file cannot be read, or a row has the wrong number of fields, a label out of range, a pixel that is not
/// a number from 0 to 255 or an unbalanced quote; the error names the row.
///
/// ```no_run
/// let train = tapegrad_datasets::csv::read("data/mnist_train.csv", 784, 10)?;
/// assert_eq!(train.labels.len(), 60000);
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
pub fn read(path: impl AsRef<Path>, pixels: usize, classes: usize) -> Result<CsvImages> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(|e| DataError::io(path, e))?;
    parse(&path.display().to_string(), file, pixels, classes)
}

/// Parses rows from any reader (see [`read`]); `name` is used in error messages.
///
/// # Errors
/// As [`read`].
///
/// ```
/// let two = tapegrad_datasets::csv::parse("memory", &b"label,a,b\n3,0,255\n1,7,9\n"[..], 2, 10)?;
/// assert_eq!((two.labels, two.pixels), (vec![3, 1], vec![0, 255, 7, 9]));
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
pub fn parse(name: &str, input: impl Read, pixels: usize, classes: usize) -> Result<CsvImages> {
    let longest = pixels.saturating_mul(64).saturating_add(1 << 16);
    let mut lines = Lines::new(name, input, longest, "a row of numbers");
    let mut images = CsvImages { labels: vec![], pixels: vec![] };
    let mut first = true;
    while lines.advance()? {
        if !lines.text().trim_ascii().is_empty() {
            images.add(&lines, pixels, classes, std::mem::take(&mut first))?;
        }
    }
    if images.labels.is_empty() {
        return Err(lines.error("no images", "at least one row"));
    }
    Ok(images)
}

impl CsvImages {
    /// Adds the image of a line, unless it is the header.
    fn add<R>(&mut self, lines: &Lines<'_, R>, pixels: usize, classes: usize, first: bool) -> Result<()> {
        let text = lines.text();
        let fields = || text.split(|&b| b == b',');
        if text.contains(&b'"') && text.iter().filter(|&&b| b == b'"').count() % 2 == 1 {
            return Err(lines.error("an unbalanced quote", "quotes in pairs, and no line break between them"));
        }
        let count = fields().count();
        if count - 1 != pixels {
            let expected = format!("{} (a label and {pixels} pixels)", pixels.saturating_add(1));
            return Err(lines.error(format!("{count} fields"), expected));
        }
        if first && is_header(fields()) {
            return Ok(());
        }
        let label = fields().next().unwrap_or_default();
        match number(label) {
            Some(label) if (label as usize) < classes => self.labels.push(label),
            _ => {
                let mut expected = format!("a number from 0 to {}", classes.saturating_sub(1));
                if first && number(label).is_none() {
                    expected += ", or a header without any number";
                }
                return Err(lines.error(format!("label {}", shown(label)), expected));
            }
        }
        self.pixels.reserve(pixels);
        for (i, field) in fields().enumerate().skip(1) {
            let Some(value) = number(field) else {
                let found = format!("{} in field {}", shown(field), i + 1);
                return Err(lines.error(found, "a pixel from 0 to 255"));
            };
            self.pixels.push(value);
        }
        Ok(())
    }
}

/// Whether a row contains column names, and nothing that could be an image.
fn is_header<'f>(mut fields: impl Iterator<Item = &'f [u8]>) -> bool {
    let mut names = HashSet::new();
    fields.all(|field| {
        let field = bare(field);
        // Missing values (`NA`, `?`) are not numbers either, but they are all equal.
        let number = std::str::from_utf8(field).map_or(true, |text| text.parse::<f64>().is_ok());
        !field.is_empty() && !number && names.insert(field)
    })
}

/// A field without surrounding spaces and quotes.
fn bare(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    match field {
        [b'"', inner @ .., b'"'] => inner.trim_ascii(),
        _ => field,
    }
}

/// An integer from 0 to 255, perhaps written as `12.0`.
fn number(field: &[u8]) -> Option<u8> {
    let field = bare(field);
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

/// The lines of a text file, one at a time.
pub(crate) struct Lines<'n, R> {
    name: &'n str,
    /// What a line should be.
    expected: &'static str,
    input: BufReader<R>,
    line: Vec<u8>,
    /// The number of the line, from 1.
    row: u64,
    /// More bytes than any row needs.
    longest: usize,
    /// The last line ended with `\r`: a `\n` that follows belongs to it.
    after_return: bool,
}

impl<R> Lines<'_, R> {
    /// The line, without the byte order mark that some programs write.
    pub(crate) fn text(&self) -> &[u8] {
        match self.line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if self.row == 1 => rest,
            _ => &self.line,
        }
    }

    /// The number of the line, from 1.
    pub(crate) fn row(&self) -> u64 {
        self.row
    }

    pub(crate) fn error(&self, found: impl Into<String>, expected: impl Into<String>) -> DataError {
        DataError::row(self.name, self.row, found, expected)
    }
}

impl<'n, R: Read> Lines<'n, R> {
    pub(crate) fn new(name: &'n str, input: R, longest: usize, expected: &'static str) -> Self {
        let input = BufReader::with_capacity(1 << 18, input);
        Lines { name, expected, input, line: vec![], row: 0, longest, after_return: false }
    }

    /// Reads the next line; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        self.line.clear();
        self.row += 1;
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => {
                    let found = e.to_string().replace('\n', " ");
                    return Err(DataError::row(self.name, self.row, found, self.expected));
                }
            };
            if buffer.is_empty() {
                break;
            }
            if std::mem::take(&mut self.after_return) && buffer[0] == b'\n' {
                self.input.consume(1);
                continue;
            }
            let end = buffer.iter().position(|&b| b == b'\n' || b == b'\r');
            let length = end.unwrap_or(buffer.len());
            self.line.extend_from_slice(&buffer[..length]);
            self.after_return = end.is_some_and(|end| buffer[end] == b'\r');
            self.input.consume(length + usize::from(end.is_some()));
            if self.line.len() > self.longest {
                let found = format!("a line of more than {} bytes", self.longest);
                return Err(self.error(found, self.expected));
            }
            if end.is_some() {
                return Ok(true);
            }
        }
        Ok(!self.line.is_empty())
    }
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
            message("1,2,3,4\nx,2,3,4\n"),
            "f.csv: row 2: found label \"x\", expected a number from 0 to 9"
        );
        assert!(message("").contains("no images"));
        let missing = read("/nowhere/mnist_train.csv", 784, 10).unwrap_err().to_string();
        assert!(missing.starts_with("/nowhere/mnist_train.csv: "), "{missing}");
        let long = format!("1{}\n", ",0".repeat(782));
        let found = parse("f", long.as_bytes(), 784, 10).unwrap_err().to_string();
        assert_eq!(found, "f: row 1: found 783 fields, expected 785 (a label and 784 pixels)");
    }

    #[test]
    fn a_first_row_with_numbers_is_no_header() {
        let expected = "expected a number from 0 to 9, or a header without any number";
        for label in ["-1", "256", "1e1", "3.5", "x", "", "?"] {
            let found = message(&format!("{label},2,3,4\n5,2,3,4\n"));
            assert_eq!(found, format!("f.csv: row 1: found label {label:?}, {expected}"));
        }
        assert!(message("10,2,3,4\n").ends_with("row 1: found label \"10\", expected a number from 0 to 9"));
        // Two byte order marks: only the first one is removed.
        assert!(message("\u{feff}\u{feff}5,2,3,4\n").contains("row 1: found label \"\\u{feff}5\""));
        for row in
            ["label,0,1,2", "NA,NA,NA,NA", "nan,nan,nan,nan", ",,,", "a,,b,c", "a,b,c,-inf", "a,b,c,\" 7\""]
        {
            assert!(message(&format!("{row}\n5,2,3,4\n")).starts_with("f.csv: row 1: found label"), "{row}");
        }
        assert!(message("a,b,c,d\n").contains("found no images"));
    }

    #[test]
    fn a_header_stands_in_the_first_row_only() {
        let one = parse("f", &b"5,2,3,4"[..], 3, 10).unwrap();
        for text in [
            "label,1x1,1x2,1x3\n5,2,3,4",
            "\n \n\"label\",\"a\", b ,c\n\n5,2,3,4\n\n",
            "\u{feff}l,a,b,c\n5,2,3,4",
        ] {
            assert_eq!(parse("f", text.as_bytes(), 3, 10).unwrap(), one, "{text:?}");
        }
        assert!(message("l,a,b,c\n5,2,3,4\nl,a,b,c\n6,2,3,4").contains("row 3: found label \"l\""));
        assert!(message("l,a,b,c\n\nl,a,b,c\n6,2,3,4").contains("row 3: found label \"l\""));
        assert!(message("label,a,b\n5,2,3,4\n").contains("row 1: found 3 fields"));
    }

    #[test]
    fn a_quote_never_swallows_rows() {
        let expected = "found an unbalanced quote, expected quotes in pairs, and no line break between them";
        for (text, row) in [
            ("1,2,3,\"4\n2,2,3,4\n3,2,3,4\n4,2,3,4\"\n5,2,3,4\n", 1),
            ("1,2,3,4\n2,2,3,4\"\n3,2,3,4\n", 2),
            ("1,2,3,4\r\n2,2,\"3\r\n\",4\r\n", 2),
            ("l,a,b,\"c\n1,2,3,4\n", 1),
            ("1,2,3,4\n5,6,7,8\n\"", 3),
        ] {
            assert_eq!(message(text), format!("f.csv: row {row}: {expected}"));
        }
        // Balanced, but around more than a number, or inside one.
        assert!(message("1,\"2,3\",4\n").contains("row 1: found \"\\\"2\" in field 2"));
        assert!(message("1,2,3,\"4\"\"\"\n").contains("in field 4"));
        assert!(message("1,2,3,\"\"\n").contains("in field 4"));
    }

    #[test]
    fn rows_of_another_form_are_refused() {
        for (text, found) in [
            ("1,2,3,4\n2,3,4\n", "row 2: found 3 fields"),
            ("1,2,3,4\n2,3,4,5,\n", "row 2: found 5 fields"),
            ("1,2,3,4\n,,,\n", "row 2: found label \"\""),
            ("1,2,3,4\n# a remark\n", "row 2: found 1 fields"),
            ("1,2,3,4\n#2,3,4,5\n", "row 2: found label \"#2\""),
            ("#1,2,3,4\n", "row 1: found label \"#1\""),
            ("1;2;3;4\n", "row 1: found 1 fields"),
            ("1,2,3,4\n\n\n2,3,4,-5\n", "row 4: found \"-5\" in field 4"),
            ("1,2,3,4\0\n", "row 1: found \"4\\0\" in field 4"),
            ("1,2,3,4 2,3,4,5\n", "row 1: found 7 fields"),
        ] {
            let message = message(text);
            assert!(message.contains(found), "{text:?}: {message}");
        }
        let endless = std::io::repeat(b'1');
        let found = parse("f", endless, 3, 10).unwrap_err().to_string();
        assert!(found.starts_with("f: row 1: found a line of more than 65728 bytes"), "{found}");
        // UTF-16, with and without a header.
        for text in ["l,a,b,c\n5,2,3,4\n", "5,2,3,4\n6,2,3,4\n"] {
            let wide: Vec<u8> =
                "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
            assert!(parse("f", &wide[..], 3, 10).unwrap_err().to_string().contains("row 1: found label"));
        }
    }

    #[test]
    fn every_line_end_is_one() {
        /// Returns one byte per read.
        struct Slowly<'a>(&'a [u8]);
        impl Read for Slowly<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let n = self.0.len().min(buffer.len()).min(1);
                self.0.read(&mut buffer[..n])
            }
        }
        let plain = parse("f", &b"5,0,1,255\n9,3,4,5\n"[..], 3, 10).unwrap();
        for end in ["\n", "\r\n", "\r", "\n\r", "\r\r\n"] {
            let text = format!("\u{feff}l,a,b,c{end}5,0,1,255{end}9,3,4,5{end}");
            assert_eq!(parse("f", text.as_bytes(), 3, 10).unwrap(), plain, "{end:?}");
            assert_eq!(parse("f", Slowly(text.as_bytes()), 3, 10).unwrap(), plain, "{end:?}");
        }
        assert!(message("1,2,3,4\r\n5,6,7,8\r\n9,9\r\n").contains("row 3: found 2 fields"));
    }

    proptest! {
        #[test]
        fn no_row_vanishes(text in "([0-9]{0,2}[,\"\r\n a.-]{0,2}){0,12}") {
            if let Ok(images) = parse("f", text.as_bytes(), 1, 10) {
                let rows = text.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).count();
                let header = text.trim_start().split(['\n', '\r']).next().is_some_and(|line| !line.contains(|c: char| c.is_ascii_digit()));
                prop_assert_eq!(images.labels.len() + usize::from(header), rows);
                prop_assert_eq!(images.pixels.len(), images.labels.len());
            }
        }

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
