//! The IDX format of MNIST, Fashion-MNIST, KMNIST and EMNIST, raw or compressed with gzip.
//!
//! A header (two zero bytes, the element type, the number of dimensions, then each dimension as a big-endian
//! `u32`) is followed by the elements. The header is not trusted: memory grows with the bytes actually
//! read, and a file that contains fewer or more than the header says is rejected. A compressed file that expands more
//! than 64-fold is rejected beyond 64 MB.

use std::io::{ErrorKind, Read};
use std::path::Path;

use byteorder::{BigEndian, ByteOrder};
use flate2::read::MultiGzDecoder;

use tapegrad_tape::Tensor;

use crate::error::{DataError, Result, read_file};

/// The largest allowed compression ratio: images compress to a fifth, a zip bomb to a thousandth.
const GROWTH: u64 = 64;
/// The size that a compressed file may expand to in any case: that of MNIST's files, even with blank images.
const SMALL: u64 = 1 << 26;

/// An array of unsigned bytes from an IDX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxArray {
    /// The size of each dimension, the slowest first: `[N, rows, columns]` for images, `[N]` for labels.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub data: Vec<u8>,
}

/// Reads an IDX file of unsigned bytes with `dims` dimensions; gzip is recognized by its first bytes.
///
/// # Errors
/// If the file cannot be read, or is not exactly such an array.
///
/// ```no_run
/// let images = tapegrad_datasets::idx::read("data/train-images-idx3-ubyte.gz", 3)?;
/// assert_eq!(images.shape, [60000, 28, 28]);
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
pub fn read(path: impl AsRef<Path>, dims: usize) -> Result<IdxArray> {
    let path = path.as_ref();
    parse(&path.display().to_string(), &read_file(path)?, dims)
}

/// Parses the bytes of an IDX file with `dims` dimensions (see [`read`]); `name` is used in error messages.
///
/// # Errors
/// If the bytes are not exactly such an array.
///
/// ```
/// let array = tapegrad_datasets::idx::parse("labels", &[0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1], 1)?;
/// assert_eq!((array.shape, array.data), (vec![3], vec![7, 2, 1]));
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
pub fn parse(name: &str, bytes: &[u8], dims: usize) -> Result<IdxArray> {
    match is_gzip(bytes) {
        true => packed(name, bytes).parse(dims),
        false => plain(name, bytes).parse(dims),
    }
}

/// Reads an IDX file of any element type and any number of dimensions, such as QMNIST's labels (`int32 [N, 8]`). Signed
/// integers become I64.
///
/// # Errors
/// If the file cannot be read, or is not exactly such an array.
pub fn read_any(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    parse_any(&path.display().to_string(), &read_file(path)?)
}

/// Parses the bytes of an IDX file of any type (see [`read_any`]); `name` is used in error messages.
///
/// # Errors
/// If the bytes are not exactly such an array.
///
/// ```
/// let bytes = [0, 0, 12, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 255, 255, 255, 255];
/// let array = tapegrad_datasets::idx::parse_any("labels", &bytes)?;
/// assert_eq!((array.shape(), array.to_vec::<i64>()), (&[1, 2][..], vec![5, -1]));
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
pub fn parse_any(name: &str, bytes: &[u8]) -> Result<Tensor> {
    match is_gzip(bytes) {
        true => packed(name, bytes).parse_any(),
        false => plain(name, bytes).parse_any(),
    }
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

fn packed<'a>(name: &'a str, bytes: &'a [u8]) -> Parser<'a, MultiGzDecoder<&'a [u8]>> {
    let most = (bytes.len() as u64).saturating_mul(GROWTH).max(SMALL);
    Parser { name, at: 0, input: MultiGzDecoder::new(bytes), most, gzip: true }
}

fn plain<'a>(name: &'a str, bytes: &'a [u8]) -> Parser<'a, &'a [u8]> {
    Parser { name, at: 0, input: bytes, most: bytes.len() as u64, gzip: false }
}

struct Parser<'a, R> {
    name: &'a str,
    at: u64,
    input: R,
    /// The largest possible size of the unpacked input.
    most: u64,
    gzip: bool,
}

