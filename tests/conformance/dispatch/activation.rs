//! Activation functions.

use tapegrad::ops;
use tapegrad::ops::Approximate;
use tapegrad::tape::Var;

use super::super::call::Call;
use super::super::outcome::Outcome;

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let name = call.function.strip_prefix("torch.nn.functional.")?;
    if call.has("inplace") {
        // Whether an operand is overwritten is decided by its ownership.
        call.bool_or("inplace", false);
    }
    let x = || call.var("input");
    let plain = named!(name, ops as fn(&Var) -> Var:
        relu relu6 selu silu mish softsign logsigmoid hardsigmoid hardswish tanhshrink);
    if let Some(f) = plain {
        return Some(f(&x()).into());
    }
    let y = match name {
        "leaky_relu" => ops::leaky_relu_with(&x(), call.float_or("negative_slope", 0.01)),
        "prelu" => ops::prelu(&x(), &call.var("weight")),
        "elu" => ops::elu_with(&x(), call.float_or("alpha", 1.0)),
        "celu" => ops::celu_with(&x(), call.float_or("alpha", 1.0)),
        "gelu" => {
            let variants = [("none", Approximate::None), ("tanh", Approximate::Tanh)];
            ops::gelu_with(&x(), call.choice("approximate", "none", &variants))
        }
        "softplus" => ops::softplus_with(&x(), call.float_or("beta", 1.0), call.float_or("threshold", 20.0)),
        "glu" => ops::glu_with(&x(), call.dim_or("dim", -1)),
        "hardtanh" => ops::hardtanh_with(&x(), call.float_or("min_val", -1.0), call.float_or("max_val", 1.0)),
        "hardshrink" => ops::hardshrink_with(&x(), call.float_or("lambd", 0.5)),
        "softshrink" => ops::softshrink_with(&x(), call.float_or("lambd", 0.5)),
        "threshold" => ops::threshold(&x(), call.float("threshold"), call.float("value")),
        _ => return None,
    };
    Some(y.into())
}
