//! `box_iou`.

use super::{box_area, check_boxes};
use tapegrad_tape::Var;

/// The area of the intersection of each pair of boxes over that of their union, `[..., n, m]` for boxes `[..., n, 4]` and
/// `[..., m, 4]` (`torchvision.ops.box_iou`). NaN for pairs without area.
///
/// # Panics
/// If there are fewer than two dimensions, the last one is not 4, or the leading dimensions do not broadcast.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![0f32, 0., 2., 2.], (1, 4));
/// let b = Var::from_vec(vec![1f32, 0., 3., 2., 5., 5., 6., 6.], (2, 4));
/// assert_eq!(tapegrad_ops::detection::box_iou(&a, &b).to_vec::<f32>(), [1.0 / 3.0, 0.0]);
/// ```
#[track_caller]
pub fn box_iou(boxes1: &Var, boxes2: &Var) -> Var {
    let [intersection, union] = intersection_and_union("box_iou", boxes1, boxes2);
    intersection.true_divide(union)
}

/// Both areas for each pair.
#[track_caller]
pub(super) fn intersection_and_union(op: &str, boxes1: &Var, boxes2: &Var) -> [Var; 2] {
    for boxes in [boxes1, boxes2] {
        check_boxes(op, boxes);
        assert!(boxes.ndim() > 1, "{op}: expected boxes [..., n, 4], but got shape {:?}", boxes.shape());
    }
    let [low, high] = [0isize, 2].map(|from| {
        let part = |boxes: &Var, dim: isize| boxes.narrow(-1, from, 2).unsqueeze(dim);
        let (a, b) = (part(boxes1, -2), part(boxes2, -3));
        if from == 0 { a.maximum(&b) } else { a.minimum(&b) }
    });
    let sides = (high - low).clamp_min(0);
    let intersection = sides.select(-1, 0isize) * sides.select(-1, 1isize);
    let union = box_area(boxes1).unsqueeze(-1) + box_area(boxes2).unsqueeze(-2) - &intersection;
    [intersection, union]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients};
    use tapegrad_tape::Tensor;

    /// Boxes none of whose edges is near another's.
    pub(in super::super) fn some_boxes(n: usize, seed: usize) -> Var {
        let corner = |i: usize| ((i * 7 + seed * 3) % 11) as f64 * 0.37 + i as f64 * 0.011;
        let values = (0..n).flat_map(|i| {
            let (x, y) = (corner(2 * i), corner(2 * i + 1));
            [x, y, x + 1.3 + corner(i + 5) / 3.0, y + 1.1 + corner(i + 9) / 2.0]
        });
        Var::parameter(Tensor::from_vec(values.collect(), (n, 4)))
    }

    /// By `torchvision.ops`: all pairs of four boxes that overlap, touch, contain each other or lie apart.
    #[test]
    fn the_same_as_in_torchvision() {
        let a = Var::from_vec(vec![0., 0., 4., 4., 2., 2., 6., 5., 1., 1., 2., 3., 8., 8., 9., 9.5], (4, 4));
        let b = Var::from_vec(vec![4., 0., 8., 4., 0.5, 0.25, 3., 3.5, 2., 2., 6., 5.], (3, 4));
        let expected = [
            0.0,
            0.5078125,
            0.16666666666666666,
            0.16666666666666666,
            0.08053691275167785,
            1.0,
            0.0,
            0.24615384615384617,
            0.0,
            0.0,
            0.0,
            0.0,
        ];
        assert_close(&box_iou(&a, &b), &Var::from_vec(expected.to_vec(), (4, 3)), 1e-15);
        let whole =
            box_iou(&a.trunc().cast(tapegrad_tape::DType::I64), &b.trunc().cast(tapegrad_tape::DType::I64));
        assert_eq!(whole.get((1, 2)).item(), 1.0);
    }

    #[test]
    fn derivatives_and_batches() {
        check_gradients(|v| box_iou(&v[0], &v[1]), &[some_boxes(3, 1), some_boxes(2, 2)]);
        let (a, b) = (some_boxes(6, 1).reshape((2, 3, 4)), some_boxes(4, 2));
        let all = box_iou(&a, &b);
        assert_eq!(all.shape(), [2, 3, 4]);
        assert_close(&all.select(0, 1isize), &box_iou(&a.select(0, 1isize), &b), 0.0);
        assert_eq!(box_iou(&Var::zeros((0, 4)), &Var::zeros((2, 4))).shape(), [0, 2]);
    }
}
