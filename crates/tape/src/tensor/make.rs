//! Tensors made from values, and memory for kernels to fill.

use super::Tensor;
use crate::dtype::{DType, Element, Scalar, default_dtype};
use crate::int_list::{Int, IntList};
use crate::shape::{self, Dims, MemoryFormat};
use crate::storage::{OutOfMemoryError, Storage};
use std::sync::Arc;

impl Tensor {
    /// A row-major tensor with the values of `data`, in their memory: nothing is copied (`torch.from_numpy`).
    ///
    /// # Panics
    /// If the number of values does not match the shape.
    ///
    /// ```
    /// use tapegrad_tape::Tensor;
    /// let data = vec![1f32, 2.0, 3.0, 4.0];
    /// let memory = data.as_ptr();
    /// let t = Tensor::from_vec(data, (2, 2));
    /// assert_eq!(t.as_slice::<f32>().unwrap().as_ptr(), memory);
    /// assert_eq!(t.into_vec::<f32>().as_ptr(), memory);
    /// ```
    #[track_caller]
    pub fn from_vec<T: Element>(data: Vec<T>, shape: impl IntList) -> Tensor {
        let shape = shape.to_sizes("from_vec");
        check_count(&shape, data.len());
        let (strides, dtype) = (shape::contiguous_strides(&shape), T::DTYPE);
        Tensor { storage: Arc::new(Storage::from_vec(data)), offset: 0, shape, strides, dtype }
    }

    /// A row-major tensor with a copy of the values of `data`.
    ///
    /// # Panics
    /// If the number of values does not match the shape.
    #[track_caller]
    pub fn from_slice<T: Element>(data: &[T], shape: impl IntList) -> Tensor {
        let shape = &shape.to_sizes("from_slice");
        check_count(shape, data.len());
        let mut t = Tensor::uninit(shape, T::DTYPE);
        t.data_mut::<T>().copy_from_slice(data);
        t
    }

    /// A view of `data` with the given strides and offset (in elements).
    ///
    /// # Panics
    /// If an element would be outside `data`, or shape and strides differ in length.
    #[track_caller]
    pub fn from_strided<T: Element>(data: &[T], shape: &[usize], strides: &[usize], offset: usize) -> Tensor {
        assert_eq!(
            shape.len(),
            strides.len(),
            "Tensor: shape {shape:?} and strides {strides:?} differ in length"
        );
        let base = Tensor::from_slice(data, &[data.len()]);
        if shape::numel_for("Tensor", shape) == 0 {
            return base.view_as(shape.into(), shape::contiguous_strides(shape), 0);
        }
        // An overflow of usize is outside, too.
        let last =
            shape.iter().zip(strides).fold(offset, |at, (&n, &s)| at.saturating_add(s.saturating_mul(n - 1)));
        assert!(
            last < data.len(),
            "Tensor: element {last} lies outside the {} given values: shape {shape:?}, strides {strides:?}, offset {offset}",
            data.len()
        );
        Tensor { offset, shape: shape.into(), strides: strides.into(), ..base }
    }

    /// A tensor of one element and no dimension, of the value's own type.
    pub fn scalar(value: impl Into<Scalar>) -> Tensor {
        let value = value.into();
        Tensor::full_with((), value, value.dtype())
    }

    /// Every element is `value`, in the [default type](crate::set_default_dtype) (`torch.full`).
    #[track_caller]
    pub fn full(shape: impl IntList, value: impl Into<Scalar>) -> Tensor {
        Tensor::full_with(shape, value, default_dtype())
    }

    /// [`Tensor::full`] of a given type.
    #[track_caller]
    pub fn full_with(shape: impl IntList, value: impl Into<Scalar>, dtype: DType) -> Tensor {
        let shape = &shape.to_sizes("full");
        Tensor::filled("full", shape, value.into(), dtype)
    }

    #[track_caller]
    fn filled(op: &str, shape: &[usize], value: Scalar, dtype: DType) -> Tensor {
        shape::numel_for(op, shape);
        let mut t = Tensor::uninit(shape, dtype);
        t.fill(value);
        t
    }

    fn fill(&mut self, value: Scalar) {
        crate::dispatch!(all: self.dtype, "full", T => self.data_mut::<T>().fill(value.to::<T>()));
    }

    /// Like [`Tensor::full`], for a request that may exceed the available memory.
    ///
    /// # Errors
    /// If there is not enough memory, with the number of bytes.
    pub fn try_full(
        shape: impl IntList,
        value: impl Into<Scalar>,
        dtype: DType,
    ) -> Result<Tensor, OutOfMemoryError> {
        let shape = &shape.to_sizes("try_full");
        let mut t = Tensor::try_uninit_strided(shape, shape::contiguous_strides(shape), dtype)?;
        t.fill(value.into());
        Ok(t)
    }

