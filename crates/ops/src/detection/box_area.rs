//! `box_area`.

use super::{check_boxes, edges};
use tapegrad_tape::Var;

/// The areas `[...]` of boxes `[..., 4]` (`torchvision.ops.box_area`).
///
/// # Panics
/// If the last dimension is not 4.
///
/// ```
/// use tapegrad_tape::Var;
/// let boxes = Var::from_vec(vec![1f32, 1., 3., 4.], (1, 4));
/// assert_eq!(tapegrad_ops::detection::box_area(&boxes).to_vec::<f32>(), [6.0]);
/// ```
#[track_caller]
pub fn box_area(boxes: &Var) -> Var {
    check_boxes("box_area", boxes);
    let [x1, y1, x2, y2] = edges(boxes);
    (x2 - x1) * (y2 - y1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives_and_integers() {
        check_gradients(|v| box_area(&v[0]), &[parameter(&[2, 3, 4], 1)]);
        assert_eq!(box_area(&Var::from_vec(vec![0i64, 0, 3, 2], 4)).item(), 6.0);
    }

    #[test]
    #[should_panic(
        expected = "box_area: expected boxes of four numbers, [..., 4], but got float64 of shape [2, 3]"
    )]
    fn three_numbers() {
        box_area(&parameter(&[2, 3], 1));
    }
}
