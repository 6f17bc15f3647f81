//! Reductions, cumulative sums, sorting.

use super::super::call::{Call, Outcome};
use super::super::data::Value;
use tapegrad::tape::Var;

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let x = || call.var("input");
    let keepdim = || call.bool_or("keepdim", false);
    // PyTorch's `dtype` is a cast of the input.
    let cast = || match call.dtype_opt("dtype") {
        Some(dtype) => x().cast(dtype),
        None => x(),
    };
    Some(match call.function.as_str() {
        "torch.sum" => cast().sum_with(&call.dims("dim"), keepdim()).into(),
        "torch.mean" => cast().mean_with(&call.dims("dim"), keepdim()).into(),
        "torch.prod" => match call.dim_opt("dim") {
            Some(dim) => cast().prod_with(dim, keepdim()),
            None => cast().prod_all(),
        }
        .into(),
        "torch.cumsum" => cast().cumsum(call.dim("dim")).into(),
        "torch.cumprod" => cast().cumprod(call.dim("dim")).into(),
        "torch.amax" => x().amax_with(&call.dims("dim"), keepdim()).into(),
        "torch.amin" => x().amin_with(&call.dims("dim"), keepdim()).into(),
        "torch.max" if !call.has("other") => match call.dim_opt("dim") {
            Some(dim) => x().max_with(dim, keepdim()).into(),
            None => x().max_all().into(),
        },
        "torch.min" if !call.has("other") => match call.dim_opt("dim") {
            Some(dim) => x().min_with(dim, keepdim()).into(),
            None => x().min_all().into(),
        },
        "torch.argmax" => arg(call, Var::argmax_with, Var::argmax_all).into(),
        "torch.argmin" => arg(call, Var::argmin_with, Var::argmin_all).into(),
        "torch.all" => x().all_with(&call.dims("dim"), keepdim()).into(),
        "torch.any" => x().any_with(&call.dims("dim"), keepdim()).into(),
        "torch.count_nonzero" => x().count_nonzero(&call.dims("dim")).into(),
        "torch.logsumexp" => x().logsumexp_with(&call.dims("dim"), keepdim()).into(),
        "torch.var" => x().var_with(&call.dims("dim"), correction(call), keepdim()).into(),
        "torch.std" => x().std_with(&call.dims("dim"), correction(call), keepdim()).into(),
        "torch.var_mean" => x().var_mean_with(&call.dims("dim"), correction(call), keepdim()).into(),
        "torch.std_mean" => x().std_mean_with(&call.dims("dim"), correction(call), keepdim()).into(),
        "torch.norm" => {
            let p = match call.value("p") {
                Some(Value::Str(s)) if s == "fro" => 2.0,
                _ => call.float_or("p", 2.0),
            };
            cast().norm_with(p, &call.dims("dim"), keepdim()).into()
        }
        "torch.linalg.vector_norm" => {
            cast().vector_norm(call.float_or("ord", 2.0), &call.dims("dim"), keepdim()).into()
        }
        "torch.sort" => {
            // The sort is always stable.
            call.bool_opt("stable");
            x().sort_with(call.dim_or("dim", -1), call.bool_or("descending", false)).into()
        }
        "torch.argsort" => {
            call.bool_opt("stable");
            x().argsort_with(call.dim_or("dim", -1), call.bool_or("descending", false)).into()
        }
        "torch.topk" => {
            let (largest, sorted) = (call.bool_or("largest", true), call.bool_or("sorted", true));
            x().topk_with(call.size("k"), call.dim_or("dim", -1), largest, sorted).into()
        }
        "torch.median" => match call.dim_opt("dim") {
            Some(dim) => x().median_with(dim, keepdim()).into(),
            None => x().median_all().into(),
        },
        _ => return None,
    })
}

fn arg(call: &Call, along: fn(&Var, isize, bool) -> Var, all: fn(&Var) -> Var) -> Var {
    let (x, keepdim) = (call.var("input"), call.bool_or("keepdim", false));
    match call.dim_opt("dim") {
        Some(dim) => along(&x, dim, keepdim),
        None if keepdim => all(&x).reshape(&vec![1; x.ndim()]),
        None => all(&x),
    }
}

/// `correction`, or the older `unbiased`, which stands for 1 or 0.
fn correction(call: &Call) -> f64 {
    match call.bool_opt("unbiased") {
        Some(unbiased) => f64::from(u8::from(unbiased)),
        None => call.float_or("correction", 1.0),
    }
}
