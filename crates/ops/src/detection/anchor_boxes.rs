//! `anchor_boxes`.

use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{Tensor, Var, default_dtype};

/// Boxes of all sizes and shapes around each position of a feature map, `[height * width * shapes, 4]` in pixels of the image
/// (`torchvision.models.detection.anchor_utils.AnchorGenerator`; Ren et al. 2015, "Faster R-CNN").
///
/// `feature_size` is the height and width of the feature map, and `stride` how many pixels of the image one of its steps
/// is. At each position there is a box for each pair of an aspect ratio (height over width) and a size (the square root
/// of the area), the sizes changing fastest, whose edges are rounded to whole pixels from the position.
///
/// # Panics
/// If an aspect ratio is not positive.
///
/// ```
/// let boxes = tapegrad_ops::detection::anchor_boxes([2, 2], [16, 16], &[8.0], &[1.0]);
/// assert_eq!(boxes.get(3).to_vec::<f32>(), [12.0, 12.0, 20.0, 20.0]);
/// ```
#[track_caller]
pub fn anchor_boxes(
    feature_size: [usize; 2],
    stride: [usize; 2],
    sizes: &[f64],
    aspect_ratios: &[f64],
) -> Var {
    let op = "anchor_boxes";
    if let Some(bad) = aspect_ratios.iter().find(|&&r| r.is_nan() || r <= 0.0) {
        panic!("{op}: the aspect ratios have to be positive, got {bad}");
    }
    let [height, width] = feature_size;
    let shapes = sizes.len().saturating_mul(aspect_ratios.len());
    let total = numel_for(op, &[height, width, shapes, 4]);
    // In F32, so that the same halves are rounded as in torchvision.
    let around: Vec<[f64; 4]> = aspect_ratios
        .iter()
        .flat_map(|&ratio| {
            let h = (ratio as f32).sqrt();
            sizes.iter().map(move |&size| {
                let (w, h) = ((1.0 / h) * size as f32, h * size as f32);
                [-w, -h, w, h].map(|edge| f64::from((edge / 2.0).round_ties_even()))
            })
        })
        .collect();
    let values = list_for(op, total, |i| {
        let (place, edge) = (i / 4 / shapes, i % 4);
        let step = if edge % 2 == 0 {
            (place % width).saturating_mul(stride[1])
        } else {
            (place / width).saturating_mul(stride[0])
        };
        step as f64 + around[i / 4 % shapes][edge]
    });
    Tensor::from_vec(values, (total / 4, 4)).cast(default_dtype()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_as_in_torchvision() {
        let found = anchor_boxes([2, 3], [16, 8], &[32.0, 45.0], &[0.5, 1.0, 2.0]);
        assert_eq!(found.shape(), [36, 4]);
        let rows = found.to_vec::<f32>();
        assert_eq!(rows[..24], FIRST);
        assert_eq!(rows[140..], LAST);
        assert_eq!(anchor_boxes([0, 3], [1, 1], &[1.0], &[1.0]).shape(), [0, 4]);
    }

    /// The six boxes of the first position, and the last box, as torchvision gives them.
    const FIRST: [f32; 24] = [
        -23.0, -11.0, 23.0, 11.0, -32.0, -16.0, 32.0, 16.0, -16.0, -16.0, 16.0, 16.0, -22.0, -22.0, 22.0,
        22.0, -11.0, -23.0, 11.0, 23.0, -16.0, -32.0, 16.0, 32.0,
    ];
    const LAST: [f32; 4] = [0.0, -16.0, 32.0, 48.0];
}
