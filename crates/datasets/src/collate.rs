//! From samples to a batch, and from a batch to variables.

use tapegrad_tape::{DType, Element, Tensor, Var, bf16, f16};

/// A sample type that makes batches by itself, as PyTorch's `default_collate`.
///
/// | sample | batch |
/// |---|---|
/// | a number or `bool` | a tensor `[N]` of its type (I64 for the other integers) |
/// | a tensor | a tensor with a first dimension `N`; all have one shape and one type |
/// | `Vec<T>` of numbers: a sequence | the sequences `[N, longest]`, padded with zeros, and their lengths `[N]` |
/// | `[T; L]` of numbers | a tensor `[N, L]` |
/// | `String` | `Vec<String>` |
/// | a tuple of these | a tuple of their batches |
pub trait Collate: Sized {
    /// What the samples become.
    type Batch: Send + 'static;

    /// The batch of these samples, in their order.
    ///
    /// # Errors
    /// If the samples do not fit together, with the reason.
    fn collate(samples: Vec<Self>) -> Result<Self::Batch, String>;
}

macro_rules! numbers {
    ($($ty:ty => $element:ty;)*) => {$(
        impl Collate for $ty {
            type Batch = Tensor;
            fn collate(samples: Vec<Self>) -> Result<Tensor, String> {
                let n = samples.len();
                Ok(Tensor::from_vec(samples.into_iter().map(|x| x as $element).collect(), &[n]))
            }
        }
    )*};
}
numbers! {
    f32 => f32; f64 => f64; f16 => f16; bf16 => bf16; bool => bool; u8 => u8; i64 => i64;
    i8 => i64; i16 => i64; u16 => i64; i32 => i64; u32 => i64;
}

impl Collate for usize {
    type Batch = Tensor;
    fn collate(samples: Vec<usize>) -> Result<Tensor, String> {
        let n = samples.len();
        let signed = |x: usize| i64::try_from(x).map_err(|_| format!("{x} is too large for an I64"));
        Ok(Tensor::from_vec(samples.into_iter().map(signed).collect::<Result<Vec<i64>, _>>()?, &[n]))
    }
}

impl Collate for Tensor {
    type Batch = Tensor;
    fn collate(samples: Vec<Tensor>) -> Result<Tensor, String> {
        let Some(first) = samples.first() else { return Ok(Tensor::zeros_with(&[0], DType::F32)) };
        if let Some(other) = samples.iter().find(|t| t.shape() != first.shape()) {
            return Err(format!(
                "tensors of shapes {:?} and {:?} cannot be stacked; `pad_sequence` pads a first dimension",
                first.shape(),
                other.shape()
            ));
        }
        if let Some(other) = samples.iter().find(|t| t.dtype() != first.dtype()) {
            return Err(format!(
                "tensors of types {} and {} cannot be stacked",
                first.dtype(),
                other.dtype()
            ));
        }
        Ok(tapegrad_tape::stack(&samples.iter().map(Var::from).collect::<Vec<_>>(), 0).into_tensor())
    }
}

impl<T: Element> Collate for Vec<T> {
    type Batch = (Tensor, Tensor);
    fn collate(samples: Vec<Vec<T>>) -> Result<(Tensor, Tensor), String> {
        let longest = samples.iter().map(Vec::len).max().unwrap_or(0);
        let lengths: Vec<i64> = samples.iter().map(|s| s.len() as i64).collect();
        let mut flat = Vec::with_capacity(samples.len() * longest);
        for sample in &samples {
            flat.extend_from_slice(sample);
            flat.resize(flat.len() + longest - sample.len(), T::default());
        }
        let n = samples.len();
        Ok((Tensor::from_vec(flat, &[n, longest]), Tensor::from_vec(lengths, &[n])))
    }
}

impl<T: Element, const L: usize> Collate for [T; L] {
    type Batch = Tensor;
    fn collate(samples: Vec<[T; L]>) -> Result<Tensor, String> {
        Ok(Tensor::from_vec(samples.concat(), &[samples.len(), L]))
    }
}

impl Collate for String {
    type Batch = Vec<String>;
    fn collate(samples: Vec<String>) -> Result<Vec<String>, String> {
        Ok(samples)
    }
}

/// A batch as variables: what `for ... in &loader` gives. Tensors become [`Var`]s, tuples tuples of them.
pub trait IntoVars {
    /// The variables.
    type Vars;
    /// The batch as variables.
    fn into_vars(self) -> Self::Vars;
}

impl IntoVars for Tensor {
    type Vars = Var;
    fn into_vars(self) -> Var {
        Var::from(self)
    }
}

impl IntoVars for Vec<String> {
    type Vars = Vec<String>;
    fn into_vars(self) -> Vec<String> {
        self
    }
}

