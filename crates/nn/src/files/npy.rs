//! NumPy's `.npy`: a header written as a Python dictionary, and the elements.

use super::{from_bytes, to_bytes};
use tapegrad_tape::shape::checked_numel;
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

/// A tensor from the bytes of a `.npy` file. Integers and floats of other widths become I64 and F32.
pub(super) fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("does not begin with NumPy's magic string")?;
    let (length, rest) = match *rest {
        [1, _, a, b, ref rest @ ..] => (usize::from(u16::from_le_bytes([a, b])), rest),
        [2 | 3, _, a, b, c, d, ref rest @ ..] => (u32::from_le_bytes([a, b, c, d]) as usize, rest),
        [version, ..] if version > 3 => {
            return Err(format!("version {version} of the format is not supported"));
        }
        _ => return Err("the header is truncated".into()),
    };
    if length > rest.len() {
        return Err(format!("the header should be {length} bytes long, but only {} are left", rest.len()));
    }
    let (header, data) = rest.split_at(length);
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text")?;
    let Header { descr, fortran, shape } = Header::parse(header)?;
    let mut stored = shape.clone();
    if fortran {
        stored.reverse();
    }
    let t = decode(&descr, data, &stored)?;
    if !fortran {
        return Ok(t);
    }
    let order: Vec<isize> = (0..shape.len() as isize).rev().collect();
    Ok(t.permute(&order).contiguous())
}

fn decode(descr: &str, data: &[u8], shape: &[usize]) -> Result<Tensor, String> {
    let plain = |dtype: DType| {
        from_bytes(data, shape, dtype)
            .ok_or_else(|| format!("shape {shape:?} of {dtype} does not fit {} bytes", data.len()))
    };
    fn widened<const N: usize>(data: &[u8], shape: &[usize], decode: fn([u8; N]) -> i64) -> Option<Tensor> {
        let values: Vec<i64> =
            data.chunks(N).map(|c| c.try_into().ok().map(decode)).collect::<Option<_>>()?;
        (checked_numel(shape)? == values.len()).then(|| Tensor::from_vec(values, shape))
    }
    let wide = match descr {
        "<f8" => return plain(DType::F64),
        "<f4" => return plain(DType::F32),
        "<f2" => return plain(DType::F16),
        "<i8" => return plain(DType::I64),
        "|u1" => return plain(DType::U8),
        "|b1" => return plain(DType::Bool),
        "<i4" => widened(data, shape, |b| i64::from(i32::from_le_bytes(b))),
        "<u4" => widened(data, shape, |b| i64::from(u32::from_le_bytes(b))),
        "<i2" => widened(data, shape, |b| i64::from(i16::from_le_bytes(b))),
        "<u2" => widened(data, shape, |b| i64::from(u16::from_le_bytes(b))),
        "|i1" => widened(data, shape, |b| i64::from(i8::from_le_bytes(b))),
        _ => return Err(format!("elements of type {descr:?} are not supported")),
    };
    wide.ok_or_else(|| format!("shape {shape:?} of {descr} does not fit {} bytes", data.len()))
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
        let t = read(FORTRAN).unwrap();
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
                    let message = read(&file(descr, order, &shape, &[])).unwrap_err();
                    assert!(message.contains("does not fit 0 bytes"), "{message}");
                }
                assert_eq!(read(&file(descr, order, "3, 0, 5", &[])).unwrap().numel(), 0);
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
                let message = read(&file(descr, "False", "2,", &vec![0; length])).unwrap_err();
                assert!(message.ends_with(&format!("does not fit {length} bytes")), "{descr}: {message}");
            }
        }
        for descr in [">f4", "<u8", "<c8", "<U3", "|O", "|V4"] {
            assert!(
                read(&file(descr, "False", "1,", &[0; 8])).unwrap_err().contains("are not supported"),
                "{descr}"
            );
        }
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
