//! The geometry of a convolution from its arguments, checked.

use crate::Size;
use crate::kernels::geometry::Geometry;
use crate::options::size_setters;
use crate::size::check_sizes;
use tapegrad_tape::shape::{MAX_NUMEL, numel_for};

/// How much zero padding a convolution adds around its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding<const D: usize> {
    /// This many zeros on both sides of each dimension.
    Explicit([usize; D]),
    /// Keeps the size, for stride 1; an odd zero is added at the end (`padding='same'`).
    Same,
}

impl<const D: usize, T: Into<Size<D>>> From<T> for Padding<D> {
    fn from(size: T) -> Padding<D> {
        Padding::Explicit(size.into().0)
    }
}

/// The arguments of a convolution besides its tensors, with PyTorch's defaults.
///
/// ```
/// use tapegrad_ops::ConvOptions;
/// let options = ConvOptions::<2>::new().stride(2).padding([1, 0]).groups(4);
/// assert_eq!(options.stride, [2, 2]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions<const D: usize> {
    /// The step of the window.
    pub stride: [usize; D],
    /// Zeros around the input.
    pub padding: Padding<D>,
    /// The distance between the taps of the kernel.
    pub dilation: [usize; D],
    /// The channels are split into this many independent groups.
    pub groups: usize,
}

impl<const D: usize> Default for ConvOptions<D> {
    fn default() -> Self {
        ConvOptions { stride: [1; D], padding: Padding::Explicit([0; D]), dilation: [1; D], groups: 1 }
    }
}

impl<const D: usize> ConvOptions<D> {
    /// PyTorch's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    size_setters! { stride, dilation }

    /// Sets the padding.
    pub fn padding(mut self, padding: impl Into<Padding<D>>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Sets the number of groups.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }
}

impl Geometry {
    /// For an input `[n, c_in, ...]` and a weight `[c_out, c_in / groups, ...]`, checked.
    #[track_caller]
    pub(crate) fn new<const D: usize>(
        op: &str,
        input: &[usize],
        weight: &[usize],
        o: &ConvOptions<D>,
    ) -> Geometry {
        assert!(
            weight.len() == D + 2,
            "{op}: expected a weight of {} dimensions [out channels, in channels / groups, kernel...], got shape {weight:?}",
            D + 2
        );
        check_options(op, o);
        let (c_out, c_in) = (weight[0], input[1]);
        assert!(
            weight[1].checked_mul(o.groups) == Some(c_in),
            "{op}: input {input:?} has {c_in} channels but weight {weight:?} expects {} (groups = {})",
            weight[1].saturating_mul(o.groups),
            o.groups
        );
        assert!(
            c_out.is_multiple_of(o.groups) && c_out >= o.groups,
            "{op}: weight {weight:?} has {c_out} output channels, which {} groups do not divide",
            o.groups
        );
        let (mut padding, mut output) = ([0; D], [0; D]);
        let (mut stride, mut dilation) = (o.stride, o.dilation);
        for d in 0..D {
            let extent = extent(op, weight[d + 2], o.dilation[d], weight);
            let size = input[d + 2];
            match o.padding {
                Padding::Explicit(p) => {
                    padding[d] = p[d];
                    let padded = size + 2 * p[d];
                    assert!(
                        padded >= extent,
                        "{op}: the kernel (with dilation, {extent}) is larger than the padded input ({padded}) in spatial dimension {d}: \
                         input {input:?}, weight {weight:?}, padding {p:?}, dilation {:?}",
                        o.dilation
                    );
                    output[d] = (padded - extent) / o.stride[d] + 1;
                    // A larger stride would not change the result, nor would a dilation with one tap.
                    stride[d] = stride[d].min(padded);
                }
                Padding::Same => {
                    assert!(
                        o.stride[d] == 1,
                        "{op}: padding='same' is not supported for strided convolutions, got stride {:?}",
                        o.stride
                    );
                    padding[d] = (extent - 1) / 2;
                    output[d] = size;
                }
            }
        }
        for d in (0..D).filter(|&d| weight[d + 2] == 1) {
            dilation[d] = 1;
        }
        numel_for(op, &[&[input[0], c_out], &output[..]].concat());
        Geometry {
            n: input[0],
            c_in,
            c_out,
            groups: o.groups,
            dims: D,
            input: spatial::<D>(input),
            output: Size(output).to3(1),
            kernel: spatial::<D>(weight),
            stride: Size(stride).to3(1),
            padding: Size(padding).to3(0),
            dilation: Size(dilation).to3(1),
        }
    }
}

/// The spatial sizes of a shape, the last of three.
pub(super) fn spatial<const D: usize>(shape: &[usize]) -> [usize; 3] {
    let mut sizes = [0; D];
    sizes.copy_from_slice(&shape[2..]);
    Size(sizes).to3(1)
}

/// The extent of a kernel.
#[track_caller]
pub(crate) fn extent(op: &str, kernel: usize, dilation: usize, weight: &[usize]) -> usize {
    assert!(kernel > 0, "{op}: kernel size should be greater than zero, got weight {weight:?}");
    let extent = dilation.checked_mul(kernel - 1).and_then(|n| n.checked_add(1));
    extent.filter(|&n| n <= MAX_NUMEL).unwrap_or_else(|| {
        panic!("{op}: effective kernel size overflows, got kernel_size={kernel} and dilation={dilation}")
    })
}

#[track_caller]
pub(crate) fn check_options<const D: usize>(op: &str, o: &ConvOptions<D>) {
    assert!(o.groups > 0, "{op}: non-positive groups is not supported");
    assert!(!o.stride.contains(&0), "{op}: non-positive stride is not supported, got {:?}", o.stride);
    assert!(!o.dilation.contains(&0), "{op}: dilation should be greater than zero, got {:?}", o.dilation);
    check_sizes(op, "stride", &o.stride);
    check_sizes(op, "dilation", &o.dilation);
    if let Padding::Explicit(padding) = o.padding {
        check_sizes(op, "padding", &padding);
    }
}
