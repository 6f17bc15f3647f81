//! `batched_nms`.

use super::nms::suppress;
use tapegrad_tape::{DType, Var};

/// [`nms`](super::nms) among the boxes of each class by itself (`torchvision.ops.batched_nms`): `idxs` `[n]` are the classes.
/// The indices of all classes come by falling score.
///
/// # Panics
/// Same as [`nms`](super::nms), or if the classes are not `n` integers.
///
/// ```
/// use tapegrad_tape::Var;
/// let boxes = Var::from_vec(vec![0f32, 0., 4., 4., 0., 0., 4., 3., 0., 0., 4., 4.], (3, 4));
/// let (scores, classes) = (Var::from_vec(vec![0.8f32, 0.9, 0.3], 3), Var::from_vec(vec![0i64, 0, 1], 3));
/// let kept = tapegrad_ops::detection::batched_nms(&boxes, &scores, &classes, 0.5);
/// assert_eq!(kept.to_vec::<i64>(), [1, 2]);
/// ```
#[track_caller]
pub fn batched_nms(boxes: &Var, scores: &Var, idxs: &Var, iou_threshold: f64) -> Var {
    assert!(
        idxs.shape() == scores.shape() && matches!(idxs.dtype(), DType::I64 | DType::U8),
        "batched_nms: expected one integer class for each score, but got {} of shape {:?} for scores of shape {:?}",
        idxs.dtype(),
        idxs.shape(),
        scores.shape()
    );
    suppress("batched_nms", boxes, scores, Some(idxs), iou_threshold)
}

#[cfg(test)]
mod tests {
    use super::super::nms;
    use super::*;
    use tapegrad_tape::Generator;

    #[test]
    fn each_class_by_itself() {
        let g = &mut Generator::manual_seed(2);
        let n = 60;
        let corners = Var::from(g.uniform((n, 2), 0.0, 10.0));
        let boxes = tapegrad_tape::cat(&[&corners, &(&corners + 4.0)], 1);
        let scores = Var::from(g.uniform(n, 0.0, 1.0));
        let classes = Var::randint_with(0, 3, n, g);
        let mut all: Vec<i64> = (0..3)
            .flat_map(|class| {
                let members = classes.eq(class).nonzero().squeeze(1);
                let kept = nms(&boxes.index_select(0, &members), &scores.index_select(0, &members), 0.3);
                members.index_select(0, &kept).to_vec::<i64>()
            })
            .collect();
        let s = scores.to_vec::<f32>();
        all.sort_by(|&a, &b| s[b as usize].total_cmp(&s[a as usize]));
        let found = batched_nms(&boxes, &scores, &classes, 0.3).to_vec::<i64>();
        assert_eq!(found, all);
        assert!(found.len() > nms(&boxes, &scores, 0.3).numel());
    }

    #[test]
    #[should_panic(
        expected = "batched_nms: expected one integer class for each score, but got float32 of shape [2]"
    )]
    fn classes_that_are_no_integers() {
        batched_nms(&Var::zeros((2, 4)), &Var::zeros(2), &Var::zeros(2), 0.5);
    }
}
