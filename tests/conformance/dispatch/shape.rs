//! Shapes, views, padding, joining and splitting.

use super::super::call::{Call, Outcome};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    Some(match call.function.as_str() {
        "torch.reshape" => call.var("input").reshape(&call.isizes("shape")).into(),
        "torch.Tensor.expand" => call.var("input").expand(&call.isizes("size")).into(),
        _ => return None,
    })
}
