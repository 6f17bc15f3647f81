//! Products of matrices and vectors.

use tapegrad::ops;
use tapegrad::tape::{Scalar, Var};

use super::super::call::{Call, Outcome};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let (x, v) = (|| call.var("input"), |name: &str| call.var(name));
    type Add = fn(&Var, &Var, &Var, Scalar, Scalar) -> Var;
    let add = |f: Add, a: &str, b: &str| {
        f(&x(), &v(a), &v(b), call.scalar_or("beta", 1), call.scalar_or("alpha", 1)).into()
    };
    Some(match call.function.strip_prefix("torch.")? {
        "matmul" => ops::matmul(&x(), &v("other")).into(),
        "mm" => ops::mm(&x(), &v("mat2")).into(),
        "bmm" => ops::bmm(&x(), &v("mat2")).into(),
        "mv" => ops::mv(&x(), &v("vec")).into(),
        "dot" => ops::dot(&x(), &v("tensor")).into(),
        "outer" => ops::outer(&x(), &v("vec2")).into(),
        "addmm" => add(ops::addmm, "mat1", "mat2"),
        "baddbmm" => add(ops::baddbmm, "batch1", "batch2"),
        "addmv" => add(ops::addmv, "mat", "vec"),
        "einsum" => ops::einsum(&call.text_or("equation", ""), &call.vars("operands")).into(),
        "tensordot" => {
            let (a, b) = (v("a"), v("b"));
            if call.is_list("dims") {
                let [x, y] = call.int_lists("dims");
                ops::tensordot(&a, &b, (&x[..], &y[..])).into()
            } else {
                ops::tensordot(&a, &b, call.size("dims")).into()
            }
        }
        "nn.functional.bilinear" => {
            ops::bilinear(&v("input1"), &v("input2"), &v("weight"), call.var_opt("bias").as_ref()).into()
        }
        "nn.functional.linear" => ops::linear(&x(), &v("weight"), call.var_opt("bias").as_ref()).into(),
        _ => return None,
    })
}
