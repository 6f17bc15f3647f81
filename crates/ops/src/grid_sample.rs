//! `grid_sample`.

mod coordinate;

use crate::autocast::{in_f32, through_f32};
use crate::kernels::grid_sample::{AxisTaps, NONE, Points};
use crate::options::setters;
use crate::product::check_types;
use coordinate::{Coordinates, coordinates, fill, tap_count};
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{Float, Tensor, Var, dispatch, is_grad_enabled, record, vjp, where_};

/// How values between pixels are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridSampleMode {
    /// Linear interpolation in each dimension, the default.
    #[default]
    Bilinear,
    /// The nearest pixel; a half is rounded to the even one.
    Nearest,
    /// Cubic convolution in each dimension.
    Bicubic,
}

/// What lies outside of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridPadding {
    /// Zeros, the default.
    #[default]
    Zeros,
    /// The pixels of the border.
    Border,
    /// The image reflected at its border.
    Reflection,
}

/// The options of [`grid_sample`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GridSampleOptions {
    /// How values between pixels are computed.
    pub mode: GridSampleMode,
    /// What lies outside.
    pub padding_mode: GridPadding,
    /// Whether -1 and 1 are the centers of the corner pixels, or the edges of the image.
    pub align_corners: bool,
}

impl GridSampleOptions {
    setters! { mode: GridSampleMode, padding_mode: GridPadding, align_corners: bool }
}

/// The values of images at the points of a grid (`torch.nn.functional.grid_sample`; Jaderberg et al. 2015, "Spatial
/// transformer networks").
///
/// `input` is `[N, C, H, W]` with a grid `[N, h, w, 2]`, and the result is `[N, C, h, w]`; or `[N, C, D, H, W]` with
/// `[N, d, h, w, 3]`. A point is `(x, y)` or `(x, y, z)`, from -1 to 1 inside the image. A NaN counts as -1 where the
/// border or a reflection is read, and as outside otherwise.
///
/// # Panics
/// If shapes or types do not fit, or a spatial size is zero.
///
/// ```
/// use tapegrad_ops::{GridSampleOptions, grid_sample, grid_sample_with};
/// use tapegrad_tape::Var;
/// let image = Var::from_vec(vec![1f64, 3.0], &[1, 1, 1, 2]);
/// let grid = Var::from_vec(vec![0f64, 0.0], &[1, 1, 1, 2]);
/// assert_eq!(grid_sample(&image, &grid).item(), 2.0);
/// ```
#[track_caller]
pub fn grid_sample(input: &Var, grid: &Var) -> Var {
    grid_sample_with(input, grid, Default::default())
}

/// [`grid_sample`] with options.
///
/// # Panics
/// Same as [`grid_sample`].
#[track_caller]
pub fn grid_sample_with(input: &Var, grid: &Var, options: GridSampleOptions) -> Var {
    let (input, grid) = (in_f32(input), in_f32(grid));
    check(&input, &grid);
    through_f32([&input, &grid], |[input, grid]| sampled(input, grid, options))
}

#[track_caller]
fn sampled(input: &Var, grid: &Var, options: GridSampleOptions) -> Var {
    let shape = [&input.shape()[..2], &grid.shape()[1..grid.ndim() - 1]].concat();
    numel_for("grid_sample", &shape);
    let mut y = Tensor::uninit(&shape, input.dtype());
    let (x, points) = (input.tensor().contiguous(), grid.tensor().contiguous());
    dispatch!(float: input.dtype(), "grid_sample", T => {
        with_points::<T>(&x, &points, options, |p| p.forward(slice(&x), y.data_mut::<T>()));
    });
    let (x, points) = (input.saved(), grid.saved());
    record("grid_sample", [input, grid], y, move |c| {
        if is_grad_enabled() {
            let f = |v: &[Var]| composed(&v[0], &v[1], options);
            let gradients = vjp(f, &[x.clone(), points.clone()], c.grad()).1;
            let mut gradients = gradients.into_iter();
            return [gradients.next(), gradients.next()];
        }
        let (x, points, g) =
            (x.tensor().contiguous(), points.tensor().contiguous(), c.grad().tensor().contiguous());
        fused(&x, &points, &g, options, [c.wants(0), c.wants(1)])
    })
}

