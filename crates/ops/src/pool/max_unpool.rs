//! `max_unpool1d`, `max_unpool2d`, `max_unpool3d`.

use crate::Size;
use crate::options::size_setters;
use crate::size::check_sizes;
use tapegrad_tape::shape::{MAX_NUMEL, numel_for};
use tapegrad_tape::{DType, Tensor, Var, no_grad, record};

/// The arguments of a max unpooling: those of the pooling that it undoes. The stride is the kernel's size if it is not
/// set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxUnpoolOptions<const D: usize> {
    /// The size of the window.
    pub kernel_size: [usize; D],
    /// The step of the window.
    pub stride: [usize; D],
    /// What was added on both sides.
    pub padding: [usize; D],
    /// The size of the result, if it is not the smallest that the other arguments allow.
    pub output_size: Option<[usize; D]>,
}

impl<const D: usize> MaxUnpoolOptions<D> {
    /// For adjacent windows of a size.
    pub fn new(kernel_size: impl Into<Size<D>>) -> Self {
        let kernel_size = kernel_size.into().0;
        MaxUnpoolOptions { kernel_size, stride: kernel_size, padding: [0; D], output_size: None }
    }

    size_setters! { stride, padding }

    /// Sets the size of the result.
    pub fn output_size(mut self, size: impl Into<Size<D>>) -> Self {
        self.output_size = Some(size.into().0);
        self
    }
}

impl<const D: usize, T: Into<Size<D>>> From<T> for MaxUnpoolOptions<D> {
    fn from(kernel_size: T) -> Self {
        MaxUnpoolOptions::new(kernel_size)
    }
}

/// The spatial sizes of the result.
#[track_caller]
fn output_size<const D: usize>(op: &str, input: &[usize], o: &MaxUnpoolOptions<D>) -> [usize; D] {
    check_sizes(op, "kernel_size", &o.kernel_size);
    check_sizes(op, "stride", &o.stride);
    check_sizes(op, "padding", &o.padding);
    assert!(
        o.stride.iter().all(|&s| s > 0),
        "{op}: strides should be greater than zero, but got stride: {:?}",
        o.stride
    );
    std::array::from_fn(|d| {
        let reach = (input[d] as isize - 1).saturating_mul(o.stride[d] as isize);
        let reach = reach.saturating_add(o.kernel_size[d] as isize);
        let default = reach.saturating_sub(2 * o.padding[d] as isize);
        let size = match o.output_size {
            None => default,
            Some(size) => {
                let (size, stride) = (size[d].min(MAX_NUMEL) as isize, o.stride[d] as isize);
                let (low, high) = (default.saturating_sub(stride), default.saturating_add(stride));
                assert!(
                    low < size && size < high,
                    "{op}: invalid output_size {:?} (dim {d} must be between {low} and {high})",
                    o.output_size.expect("given")
                );
                size
            }
        };
        usize::try_from(size)
            .unwrap_or_else(|_| panic!("{op}: the result would have a size of {size} in dim {d}"))
    })
}

#[track_caller]
fn max_unpool<const D: usize>(op: &'static str, x: &Var, indices: &Var, o: MaxUnpoolOptions<D>) -> Var {
    assert!(
        x.ndim() == D + 1 || x.ndim() == D + 2,
        "{op}: input should be a {}d or {}d tensor, but got a tensor with {} dimensions",
        D + 1,
        D + 2,
        x.ndim()
    );
    assert!(
        indices.dtype() == DType::I64,
        "{op}: elements in indices should be type int64 but got: {}",
        indices.dtype()
    );
    assert!(
        indices.shape() == x.shape(),
        "{op}: expected shape of indices to be same as that of the input tensor ({:?}) but got indices tensor with shape: {:?}",
        x.shape(),
        indices.shape()
    );
    let lead = x.ndim() - D;
    let size = output_size(op, &x.shape()[lead..], &o);
    let shape = [&x.shape()[..lead], &size].concat();
    numel_for(op, &shape);
    let plane: usize = size.iter().product();
    if let Some(bad) = indices.to_vec::<i64>().iter().find(|&&i| i < 0 || i as usize >= plane) {
        panic!("{op}: found an invalid max index: {bad} (output volumes are of size {size:?})");
    }
    let signed = |s: &[usize]| s.iter().map(|&n| n as isize).collect::<Vec<_>>();
    let flat = |s: &[usize]| [&s[..lead], &[s[lead..].iter().product()]].concat();
    let index = indices.detach().reshape(&signed(&flat(x.shape())));
    let value = no_grad(|| {
        let zeros = Var::from(Tensor::zeros_with(&flat(&shape), x.dtype()));
        zeros.scatter(-1, &index, x.reshape(&signed(&flat(x.shape())))).reshape(&signed(&shape))
    });
    let (from, wide) = (signed(x.shape()), signed(&flat(&shape)));
    record(op, [x], value.into_tensor(), move |c| {
        [Some(c.grad().reshape(&wide).gather(-1, &index).reshape(&from))]
    })
}

