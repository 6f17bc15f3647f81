//! `conv_transpose1d`, `conv_transpose2d`, `conv_transpose3d`.

use super::geometry::{check_options, extent, spatial};
use super::{ConvOptions, Padding, batched, conv_input, in_float};
use crate::Size;
use crate::kernels::geometry::Geometry;
use crate::options::size_setters;
use crate::size::check_sizes;
use tapegrad_tape::Var;
use tapegrad_tape::shape::{MAX_NUMEL, numel_for};

/// The arguments of a transposed convolution besides its tensors, with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTransposeOptions<const D: usize> {
    /// The step between the inputs' footprints in the output.
    pub stride: [usize; D],
    /// How much is cut off on both sides of the output.
    pub padding: [usize; D],
    /// How much is added at the end of the output; smaller than the stride or the dilation.
    pub output_padding: [usize; D],
    /// The distance between the taps of the kernel.
    pub dilation: [usize; D],
    /// The channels are split into this many independent groups.
    pub groups: usize,
}

impl<const D: usize> Default for ConvTransposeOptions<D> {
    fn default() -> Self {
        ConvTransposeOptions {
            stride: [1; D],
            padding: [0; D],
            output_padding: [0; D],
            dilation: [1; D],
            groups: 1,
        }
    }
}

impl<const D: usize> ConvTransposeOptions<D> {
    /// PyTorch's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    size_setters! { stride, padding, output_padding, dilation }

    /// Sets the number of groups.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }
}

/// The adjoint of the convolution whose output has the input's shape, plus a bias.
#[track_caller]
fn conv_transpose<const D: usize>(
    op: &'static str,
    x: &Var,
    w: &Var,
    bias: Option<&Var>,
    o: &ConvTransposeOptions<D>,
) -> Var {
    in_float(op, x, w, bias, |x, w, bias| transposed_float(op, x, w, bias, o))
}

/// [`conv_transpose`] in F32 or F64.
#[track_caller]
fn transposed_float<const D: usize>(
    op: &'static str,
    x: &Var,
    w: &Var,
    bias: Option<&Var>,
    o: &ConvTransposeOptions<D>,
) -> Var {
    batched::<D>(op, x, |x| {
        let (input, weight) = (x.shape(), w.shape());
        assert!(
            weight.len() == D + 2,
            "{op}: expected a weight of {} dimensions [in channels, out channels / groups, kernel...], got shape {weight:?}",
            D + 2
        );
        let forward = ConvOptions {
            stride: o.stride,
            padding: Padding::Explicit(o.padding),
            dilation: o.dilation,
            groups: o.groups,
        };
        check_options(op, &forward);
        assert!(
            input[1] == weight[0] && weight[0].is_multiple_of(o.groups),
            "{op}: input {input:?} has {} channels but weight {weight:?} expects {} (groups = {})",
            input[1],
            weight[0],
            o.groups
        );
        check_sizes(op, "output_padding", &o.output_padding);
        let mut output = vec![input[0], weight[1].saturating_mul(o.groups)];
        for d in 0..D {
            assert!(
                o.output_padding[d] < o.stride[d].max(o.dilation[d]),
                "{op}: output padding must be smaller than either stride or dilation, got output_padding {:?}, stride {:?}, dilation {:?}",
                o.output_padding,
                o.stride,
                o.dilation
            );
            // The sum of three such numbers does not overflow.
            let footprints = input[d + 2].saturating_sub(1).saturating_mul(o.stride[d]).min(MAX_NUMEL);
            let full = footprints + extent(op, weight[d + 2], o.dilation[d], weight) + o.output_padding[d];
            assert!(
                full > 2 * o.padding[d],
                "{op}: the output would have size {full} - 2 * {} in spatial dimension {d}: input {input:?}, weight {weight:?}",
                o.padding[d]
            );
            output.push(full - 2 * o.padding[d]);
        }
        numel_for(op, &output);
        // The convolution that this one is the adjoint of maps `output` to `input`. With dilation the output
        // padding can exceed the stride, and that convolution leaves out its last windows.
        let mut g = Geometry::new(op, &output, weight, &forward);
        g.output = spatial::<D>(input);
        if let Some(b) = bias {
            assert!(
                b.shape() == [g.c_in],
                "{op}: expected a bias of shape [{}], got {:?}",
                g.c_in,
                b.shape()
            );
        }
        let y = conv_input(g, x, w);
        match bias {
            Some(b) => {
                let mut shape = vec![1isize; D + 1];
                shape[0] = -1;
                y + b.reshape(&shape)
            }
            None => y,
        }
    })
}

macro_rules! conv_transpose {
    ($($(#[$meta:meta])* $name:ident, $with:ident, $d:literal;)*) => {$(
        $(#[$meta])*
        ///
        /// The size of each spatial dimension is
        /// `(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1`.
        ///
        /// # Panics
        /// If shapes, types and options do not fit.
        #[track_caller]
        pub fn $name<'a>(input: &Var, weight: &Var, bias: impl Into<Option<&'a Var>>) -> Var {
            $with(input, weight, bias, ConvTransposeOptions::new())
        }

        #[doc = concat!("[`", stringify!($name), "`] with stride, padding, dilation and groups.")]
        ///
        /// # Panics
        #[doc = concat!("Same as [`", stringify!($name), "`].")]
        #[track_caller]
        pub fn $with<'a>(
            input: &Var,
            weight: &Var,
            bias: impl Into<Option<&'a Var>>,
            options: ConvTransposeOptions<$d>,
        ) -> Var {
            conv_transpose(stringify!($name), input, weight, bias.into(), &options)
        }
    )*};
}
conv_transpose! {
    /// Transposed convolution of `[N, C, L]` with a weight `[C, O / groups, K]` (`torch.nn.functional.conv_transpose1d`).
    ///
    /// ```
    /// use tapegrad_ops::{ConvTransposeOptions, conv_transpose1d};
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0], &[1, 1, 2]);
    /// let w = Var::from_vec(vec![1f32, 10.0], &[1, 1, 2]);
    /// let y = conv_transpose1d(&x, &w, None);
    /// assert_eq!(y.to_vec::<f32>(), [1.0, 12.0, 20.0]);
    /// ```
    conv_transpose1d, conv_transpose1d_with, 1;
    /// Transposed convolution of `[N, C, H, W]` with a weight `[C, O / groups, KH, KW]` (`torch.nn.functional.conv_transpose2d`).
    conv_transpose2d, conv_transpose2d_with, 2;
    /// Transposed convolution of `[N, C, D, H, W]` with a weight `[C, O / groups, KD, KH, KW]` (`torch.nn.functional.conv_transpose3d`).
    conv_transpose3d, conv_transpose3d_with, 3;
}
