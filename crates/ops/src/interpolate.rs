//! `interpolate`: resizing of the spatial dimensions.

use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, Tensor, Var};

/// How values between pixels are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterpolateMode {
    /// The nearest pixel, in one to three spatial dimensions.
    #[default]
    Nearest,
    /// Linear interpolation, in one spatial dimension.
    Linear,
    /// The same in two dimensions.
    Bilinear,
    /// The same in three dimensions.
    Trilinear,
}

/// The size and the mode of [`interpolate`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InterpolateOptions {
    size: Vec<usize>,
    scale_factor: Vec<f64>,
    mode: InterpolateMode,
    align_corners: bool,
    recompute_scale_factor: bool,
}

impl InterpolateOptions {
    /// By size: one for each spatial dimension, or one for all.
    pub fn size(size: impl AsRef<[usize]>) -> InterpolateOptions {
        InterpolateOptions { size: size.as_ref().to_vec(), ..Default::default() }
    }

    /// By a factor: one for each spatial dimension, or one for all.
    pub fn scale_factor(factor: impl AsRef<[f64]>) -> InterpolateOptions {
        InterpolateOptions { scale_factor: factor.as_ref().to_vec(), ..Default::default() }
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
    let InterpolateOptions { mode, align_corners, recompute_scale_factor, .. } = options;
    assert!(
        (3..=5).contains(&x.ndim()),
        "interpolate: expected an input [N, C, ...] of one to three spatial dimensions, but got shape {:?}",
        x.shape()
    );
    let space = x.ndim() - 2;
    let wanted = match mode {
        InterpolateMode::Nearest => space,
        InterpolateMode::Linear => 1,
        InterpolateMode::Bilinear => 2,
        InterpolateMode::Trilinear => 3,
    };
    assert!(
        wanted == space,
        "interpolate: {mode:?} is for {wanted} spatial dimensions, but the input of shape {:?} has {space}",
        x.shape()
    );
    assert!(
        !(align_corners && mode == InterpolateMode::Nearest),
        "interpolate: align_corners can be set only for linear, bilinear and trilinear"
    );
    let numbers = options.size.len().max(options.scale_factor.len());
    assert!(
        numbers == space || numbers == 1,
        "interpolate: {numbers} sizes or factors were given for the {space} spatial dimensions of {:?}",
        x.shape()
    );
    assert!(
        x.dtype().is_float() || (x.dtype() == DType::U8 && mode == InterpolateMode::Nearest),
        "interpolate: not defined for {}; it takes floating-point types",
        x.dtype()
    );
    let factor = |d: usize| options.scale_factor.get(d).or(options.scale_factor.first()).copied();
    let mut shape = x.shape().to_vec();
    for d in 0..space {
        shape[d + 2] = match factor(d) {
            Some(factor) => (shape[d + 2] as f64 * factor).floor() as usize,
            None => *options.size.get(d).unwrap_or(&options.size[0]),
        };
    }
    numel_for("interpolate", &shape);
    let mut y = x.clone();
    for d in 0..space {
        let (from, to) = (x.shape()[d + 2], shape[d + 2]);
        assert!(
            from > 0 && to > 0,
            "interpolate: input and output sizes should be greater than 0, but dimension {} goes from {from} to {to}",
            d + 2
        );
        let factor = factor(d).filter(|f| *f > 0.0 && !recompute_scale_factor);
        let line = Line { from, to, step: factor.map_or(from as f64 / to as f64, |f| 1.0 / f) };
        let single = x.dtype() != DType::F64;
        let dim = d as isize + 2;
        y = match mode {
            InterpolateMode::Nearest => line.nearest(&y, dim, single),
            _ => line.between(&y, dim, single, align_corners, factor.is_none()),
        };
    }
    y
}

/// One dimension: its sizes, and the distance of output pixels in input pixels.
struct Line {
    from: usize,
    to: usize,
    step: f64,
}

impl Line {
    #[track_caller]
    fn index(&self, place: impl Fn(usize) -> usize) -> Var {
        Var::from_vec(list_for("interpolate", self.to, |i| place(i) as i64), &[self.to])
    }

    /// Coordinates are computed in the precision of the elements, as in PyTorch, so that both select the same pixel.
    #[track_caller]
    fn nearest(&self, x: &Var, dim: isize, single: bool) -> Var {
        if self.from == self.to {
            return x.clone();
        }
        let place = |i: usize| {
            let at = if single { i as f32 * self.step as f32 } else { (i as f64 * self.step) as f32 };
            (at.floor() as usize).min(self.from - 1)
        };
        x.index_select(dim, &self.index(place))
    }

    #[track_caller]
    fn between(&self, x: &Var, dim: isize, single: bool, align_corners: bool, exact: bool) -> Var {
        if self.from == self.to && (exact || align_corners) {
            return x.clone();
        }
        let step = match align_corners {
            true if self.to > 1 => (self.from - 1) as f64 / (self.to - 1) as f64,
            true => 0.0,
            false => self.step,
        };
        let place = |i: usize| {
            let (i, half) = (i as f64, 0.5);
            match (align_corners, single) {
                (true, true) => f64::from(step as f32 * i as f32),
                (true, false) => step * i,
                (false, true) => f64::from((step as f32 * (i as f32 + 0.5) - 0.5).max(0.0)),
                (false, false) => (step * (i + half) - half).max(0.0),
            }
        };
        let last = self.from - 1;
        let low = |i: usize| (place(i) as usize).min(last);
        let share = |i: usize| (place(i) - low(i) as f64).clamp(0.0, 1.0);
        let mut shape = vec![1; x.ndim()];
        shape[dim as usize] = self.to;
        let weight = |share: &dyn Fn(usize) -> f64| {
            let values = list_for("interpolate", self.to, share);
            Var::from(Tensor::from_vec(values, &shape).cast(x.dtype()))
        };
        let (below, above) = (weight(&|i| 1.0 - share(i)), weight(&share));
        let a = x.index_select(dim, &self.index(low));
        let b = x.index_select(dim, &self.index(|i| (low(i) + 1).min(last)));
        a * below + b * above
    }
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