macro_rules! max_unpool {
    ($($(#[$meta:meta])* $name:ident, $d:literal;)*) => {$(
        $(#[$meta])*
        ///
        /// The options may be just a kernel size. Where several elements have the same index, the last one is taken, and
        /// all get its gradient, as in PyTorch.
        ///
        /// # Panics
        /// If shapes, indices and options do not fit.
        #[track_caller]
        pub fn $name(input: &Var, indices: &Var, options: impl Into<MaxUnpoolOptions<$d>>) -> Var {
            max_unpool::<$d>(stringify!($name), input, indices, options.into())
        }
    )*};
}
max_unpool! {
    /// The elements of `[N, C, L]` or `[C, L]` where they were before a max pooling that returned these indices, and
    /// zeros elsewhere (`torch.nn.functional.max_unpool1d`).
    ///
    /// ```
    /// use tapegrad_ops::{max_pool1d_with_indices, max_unpool1d};
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 3.0, 2.0, 0.0], &[1, 1, 4]);
    /// let (y, indices) = max_pool1d_with_indices(&x, 2);
    /// assert_eq!(max_unpool1d(&y, &indices, 2).to_vec::<f32>(), [0.0, 3.0, 2.0, 0.0]);
    /// ```
    max_unpool1d, 1;
    /// The same for `[N, C, H, W]` or `[C, H, W]` (`torch.nn.functional.max_unpool2d`).
    max_unpool2d, 2;
    /// The same for `[N, C, D, H, W]` or `[C, D, H, W]` (`torch.nn.functional.max_unpool3d`).
    max_unpool3d, 3;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::max_pool2d_with_indices;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn what_pooling_took_is_put_back() {
        let x = parameter(&[2, 2, 4, 5], 1);
        let (y, indices) = max_pool2d_with_indices(&x, 2);
        let back = max_unpool2d(&y, &indices, MaxUnpoolOptions::new(2).output_size([4, 5]));
        let (again, other) = max_pool2d_with_indices(&(&back + where_zero(&back)), 2);
        assert_eq!(again.to_vec::<f64>(), y.to_vec::<f64>());
        assert_eq!(other.to_vec::<i64>(), indices.to_vec::<i64>());
        let options = MaxUnpoolOptions::<2>::new(2).output_size([4, 5]);
        check_gradients(
            |v| max_unpool2d(&v[0], &indices, options),
            &[y.detach().tensor()].map(Var::parameter),
        );
    }

    /// Minus two where nothing was put.
    fn where_zero(x: &Var) -> Var {
        x.eq(0.0).cast(DType::F64) * -2.0
    }

    #[test]
    #[should_panic(expected = "max_unpool2d: invalid output_size [4, 6] (dim 1 must be between 2 and 6)")]
    fn a_size_out_of_reach() {
        let indices = Var::from(Tensor::zeros_with(&[1, 2, 2], DType::I64));
        max_unpool2d(&parameter(&[1, 2, 2], 1), &indices, MaxUnpoolOptions::new(2).output_size([4, 6]));
    }

    #[test]
    #[should_panic(expected = "max_unpool1d: found an invalid max index: 4")]
    fn an_index_out_of_bounds() {
        max_unpool1d(&parameter(&[1, 1], 1), &Var::from_vec(vec![4i64], &[1, 1]), 4);
    }
}
