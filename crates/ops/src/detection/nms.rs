//! `nms`.

use super::check_boxes;
use crate::kernels::nms;
use tapegrad_tape::{DType, Tensor, Var, dispatch};

/// Indices `[k]` of the boxes that non-maximum suppression keeps, by falling score (`torchvision.ops.nms`): of boxes `[n, 4]`
/// whose intersection over union is above the threshold, only the one with the highest of the scores `[n]` stays.
/// Without gradient. Of equal scores, the first box comes first.
///
/// # Panics
/// If the shapes do not fit, or the types are not one floating-point type.
///
/// ```
/// use tapegrad_tape::Var;
/// let boxes = Var::from_vec(vec![0f32, 0., 4., 4., 0., 0., 4., 3., 5., 5., 7., 7.], (3, 4));
/// let scores = Var::from_vec(vec![0.8f32, 0.9, 0.3], 3);
/// assert_eq!(tapegrad_ops::detection::nms(&boxes, &scores, 0.5).to_vec::<i64>(), [1, 2]);
/// ```
#[track_caller]
pub fn nms(boxes: &Var, scores: &Var, iou_threshold: f64) -> Var {
    suppress("nms", boxes, scores, None, iou_threshold)
}

/// Among boxes of one class, or of those with the same number in `classes`.
#[track_caller]
pub(super) fn suppress(op: &str, boxes: &Var, scores: &Var, classes: Option<&Var>, threshold: f64) -> Var {
    check_boxes(op, boxes);
    let n = scores.numel();
    assert!(
        boxes.ndim() == 2 && scores.ndim() == 1 && boxes.shape()[0] == n,
        "{op}: expected boxes [n, 4] and scores [n], but got shapes {:?} and {:?}",
        boxes.shape(),
        scores.shape()
    );
    assert!(
        boxes.dtype() == scores.dtype() && boxes.dtype().is_float(),
        "{op}: boxes and scores should have one floating-point type, but are {} and {}",
        boxes.dtype(),
        scores.dtype()
    );
    let wide = if boxes.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let order = scores.detach().sort_with(0, true).1.to_vec::<i64>();
    let classes = classes.map(|c| c.to_vec::<i64>());
    let kept = dispatch!(float: wide, op, T => {
        nms::keep(&boxes.to_vec::<T>(), &order, classes.as_deref(), threshold)
    });
    let count = kept.len();
    Tensor::from_vec(kept, count).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::Generator;

    /// Pairs compared one by one, as the definition says.
    fn naive(boxes: &Var, scores: &Var, threshold: f64) -> Vec<i64> {
        let iou = super::super::box_iou(boxes, boxes).to_vec::<f64>();
        let (n, scores) = (scores.numel(), scores.to_vec::<f64>());
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut kept: Vec<usize> = Vec::new();
        for i in order {
            if kept.iter().all(|&k| iou[k * n + i] <= threshold) {
                kept.push(i);
            }
        }
        kept.into_iter().map(|i| i as i64).collect()
    }

    #[test]
    fn the_same_as_the_definition() {
        let g = &mut Generator::manual_seed(1);
        for n in [0, 1, 5, 40, 300] {
            for threshold in [0.0, 0.3, 0.7, 1.0] {
                let corners = Var::from(g.uniform((n, 2), 0.0, 20.0)).cast(DType::F64);
                let sides = Var::from(g.uniform((n, 2), 1.0, 8.0)).cast(DType::F64);
                let boxes = tapegrad_tape::cat(&[&corners, &(&corners + &sides)], 1);
                let scores = Var::from(g.uniform(n, 0.0, 1.0)).cast(DType::F64);
                assert_eq!(
                    nms(&boxes, &scores, threshold).to_vec::<i64>(),
                    naive(&boxes, &scores, threshold)
                );
            }
        }
    }

    #[test]
    fn equal_scores_and_half_precision() {
        let boxes = Var::from_vec(vec![0f32, 0., 2., 2., 0., 0., 2., 2., 9., 9., 9., 9.], (3, 4));
        let scores = Var::from_vec(vec![0.5f32; 3], 3);
        assert_eq!(nms(&boxes, &scores, 0.5).to_vec::<i64>(), [0, 2]);
        assert_eq!(nms(&boxes.cast(DType::F16), &scores.cast(DType::F16), 0.5).to_vec::<i64>(), [0, 2]);
    }

    #[test]
    #[should_panic(expected = "nms: expected boxes [n, 4] and scores [n], but got shapes [3, 4] and [2]")]
    fn a_score_is_missing() {
        nms(&Var::zeros((3, 4)), &Var::zeros(2), 0.5);
    }

    #[test]
    #[should_panic(
        expected = "nms: boxes and scores should have one floating-point type, but are float32 and float64"
    )]
    fn two_types() {
        nms(&Var::zeros((2, 4)), &Var::zeros(2).cast(DType::F64), 0.5);
    }
}
