//! `box_convert`.

use super::{check_boxes, edges};
use tapegrad_tape::{Var, stack};

/// What the four numbers of a box are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxFormat {
    /// Left, top, right and bottom edge.
    Xyxy,
    /// Left and top edge, width and height.
    Xywh,
    /// The center, width and height.
    Cxcywh,
}

/// Boxes `[..., 4]` in another format (`torchvision.ops.box_convert`).
///
/// # Panics
/// If the last dimension is not 4.
///
/// ```
/// use tapegrad_ops::detection::{BoxFormat, box_convert};
/// use tapegrad_tape::Var;
/// let boxes = Var::from_vec(vec![1f32, 1., 3., 5.], (1, 4));
/// let centers = box_convert(&boxes, BoxFormat::Xyxy, BoxFormat::Cxcywh);
/// assert_eq!(centers.to_vec::<f32>(), [2.0, 3.0, 2.0, 4.0]);
/// ```
#[track_caller]
pub fn box_convert(boxes: &Var, in_fmt: BoxFormat, out_fmt: BoxFormat) -> Var {
    check_boxes("box_convert", boxes);
    if in_fmt == out_fmt {
        return boxes.clone();
    }
    let [a, b, c, d] = edges(boxes);
    let [x1, y1, x2, y2] = match in_fmt {
        BoxFormat::Xyxy => [a, b, c, d],
        BoxFormat::Xywh => [a.clone(), b.clone(), a + c, b + d],
        BoxFormat::Cxcywh => {
            let (w, h) = (c * 0.5, d * 0.5);
            [&a - &w, &b - &h, a + w, b + h]
        }
    };
    let parts = match out_fmt {
        BoxFormat::Xyxy => [x1, y1, x2, y2],
        BoxFormat::Xywh => [x1.clone(), y1.clone(), x2 - x1, y2 - y1],
        BoxFormat::Cxcywh => [(&x1 + &x2) / 2.0, (&y1 + &y2) / 2.0, x2 - x1, y2 - y1],
    };
    stack(&parts.each_ref(), -1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use BoxFormat::{Cxcywh, Xywh, Xyxy};

    #[test]
    fn every_pair() {
        // The same box in each format.
        let same = [(Xyxy, [1., 2., 4., 8.]), (Xywh, [1., 2., 3., 6.]), (Cxcywh, [2.5, 5., 3., 6.])];
        for (from, a) in same {
            for (to, b) in same {
                let found = box_convert(&Var::from_vec(a.to_vec(), (1, 4)), from, to);
                assert_eq!(found.to_vec::<f64>(), b, "{from:?} {to:?}");
                check_gradients(|v| box_convert(&v[0], from, to), &[parameter(&[2, 4], 1)]);
                let x = parameter(&[2, 3, 4], 2);
                assert_close(&box_convert(&box_convert(&x, from, to), to, from), &x, 1e-14);
            }
        }
    }
}
