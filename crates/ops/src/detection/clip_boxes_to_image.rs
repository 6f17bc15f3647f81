//! `clip_boxes_to_image`.

use super::{check_boxes, edges};
use crate::Size;
use tapegrad_tape::{Var, stack};

/// Boxes `[..., 4]` cut off at the edges of an image of height and width `size` (`torchvision.ops.clip_boxes_to_image`).
///
/// # Panics
/// If the last dimension is not 4.
///
/// ```
/// use tapegrad_tape::Var;
/// let boxes = Var::from_vec(vec![-1f32, 2., 9., 7.], (1, 4));
/// let inside = tapegrad_ops::detection::clip_boxes_to_image(&boxes, [6, 8]);
/// assert_eq!(inside.to_vec::<f32>(), [0.0, 2.0, 8.0, 6.0]);
/// ```
#[track_caller]
pub fn clip_boxes_to_image(boxes: &Var, size: impl Into<Size<2>>) -> Var {
    check_boxes("clip_boxes_to_image", boxes);
    let Size([height, width]) = size.into();
    let limits = [width, height, width, height];
    let parts: Vec<Var> = edges(boxes).iter().zip(limits).map(|(edge, limit)| edge.clamp(0, limit)).collect();
    stack(&parts.iter().collect::<Vec<_>>(), -1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives_and_batches() {
        let x = parameter(&[2, 3, 4], 1) * 5.0;
        assert_eq!(clip_boxes_to_image(&x, [2, 3]).shape(), [2, 3, 4]);
        check_gradients(|v| clip_boxes_to_image(&(&v[0] * 5.0), [2, 3]), &[parameter(&[3, 4], 1)]);
    }
}
