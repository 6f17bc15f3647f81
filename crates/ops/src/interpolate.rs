//! `interpolate`: resizing of the spatial dimensions.

mod axis;

use crate::kernels::resample::{Taps, resample};
use crate::{adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d};
use axis::Line;
use std::sync::Arc;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, IntList, MemoryFormat, Tensor, Var, dispatch, record};

/// How values between pixels are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterpolateMode {
    /// The nearest pixel, in one to three spatial dimensions; rounded down as in PyTorch and OpenCV.
    #[default]
    Nearest,
    /// The pixel whose center is nearest, as in Pillow and scikit-image.
    NearestExact,
    /// Linear interpolation, in one spatial dimension.
    Linear,
    /// The same in two dimensions.
    Bilinear,
    /// The same in three dimensions.
    Trilinear,
    /// Cubic interpolation, in two spatial dimensions.
    Bicubic,
    /// The mean of the pixels under each output pixel, in one to three spatial dimensions.
    Area,
}

/// The size and the mode of [`interpolate`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InterpolateOptions {
    size: Vec<usize>,
    scale_factor: Vec<f64>,
    mode: InterpolateMode,
    align_corners: bool,
    recompute_scale_factor: bool,
    antialias: bool,
}

impl InterpolateOptions {
    /// By size: one for each spatial dimension, or one for all.
    ///
    /// # Panics
    /// If one is negative.
    #[track_caller]
    pub fn size(size: impl IntList) -> InterpolateOptions {
        InterpolateOptions { size: size.to_sizes("interpolate").into_vec(), ..Default::default() }
    }

    /// By a factor: one for each spatial dimension, or one for all.
    pub fn scale_factor(factor: impl Into<ScaleFactor>) -> InterpolateOptions {
        InterpolateOptions { scale_factor: factor.into().0, ..Default::default() }
    }

    /// Sets the mode.
    pub fn mode(mut self, mode: InterpolateMode) -> InterpolateOptions {
        self.mode = mode;
        self
    }

    /// Whether the centers of the corner pixels are aligned (not for nearest).
    pub fn align_corners(mut self, align_corners: bool) -> InterpolateOptions {
        self.align_corners = align_corners;
        self
    }

    /// Whether coordinates are computed from the rounded sizes rather than from the factor.
    pub fn recompute_scale_factor(mut self, recompute: bool) -> InterpolateOptions {
        self.recompute_scale_factor = recompute;
        self
    }

    /// Whether a smaller result is a weighted mean of all pixels (for bilinear and bicubic), as in Pillow.
    pub fn antialias(mut self, antialias: bool) -> InterpolateOptions {
        self.antialias = antialias;
        self
    }
}

/// By how much each dimension grows; one number stands for all of them. Made by `into()` from a number, an array, a tuple or
/// a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleFactor(pub Vec<f64>);

macro_rules! scale_factors {
    ($([$($generics:tt)*] $t:ty: $factor:ident => $list:expr;)*) => {$(
        impl<$($generics)*> From<$t> for ScaleFactor {
            fn from($factor: $t) -> ScaleFactor {
                ScaleFactor($list)
            }
        }
    )*};
}
scale_factors! {
    [] f64: n => vec![n];
    [] i32: n => vec![n.into()];
    [T: Into<f64>, const N: usize] [T; N]: list => list.into_iter().map(Into::into).collect();
    [] Vec<f64>: list => list;
    [] &[f64]: list => list.to_vec();
    [H: Into<f64>, W: Into<f64>] (H, W): n => vec![n.0.into(), n.1.into()];
    [D: Into<f64>, H: Into<f64>, W: Into<f64>] (D, H, W): n => vec![n.0.into(), n.1.into(), n.2.into()];
}

