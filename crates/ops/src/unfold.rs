//! `unfold` and `fold`: images as columns of patches, and the sum of patches as images. They are each other's adjoints.

use crate::Size;
use crate::kernels::col2im::add_patches;
use crate::kernels::geometry::Conv2dShape;
use crate::size::check_sizes;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, RecordOptions, Slice, Tensor, Var, dispatch, no_grad, record_with};

/// The arguments of [`unfold`] and [`fold`], with PyTorch's defaults.
///
/// ```
/// let options = tapegrad_ops::UnfoldOptions::new(3).padding(1);
/// assert_eq!((options.kernel_size, options.stride), ([3, 3], [1, 1]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfoldOptions {
    /// The size of a patch.
    pub kernel_size: [usize; 2],
    /// The distance between the elements of a patch.
    pub dilation: [usize; 2],
    /// Zeros added on both sides.
    pub padding: [usize; 2],
    /// The distance between patches.
    pub stride: [usize; 2],
}

impl UnfoldOptions {
    /// Patches of a size, one at every position.
    pub fn new(kernel_size: impl Into<Size<2>>) -> Self {
        UnfoldOptions { kernel_size: kernel_size.into().0, dilation: [1; 2], padding: [0; 2], stride: [1; 2] }
    }

    /// Sets the dilation.
    pub fn dilation(mut self, dilation: impl Into<Size<2>>) -> Self {
        self.dilation = dilation.into().0;
        self
    }

    /// Sets the padding.
    pub fn padding(mut self, padding: impl Into<Size<2>>) -> Self {
        self.padding = padding.into().0;
        self
    }

    /// Sets the stride.
    pub fn stride(mut self, stride: impl Into<Size<2>>) -> Self {
        self.stride = stride.into().0;
        self
    }

    /// The extent of a patch along a dimension.
    fn span(&self, d: usize) -> usize {
        (self.kernel_size[d] - 1).saturating_mul(self.dilation[d]).saturating_add(1)
    }

    /// The number of patches along the height and the width of images `[n, c, ...]`.
    #[track_caller]
    fn patches(&self, op: &str, images: [usize; 2], size: [usize; 2]) -> [usize; 2] {
        for (name, values) in
            [("kernel_size", self.kernel_size), ("dilation", self.dilation), ("stride", self.stride)]
        {
            assert!(!values.contains(&0), "{op}: {name} {values:?} has to be greater than zero");
            check_sizes(op, name, &values);
        }
        check_sizes(op, "padding", &self.padding);
        check_sizes(op, "the size", &size);
        let padded: [usize; 2] = std::array::from_fn(|d| size[d] + 2 * self.padding[d]);
        // This bounds the kernel and the number of patches.
        numel_for(op, &[&images[..], &padded].concat());
        std::array::from_fn(|d| {
            assert!(
                self.span(d) <= padded[d],
                "{op}: a patch of {:?} with dilation {:?} reaches over {}, more than the size {size:?} with padding {:?}",
                self.kernel_size,
                self.dilation,
                self.span(d),
                self.padding
            );
            (padded[d] - self.span(d)) / self.stride[d] + 1
        })
    }
}

impl<T: Into<Size<2>>> From<T> for UnfoldOptions {
    fn from(kernel_size: T) -> Self {
        UnfoldOptions::new(kernel_size)
    }
}

/// The patches of images as columns (im2col; `torch.nn.functional.unfold`): `[N, C, H, W]` or `[C, H, W]` becomes
/// `[N, C * kh * kw, patches]` or `[C * kh * kw, patches]`.
///
/// # Panics
/// If the input has other dimensions, or a patch is larger than the padded image.
///
/// ```
/// let x = tapegrad_tape::Var::from_vec((0..9).map(|i| i as f32).collect(), &[1, 1, 3, 3]);
/// let columns = tapegrad_ops::unfold(&x, 2);
/// assert_eq!(columns.shape(), [1, 4, 4]);
/// assert_eq!(columns.select(2, 3).to_vec::<f32>(), [4.0, 5.0, 7.0, 8.0]);
/// ```
#[track_caller]
pub fn unfold(x: &Var, options: impl Into<UnfoldOptions>) -> Var {
    let o = options.into();
    if x.ndim() == 3 {
        return unfold(&x.unsqueeze(0), o).squeeze(0);
    }
    assert!(x.ndim() == 4, "unfold: expected an input of 3 or 4 dimensions, but got shape {:?}", x.shape());
    let size = [x.size(2), x.size(3)];
    let patches = o.patches("unfold", [x.size(0), x.size(1)], size);
    if !matches!(x.dtype(), DType::F32 | DType::F64) {
        return windows(x, patches, o);
    }
    let value = no_grad(|| windows(&x.detach(), patches, o)).tensor();
    let linear = |t: &Var| unfold(t, o);
    record_with("unfold", [x], value, RecordOptions::new().linear(&linear), move |c| {
        [Some(fold(c.grad(), size, o))]
    })
}

/// The patches as a copy of a view.
fn windows(x: &Var, [oh, ow]: [usize; 2], o: UnfoldOptions) -> Var {
    let [ph, pw] = o.padding.map(|p| p as isize);
    let every = |d: usize| Slice::from(..).step(o.dilation[d]);
    let windows = x
        .pad(&[pw, pw, ph, ph])
        .unfold(2, o.span(0), o.stride[0])
        .unfold(3, o.span(1), o.stride[1])
        .slice(4, every(0))
        .slice(5, every(1));
    let (n, rows) = (x.size(0) as isize, x.size(1) * o.kernel_size[0] * o.kernel_size[1]);
    windows.permute(&[0, 1, 4, 5, 2, 3]).reshape(&[n, rows as isize, (oh * ow) as isize])
}

