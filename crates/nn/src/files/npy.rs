//! NumPy's `.npy`: a header written as a Python dictionary, and the elements.

use super::elements::{StoredType, decode};
use super::to_bytes;
use tapegrad_pickle::TorchType;
use tapegrad_tape::{DType, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The bytes of a `.npy` file. BF16, which NumPy does not support, becomes F32.
pub(super) fn write(t: &Tensor) -> Vec<u8> {
    let t = if t.dtype() == DType::BF16 { t.cast(DType::F32) } else { t.clone() };
    let descr = match t.dtype() {
        DType::F64 => "<f8",
        DType::F32 | DType::BF16 => "<f4",
        DType::F16 => "<f2",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::Bool => "|b1",
    };
    let sizes: String = t.shape().iter().map(|n| format!("{n}, ")).collect();
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", sizes.trim_end());
    // The elements begin at a multiple of 64.
    let length = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    header.push_str(&" ".repeat(length - 1 - header.len()));
    header.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&to_bytes(&t));
    out
}

/// Why an array was not read.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) reason: String,
    /// It holds strings, which no model needs.
    pub(super) skippable: bool,
}

impl<S: Into<String>> From<S> for Unread {
    fn from(reason: S) -> Unread {
        Unread { reason: reason.into(), skippable: false }
    }
}

/// A tensor from the bytes of a `.npy` file, and its type if it was widened: integers of other widths become I64.
pub(super) fn read(bytes: &[u8]) -> Result<(Tensor, Option<StoredType>), Unread> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("does not begin with NumPy's magic string")?;
    let (length, rest) = match *rest {
        [1, _, a, b, ref rest @ ..] => (usize::from(u16::from_le_bytes([a, b])), rest),
        [2 | 3, _, a, b, c, d, ref rest @ ..] => (u32::from_le_bytes([a, b, c, d]) as usize, rest),
        [version, ..] if version > 3 => {
            return Err(format!("version {version} of the format is not supported").into());
        }
        _ => return Err("the header is truncated".into()),
    };
    if length > rest.len() {
        return Err(
            format!("the header should be {length} bytes long, but only {} are left", rest.len()).into()
        );
    }
    let (header, data) = rest.split_at(length);
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text")?;
    let Header { descr, fortran, shape } = Header::parse(header)?;
    if ["<U", ">U", "|S", "<S"].iter().any(|strings| descr.starts_with(strings)) {
        let shown: String = descr.chars().take(20).collect();
        return Err(Unread { reason: format!("elements of type {shown:?} are strings"), skippable: true });
    }
    let mut stored = shape.clone();
    if fortran {
        stored.reverse();
    }
    let (t, kept) = elements(&descr, data, &stored)?;
    if !fortran {
        return Ok((t, kept));
    }
    let order: Vec<isize> = (0..shape.len() as isize).rev().collect();
    Ok((t.permute(&order).contiguous(), kept))
}

/// The elements of an array, of either byte order.
fn elements(descr: &str, data: &[u8], shape: &[usize]) -> Result<(Tensor, Option<StoredType>), String> {
    let dtype = match descr.get(1..) {
        Some("f8") => TorchType::F64,
        Some("f4") => TorchType::F32,
        Some("f2") => TorchType::F16,
        Some("i8") => TorchType::I64,
        Some("i4") => TorchType::I32,
        Some("i2") => TorchType::I16,
        Some("i1") => TorchType::I8,
        Some("u8") => TorchType::U64,
        Some("u4") => TorchType::U32,
        Some("u2") => TorchType::U16,
        Some("u1") => TorchType::U8,
        Some("b1") => TorchType::Bool,
        _ => return Err(format!("elements of type {descr:?} are not supported")),
    };
    match (descr.as_bytes()[0], dtype.size()) {
        (b'<' | b'=', _) | (b'|' | b'>', 1) => decode(data, shape, dtype),
        (b'>', size) => {
            let mut swapped = data.to_vec();
            swapped.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            decode(&swapped, shape, dtype)
        }
        _ => Err(format!("elements of type {descr:?} are not supported")),
    }
}

struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Header, String> {
        let wrong =
            |what: &str| format!("the header has no {what}: {:?}", text.chars().take(80).collect::<String>());
        let after = |key: &str| {
            let start = text.find(&format!("'{key}'"))? + key.len() + 2;
            text[start..].trim_start().strip_prefix(':').map(str::trim_start)
        };
        let descr = after("descr")
            .and_then(|s| s.strip_prefix('\'')?.split_once('\''))
            .map(|(descr, _)| descr.to_string())
            .ok_or_else(|| wrong("plain type"))?;
        let fortran = match after("fortran_order") {
            Some(s) if s.starts_with("True") => true,
            Some(s) if s.starts_with("False") => false,
            _ => return Err(wrong("order")),
        };
        let sizes = after("shape")
            .and_then(|s| s.strip_prefix('(')?.split_once(')'))
            .ok_or_else(|| wrong("shape"))?
            .0;
        let shape = sizes
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(|s| s.parse().map_err(|_| wrong("valid shape")))
            .collect::<Result<Vec<usize>, String>>()?;
        if shape.len() > 64 {
            return Err(format!("{} dimensions", shape.len()));
        }
        Ok(Header { descr, fortran, shape })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `numpy.save` of `numpy.array([[1, 2, 3], [4, 5, 6]], dtype='<i2', order='F')`.
    const FORTRAN: &[u8] = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }                                                           \n\x01\x00\x04\x00\x02\x00\x05\x00\x03\x00\x06\x00";

    #[test]
    fn reads_bytes_written_by_numpy() {
        let (t, kept) = read(FORTRAN).unwrap();
        assert_eq!(kept, Some(StoredType::I16));
        assert_eq!((t.shape(), t.to_vec::<i64>()), (&[2, 3][..], vec![1, 2, 3, 4, 5, 6]));
        let bytes = write(&Tensor::from_vec(vec![1f32, 2.0], &[2]));
        assert!(
            bytes.starts_with(
                b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
            )
        );
        assert_eq!(bytes.len(), 128 + 8);
    }

    fn file(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape})}}");
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn sizes_do_not_wrap() {
        let huge = (1u64 << 62).to_string();
        for order in ["False", "True"] {
            for descr in ["<f4", "<i2", "|b1"] {
                for shape in [
                    format!("0, {huge}, {huge}"),
                    format!("{huge}, {huge}, 0"),
                    format!("{huge}, 4,"),
                    format!("{},", u64::MAX),
                ] {
                    let message = read(&file(descr, order, &shape, &[])).unwrap_err().reason;
                    assert!(message.contains("does not fit 0 bytes"), "{message}");
                }
                assert_eq!(read(&file(descr, order, "3, 0, 5", &[])).unwrap().0.numel(), 0);
            }
        }
    }

    #[test]
    fn every_byte_belongs_to_an_element() {
        for (descr, size) in
            [("<f8", 8), ("<f4", 4), ("<f2", 2), ("<i8", 8), ("<i4", 4), ("<u2", 2), ("|u1", 1), ("|b1", 1)]
        {
            assert!(read(&file(descr, "False", "2,", &vec![0; 2 * size])).is_ok());
            for length in [2 * size - 1, 2 * size + 1, 3 * size] {
                let message = read(&file(descr, "False", "2,", &vec![0; length])).unwrap_err().reason;
                assert!(message.ends_with(&format!("does not fit {length} bytes")), "{descr}: {message}");
            }
        }
        for descr in ["<c8", "|O", "|V4", "|f4", "f4", "x", "", "\u{e4}f4"] {
            let error = read(&file(descr, "False", "1,", &[0; 8])).unwrap_err();
            assert!(error.reason.contains("are not supported") && !error.skippable, "{descr}");
        }
    }

    #[test]
    fn every_width_and_both_byte_orders() {
        let values =
            |descr: &str, data: &[u8]| read(&file(descr, "False", "1,", data)).unwrap().0.to_vec::<f64>();
        assert_eq!(values(">f4", &1.5f32.to_be_bytes()), [1.5]);
        assert_eq!(values(">f8", &(-2.5f64).to_be_bytes()), [-2.5]);
        assert_eq!(values(">f2", &[0x3c, 0]), [1.0]);
        assert_eq!(values(">i2", &(-300i16).to_be_bytes()), [-300.0]);
        assert_eq!(values(">u4", &70000u32.to_be_bytes()), [70000.0]);
        assert_eq!(values("<u8", &7u64.to_le_bytes()), [7.0]);
        assert_eq!(values(">i8", &(-7i64).to_be_bytes()), [-7.0]);
        assert_eq!(values("|i1", &[255]), [-1.0]);
        let large = read(&file("<u8", "False", "1,", &u64::MAX.to_le_bytes())).unwrap_err().reason;
        assert!(large.contains("beyond the range"), "{large}");
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        for length in 0..FORTRAN.len() {
            assert!(read(&FORTRAN[..length]).is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn altered_bytes_do_not_panic(at in any::<prop::sample::Index>(), value: u8) {
            let mut bytes = FORTRAN.to_vec();
            let i = at.index(bytes.len());
            bytes[i] = value;
            let _ = read(&bytes);
        }

        #[test]
        fn arbitrary_headers_do_not_panic(descr in ".{0,6}", shape in "[0-9, ]{0,40}", data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape})}}");
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(&data);
            let _ = read(&bytes);
        }
    }
}