/// `[N, C, ...]` with another size of the spatial dimensions (`torch.nn.functional.interpolate`).
///
/// # Panics
/// If the mode does not fit the number of dimensions, sizes or factors are missing or too many, a size is zero, or
/// `align_corners` is set for the nearest pixel.
///
/// ```
/// use tapegrad_ops::{InterpolateMode, InterpolateOptions, interpolate};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 3.0], &[1, 1, 2]);
/// let y = interpolate(&x, InterpolateOptions::size([4]));
/// assert_eq!(y.to_vec::<f32>(), [1.0, 1.0, 3.0, 3.0]);
/// let y = interpolate(&x, InterpolateOptions::size([3]).mode(InterpolateMode::Linear));
/// assert_eq!(y.to_vec::<f32>(), [1.0, 2.0, 3.0]);
/// ```
#[track_caller]
pub fn interpolate(x: &Var, options: InterpolateOptions) -> Var {
    let shape = checked_shape(x, &options);
    let InterpolateOptions { mode, align_corners, recompute_scale_factor, antialias, .. } = options;
    let factor = |d: usize| options.scale_factor.get(d).or(options.scale_factor.first()).copied();
    if mode == InterpolateMode::Area {
        let size = |d: usize| Some(shape[d + 2]);
        return match shape.len() {
            3 => adaptive_avg_pool1d(x, [size(0)]),
            4 => adaptive_avg_pool2d(x, [size(0), size(1)]),
            _ => adaptive_avg_pool3d(x, [size(0), size(1), size(2)]),
        };
    }
    if shape[..2].contains(&0) {
        let from = x.shape().to_vec();
        return record("interpolate", [x], Tensor::zeros_with(&shape, x.dtype()), move |c| {
            [Some(Var::from(Tensor::zeros_with(&from, c.grad().dtype())))]
        });
    }
    let line = |d: usize| {
        let (from, to) = (x.shape()[d + 2], shape[d + 2]);
        let factor = factor(d).filter(|f| *f > 0.0 && !recompute_scale_factor);
        let step = factor.map_or(from as f64 / to as f64, |f| 1.0 / f);
        Line { from, to, step, single: x.dtype() != DType::F64, exact: factor.is_none() }
    };
    let taps: Vec<Taps> = (0..shape.len() - 2)
        .map(|d| match mode {
            InterpolateMode::Nearest => line(d).nearest(),
            InterpolateMode::NearestExact => line(d).nearest_exact(),
            InterpolateMode::Bicubic if antialias => line(d).antialiased(align_corners, 4),
            InterpolateMode::Bicubic => line(d).cubic(align_corners),
            _ if antialias => line(d).antialiased(align_corners, 2),
            _ => line(d).linear(align_corners),
        })
        .collect();
    // Sums of the smaller types are in F32.
    let wide = if matches!(x.dtype(), DType::F32 | DType::F64) { x.clone() } else { x.cast(DType::F32) };
    map("interpolate", &wide, Arc::new(shape), Arc::new(taps)).cast(x.dtype())
}

/// The result's shape.
#[track_caller]
fn checked_shape(x: &Var, options: &InterpolateOptions) -> Vec<usize> {
    let mode = options.mode;
    assert!(
        (3..=5).contains(&x.ndim()),
        "interpolate: expected an input [N, C, ...] of one to three spatial dimensions, but got shape {:?}",
        x.shape()
    );
    let space = x.ndim() - 2;
    let wanted = match mode {
        InterpolateMode::Nearest | InterpolateMode::NearestExact | InterpolateMode::Area => space,
        InterpolateMode::Linear => 1,
        InterpolateMode::Bilinear | InterpolateMode::Bicubic => 2,
        InterpolateMode::Trilinear => 3,
    };
    assert!(
        wanted == space,
        "interpolate: {mode:?} is for {wanted} spatial dimensions, but the input of shape {:?} has {space}",
        x.shape()
    );
    let nearest = matches!(mode, InterpolateMode::Nearest | InterpolateMode::NearestExact);
    assert!(
        !(options.align_corners && (nearest || mode == InterpolateMode::Area)),
        "interpolate: align_corners can be set only for linear, bilinear, bicubic and trilinear"
    );
    assert!(
        !options.antialias || matches!(mode, InterpolateMode::Bilinear | InterpolateMode::Bicubic),
        "interpolate: antialias can be set only for bilinear and bicubic"
    );
    let numbers = options.size.len().max(options.scale_factor.len());
    assert!(
        numbers == space || numbers == 1,
        "interpolate: {numbers} sizes or factors were given for the {space} spatial dimensions of {:?}",
        x.shape()
    );
    assert!(
        x.dtype().is_float() || (x.dtype() == DType::U8 && nearest),
        "interpolate: not defined for {}; it takes floating-point types",
        x.dtype()
    );
    let mut shape = x.shape().to_vec();
    for d in 0..space {
        let factor = options.scale_factor.get(d).or(options.scale_factor.first());
        shape[d + 2] = match factor {
            Some(factor) => (shape[d + 2] as f64 * factor).floor() as usize,
            None => *options.size.get(d).unwrap_or(&options.size[0]),
        };
    }
    numel_for("interpolate", &shape);
    for d in 2..shape.len() {
        let (from, to) = (x.shape()[d], shape[d]);
        assert!(
            from > 0 && to > 0,
            "interpolate: input and output sizes should be greater than 0, but dimension {d} goes from {from} to {to}"
        );
        assert!(
            from.max(to) < i32::MAX as usize,
            "interpolate: dimension {d} is too large: it goes from {from} to {to}"
        );
    }
    shape
}

/// The map along each spatial dimension, to a tensor of this shape; its adjoint is of the same kind.
#[track_caller]
fn map(op: &'static str, x: &Var, shape: Arc<Vec<usize>>, taps: Arc<Vec<Taps>>) -> Var {
    let value = x.tensor();
    // Channels stay where they are: the last dimension, or the planes of an image.
    let format = match value.is_contiguous_in(MemoryFormat::ChannelsLast) && !value.is_contiguous() {
        true => MemoryFormat::ChannelsLast,
        false => MemoryFormat::Contiguous,
    };
    let value = value.to_format(format);
    let (groups, inner) = match format {
        MemoryFormat::ChannelsLast => (shape[0], shape[1]),
        MemoryFormat::Contiguous => (shape[0] * shape[1], 1),
    };
    let mut out = Tensor::uninit_format(&shape, x.dtype(), format);
    dispatch!(float: x.dtype(), op, T => {
        resample::<T>(crate::memory::slice(&value, format), out.data_mut(), groups, &taps, inner);
    });
    let from = Arc::new(x.shape().to_vec());
    record(op, [x], out, move |c| {
        let back = taps.iter().map(Taps::transposed).collect();
        [Some(map("interpolate_backward", c.grad(), from.clone(), Arc::new(back)))]
    })
}