#[track_caller]
fn check(input: &Var, grid: &Var) {
    let op = "grid_sample";
    let (s, g) = (input.shape(), grid.shape());
    let space = s.len().wrapping_sub(2);
    assert!(
        space == 2 || space == 3,
        "{op}: expected an input [N, C, H, W] or [N, C, D, H, W], but got shape {s:?}"
    );
    assert!(
        g.len() == s.len() && g[0] == s[0] && g[g.len() - 1] == space,
        "{op}: expected a grid of {} dimensions with batch size {} and {space} coordinates in the last, but got shape {g:?} for an input of shape {s:?}",
        s.len(),
        s[0]
    );
    check_types(op, input.dtype(), grid.dtype());
    assert!(
        input.dtype().is_float(),
        "{op}: expected tensors of a floating-point type, but got {}",
        input.dtype()
    );
    assert!(
        s[2..].iter().all(|&n| n > 0),
        "{op}: expected input to have non-empty spatial dimensions, but got shape {s:?}"
    );
    let pixels: usize = s[2..].iter().product();
    assert!(pixels < i32::MAX as usize, "{op}: images of shape {s:?} have too many pixels");
}

/// Calls `f` with the points in a batch of images; both are contiguous.
fn with_points<T: Float>(x: &Tensor, grid: &Tensor, options: GridSampleOptions, f: impl FnOnce(Points<T>)) {
    let (images, channels, sizes) = (x.shape()[0], x.shape()[1], &x.shape()[2..]);
    f(Points {
        points: slice(grid),
        sizes,
        images,
        channels,
        count: grid.shape()[1..=sizes.len()].iter().product(),
        taps: tap_count(options.mode),
        fill: &|all: &mut AxisTaps<T>, points, size| fill(all, points, size, options),
    });
}

fn slice<T: Float>(t: &Tensor) -> &[T] {
    t.as_slice::<T>().expect("contiguous")
}

/// Both gradients.
fn fused(
    x: &Tensor,
    grid: &Tensor,
    g: &Tensor,
    options: GridSampleOptions,
    wants: [bool; 2],
) -> [Option<Var>; 2] {
    let dtype = x.dtype();
    let mut dx = wants[0].then(|| Tensor::uninit(x.shape(), dtype));
    let mut dgrid = wants[1].then(|| Tensor::uninit(grid.shape(), dtype));
    dispatch!(float: dtype, "grid_sample", T => {
        with_points::<T>(x, grid, options, |p| {
            if let Some(dx) = &mut dx {
                p.image_gradient(slice(g), dx.data_mut::<T>());
            }
            if let Some(dgrid) = &mut dgrid {
                p.point_gradient(slice(x), slice(g), dgrid.data_mut::<T>());
            }
        });
    });
    [dx.map(Var::from), dgrid.map(Var::from)]
}

