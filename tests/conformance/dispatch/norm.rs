//! Softmax, normalization layers, vector norms along a dimension.

use tapegrad::ops;
use tapegrad::ops::{BatchNormOptions, InstanceNormOptions};
use tapegrad::tape::Var;

use super::super::call::Call;
use super::super::outcome::Outcome;

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let x = || call.var("input");
    let soft = |f: fn(&Var, isize) -> Var| {
        // PyTorch's `dtype` is a cast of the input.
        let x = call.dtype_opt("dtype").map_or_else(x, |dtype| x().cast(dtype));
        f(&x, call.dim("dim")).into()
    };
    Some(match call.function.strip_prefix("torch.")? {
        "softmax" | "nn.functional.softmax" => soft(ops::softmax),
        "log_softmax" | "nn.functional.log_softmax" => soft(ops::log_softmax),
        "nn.functional.softmin" => soft(ops::softmin),
        "nn.functional.batch_norm" => {
            let training = call.bool_or("training", false);
            let options = BatchNormOptions {
                training,
                momentum: call.float_or("momentum", 0.1),
                eps: call.float_or("eps", 1e-5),
            };
            let (weight, bias) = (call.var_opt("weight"), call.var_opt("bias"));
            with_running(call, |r| ops::batch_norm_with(&x(), r, weight.as_ref(), bias.as_ref(), options))
        }
        "nn.functional.instance_norm" => {
            let options = InstanceNormOptions {
                use_input_stats: call.bool_or("use_input_stats", true),
                momentum: call.float_or("momentum", 0.1),
                eps: call.float_or("eps", 1e-5),
            };
            let (weight, bias) = (call.var_opt("weight"), call.var_opt("bias"));
            with_running(call, |r| ops::instance_norm_with(&x(), r, weight.as_ref(), bias.as_ref(), options))
        }
        "nn.functional.group_norm" => {
            let (weight, bias) = (call.var_opt("weight"), call.var_opt("bias"));
            let eps = call.float_or("eps", 1e-5);
            ops::group_norm_with(&x(), call.size("num_groups"), weight.as_ref(), bias.as_ref(), eps).into()
        }
        "nn.functional.layer_norm" => {
            let (weight, bias) = (call.var_opt("weight"), call.var_opt("bias"));
            let eps = call.float_or("eps", 1e-5);
            ops::layer_norm_with(&x(), &call.sizes("normalized_shape"), weight.as_ref(), bias.as_ref(), eps)
                .into()
        }
        "nn.functional.local_response_norm" => {
            let (alpha, beta) = (call.float_or("alpha", 1e-4), call.float_or("beta", 0.75));
            ops::local_response_norm_with(&x(), call.size("size"), alpha, beta, call.float_or("k", 1.0))
                .into()
        }
        "nn.functional.rms_norm" => {
            let (weight, eps) = (call.var_opt("weight"), call.float_opt("eps"));
            ops::rms_norm_with(&x(), &call.sizes("normalized_shape"), weight.as_ref(), eps).into()
        }
        _ => return None,
    })
}

/// Runs a normalization with running statistics in buffers, and notes what they are afterwards.
fn with_running(call: &Call, f: impl FnOnce(Option<(&Var, &Var)>) -> Var) -> Outcome {
    let [mean, var] =
        ["running_mean", "running_var"].map(|name| call.var_opt(name).map(|v| Var::buffer(v.tensor())));
    let y = f(mean.as_ref().zip(var.as_ref()));
    for (name, buffer) in [("running_mean", mean), ("running_var", var)] {
        if let Some(buffer) = buffer {
            call.after(name, buffer.tensor());
        }
    }
    y.into()
}
