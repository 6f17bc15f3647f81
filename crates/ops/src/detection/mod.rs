//! Boxes in images, for object detection (`torchvision.ops`).
//!
//! A box is four numbers in the last dimension, `(x1, y1, x2, y2)` with `x1 <= x2` and `y1 <= y2` unless said otherwise: left,
//! top, right and bottom edge. Nothing is rounded or widened by a pixel.
//!
//! ```
//! use tapegrad_ops::detection::{box_iou, nms};
//! use tapegrad_tape::Var;
//! let boxes = Var::from_vec(vec![0f32, 0., 4., 4., 0., 0., 4., 3., 5., 5., 7., 7.], (3, 4));
//! let scores = Var::from_vec(vec![0.8f32, 0.9, 0.3], 3);
//! assert_eq!(box_iou(&boxes, &boxes).get((0, 1)).item(), 0.75);
//! assert_eq!(nms(&boxes, &scores, 0.5).to_vec::<i64>(), [1, 2]);
//! ```

mod anchor_boxes;
mod batched_nms;
mod box_area;
mod box_convert;
mod box_iou;
mod clip_boxes_to_image;
mod generalized_box_iou;
mod nms;
mod roi_align;

pub use anchor_boxes::anchor_boxes;
pub use batched_nms::batched_nms;
pub use box_area::box_area;
pub use box_convert::{BoxFormat, box_convert};
pub use box_iou::box_iou;
pub use clip_boxes_to_image::clip_boxes_to_image;
pub use generalized_box_iou::generalized_box_iou;
pub use nms::nms;
pub use roi_align::{RoiAlignOptions, roi_align, roi_align_with};

use tapegrad_tape::{DType, Var};

/// Refuses what is no list of boxes.
#[track_caller]
fn check_boxes(op: &str, boxes: &Var) {
    assert!(
        boxes.ndim() > 0 && boxes.size(-1) == 4 && boxes.dtype() != DType::Bool,
        "{op}: expected boxes of four numbers, [..., 4], but got {} of shape {:?}",
        boxes.dtype(),
        boxes.shape()
    );
}

/// The four numbers of all boxes.
fn edges(boxes: &Var) -> [Var; 4] {
    [0isize, 1, 2, 3].map(|i| boxes.select(-1, i))
}
