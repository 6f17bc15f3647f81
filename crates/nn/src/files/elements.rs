//! Elements of types that tensors do not have: widened when they are read, and narrowed again when they are saved.

use super::{from_bytes, to_bytes};
use tapegrad_pickle::TorchType;
use tapegrad_tape::shape::checked_numel;
use tapegrad_tape::{DType, Tensor, f16};

/// The type that elements had in a file, where tensors have none like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// Signed bytes.
    I8,
    /// Signed integers of 16 bits.
    I16,
    /// Signed integers of 32 bits.
    I32,
    /// Unsigned integers of 16 bits.
    U16,
    /// Unsigned integers of 32 bits.
    U32,
}

impl StoredType {
    /// The values as little-endian bytes of this type; `None` unless all fit.
    pub(super) fn narrowed(self, t: &Tensor) -> Option<Vec<u8>> {
        fn bytes<T: TryFrom<i64>, const N: usize>(
            values: &[i64],
            encode: fn(T) -> [u8; N],
        ) -> Option<Vec<u8>> {
            let mut out = Vec::with_capacity(values.len() * N);
            for &v in values {
                out.extend_from_slice(&encode(T::try_from(v).ok()?));
            }
            Some(out)
        }
        if t.dtype() != DType::I64 {
            return None;
        }
        let t = t.contiguous();
        let values = t.as_slice::<i64>().expect("contiguous");
        match self {
            StoredType::I8 => bytes(values, i8::to_le_bytes),
            StoredType::I16 => bytes(values, i16::to_le_bytes),
            StoredType::I32 => bytes(values, i32::to_le_bytes),
            StoredType::U16 => bytes(values, u16::to_le_bytes),
            StoredType::U32 => bytes(values, u32::to_le_bytes),
        }
    }
}

/// The type in which a tensor is saved, and its bytes: the type that it was read as, where its values still fit.
pub(super) fn stored(t: &Tensor, stored: Option<StoredType>) -> (TorchType, Vec<u8>) {
    if let Some(stored) = stored
        && let Some(bytes) = stored.narrowed(t)
    {
        let dtype = match stored {
            StoredType::I8 => TorchType::I8,
            StoredType::I16 => TorchType::I16,
            StoredType::I32 => TorchType::I32,
            StoredType::U16 => TorchType::U16,
            StoredType::U32 => TorchType::U32,
        };
        return (dtype, bytes);
    }
    let dtype = match t.dtype() {
        DType::F64 => TorchType::F64,
        DType::F32 => TorchType::F32,
        DType::F16 => TorchType::F16,
        DType::BF16 => TorchType::BF16,
        DType::I64 => TorchType::I64,
        DType::U8 => TorchType::U8,
        DType::Bool => TorchType::Bool,
    };
    (dtype, to_bytes(t))
}

/// A tensor from the bytes of its elements, and the type that it had if it was widened: integers become I64, floats of
/// eight bits F32.
pub(super) fn decode(
    data: &[u8],
    shape: &[usize],
    dtype: TorchType,
) -> Result<(Tensor, Option<StoredType>), String> {
    let misfit = || format!("shape {shape:?} of {dtype:?} does not fit {} bytes", data.len());
    if checked_numel(shape).and_then(|n| n.checked_mul(dtype.size())) != Some(data.len()) {
        return Err(misfit());
    }
    fn ints<const N: usize>(data: &[u8], shape: &[usize], decode: fn([u8; N]) -> i64) -> Tensor {
        let values = data.chunks_exact(N).map(|c| decode(c.try_into().expect("chunks of N bytes")));
        Tensor::from_vec(values.collect(), shape)
    }
    fn floats(data: &[u8], shape: &[usize], decode: fn(u8) -> f32) -> Tensor {
        Tensor::from_vec(data.iter().map(|&b| decode(b)).collect(), shape)
    }
    let plain = |dtype: DType| from_bytes(data, shape, dtype).ok_or_else(misfit);
    Ok(match dtype {
        TorchType::F64 => (plain(DType::F64)?, None),
        TorchType::F32 => (plain(DType::F32)?, None),
        TorchType::F16 => (plain(DType::F16)?, None),
        TorchType::BF16 => (plain(DType::BF16)?, None),
        TorchType::I64 => (plain(DType::I64)?, None),
        TorchType::U8 => (plain(DType::U8)?, None),
        TorchType::Bool => (plain(DType::Bool)?, None),
        TorchType::I32 => (ints(data, shape, |b| i32::from_le_bytes(b).into()), Some(StoredType::I32)),
        TorchType::I16 => (ints(data, shape, |b| i16::from_le_bytes(b).into()), Some(StoredType::I16)),
        TorchType::I8 => (ints(data, shape, |b| i8::from_le_bytes(b).into()), Some(StoredType::I8)),
        TorchType::U32 => (ints(data, shape, |b| u32::from_le_bytes(b).into()), Some(StoredType::U32)),
        TorchType::U16 => (ints(data, shape, |b| u16::from_le_bytes(b).into()), Some(StoredType::U16)),
        TorchType::U64 => {
            let values = plain(DType::I64)?;
            if values.as_slice::<i64>().expect("contiguous").iter().any(|&v| v < 0) {
                return Err("unsigned integers beyond the range of I64".into());
            }
            (values, None)
        }
        TorchType::F8E4M3 => (floats(data, shape, e4m3), None),
        TorchType::F8E5M2 => (floats(data, shape, |b| f16::from_bits(u16::from(b) << 8).to_f32()), None),
        other => return Err(format!("elements of type {other:?} are not supported")),
    })
}

