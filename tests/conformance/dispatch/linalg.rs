//! Products of matrices and vectors.

use super::super::call::{Call, Outcome};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let (x, v) = (|| call.var("input"), |name: &str| call.var(name));
    Some(match call.function.strip_prefix("torch.")? {
        "matmul" => ops::matmul(&x(), &v("other")).into(),
        "mm" => ops::mm(&x(), &v("mat2")).into(),
        "bmm" => ops::bmm(&x(), &v("mat2")).into(),
        "mv" => ops::mv(&x(), &v("vec")).into(),
        "dot" => ops::dot(&x(), &v("tensor")).into(),
        "outer" => ops::outer(&x(), &v("vec2")).into(),
        "nn.functional.linear" => ops::linear(&x(), &v("weight"), call.var_opt("bias").as_ref()).into(),
        _ => return None,
    })
}
