//! `roi_align`.

use super::check_boxes;
use crate::Size;
use crate::kernels::roi_align::{Region, gather, scatter};
use crate::options::setters;
use crate::product::check_types;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, Float, Tensor, Var, dispatch, record};

/// The options of [`roi_align`], with torchvision's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoiAlignOptions {
    /// The size of the feature map over that of the image in which the boxes are.
    pub spatial_scale: f64,
    /// The number of points along each side of a cell; `None` or 0 for as many as it has pixels.
    pub sampling_ratio: Option<usize>,
    /// Whether pixel centers are at halves: moves boxes by half a pixel, and lets them be smaller than one.
    pub aligned: bool,
}

impl RoiAlignOptions {
    setters! { spatial_scale: f64, aligned: bool; sampling_ratio: usize }
}

impl Default for RoiAlignOptions {
    fn default() -> RoiAlignOptions {
        RoiAlignOptions { spatial_scale: 1.0, sampling_ratio: None, aligned: false }
    }
}

/// The features inside of boxes, each resampled to one size: `[k, C, h, w]` from features `[N, C, H, W]` and boxes `[k, 5]`
/// (`torchvision.ops.roi_align`; He et al. 2017, "Mask R-CNN").
///
/// A box is the index of its image, then its left, top, right and bottom edge. It is divided into `output_size` cells `(h,
/// w)`; a cell is the mean of bilinearly interpolated features at regularly spaced points. Differentiable with respect to
/// the features, not to the boxes, as in torchvision.
///
/// # Panics
/// If shapes or types do not fit, or there is no image of an index.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec((0..16).map(f64::from).collect(), (1, 1, 4, 4));
/// let boxes = Var::from_vec(vec![0f64, 0., 0., 2., 2.], (1, 5));
/// let y = tapegrad_ops::detection::roi_align(&x, &boxes, [1, 1]);
/// assert_eq!(y.item(), 5.0);
/// ```
#[track_caller]
pub fn roi_align(input: &Var, boxes: &Var, output_size: impl Into<Size<2>>) -> Var {
    roi_align_with(input, boxes, output_size, Default::default())
}

/// [`roi_align`] with options.
///
/// # Panics
/// Same as [`roi_align`].
#[track_caller]
pub fn roi_align_with(
    input: &Var,
    boxes: &Var,
    output_size: impl Into<Size<2>>,
    options: RoiAlignOptions,
) -> Var {
    let Size(output_size) = output_size.into();
    let op = "roi_align";
    let s = input.shape();
    assert!(s.len() == 4, "{op}: expected features [N, C, H, W], but got shape {s:?}");
    assert!(
        boxes.ndim() == 2 && boxes.size(-1) == 5,
        "{op}: expected boxes [k, 5], an index and four edges, but got shape {:?}",
        boxes.shape()
    );
    check_types(op, input.dtype(), boxes.dtype());
    check_boxes(op, &boxes.narrow(1, 1isize, 4));
    numel_for(op, &[boxes.shape()[0], s[1], output_size[0], output_size[1]]);
    assert!(
        matches!(input.dtype(), DType::F32 | DType::F64),
        "{op}: expected tensors of float32 or float64, but got {}",
        input.dtype()
    );
    let rows = boxes.to_vec::<f64>();
    if let Some(bad) = rows.chunks_exact(5).find(|b| !(0.0..s[0] as f64).contains(&b[0])) {
        panic!("{op}: there is no image {} among {}", bad[0], s[0]);
    }
    let plan = Plan { rows, shape: [s[0], s[1], s[2], s[3]], size: output_size, options };
    plan.align(input)
}

/// The boxes, the sizes and the options of a call.
#[derive(Clone)]
struct Plan {
    rows: Vec<f64>,
    shape: [usize; 4],
    size: [usize; 2],
    options: RoiAlignOptions,
}

impl Plan {
    fn regions<T: Float>(&self) -> Vec<Region<T>> {
        let o = self.options;
        let [_, _, height, width] = self.shape;
        let of = |b: &[f64]| {
            let scale = T::c(o.spatial_scale);
            let edges = [b[1], b[2], b[3], b[4]].map(|edge| T::from_f64(edge) * scale);
            Region::new(b[0] as usize, edges, [height, width], self.size, o.sampling_ratio, o.aligned)
        };
        self.rows.chunks_exact(5).map(of).collect()
    }