impl<R: Read> Parser<'_, R> {
    fn parse(mut self, dims: usize) -> Result<IdxArray> {
        let expected = format!("{:#010x} (unsigned bytes, {})", 0x800 + dims, what(dims));
        let mut magic = [0; 4];
        self.fill(&mut magic, &format!("the magic number {expected}"))?;
        if magic != [0, 0, 8, dims as u8] {
            return Err(DataError::format(self.name, 0, describe_magic(magic), expected));
        }
        let (shape, data) = self.body(dims, 1)?;
        Ok(IdxArray { shape, data })
    }

    /// An array of any type and any number of dimensions.
    fn parse_any(mut self) -> Result<Tensor> {
        const EXPECTED: &str =
            "two zero bytes, an element type (8, 9, 11, 12, 13 or 14) and the number of dimensions";
        let mut magic = [0; 4];
        self.fill(&mut magic, EXPECTED)?;
        let [0, 0, kind @ (8 | 9 | 11..=14), dims] = magic else {
            return Err(DataError::format(
                self.name,
                0,
                format!("{:#010x}", BigEndian::read_u32(&magic)),
                EXPECTED,
            ));
        };
        let size = match kind {
            8 | 9 => 1,
            11 => 2,
            12 | 13 => 4,
            _ => 8,
        };
        let (shape, data) = self.body(dims.into(), size as u64)?;
        let ints = |decode: fn(&[u8]) -> i64| {
            Tensor::from_vec(data.chunks_exact(size).map(decode).collect(), &shape)
        };
        Ok(match kind {
            8 => Tensor::from_vec(data, &shape),
            9 => ints(|b| i64::from(b[0] as i8)),
            11 => ints(|b| BigEndian::read_i16(b).into()),
            12 => ints(|b| BigEndian::read_i32(b).into()),
            13 => Tensor::from_vec(data.chunks_exact(4).map(BigEndian::read_f32).collect(), &shape),
            _ => Tensor::from_vec(data.chunks_exact(8).map(BigEndian::read_f64).collect(), &shape),
        })
    }

    /// The sizes of this many dimensions, and the bytes of the elements, which have this size.
    fn body(mut self, dims: usize, element: u64) -> Result<(Vec<usize>, Vec<u8>)> {
        let mut shape = Vec::with_capacity(dims);
        let mut claimed = element;
        for d in 0..dims {
            let mut size = [0; 4];
            self.fill(&mut size, &format!("the size of dimension {d}"))?;
            let size = BigEndian::read_u32(&size);
            if size == 0 {
                return Err(DataError::format(self.name, self.at - 4, "a dimension of size 0", "at least 1"));
            }
            claimed = claimed.saturating_mul(size.into());
            shape.push(size as usize);
        }
        let most = self.most.saturating_sub(self.at);
        if claimed > most {
            let has = if self.gzip { "a gzip file that can hold at most" } else { "a truncated file with" };
            let found = format!("{has} {most} bytes of data");
            return Err(DataError::format(
                self.name,
                self.at,
                found,
                format!("{claimed} for a shape of {shape:?}"),
            ));
        }
        // For a compressed file, memory grows only as data is unpacked.
        let mut data = Vec::with_capacity(if self.gzip { 0 } else { claimed as usize });
        let start = self.at;
        let end = (&mut self.input).take(claimed).read_to_end(&mut data);
        self.at = start + data.len() as u64;
        end.map_err(|e| self.broken(e, "more data"))?;
        if (data.len() as u64) < claimed {
            let found = format!("the end of the file after {} bytes of data", data.len());
            return Err(DataError::format(
                self.name,
                self.at,
                found,
                format!("{claimed} for a shape of {shape:?}"),
            ));
        }
        // Reading on to the end also checks the gzip checksum.
        match self.input.read(&mut [0]) {
            Ok(0) => Ok((shape, data)),
            Ok(_) => {
                let expected = format!("the end of the file after a shape of {shape:?}");
                Err(DataError::format(self.name, self.at, "more bytes", expected))
            }
            Err(e) => Err(self.broken(e, "the end of the data")),
        }
    }

    fn fill(&mut self, buffer: &mut [u8], expected: &str) -> Result<()> {
        self.input.read_exact(buffer).map_err(|e| self.broken(e, expected))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn broken(&self, error: std::io::Error, expected: &str) -> DataError {
        let found = match (error.kind(), self.gzip) {
            (ErrorKind::UnexpectedEof, false) => "the end of the file".to_string(),
            (ErrorKind::UnexpectedEof, true) => "the end of a truncated gzip file".to_string(),
            _ => format!("corrupt gzip data ({error})"),
        };
        DataError::format(self.name, self.at, found, expected)
    }
}

