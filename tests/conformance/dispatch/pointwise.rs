//! Functions of each element by itself, comparisons, and what broadcasts.

use super::super::call::{Call, Outcome};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    Some(match call.function.as_str() {
        "torch.add" => call
            .var("input")
            .add(match call.scalar_opt("alpha") {
                None => call.operand("other"),
                Some(alpha) => call.operand("other").var().mul(alpha).into(),
            })
            .into(),
        _ => return None,
    })
}
