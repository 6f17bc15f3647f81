//! `generalized_box_iou`.

use super::box_iou::intersection_and_union;
use tapegrad_tape::Var;

/// [`box_iou`](super::box_iou) less the share of the smallest box around a pair that neither covers, `[..., n, m]` for boxes
/// `[..., n, 4]` and `[..., m, 4]` (`torchvision.ops.generalized_box_iou`; Rezatofighi et al. 2019, "Generalized
/// intersection over union"). It is negative for boxes far apart, and has a gradient there.
///
/// # Panics
/// Same as [`box_iou`](super::box_iou).
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![0f32, 0., 1., 1.], (1, 4));
/// let b = Var::from_vec(vec![3f32, 0., 4., 1.], (1, 4));
/// assert_eq!(tapegrad_ops::detection::generalized_box_iou(&a, &b).item(), -0.5);
/// ```
#[track_caller]
pub fn generalized_box_iou(boxes1: &Var, boxes2: &Var) -> Var {
    let [intersection, union] = intersection_and_union("generalized_box_iou", boxes1, boxes2);
    let [low, high] = [0isize, 2].map(|from| {
        let part = |boxes: &Var, dim: isize| boxes.narrow(-1, from, 2).unsqueeze(dim);
        let (a, b) = (part(boxes1, -2), part(boxes2, -3));
        if from == 0 { a.minimum(&b) } else { a.maximum(&b) }
    });
    let sides = (high - low).clamp_min(0);
    let around = sides.select(-1, 0isize) * sides.select(-1, 1isize);
    intersection.true_divide(&union) - (&around - &union).true_divide(&around)
}

#[cfg(test)]
mod tests {
    use super::super::box_iou::tests::some_boxes;
    use super::*;
    use crate::testing::{assert_close, check_gradients};

    #[test]
    fn the_same_as_in_torchvision() {
        let a = Var::from_vec(vec![0., 0., 4., 4., 2., 2., 6., 5., 1., 1., 2., 3., 8., 8., 9., 9.5], (4, 4));
        let b = Var::from_vec(vec![4., 0., 8., 4., 0.5, 0.25, 3., 3.5, 2., 2., 6., 5.], (3, 4));
        let expected = GIOU;
        assert_close(&generalized_box_iou(&a, &b), &Var::from_vec(expected.to_vec(), (4, 3)), 1e-14);
    }

    /// As torchvision gives them.
    const GIOU: [f64; 12] = [
        0.0,
        0.5078125,
        -0.033333333333333354,
        -0.033333333333333354,
        -0.2065444269612408,
        1.0,
        -0.35714285714285715,
        0.24615384615384617,
        -0.3,
        -0.631578947368421,
        -0.8775834658187599,
        -0.7428571428571429,
    ];

    #[test]
    fn derivatives() {
        check_gradients(|v| generalized_box_iou(&v[0], &v[1]), &[some_boxes(3, 1), some_boxes(2, 2)]);
    }
}