fn what(dims: usize) -> &'static str {
    match dims {
        1 => "labels",
        3 => "images",
        _ => "an array",
    }
}

fn describe_magic(magic: [u8; 4]) -> String {
    let number = format!("magic number {:#010x}", BigEndian::read_u32(&magic));
    let kind = match magic {
        [0, 0, 8, dims @ (1 | 3)] => what(dims.into()),
        [0, 0, 9, _] => "signed bytes",
        [0, 0, 11 | 12, _] => "integers",
        [0, 0, 13 | 14, _] => "floating-point numbers",
        _ => "not an IDX file",
    };
    format!("{number} ({kind})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    fn idx(shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn message(bytes: &[u8], dims: usize) -> String {
        let message = parse("f", bytes, dims).unwrap_err().to_string();
        assert!(!message.contains('\n'));
        message
    }

    #[test]
    fn every_type_and_rank() {
        let file = |kind: u8, shape: &[u32], data: &[u8]| {
            let mut bytes = vec![0, 0, kind, shape.len() as u8];
            shape.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
            [bytes, data.to_vec()].concat()
        };
        let cases: [(u8, Vec<u8>); 6] = [
            (8, vec![7, 2]),
            (9, vec![7, 254]),
            (11, [7i16.to_be_bytes(), (-2i16).to_be_bytes()].concat()),
            (12, [7i32.to_be_bytes(), (-2i32).to_be_bytes()].concat()),
            (13, [7f32.to_be_bytes(), (-2f32).to_be_bytes()].concat()),
            (14, [7f64.to_be_bytes(), (-2f64).to_be_bytes()].concat()),
        ];
        for (kind, data) in cases {
            let values = if kind == 8 { [7.0, 2.0] } else { [7.0, -2.0] };
            for shape in [&[2][..], &[1, 2], &[2, 1, 1, 1, 1]] {
                let bytes = file(kind, shape, &data);
                let t = parse_any("f", &bytes).unwrap();
                assert_eq!(t.to_vec::<f64>(), values);
                assert_eq!(t.shape().len(), shape.len());
                for cut in 0..bytes.len() {
                    assert!(parse_any("f", &bytes[..cut]).is_err(), "type {kind}, {cut} bytes");
                }
                assert!(parse_any("f", &[&bytes[..], &[0]].concat()).is_err());
            }
        }
        assert_eq!(parse_any("f", &file(12, &[], &[0, 0, 0, 9])).unwrap().item::<i64>(), 9);
        let message = parse_any("f", &file(10, &[1], &[0])).unwrap_err().to_string();
        assert!(message.contains("found 0x00000a01, expected two zero bytes, an element type"), "{message}");
        let huge = parse_any("f", &file(14, &[u32::MAX; 255], &[0; 8])).unwrap_err().to_string();
        assert!(huge.contains("a truncated file with 8 bytes of data"), "{huge}");
    }

    #[test]
    fn reads_raw_and_gzip_alike() {
        let bytes = idx(&[2, 2, 3], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255]);
        let array = parse("f", &bytes, 3).unwrap();
        assert_eq!(array.shape, [2, 2, 3]);
        assert_eq!(array.data[11], 255);
        assert_eq!(parse("f", &gzip(&bytes), 3).unwrap(), array);
    }

    #[test]
    fn errors_name_place_and_expectation() {
        let labels = idx(&[3], &[1, 2, 3]);
        assert_eq!(
            message(&labels, 3),
            "f: offset 0: found magic number 0x00000801 (labels), expected 0x00000803 (unsigned bytes, images)"
        );
        assert!(message(b"<!DOCTYPE html>", 3).contains("0x3c21444f (not an IDX file)"));
        assert_eq!(
            message(&labels[..10], 1),
            "f: offset 8: found a truncated file with 2 bytes of data, expected 3 for a shape of [3]"
        );
        assert_eq!(
            message(&labels[..6], 1),
            "f: offset 4: found the end of the file, expected the size of dimension 0"
        );
        assert!(
            message(&[], 1).starts_with("f: offset 0: found the end of the file, expected the magic number")
        );
        assert!(
            message(&idx(&[3], &[1, 2, 3, 4]), 1).contains("offset 11: found more bytes, expected the end")
        );
        assert!(message(&idx(&[2, 0, 3], &[]), 3).contains("offset 8: found a dimension of size 0"));
        let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 100]);
        assert!(message(&huge, 3).contains("offset 16: found a truncated file with 100 bytes"));
        assert!(message(&gzip(&huge), 3).contains("a gzip file that can hold at most"));
    }

    #[test]
    fn broken_gzip_is_refused() {
        let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect();
        let good = gzip(&idx(&[5000], &noise));
        assert!(parse("f", &good, 1).is_ok());
        assert!(message(&good[..good.len() / 2], 1).contains("truncated gzip"));
        assert!(message(&good[..good.len() - 3], 1).contains("truncated gzip"));
        let mut bad = good.clone();
        let at = bad.len() - 6;
        bad[at] ^= 1;
        assert!(message(&bad, 1).contains("corrupt gzip"));
        // Fewer bytes inside than the header says, though the compressed size would allow them.
        assert!(message(&gzip(&idx(&[5001], &noise)), 1).contains("after 5000 bytes of data, expected 5001"));
        // Bytes after the end: of another array, of another gzip file, of no format at all.
        assert!(message(&gzip(&idx(&[4999], &noise)), 1).contains("offset 5007: found more bytes"));
        assert!(message(&[&good[..], &gzip(b"x")].concat(), 1).contains("offset 5008: found more bytes"));
        assert!(message(&[&good[..], b"x"].concat(), 1).contains("offset 5008: found "));
        assert!(message(&[&good[..], &[0; 64]].concat(), 1).contains("offset 5008: found "));
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let blank = |size: u32| {
            let piece = gzip(&vec![0; 1 << 20]);
            [gzip(&idx(&[size << 20], &[])), piece.repeat(size as usize)].concat()
        };
        let found = message(&blank(1800), 1);
        assert!(found.starts_with("f: offset 8: found a gzip file that can hold at most 1"), "{found}");
        assert!(found.ends_with("expected 1887436800 for a shape of [1887436800]"), "{found}");
        assert_eq!(parse("f", &blank(60), 1).unwrap().data.len(), 60 << 20);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), dims in 1usize..4) {
            let _ = parse("f", &bytes, dims);
            let mut prefixed = vec![0, 0, 8, dims as u8];
            prefixed.extend(&bytes);
            if let Ok(array) = parse("f", &prefixed, dims) {
                prop_assert!(array.data.capacity() <= prefixed.len());
            }
            let mut zipped = vec![0x1f, 0x8b, 8, 0];
            zipped.extend(&bytes);
            let _ = parse("f", &zipped, dims);
        }

        #[test]
        fn mutated_files_never_panic(
            rows in 1u32..6, columns in 1u32..6, at in any::<prop::sample::Index>(), to in any::<u8>(),
            cut in any::<prop::sample::Index>(), zip in any::<bool>(),
        ) {
            let plain = idx(&[3, rows, columns], &vec![7; (3 * rows * columns) as usize]);
            let mut bytes = if zip { gzip(&plain) } else { plain };
            let original = parse("f", &bytes, 3).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(array) = parse("f", &bytes, 3) {
                prop_assert_eq!(array.data.len(), original.data.len());
            }
            let _ = parse("f", &bytes[..cut.index(bytes.len())], 3);
        }
    }
}
