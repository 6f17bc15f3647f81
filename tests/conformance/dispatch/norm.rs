//! Softmax, normalisation layers, vector norms along a dimension.

use tape::{DType, Var};

use super::super::call::{Call, Outcome};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let x = || call.var("input");
    let soft =
        |f: fn(&Var, isize, Option<DType>) -> Var| f(&x(), call.dim("dim"), call.dtype_opt("dtype")).into();
    Some(match call.function.strip_prefix("torch.")? {
        "softmax" | "nn.functional.softmax" => soft(ops::softmax),
        "log_softmax" | "nn.functional.log_softmax" => soft(ops::log_softmax),
        "nn.functional.softmin" => soft(ops::softmin),
        _ => return None,
    })
}
