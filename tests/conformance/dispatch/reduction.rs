//! Reductions and scans along dimensions.

use super::super::call::Call;
use super::super::data::Value;
use super::super::outcome::Outcome;
use tapegrad::tape::{Operand, Spacing, Var};

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
            cast().vector_norm_with(call.float_or("ord", 2.0), &call.dims("dim"), keepdim()).into()
        }
        "torch.nansum" => cast().nansum_with(&call.dims("dim"), keepdim()).into(),
        "torch.nanmean" => cast().nanmean_with(&call.dims("dim"), keepdim()).into(),
        "torch.aminmax" => x().aminmax_with(call.dim_opt("dim"), keepdim()).into(),
        "torch.cummax" => x().cummax(call.dim("dim")).into(),
        "torch.cummin" => x().cummin(call.dim("dim")).into(),
        "torch.logcumsumexp" => x().logcumsumexp(call.dim("dim")).into(),
        "torch.diff" => {
            let (before, after) = (call.var_opt("prepend"), call.var_opt("append"));
            x().diff_with(call.size_or("n", 1), call.dim_or("dim", -1), before.as_ref(), after.as_ref())
                .into()
        }
        "torch.gradient" => {
            x().gradient_with(spacing(call), &call.dims("dim"), call.size_or("edge_order", 1)).into()
        }
        "torch.trapezoid" => call.var("y").trapezoid_with(positions(call), call.dim_or("dim", -1)).into(),
        "torch.cumulative_trapezoid" => {
            call.var("y").cumulative_trapezoid_with(positions(call), call.dim_or("dim", -1)).into()
        }
        _ => return None,
    })
}

/// The distance between samples, or their positions.
fn positions(call: &Call) -> Operand {
    call.var_opt("x").map_or_else(|| Operand::from(call.float_or("dx", 1.0)), Operand::from)
}

fn spacing(call: &Call) -> Spacing {
    match call.value("spacing") {
        None | Some(Value::None) => Spacing::from(1.0),
        Some(Value::List(items)) if matches!(items[..], [Value::Tensor(_), ..]) => {
            call.vars("spacing").into()
        }
        Some(Value::List(_)) => call.floats_opt("spacing").unwrap_or_default().into(),
        Some(_) => Spacing::from(call.float("spacing")),
    }
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
