//! Tensors: typed, strided data without gradients.

mod make;
mod views;

use crate::dtype::{DType, Element};
use crate::int_list::Int;
use crate::kernels::{half, list::copy_of, strided};
use crate::shape::{self, Dims, MemoryFormat};
use crate::storage::Storage;
use std::sync::Arc;

/// Data: a shape, strides, an offset, an element type and shared memory.
///
/// Values are immutable and cloning is cheap. Views (`permute`, `narrow`, `expand`, ...) share memory. Updates in
/// place, such as an optimizer's step, use [`Tensor::make_mut`], which copies first if the memory is shared.
///
/// ```
/// use tapegrad_tape::Tensor;
/// let t = Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
/// assert_eq!(t.transpose(0, 1).to_vec::<f32>(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// ```
pub struct Tensor {
    storage: Arc<Storage>,
    offset: usize,
    shape: Dims,
    strides: Dims,
    dtype: DType,
}

impl Clone for Tensor {
    #[inline]
    fn clone(&self) -> Tensor {
        self.view_as(Dims::from_slice(&self.shape), Dims::from_slice(&self.strides), self.offset)
    }
}

impl Tensor {
    /// The sizes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The distance, in elements, between neighbors along each dimension.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// The offset of the first element in memory, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The number of dimensions.
    pub fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        // Checked when the tensor was made.
        self.shape.iter().product()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of a dimension; negative ones count from the back.
    #[track_caller]
    pub fn size(&self, dim: impl Int) -> usize {
        self.shape.get(shape::dim("size", dim, self.ndim())).copied().unwrap_or(1)
    }

    /// Bytes of memory that its elements take.
    pub fn bytes(&self) -> usize {
        self.numel() * self.dtype.size()
    }

    /// True if the elements are contiguous in row-major order.
    pub fn is_contiguous(&self) -> bool {
        shape::is_contiguous(&self.shape, &self.strides)
    }

    /// True if the elements are contiguous in this order.
    pub fn is_contiguous_in(&self, format: MemoryFormat) -> bool {
        match format {
            MemoryFormat::Contiguous => self.is_contiguous(),
            MemoryFormat::ChannelsLast if self.ndim() < 3 => self.is_contiguous(),
            MemoryFormat::ChannelsLast => {
                let mut order: Dims = (0..self.ndim()).filter(|&d| d != 1).collect();
                order.push(1);
                let t = self.permute_dims(&order);
                shape::is_contiguous(&t.shape, &t.strides)
            }
        }
    }

    /// True if its elements fill a range of memory without gaps or overlap, in any order.
    pub(crate) fn is_dense(&self) -> bool {
        if self.is_contiguous() {
            return true;
        }
        let mut dims: Dims = (0..self.ndim()).filter(|&d| self.shape[d] != 1).collect();
        shape::sort_descending(&mut dims, &|d| self.strides[d]);
        let mut step = 1;
        self.numel() == 0
            || dims.iter().rev().all(|&d| {
                let fits = self.strides[d] == step;
                step *= self.shape[d];
                fits
            })
    }