/// [`interpolate`] by bilinear interpolation with aligned corners (`torch.nn.functional.upsample_bilinear`).
///
/// # Panics
/// Same as [`interpolate`].
///
/// ```
/// use tapegrad_ops::{InterpolateOptions, upsample_bilinear};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 3.0], &[1, 1, 1, 2]);
/// assert_eq!(upsample_bilinear(&x, InterpolateOptions::size([1, 3])).to_vec::<f32>(), [1.0, 2.0, 3.0]);
/// ```
#[track_caller]
pub fn upsample_bilinear(x: &Var, options: InterpolateOptions) -> Var {
    interpolate(x, options.mode(InterpolateMode::Bilinear).align_corners(true))
}

/// [`interpolate`] by the nearest pixel (`torch.nn.functional.upsample_nearest`).
///
/// # Panics
/// Same as [`interpolate`].
///
/// ```
/// use tapegrad_ops::{InterpolateOptions, upsample_nearest};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 3.0], &[1, 1, 2]);
/// assert_eq!(upsample_nearest(&x, InterpolateOptions::size([4])).to_vec::<f32>(), [1.0, 1.0, 3.0, 3.0]);
/// ```
#[track_caller]
pub fn upsample_nearest(x: &Var, options: InterpolateOptions) -> Var {
    interpolate(x, options.mode(InterpolateMode::Nearest).align_corners(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        let options = InterpolateOptions::size;
        check_gradients(|x| interpolate(&x[0], options([5, 2])), &[parameter(&[1, 2, 3, 4], 1)]);
        for corners in [false, true] {
            let bilinear = options([5, 2]).mode(InterpolateMode::Bilinear).align_corners(corners);
            check_gradients(|x| interpolate(&x[0], bilinear.clone()), &[parameter(&[1, 2, 3, 4], 1)]);
            let factor =
                InterpolateOptions::scale_factor([1.7]).mode(InterpolateMode::Linear).align_corners(corners);
            check_gradients(|x| interpolate(&x[0], factor.clone()), &[parameter(&[1, 2, 3], 1)]);
        }
    }

    #[test]
    fn gradients_of_the_other_modes() {
        let size = InterpolateOptions::size([5, 2]);
        for mode in [InterpolateMode::NearestExact, InterpolateMode::Area, InterpolateMode::Bicubic] {
            check_gradients(|x| interpolate(&x[0], size.clone().mode(mode)), &[parameter(&[1, 2, 3, 4], 1)]);
        }
        for mode in [InterpolateMode::Bilinear, InterpolateMode::Bicubic] {
            let options = size.clone().mode(mode).antialias(true);
            check_gradients(|x| interpolate(&x[0], options.clone()), &[parameter(&[1, 2, 3, 4], 1)]);
        }
        let options = InterpolateOptions::size([3, 2, 5]).mode(InterpolateMode::Trilinear);
        check_gradients(|x| interpolate(&x[0], options.clone()), &[parameter(&[1, 2, 2, 3, 4], 1)]);
    }

    #[test]
    fn both_memory_formats_agree() {
        let x = parameter(&[2, 3, 5, 6], 1).detach();
        let last = Var::from(x.tensor().to_format(MemoryFormat::ChannelsLast));
        for mode in [InterpolateMode::Nearest, InterpolateMode::Bilinear, InterpolateMode::Bicubic] {
            let options = InterpolateOptions::size([9, 4]).mode(mode);
            let (y, z) = (interpolate(&x, options.clone()), interpolate(&last, options));
            assert!(z.tensor().is_contiguous_in(MemoryFormat::ChannelsLast));
            crate::testing::assert_close(&y, &z, 1e-14);
        }
    }

    #[test]
    fn lines_stay_lines() {
        let x = Var::from_vec((0..6).map(f64::from).collect(), &[1, 1, 2, 3]);
        let options = InterpolateOptions::size([3, 5]).mode(InterpolateMode::Bilinear).align_corners(true);
        let want: Vec<f64> = (0..15).map(|i| f64::from(i / 5) * 1.5 + f64::from(i % 5) * 0.5).collect();
        assert_eq!(interpolate(&x, options).to_vec::<f64>(), want);
    }

    #[test]
    fn sizes_are_rounded_down() {
        let x = parameter(&[1, 1, 4, 5], 1);
        assert_eq!(interpolate(&x, InterpolateOptions::scale_factor([1.7])).shape(), [1, 1, 6, 8]);
    }

    #[test]
    #[should_panic(expected = "interpolate: Bilinear is for 2 spatial dimensions")]
    fn a_mode_for_other_dimensions() {
        interpolate(&parameter(&[1, 1, 4], 1), InterpolateOptions::size([2]).mode(InterpolateMode::Bilinear));
    }
}
