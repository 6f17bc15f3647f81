//! Reductions, cumulative sums, sorting.

use super::super::call::{Call, Outcome};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    Some(match call.function.as_str() {
        "torch.sum" => call.var("input").sum(&call.dims("dim"), call.bool_or("keepdim", false)).into(),
        _ => return None,
    })
}