    /// The elements, if they are contiguous in row-major order.
    ///
    /// # Panics
    /// If `T` is not the element type.
    #[track_caller]
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        self.is_contiguous().then(|| self.memory::<T>(self.numel()))
    }

    /// The elements, if they are contiguous in channels-last order.
    ///
    /// # Panics
    /// If `T` is not the element type.
    #[track_caller]
    pub fn as_channels_last_slice<T: Element>(&self) -> Option<&[T]> {
        self.is_contiguous_in(MemoryFormat::ChannelsLast).then(|| self.memory::<T>(self.numel()))
    }

    #[track_caller]
    fn check_type<T: Element>(&self) {
        assert_eq!(self.dtype, T::DTYPE, "Tensor: the elements are {}, not {}", self.dtype, T::DTYPE);
    }

    /// The first `len` elements in memory, from the offset on.
    #[track_caller]
    pub(crate) fn memory<T: Element>(&self, len: usize) -> &[T] {
        self.check_type::<T>();
        if len == 0 {
            return &[];
        }
        self.storage.slice(self.offset, len)
    }

    /// All memory from the offset on; it contains every element at its strides.
    #[track_caller]
    pub fn data<T: Element>(&self) -> &[T] {
        self.memory::<T>((self.storage.len() / self.dtype.size()).saturating_sub(self.offset))
    }

    /// All memory of a tensor that a kernel has just made and that is not shared, in memory order.
    ///
    /// # Panics
    /// If `T` is not the element type, the memory is shared, or the elements do not fill it.
    #[track_caller]
    pub fn data_mut<T: Element>(&mut self) -> &mut [T] {
        self.check_type::<T>();
        assert!(self.is_dense(), "Tensor: strides {:?} have gaps; use make_mut", self.strides);
        let n = self.numel();
        let storage = Arc::get_mut(&mut self.storage).expect("Tensor: the memory is shared; use make_mut");
        if n == 0 {
            return &mut [];
        }
        storage.slice_mut(self.offset, n)
    }

    /// The elements for in-place changes, in memory order (row-major for a contiguous tensor).
    ///
    /// Copies first if the memory is shared or the strides have gaps: no other tensor sees the change.
    ///
    /// # Panics
    /// If `T` is not the element type.
    #[track_caller]
    pub fn make_mut<T: Element>(&mut self) -> &mut [T] {
        self.check_type::<T>();
        if !self.is_dense() {
            *self = self.copy(shape::contiguous_strides(&self.shape));
        } else if Arc::get_mut(&mut self.storage).is_none() {
            *self = self.copy(self.strides.clone());
        }
        self.data_mut::<T>()
    }

    /// True if no other tensor shares the memory, so that it can be reused.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// True if both share the same memory.
    pub fn shares_memory_with(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// A copy with the given dense strides.
    pub(crate) fn copy(&self, strides: Dims) -> Tensor {
        let mut out = Tensor::uninit_strided(&self.shape, strides, self.dtype);
        crate::dispatch!(all: self.dtype, "copy", T => strided::copy_into::<T>(&mut out, self));
        out
    }

    /// The elements in row-major order, converted to `T`.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        let t = self.cast(T::DTYPE).contiguous();
        copy_of("to_vec", t.as_slice::<T>().expect("contiguous"))
    }

    /// The elements in row-major order, converted to `T`, without a copy if they are in the memory of a vector of that
    /// type (see [`Tensor::from_vec`]) that nothing else shares.
    #[track_caller]
    pub fn into_vec<T: Element>(mut self) -> Vec<T> {
        let whole = self.is_contiguous() && self.bytes() == self.storage.len();
        if whole && Arc::get_mut(&mut self.storage).is_some() {
            let Tensor { storage, offset, shape, strides, dtype } = self;
            match Arc::into_inner(storage).expect("shared by nothing").into_vec() {
                Ok(data) => return data,
                Err(storage) => self = Tensor { storage: Arc::new(storage), offset, shape, strides, dtype },
            }
        }
        self.to_vec()
    }

    /// The only element, converted to `T`.
    ///
    /// # Panics
    /// If there is not exactly one element.
    #[track_caller]
    pub fn item<T: Element>(&self) -> T {
        assert_eq!(
            self.numel(),
            1,
            "item: the tensor of shape {:?} has {} elements, not one",
            self.shape,
            self.numel()
        );
        let t = self.cast(T::DTYPE);
        t.memory::<T>(1)[0]
    }

    /// The same values in row-major order; no copy if they already are.
    pub fn contiguous(&self) -> Tensor {
        self.to_format(MemoryFormat::Contiguous)
    }

    /// The same values in a memory format; no copy if they already are.
    pub fn to_format(&self, format: MemoryFormat) -> Tensor {
        if self.is_contiguous_in(format) {
            return self.clone();
        }
        self.copy(match format {
            MemoryFormat::Contiguous => shape::contiguous_strides(&self.shape),
            MemoryFormat::ChannelsLast => shape::channels_last_strides(&self.shape),
        })
    }

    /// The values converted to another type, as by `torch.Tensor.to`.
    pub fn cast(&self, dtype: DType) -> Tensor {
        if dtype == self.dtype {
            return self.clone();
        }
        match (self.dtype, dtype) {
            (DType::F32, DType::BF16) => return strided::map_rows(self, strided::GRAIN, &half::narrow),
            (DType::BF16, DType::F32) => return strided::map_rows(self, strided::GRAIN, &half::widen),
            _ => {}
        }
        let mut out = Tensor::uninit_strided(&self.shape, self.dense_strides(), dtype);
        crate::dispatch!(all: self.dtype, "cast", A => crate::dispatch!(all: dtype, "cast", B => {
            if A::DTYPE.is_float() {
                strided::unary_into(&mut out, self, |x: A| B::from_f64(x.to_f64()));
            } else {
                strided::unary_into(&mut out, self, |x: A| B::from_i64(Element::to_i64(x)));
            }
        }));
        out
    }

    /// [`Tensor::cast`] of a temporary, which is returned where it has this type.
    pub(crate) fn into_type(self, dtype: DType) -> Tensor {
        if dtype == self.dtype { self } else { self.cast(dtype) }
    }

    /// True if an element is not a number.
    pub(crate) fn has_nan(&self) -> bool {
        self.dtype.is_float() && self.to_vec::<f64>().iter().any(|v| v.is_nan())
    }

    pub(crate) fn has_infinity(&self) -> bool {
        self.dtype.is_float() && self.to_vec::<f64>().iter().any(|v| v.is_infinite())
    }

    /// Strides for a result of the same shape: its own strides if they are dense, else row-major.
    pub(crate) fn dense_strides(&self) -> Dims {
        if self.is_dense() { self.strides.clone() } else { shape::contiguous_strides(&self.shape) }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({:?}, {}, strides={:?})", self.shape(), self.dtype, self.strides())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> Tensor {
        Tensor::arange(0, shape::numel(shape) as i64).cast(DType::F32).reshape(shape)
    }

    #[test]
    fn channels_last_keeps_logical_values() {
        let t = counting(&[2, 3, 4, 5]);
        let c = t.to_format(MemoryFormat::ChannelsLast);
        assert_eq!(c.strides(), [60, 1, 15, 3]);
        assert_eq!(c.to_vec::<f32>(), t.to_vec::<f32>());
        assert!(c.is_contiguous_in(MemoryFormat::ChannelsLast) && !c.is_contiguous());
        assert_eq!(c.cast(DType::F64).strides(), c.strides());
    }

    #[test]
    fn writing_never_changes_another_tensor() {
        let a = counting(&[3]);
        let mut b = a.clone();
        b.make_mut::<f32>()[0] = 9.0;
        assert_eq!((a.to_vec::<f32>()[0], b.to_vec::<f32>()[0]), (0.0, 9.0));
        let mut e = counting(&[1]).expand(&[2]);
        e.make_mut::<f32>()[0] = 5.0;
        assert_eq!(e.to_vec::<f32>(), [5.0, 0.0]);
    }

    #[test]
    fn casts() {
        let t = Tensor::from_vec(vec![0.5f32, -1.7, 300.0], &[3]);
        assert_eq!(t.to_vec::<i64>(), [0, -1, 300]);
        assert_eq!(t.to_vec::<bool>(), [true, true, true]);
        assert_eq!(t.cast(DType::BF16).to_vec::<f64>(), [0.5, -1.703125, 300.0]);
        let big = (1i64 << 53) + 1;
        assert_eq!(Tensor::from_vec(vec![big], &[1]).cast(DType::I64).item::<i64>(), big);
    }

    #[test]
    fn empty_and_scalar_tensors() {
        assert!(Tensor::zeros_with(&[0, 3], DType::F32).to_vec::<f32>().is_empty());
        assert_eq!(Tensor::scalar(2.5).expand(&[2, 2]).to_vec::<f64>(), [2.5; 4]);
        assert_eq!(Tensor::zeros_with(&[2, 0], DType::F32).transpose(0, 1).reshape(&[0]).numel(), 0);
    }
}