/// Sums columns of overlapping patches to images (col2im; `torch.nn.functional.fold`): the adjoint of [`unfold`].
/// `[N, C * kh * kw, patches]` or `[C * kh * kw, patches]` becomes `[N, C, H, W]` or `[C, H, W]`.
///
/// # Panics
/// If the columns are not those of such an image.
///
/// ```
/// let columns = tapegrad_tape::Var::from_vec(vec![1f32; 16], &[1, 4, 4]);
/// let image = tapegrad_ops::fold(&columns, 3, 2);
/// assert_eq!(image.to_vec::<f32>(), [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0]);
/// ```
#[track_caller]
pub fn fold(columns: &Var, output_size: impl Into<Size<2>>, options: impl Into<UnfoldOptions>) -> Var {
    let (o, Size(size)) = (options.into(), output_size.into());
    if columns.ndim() == 2 {
        return fold(&columns.unsqueeze(0), size, o).squeeze(0);
    }
    assert!(
        columns.ndim() == 3,
        "fold: expected columns of 2 or 3 dimensions, but got shape {:?}",
        columns.shape()
    );
    let (n, rows, patches) = (columns.size(0), columns.size(1), columns.size(2));
    let [oh, ow] = o.patches("fold", [n, 1], size);
    let [kh, kw] = o.kernel_size;
    assert!(
        rows.is_multiple_of(kh * kw) && patches == oh * ow,
        "fold: columns of shape {:?} do not fit: an output of {size:?} and patches of {kh} x {kw} take a multiple of {} \
         rows and {} patches",
        columns.shape(),
        kh * kw,
        oh * ow
    );
    let c = rows / (kh * kw);
    o.patches("fold", [n, c], size);
    if !matches!(columns.dtype(), DType::F32 | DType::F64) {
        return overlap(columns, [n, c, oh, ow], size, o);
    }
    let [h, w] = size;
    let UnfoldOptions { stride, padding, dilation, .. } = o;
    let shape = Conv2dShape { n, h, w, c_in: c, c_out: 1, groups: 1, kh, kw, stride, padding, dilation };
    let mut value = Tensor::zeros_with(&[n, c, h, w], columns.dtype());
    let data = columns.tensor().contiguous();
    dispatch!(float: columns.dtype(), "fold", T => {
        let data = data.as_slice::<T>().expect("contiguous");
        add_patches::<T>(data, value.data_mut::<T>(), &shape);
    });
    let linear = |t: &Var| fold(t, size, o);
    record_with("fold", [columns], value, RecordOptions::new().linear(&linear), move |c| {
        [Some(unfold(c.grad(), o))]
    })
}

/// The sum of patches by one dimension after the other.
fn overlap(columns: &Var, [n, c, oh, ow]: [usize; 4], size: [usize; 2], o: UnfoldOptions) -> Var {
    let [kh, kw] = o.kernel_size;
    let shape = [n, c, kh, kw, oh, ow].map(|s| s as isize);
    let windows = columns.reshape(&shape).permute(&[0, 1, 4, 5, 2, 3]);
    let windows = spread(&spread(&windows, 4, o.dilation[0]), 5, o.dilation[1]);
    let [ph, pw] = o.padding;
    windows
        .overlap_add(3, size[1] + 2 * pw, o.stride[1])
        .overlap_add(2, size[0] + 2 * ph, o.stride[0])
        .narrow(2, ph, size[0])
        .narrow(3, pw, size[1])
}

/// The entries of a dimension, `step` apart, with zeros in between.
fn spread(x: &Var, dim: isize, step: usize) -> Var {
    if step == 1 {
        return x.clone();
    }
    let count = x.size(dim);
    let mut shape = x.shape().to_vec();
    shape[dim as usize] = (count - 1) * step + 1;
    let places = Var::from_vec((0..count).map(|i| (i * step) as i64).collect(), &[count]);
    Var::from(Tensor::zeros_with(&shape, x.dtype())).index_add(dim, &places, x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    fn options() -> [UnfoldOptions; 3] {
        let o = UnfoldOptions::new((2, 3));
        [o, o.padding((1, 2)).stride((2, 1)), o.dilation((2, 1)).padding(1).stride((1, 2))]
    }

    #[test]
    fn gradients() {
        for o in options() {
            check_gradients(|x| unfold(&x[0], o), &[parameter(&[1, 2, 4, 3], 1)]);
            let columns = unfold(&parameter(&[2, 4, 3], 2), o);
            check_gradients(|x| fold(&x[0], (4, 3), o), &[parameter(columns.shape(), 3)]);
        }
    }

    #[test]
    fn sums_as_by_single_dimensions() {
        for o in options() {
            let columns = unfold(&parameter(&[2, 3, 5, 6], 4), o);
            let patches = o.patches("fold", [2, 3], [5, 6]);
            let y = parameter(columns.shape(), 5);
            let naive = overlap(&y, [2, 3, patches[0], patches[1]], [5, 6], o);
            assert_close(&fold(&y, (5, 6), o), &naive, 1e-12);
        }
    }

    #[test]
    fn they_are_adjoint() {
        for o in options() {
            let x = parameter(&[2, 3, 5, 6], 4);
            let columns = unfold(&x, o);
            let y = parameter(columns.shape(), 5);
            let (a, b) = ((&columns * &y).sum_all(), (&x * &fold(&y, (5, 6), o)).sum_all());
            assert_close(&a, &b, 1e-12);
        }
    }

    #[test]
    #[should_panic(expected = "fold: columns of shape [1, 4, 5] do not fit")]
    fn columns_of_another_image() {
        fold(&Var::from(Tensor::zeros_with(&[1, 4, 5], DType::F32)), 3, 2);
    }
}
