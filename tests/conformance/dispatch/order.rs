//! Sorting, choosing by order, searching.

use super::super::call::Call;
use super::super::data::Value;
use super::super::outcome::{Out, Outcome};
use tapegrad::tape::{Interpolation, Operand, Var};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let x = || call.var("input");
    let dim = || call.dim_or("dim", -1);
    let keepdim = || call.bool_or("keepdim", false);
    // The sort is always stable.
    let descending = || {
        call.bool_opt("stable");
        call.bool_or("descending", false)
    };
    Some(match call.function.strip_prefix("torch.")? {
        "sort" => x().sort_with(dim(), descending()).into(),
        "argsort" => x().argsort_with(dim(), descending()).into(),
        "msort" => x().msort().into(),
        "topk" => {
            let (largest, sorted) = (call.bool_or("largest", true), call.bool_or("sorted", true));
            x().topk_with(call.size("k"), dim(), largest, sorted).into()
        }
        "kthvalue" => x().kthvalue_with(call.size("k"), dim(), keepdim()).into(),
        "median" => median(call, Var::median_with, Var::median_all),
        "nanmedian" => median(call, Var::nanmedian_with, Var::nanmedian_all),
        "quantile" => {
            x().quantile_with(quantile(call), call.dim_opt("dim"), keepdim(), interpolation(call)).into()
        }
        "nanquantile" => {
            x().nanquantile_with(quantile(call), call.dim_opt("dim"), keepdim(), interpolation(call)).into()
        }
        "unique" => {
            // The values are always sorted.
            call.bool_opt("sorted");
            distinct(call, Var::unique_with)
        }
        "unique_consecutive" => distinct(call, Var::unique_consecutive_with),
        "searchsorted" => {
            let right = call.bool_or("right", false) || call.text_or("side", "left") == "right";
            let sorter = call.var_opt("sorter");
            call.only("out_int32", call.bool_or("out_int32", false), false);
            call.var("sorted_sequence")
                .searchsorted_with(call.operand("input"), right, sorter.as_ref())
                .into()
        }
        "bucketize" => {
            call.only("out_int32", call.bool_or("out_int32", false), false);
            let (boundaries, right) = (call.var("boundaries"), call.bool_or("right", false));
            match call.operand("input") {
                Operand::Var(x) => x.bucketize_with(&boundaries, right),
                number => boundaries.searchsorted_with(number, right, None),
            }
            .into()
        }
        "isin" => {
            // Whether elements are known to be distinct makes no difference.
            call.bool_opt("assume_unique");
            let elements = call.operand("elements").var();
            elements.isin_with(call.operand("test_elements"), call.bool_or("invert", false)).into()
        }
        _ => return None,
    })
}

fn median(call: &Call, along: fn(&Var, isize, bool) -> (Var, Var), all: fn(&Var) -> Var) -> Outcome {
    let (x, keepdim) = (call.var("input"), call.bool_or("keepdim", false));
    match call.dim_opt("dim") {
        Some(dim) => along(&x, dim, keepdim).into(),
        None => all(&x).into(),
    }
}

fn quantile(call: &Call) -> Operand {
    match call.value("q") {
        Some(Value::Tensor(q)) => Operand::from(q),
        _ => Operand::from(call.float("q")),
    }
}

fn interpolation(call: &Call) -> Interpolation {
    use Interpolation::{Higher, Linear, Lower, Midpoint, Nearest};
    let variants = [
        ("linear", Linear),
        ("lower", Lower),
        ("higher", Higher),
        ("midpoint", Midpoint),
        ("nearest", Nearest),
    ];
    call.choice("interpolation", "linear", &variants)
}

type Distinct = fn(&Var, Option<isize>) -> (Var, Var, Var);

/// The values, and what the call asks to return with them.
fn distinct(call: &Call, f: Distinct) -> Outcome {
    let (values, inverse, counts) = f(&call.var("input"), call.dim_opt("dim"));
    let mut outputs = vec![Out::Var(values)];
    outputs.extend(call.bool_or("return_inverse", false).then_some(Out::Var(inverse)));
    outputs.extend(call.bool_or("return_counts", false).then_some(Out::Var(counts)));
    Outcome(outputs)
}
