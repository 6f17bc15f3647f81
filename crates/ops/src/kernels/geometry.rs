//! The geometry of convolutions.

/// The sizes of a two-dimensional convolution with one group, as every convolution kernel takes them.
///
/// Activations are channels-last (`n`, `h`, `w`, channels), weights are (`c_out`, `c_in`, `kh`, `kw`),
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
        product([self.c_out, self.c_in, self.kh, self.kw])
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        product([self.n, self.out_h(), self.out_w(), self.c_out])
    }

    /// Floating-point operations of the convolution by its definition, padding included.
    pub fn flops(&self) -> usize {
        product([2, self.output_len(), self.c_in, self.kh, self.kw])
    }
}

/// A product that saturates at the largest number, which is not the length of any slice.
fn product<const N: usize>(sizes: [usize; N]) -> usize {
    sizes.iter().fold(1, |product: usize, &n| product.saturating_mul(n))
}

fn out_size(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> usize {
    let Some(reach) = kernel.checked_sub(1).map(|k| k.saturating_mul(dilation)) else { return 0 };
    let padded = size.saturating_add(padding.saturating_mul(2));
    padded.checked_sub(reach.saturating_add(1)).map_or(0, |room| room / stride + 1)
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

    /// The same as two dimensions, for the channels-last kernels, where they can compute it: no groups, at most two
    /// spatial dimensions, and the same padding on both sides, not so far that no copy of a padded image could be made.
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
            kh,
            kw,
            stride,
            padding,
            dilation,
        };
        let reach =
            |d: usize| (self.input[d] + 2 * self.padding[d]).max((self.kernel[d] - 1) * self.dilation[d] + 1);
        let padded = reach(1).saturating_mul(reach(2)).saturating_mul(self.c_in.max(self.c_out));
        let fits = self.groups == 1 && self.dims <= 2 && padded <= MOST_PADDED;
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
    }
}