    fn align(self, input: &Var) -> Var {
        let x = input.tensor().contiguous();
        let [_, channels, height, width] = self.shape;
        let shape = [self.rows.len() / 5, channels, self.size[0], self.size[1]];
        let mut y = Tensor::zeros_with(shape, input.dtype());
        if y.numel() > 0 {
            dispatch!(float: input.dtype(), "roi_align", T => {
            let x = x.as_slice::<T>().expect("contiguous");
            gather(y.data_mut::<T>(), x, &self.regions(), channels, height * width);
            });
        }
        record("roi_align", [input], y, move |c| [Some(self.clone().spread(c.grad()))])
    }

    /// The adjoint: each is the other's derivative.
    fn spread(self, g: &Var) -> Var {
        let grad = g.tensor().contiguous();
        let mut out = Tensor::zeros_with(self.shape, g.dtype());
        let [_, channels, height, width] = self.shape;
        if g.numel() > 0 && out.numel() > 0 {
            dispatch!(float: g.dtype(), "roi_align", T => {
            let grad = grad.as_slice::<T>().expect("contiguous");
            scatter(out.data_mut::<T>(), grad, &self.regions(), channels, height * width);
            });
        }
        record("roi_align_backward", [g], out, move |c| [Some(self.clone().align(c.grad()))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    fn boxes() -> Var {
        let rows = [
            [0.0, 0.5, 0.75, 5.2, 4.1],
            [1.0, -1.0, 2.0, 3.5, 7.0],
            [0.0, 3.0, 3.0, 3.25, 3.5],
            [1.0, 6.0, 5.0, 2.0, 1.0],
            [0.0, 0.0, 0.0, 7.0, 6.0],
        ];
        Var::from_vec(rows.concat(), (5, 5))
    }

    /// `torchvision.ops.roi_align` of `sin` of the index, `[2, 3, 6, 7]`, to sums over all cells weighted by `cos` of theirs.
    #[test]
    fn the_same_as_in_torchvision() {
        let x =
            Var::parameter(Tensor::from_vec((0..252).map(|i| f64::from(i).sin()).collect(), (2, 3, 6, 7)));
        for line in include_str!("../../tests/roi_align.txt").lines() {
            let n: Vec<f64> = line.split(' ').map(|v| v.parse().unwrap()).collect();
            let mut options = RoiAlignOptions::new().spatial_scale(n[2]).aligned(n[4] == 1.0);
            if n[3] > 0.0 {
                options = options.sampling_ratio(n[3] as usize);
            }
            let size = [n[0] as usize, n[1] as usize];
            let y = roi_align_with(&x, &boxes(), size, options);
            let weights = Var::from_vec((0..y.numel()).map(|i| (i as f64).cos()).collect(), y.shape());
            let sums = (&y * weights).sum((1, 2, 3));
            let g = tapegrad_tape::grad(&sums.sum_all(), &x);
            let found =
                [sums.to_vec::<f64>(), vec![g.abs().sum_all().item(), (g * &x).sum_all().item()]].concat();
            found.iter().zip(&n[5..]).for_each(|(a, b)| assert!((a - b).abs() < 1e-9, "{line}: {found:?}"));
        }
    }

    #[test]
    fn derivatives() {
        for (ratio, aligned) in [(None, true), (Some(2), false)] {
            let options = RoiAlignOptions { spatial_scale: 0.7, sampling_ratio: ratio, aligned };
            let f = |v: &[Var]| roi_align_with(&v[0], &boxes(), [2, 3], options);
            check_gradients(f, &[parameter(&[2, 2, 4, 5], 1)]);
        }
    }

    #[test]
    fn types_and_nothing() {
        let x = parameter(&[2, 3, 6, 7], 1);
        let short = roi_align(&x.cast(DType::F32), &boxes().cast(DType::F32), [2, 2]);
        assert_close(&short.cast(DType::F64), &roi_align(&x, &boxes(), [2, 2]), 1e-5);
        let none = roi_align(&x, &boxes().narrow(0, 0isize, 0), [2, 2]);
        assert_eq!(none.shape(), [0, 3, 2, 2]);
    }

    #[test]
    #[should_panic(expected = "roi_align: there is no image 1 among 1")]
    fn an_image_that_is_not_there() {
        roi_align(&parameter(&[1, 1, 6, 7], 1), &boxes(), [1, 1]);
    }
}
