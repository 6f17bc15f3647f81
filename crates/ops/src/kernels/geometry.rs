//! The geometry of convolutions.

use tapegrad_tape::shape::MAX_NUMEL;

/// The sizes of a two-dimensional convolution, as every convolution kernel takes them.
///
/// Activations are channels-last (`n`, `h`, `w`, channels), weights are (`c_out`, `c_in / groups`, `kh`, `kw`),
/// all contiguous. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dShape {
    /// Images in the batch.
    pub n: usize,
    /// Rows of an input image.
    pub h: usize,
    /// Columns of an input image.
    pub w: usize,
    /// Channels of the input.
    pub c_in: usize,
    /// Channels of the output.
    pub c_out: usize,
    /// The channels of both sides are split into this many independent groups; at least 1.
    pub groups: usize,
    /// Rows of the kernel.
    pub kh: usize,
    /// Columns of the kernel.
    pub kw: usize,
    /// Distance between neighboring windows; at least 1.
    pub stride: [usize; 2],
    /// Zeros added on each side of the input.
    pub padding: [usize; 2],
    /// Distance between neighboring taps of the kernel; at least 1.
    pub dilation: [usize; 2],
}

impl Conv2dShape {
    /// Rows of an output image: 0 if the kernel does not fit into the padded input.
    pub fn out_h(&self) -> usize {
        out_size(self.h, self.kh, self.stride[0], self.padding[0], self.dilation[0])
    }

    /// Columns of an output image: 0 if the kernel does not fit into the padded input.
    pub fn out_w(&self) -> usize {
        out_size(self.w, self.kw, self.stride[1], self.padding[1], self.dilation[1])
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        product([self.n, self.h, self.w, self.c_in])
    }

    /// Elements of the weight.
    pub fn weight_len(&self) -> usize {
        product([self.c_out, self.c_in / self.groups, self.kh, self.kw])
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        product([self.n, self.out_h(), self.out_w(), self.c_out])
    }

    /// Floating-point operations of the convolution by its definition, padding included.
    pub fn flops(&self) -> usize {
        product([2, self.output_len(), self.c_in / self.groups, self.kh, self.kw])
    }

    /// The sizes of one of the groups.
    pub fn group(&self) -> Conv2dShape {
        Conv2dShape { c_in: self.c_in / self.groups, c_out: self.c_out / self.groups, groups: 1, ..*self }
    }

    /// The check at the entry of a kernel.
    ///
    /// # Panics
    /// If the length of a slice does not match the sizes, or one of the steps is out of bounds.
    #[track_caller]
    pub(crate) fn check(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &[f32]) {
        let s = self;
        let mut steps = s.stride.iter().chain(&s.dilation);
        assert!(steps.all(|&d| d > 0), "convolution: stride and dilation start at 1");
        assert!(
            s.stride.iter().chain(&s.dilation).chain(&s.padding).all(|&d| d <= MAX_NUMEL),
            "convolution: stride, dilation and padding are at most {MAX_NUMEL}: {s:?}"
        );
        assert_eq!(x.len(), s.input_len(), "convolution: elements of the input {s:?}");
        assert_eq!(w.len(), s.weight_len(), "convolution: elements of the weight {s:?}");
        assert_eq!(y.len(), s.output_len(), "convolution: elements of the output {s:?}");
        assert!(bias.is_none_or(|b| b.len() == s.c_out), "convolution: the bias needs {} values", s.c_out);
    }
}

/// A product that saturates at the largest number, which is not the length of any slice.
fn product<const N: usize>(sizes: [usize; N]) -> usize {
    sizes.iter().fold(1, |product: usize, &n| product.saturating_mul(n))
}

/// The size with its padding, and that of the kernel with its dilation. Both saturate.
fn extents(size: usize, kernel: usize, padding: usize, dilation: usize) -> [usize; 2] {
    let extent = kernel.checked_sub(1).map_or(0, |k| k.saturating_mul(dilation).saturating_add(1));
    [size.saturating_add(padding.saturating_mul(2)), extent]
}