    /// Like [`Tensor::zeros`], for a request that may exceed the available memory.
    ///
    /// # Errors
    /// If there is not enough memory, with the number of bytes.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor};
    /// assert_eq!(Tensor::try_zeros(&[2, 3], DType::F32).unwrap().numel(), 6);
    /// let error = Tensor::try_zeros([1usize << 40, 1 << 18], DType::F32).unwrap_err();
    /// assert_eq!(error.bytes, 1 << 60);
    /// ```
    pub fn try_zeros(shape: impl IntList, dtype: DType) -> Result<Tensor, OutOfMemoryError> {
        let shape = &shape.to_sizes("try_zeros");
        Tensor::try_full(shape, 0, dtype)
    }

    /// Every element is zero, in the [default type](crate::set_default_dtype) (`torch.zeros`).
    #[track_caller]
    pub fn zeros(shape: impl IntList) -> Tensor {
        Tensor::zeros_with(shape, default_dtype())
    }

    /// [`Tensor::zeros`] of a given type.
    #[track_caller]
    pub fn zeros_with(shape: impl IntList, dtype: DType) -> Tensor {
        let shape = &shape.to_sizes("zeros");
        Tensor::filled("zeros", shape, 0.into(), dtype)
    }

    /// Every element is one, in the [default type](crate::set_default_dtype) (`torch.ones`).
    #[track_caller]
    pub fn ones(shape: impl IntList) -> Tensor {
        Tensor::ones_with(shape, default_dtype())
    }

    /// [`Tensor::ones`] of a given type.
    #[track_caller]
    pub fn ones_with(shape: impl IntList, dtype: DType) -> Tensor {
        let shape = &shape.to_sizes("ones");
        Tensor::filled("ones", shape, 1.into(), dtype)
    }

    /// `start`, `start + 1`, ... up to but excluding `end`, as I64. Empty if `end <= start`.
    #[track_caller]
    pub fn arange(start: impl Int, end: impl Int) -> Tensor {
        let (start, end) = (start.to_i64(), end.to_i64());
        let n = if start < end { end.abs_diff(start) as usize } else { 0 };
        shape::numel_for("arange", &[n]);
        let mut t = Tensor::uninit(&[n], DType::I64);
        t.data_mut::<i64>().iter_mut().zip(start..end).for_each(|(v, i)| *v = i);
        t
    }

    /// A row-major tensor for a kernel to fill: its contents are arbitrary until then.
    #[track_caller]
    pub fn uninit(shape: &[usize], dtype: DType) -> Tensor {
        Tensor::uninit_strided(shape, shape::contiguous_strides(shape), dtype)
    }

    /// A tensor in a memory format for a kernel to fill: its contents are arbitrary until then.
    #[track_caller]
    pub fn uninit_format(shape: &[usize], dtype: DType, format: MemoryFormat) -> Tensor {
        let strides = match format {
            MemoryFormat::Contiguous => shape::contiguous_strides(shape),
            MemoryFormat::ChannelsLast => shape::channels_last_strides(shape),
        };
        Tensor::uninit_strided(shape, strides, dtype)
    }

    /// With dense strides, a permutation of row-major ones.
    #[track_caller]
    pub(crate) fn uninit_strided(shape: &[usize], strides: Dims, dtype: DType) -> Tensor {
        let n = shape::numel_for("Tensor", shape);
        Tensor::allocate(n, shape, strides, dtype)
            .unwrap_or_else(|e| panic!("{e}, for a tensor of shape {shape:?} and type {dtype}"))
    }

    fn try_uninit_strided(shape: &[usize], strides: Dims, dtype: DType) -> Result<Tensor, OutOfMemoryError> {
        let n = shape::checked_numel(shape).ok_or(OutOfMemoryError { bytes: usize::MAX })?;
        Tensor::allocate(n, shape, strides, dtype)
    }

    fn allocate(n: usize, shape: &[usize], strides: Dims, dtype: DType) -> Result<Tensor, OutOfMemoryError> {
        let storage = Storage::try_new(n * dtype.size(), dtype)?;
        Ok(Tensor { storage: Arc::new(storage), offset: 0, shape: Dims::from_slice(shape), strides, dtype })
    }
}

/// Refuses another number of values than a shape has elements.
#[track_caller]
fn check_count(shape: &[usize], values: usize) {
    assert!(
        shape::checked_numel(shape) == Some(values),
        "Tensor: {values} values were given for the shape {shape:?}"
    );
}