/// A float of eight bits with four for the exponent: no infinities, and one NaN of each sign.
fn e4m3(bits: u8) -> f32 {
    let (exponent, fraction) = (bits >> 3 & 15, f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2f32.powi(-9),
        _ => (8.0 + fraction) * 2f32.powi(i32::from(exponent) - 10),
    };
    if bits & 128 != 0 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_floats() {
        // torch.tensor([0x00, 0x01, 0x08, 0x38, 0x7e, 0x7f, 0xb8, 0xfe], dtype=torch.uint8).view(torch.float8_e4m3fn)
        let bytes = [0x00, 0x01, 0x08, 0x38, 0x7e, 0xb8, 0xfe];
        let (t, _) = decode(&bytes, &[7], TorchType::F8E4M3).unwrap();
        assert_eq!(t.to_vec::<f64>(), [0.0, 0.001953125, 0.015625, 1.0, 448.0, -1.0, -448.0]);
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        let (t, _) = decode(&[0x01, 0x3c, 0x7b, 0x7c, 0xbc], &[5], TorchType::F8E5M2).unwrap();
        assert_eq!(t.to_vec::<f64>(), [2f64.powi(-16), 1.0, 57344.0, f64::INFINITY, -1.0]);
    }

    #[test]
    fn integers_are_widened_and_narrowed_again() {
        let cases: [(TorchType, &[u8], &[i64]); 5] = [
            (TorchType::I8, &[255, 7], &[-1, 7]),
            (TorchType::I16, &[255, 255, 7, 0], &[-1, 7]),
            (TorchType::I32, &[254, 255, 255, 255, 7, 0, 0, 0], &[-2, 7]),
            (TorchType::U16, &[255, 255, 7, 0], &[65535, 7]),
            (TorchType::U32, &[255, 255, 255, 255, 7, 0, 0, 0], &[4294967295, 7]),
        ];
        for (dtype, bytes, values) in cases {
            let (t, kept) = decode(bytes, &[2], dtype).unwrap();
            assert_eq!(t.to_vec::<i64>(), values);
            assert_eq!(stored(&t, kept), (dtype, bytes.to_vec()));
            // A value that no longer fits makes all of them I64.
            let large = Tensor::from_vec(vec![1i64 << 40, 7], &[2]);
            assert_eq!(stored(&large, kept).0, TorchType::I64);
        }
        assert!(decode(&[255; 8], &[1], TorchType::U64).unwrap_err().contains("beyond the range"));
        assert!(
            decode(&[0; 8], &[1], TorchType::Complex64).unwrap_err().contains("Complex64 are not supported")
        );
        assert!(decode(&[0; 3], &[1], TorchType::I16).unwrap_err().contains("does not fit 3 bytes"));
        assert!(decode(&[], &[1 << 62, 4], TorchType::I16).unwrap_err().contains("does not fit 0 bytes"));
    }
}