macro_rules! tuples {
    ($($name:ident $place:tt),*) => {
        impl<$($name: Collate),*> Collate for ($($name,)*) {
            type Batch = ($($name::Batch,)*);
            #[allow(non_snake_case)]
            fn collate(samples: Vec<Self>) -> Result<Self::Batch, String> {
                $(let mut $name = Vec::with_capacity(samples.len());)*
                for sample in samples {
                    $($name.push(sample.$place);)*
                }
                Ok(($(Collate::collate($name).map_err(|e| format!("part {}: {e}", $place))?,)*))
            }
        }

        impl<$($name: IntoVars),*> IntoVars for ($($name,)*) {
            type Vars = ($($name::Vars,)*);
            fn into_vars(self) -> Self::Vars {
                ($(self.$place.into_vars(),)*)
            }
        }
    };
}
tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);

/// Sequences `[length, ...]` as one tensor `[N, longest, ...]`, filled up with a value
/// (`torch.nn.utils.rnn.pad_sequence` with `batch_first=True`).
///
/// # Errors
/// If a sequence has no dimension, or they differ in type or in the other sizes.
///
/// ```
/// use tapegrad_tape::Tensor;
/// let padded = tapegrad_datasets::pad_sequence(&[Tensor::arange(1, 3), Tensor::arange(3, 4)], -1.0)?;
/// assert_eq!(padded.to_vec::<i64>(), [1, 2, 3, -1]);
/// # Ok::<(), String>(())
/// ```
pub fn pad_sequence(sequences: &[Tensor], value: f64) -> Result<Tensor, String> {
    let Some(first) = sequences.first() else { return Ok(Tensor::zeros_with(&[0, 0], DType::F32)) };
    let fits = |t: &Tensor| {
        t.ndim() > 0 && t.shape().get(1..) == first.shape().get(1..) && t.dtype() == first.dtype()
    };
    if let Some(other) = sequences.iter().find(|t| !fits(t)) {
        return Err(format!(
            "pad_sequence: sequences {} {:?} and {} {:?}; they should differ in their first size only",
            first.dtype(),
            first.shape(),
            other.dtype(),
            other.shape()
        ));
    }
    let longest = sequences.iter().map(|t| t.shape()[0]).max().unwrap_or(0);
    let padded = sequences.iter().map(|t| {
        let mut rest = t.shape().to_vec();
        rest[0] = longest - rest[0];
        let rest = Tensor::full_with(&rest, value, t.dtype());
        tapegrad_tape::cat(&[Var::from(t), Var::from(rest)], 0)
    });
    Ok(tapegrad_tape::stack(&padded.collect::<Vec<_>>(), 0).into_tensor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_types() {
        let batch = <(f32, u32, bool)>::collate(vec![(1.5, 7, true), (2.5, u32::MAX, false)]).unwrap();
        assert_eq!(
            (batch.0.dtype(), batch.1.dtype(), batch.2.dtype()),
            (DType::F32, DType::I64, DType::Bool)
        );
        assert_eq!(batch.1.to_vec::<i64>(), [7, u32::MAX.into()]);
        assert!(usize::collate(vec![usize::MAX]).unwrap_err().contains("too large"));
        assert_eq!(<[f32; 2]>::collate(vec![[1.0, 2.0], [3.0, 4.0]]).unwrap().shape(), [2, 2]);
    }

    #[test]
    fn sequences_are_padded_and_counted() {
        let ((words, lengths), labels) =
            <(Vec<i64>, i64)>::collate(vec![(vec![5, 6, 7], 0), (vec![], 1), (vec![8], 1)]).unwrap();
        assert_eq!(words.to_vec::<i64>(), [5, 6, 7, 0, 0, 0, 8, 0, 0]);
        assert_eq!((lengths.to_vec::<i64>(), labels.to_vec::<i64>()), (vec![3, 0, 1], vec![0, 1, 1]));
        let rows = |n: usize| Tensor::ones_with(&[n, 2], DType::F32);
        let padded = pad_sequence(&[rows(1), rows(2)], 9.0).unwrap();
        assert_eq!(padded.to_vec::<f32>(), [1.0, 1.0, 9.0, 9.0, 1.0, 1.0, 1.0, 1.0]);
        let wrong = pad_sequence(&[rows(1), Tensor::ones_with(&[1, 3], DType::F32)], 0.0).unwrap_err();
        assert!(wrong.contains("[1, 2]") && wrong.contains("[1, 3]"), "{wrong}");
    }

    #[test]
    fn what_cannot_be_stacked_is_named() {
        let a = Tensor::zeros_with(&[2], DType::F32);
        let error = <(i64, Tensor)>::collate(vec![(0, a.clone()), (1, Tensor::zeros_with(&[3], DType::F32))]);
        let error = error.unwrap_err();
        assert!(error.starts_with("part 1: tensors of shapes [2] and [3] cannot be stacked"), "{error}");
        let error = Tensor::collate(vec![a, Tensor::zeros_with(&[2], DType::I64)]).unwrap_err();
        assert!(error.contains("float32 and int64"), "{error}");
    }
}