/// The same in differentiable operations.
fn composed(input: &Var, grid: &Var, options: GridSampleOptions) -> Var {
    let (sizes, dims) = (&input.shape()[2..], input.ndim() - 2);
    let n = input.shape()[0] as isize;
    let count: usize = grid.shape()[1..=dims].iter().product();
    let points = grid.reshape(&[n, count as isize, dims as isize]);
    let axes: Vec<Coordinates> = (0..dims)
        .map(|d| coordinates(&points.select(2, (dims - 1 - d) as isize), sizes[d], options))
        .collect();
    let flat = input.flatten(2);
    let mut y: Option<Var> = None;
    let combinations: usize = axes.iter().map(|a| a.index.len()).product();
    for number in 0..combinations {
        let (mut rest, mut weight, mut index, mut step) =
            (number, None::<Var>, vec![Some(0i64); n as usize * count], 1);
        for (axis, &size) in axes.iter().zip(sizes).rev() {
            let tap = rest % axis.index.len();
            rest /= axis.index.len();
            for (index, &i) in index.iter_mut().zip(&axis.index[tap]) {
                *index = index.filter(|_| i != NONE).map(|index| index + step * i64::from(i));
            }
            step *= size as i64;
            let w = &axis.weight[tap];
            weight = Some(weight.map_or_else(|| w.clone(), |all| all * w));
        }
        let inside: Vec<bool> = index.iter().map(Option::is_some).collect();
        let index: Vec<i64> = index.into_iter().map(|i| i.unwrap_or(0)).collect();
        let shape = [n as usize, 1, count];
        let all = [n, flat.shape()[1] as isize, count as isize];
        let values = flat.gather(2, &Var::from_vec(index, &shape).expand(&all));
        let values = where_(&Var::from_vec(inside, &shape), values, 0.0);
        let term = values * weight.expect("one of each dimension").unsqueeze(1);
        y = Some(y.map_or_else(|| term.clone(), |y| y + &term));
    }
    let shape: Vec<isize> =
        input.shape()[..2].iter().chain(&grid.shape()[1..=dims]).map(|&n| n as isize).collect();
    y.expect("at least one").reshape(&shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    fn every_option() -> impl Iterator<Item = GridSampleOptions> {
        let modes = [GridSampleMode::Bilinear, GridSampleMode::Nearest, GridSampleMode::Bicubic];
        let paddings = [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection];
        (0..18).map(move |i| GridSampleOptions {
            mode: modes[i % 3],
            padding_mode: paddings[i / 3 % 3],
            align_corners: i >= 9,
        })
    }

    #[test]
    fn both_forms_agree() {
        for (shape, grid) in [(&[2, 3, 4, 5][..], &[2, 3, 4, 2][..]), (&[1, 2, 3, 4, 2], &[1, 2, 3, 2, 3])] {
            for options in every_option() {
                let (x, points) = (parameter(shape, 1), &parameter(grid, 2) * 2.0);
                assert_close(&grid_sample_with(&x, &points, options), &composed(&x, &points, options), 1e-12);
            }
        }
    }

    #[test]
    fn derivatives() {
        for options in every_option() {
            let both = [parameter(&[1, 2, 3, 4], 1), parameter(&[1, 2, 2, 2], 2)];
            check_gradients(|v| grid_sample_with(&v[0], &(&v[1] * 1.3), options), &both);
        }
        let both = [parameter(&[1, 1, 2, 3, 2], 1), parameter(&[1, 1, 2, 1, 3], 2)];
        check_gradients(|v| grid_sample(&v[0], &v[1]), &both);
    }

    #[test]
    fn many_points_and_channels_on_any_number_of_threads() {
        let (x, points) = (parameter(&[3, 10, 9, 8], 1), parameter(&[3, 20, 20, 2], 2));
        let gradients = |f: &dyn Fn(&Var, &Var, GridSampleOptions) -> Var, options| {
            f(&x, &points, options).square().sum_all().backward();
            [x.take_grad().expect("of the image"), points.take_grad().expect("of the points")]
        };
        for mode in [GridSampleMode::Bilinear, GridSampleMode::Bicubic] {
            let options = GridSampleOptions::new().mode(mode);
            let naive = gradients(&composed, options);
            tapegrad_tape::set_num_threads(1);
            let one = gradients(&grid_sample_with, options);
            tapegrad_tape::set_num_threads(3);
            let three = gradients(&grid_sample_with, options);
            for i in 0..2 {
                assert_close(&one[i], &naive[i], 1e-11);
                assert_eq!(one[i].to_vec::<f64>(), three[i].to_vec::<f64>(), "{mode:?}");
            }
        }
    }

    #[test]
    fn no_images_channels_or_points() {
        for (shape, grid) in
            [([0, 2, 3, 3], [0, 4, 4, 2]), ([2, 0, 3, 3], [2, 4, 4, 2]), ([2, 3, 3, 3], [2, 0, 4, 2])]
        {
            let (x, points) = (parameter(&shape, 1), parameter(&grid, 2));
            let y = grid_sample(&x, &points);
            assert_eq!(y.shape(), [shape[0], shape[1], grid[1], grid[2]]);
            y.sum_all().backward();
            assert!(x.grad().expect("zeros").to_vec::<f64>().iter().all(|&g| g == 0.0));
            assert!(points.grad().expect("zeros").to_vec::<f64>().iter().all(|&g| g == 0.0));
        }
    }

    #[test]
    fn many_points_and_nan() {
        let x = parameter(&[1, 2, 8, 8], 1);
        let identity: Vec<f64> = (0..64 * 64 * 2)
            .map(|i| (if i % 2 == 0 { i / 2 % 64 } else { i / 128 } as f64 + 0.5) / 32.0 - 1.0)
            .collect();
        let y = grid_sample_with(
            &x,
            &Var::from_vec(identity, &[1, 64, 64, 2]),
            GridSampleOptions::new().padding_mode(GridPadding::Border),
        );
        let options = crate::InterpolateOptions::size([64, 64]).mode(crate::InterpolateMode::Bilinear);
        assert_close(&y, &crate::interpolate(&x, options), 1e-12);
        let nan = Var::from_vec(vec![f64::NAN, 0.0], &[1, 1, 1, 2]);
        assert_eq!(grid_sample(&x, &nan).to_vec::<f64>(), [0.0, 0.0]);
    }

    #[test]
    #[should_panic(
        expected = "grid_sample: expected a grid of 4 dimensions with batch size 2 and 2 coordinates in the last"
    )]
    fn a_grid_for_another_batch() {
        grid_sample(&parameter(&[2, 1, 3, 3], 1), &parameter(&[1, 2, 2, 2], 1));
    }
}