fn out_size(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> usize {
    let [padded, extent] = extents(size, kernel, padding, dilation);
    if kernel == 0 {
        return 0;
    }
    padded.checked_sub(extent).map_or(0, |room| room / stride + 1)
}

/// Most elements of an image with its padding for which the channels-last kernels are used.
const MOST_PADDED: usize = usize::MAX >> (usize::BITS - 32);

/// The sizes of a convolution. One and two spatial dimensions are the last of three; the others have size 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) n: usize,
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) groups: usize,
    /// How many spatial dimensions the tensors have.
    pub(crate) dims: usize,
    pub(crate) input: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) stride: [usize; 3],
    /// Zeros before the first element; those after the last follow from the output's size.
    pub(crate) padding: [usize; 3],
    pub(crate) dilation: [usize; 3],
}

impl Geometry {
    pub(crate) fn input_shape(&self) -> Vec<usize> {
        [&[self.n, self.c_in], &self.input[3 - self.dims..]].concat()
    }

    pub(crate) fn output_shape(&self) -> Vec<usize> {
        [&[self.n, self.c_out], &self.output[3 - self.dims..]].concat()
    }

    pub(crate) fn weight_shape(&self) -> Vec<usize> {
        [&[self.c_out, self.c_in / self.groups], &self.kernel[3 - self.dims..]].concat()
    }

    /// Multiplications and additions.
    pub(crate) fn flops(&self) -> u64 {
        let sizes = [2, self.n, self.c_out, self.c_in / self.groups];
        sizes
            .iter()
            .chain(&self.output)
            .chain(&self.kernel)
            .fold(1, |flops: u64, &n| flops.saturating_mul(n as u64))
    }

    /// The same as two dimensions, for the channels-last kernels, where they can compute it: at most two spatial
    /// dimensions, and the same padding on both sides, not so far that no copy of a padded image could be made.
    pub(crate) fn two_dimensional(&self) -> Option<Conv2dShape> {
        let pair = |of: [usize; 3]| [of[1], of[2]];
        let ([h, w], [kh, kw]) = (pair(self.input), pair(self.kernel));
        let [stride, padding, dilation] = [self.stride, self.padding, self.dilation].map(pair);
        let s = Conv2dShape {
            n: self.n,
            h,
            w,
            c_in: self.c_in,
            c_out: self.c_out,
            groups: self.groups,
            kh,
            kw,
            stride,
            padding,
            dilation,
        };
        let reach = |d: usize| {
            let [padded, extent] = extents(self.input[d], self.kernel[d], self.padding[d], self.dilation[d]);
            padded.max(extent)
        };
        let padded = product([reach(1), reach(2), self.c_in.max(self.c_out)]);
        let fits = self.dims <= 2 && padded <= MOST_PADDED;
        (fits && [s.out_h(), s.out_w()] == pair(self.output)).then_some(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(h: usize, k: usize, stride: usize, padding: usize, dilation: usize) -> Conv2dShape {
        Conv2dShape {
            n: 2,
            h,
            w: h,
            c_in: 3,
            c_out: 5,
            groups: 1,
            kh: k,
            kw: k,
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [dilation; 2],
        }
    }

    #[test]
    fn output_sizes_count_the_windows_that_fit() {
        for h in 0..9 {
            for k in 0..4 {
                for stride in 1..4 {
                    for padding in 0..3 {
                        for dilation in 1..3 {
                            let s = shape(h, k, stride, padding, dilation);
                            let fits = |o: usize| o * stride + (k - 1) * dilation < h + 2 * padding;
                            let counted = if k == 0 { 0 } else { (0..).take_while(|&o| fits(o)).count() };
                            assert_eq!(s.out_h(), counted, "{s:?}");
                            assert_eq!(s.out_w(), counted, "{s:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn lengths() {
        let s = shape(8, 3, 1, 1, 1);
        assert_eq!((s.input_len(), s.weight_len(), s.output_len()), (2 * 64 * 3, 5 * 3 * 9, 2 * 64 * 5));
        assert_eq!(s.flops(), 2 * (2 * 64 * 5) * 27);
        let s = Conv2dShape { c_in: 10, groups: 5, ..s };
        assert_eq!((s.weight_len(), s.flops()), (5 * 2 * 9, 2 * (2 * 64 * 5) * 18));
        assert_eq!((s.group().c_in, s.group().c_out, s.group().groups), (2, 1, 1));
    }
}
