//! Non-maximum suppression.

use tapegrad_tape::Float;

/// The boxes of `order` (indices of boxes of four edges) that no kept box before them overlaps by more than the threshold.
/// Boxes of different classes do not suppress each other.
pub(crate) fn keep<T: Float>(
    boxes: &[T],
    order: &[i64],
    classes: Option<&[i64]>,
    threshold: f64,
) -> Vec<i64> {
    // The edges in the order of the scores, each by itself: a loop over vectors.
    let n = order.len();
    let edge = |e: usize| order.iter().map(|&i| boxes[i as usize * 4 + e]).collect::<Vec<T>>();
    let [x1, y1, x2, y2] = [0, 1, 2, 3].map(edge);
    let areas: Vec<T> = (0..n).map(|i| (x2[i] - x1[i]) * (y2[i] - y1[i])).collect();
    let classes: Option<Vec<i64>> = classes.map(|c| order.iter().map(|&i| c[i as usize]).collect());
    let mut suppressed = vec![false; n];
    let mut kept = Vec::new();
    for i in 0..n {
        if suppressed[i] {
            continue;
        }
        kept.push(order[i]);
        for j in i + 1..n {
            let width = (x2[i].minimum(x2[j]) - x1[i].maximum(x1[j])).maximum(T::ZERO);
            let height = (y2[i].minimum(y2[j]) - y1[i].maximum(y1[j])).maximum(T::ZERO);
            let shared = width * height;
            let overlap = shared / (areas[i] + areas[j] - shared);
            let same = classes.as_ref().is_none_or(|c| c[i] == c[j]);
            suppressed[j] |= same & (overlap.to_f64() > threshold);
        }
    }
    kept
}
