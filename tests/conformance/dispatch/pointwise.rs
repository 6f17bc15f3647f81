//! Functions of each element by itself, comparisons, and what broadcasts.

use tapegrad::tape::{
    Operand, RoundingMode, Tensor, Var, float_power, pow, result_type, where_, xlog1py, xlogy,
};

use super::super::call::Call;
use super::super::outcome::Outcome;

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    if !call.function.starts_with("torch.") || call.function.starts_with("torch.nn.") {
        return None;
    }
    Some(of_one(call).or_else(|| of_two(call)).or_else(|| of_more(call))?.into())
}

fn of_one(call: &Call) -> Option<Var> {
    let f = named!(call.op(), Var as fn(&Var) -> Var:
        abs acos acosh asin asinh atan atanh ceil cos cosh deg2rad digamma entr erf erfc erfcx
        erfinv exp exp2 expm1 floor frac i0 i0e i1 i1e isfinite isinf isnan lgamma log log10
        log1p log2 log_ndtr logical_not ndtr ndtri neg positive rad2deg reciprocal rsqrt sigmoid
        sgn sign signbit sin sinc sinh sqrt square tan tanh trunc);
    Some(f?(&call.var("input")))
}

/// The first operand, where PyTorch takes a number too: `2 + x`.
fn left(call: &Call) -> Var {
    match call.operand("input") {
        Operand::Var(x) => x,
        Operand::Scalar(number) => {
            // Only some functions take two numbers.
            let other = match call.op() {
                "remainder" => Operand::from(call.var("other")),
                _ => call.operand("other"),
            };
            Var::from(Tensor::full_with((), number, result_type(&[&Operand::Scalar(number), &other])))
        }
    }
}

fn of_two(call: &Call) -> Option<Var> {
    let x = || call.var("input");
    let other = || call.operand("other");
    let variable = || call.var("other");
    type Binary = fn(&Var, Operand) -> Var;
    if let Some(f) = named!(call.op(), Var as Binary: mul true_divide floor_divide remainder) {
        return Some(f(&left(call), other()));
    }
    if let Some(f) = named!(call.op(), Var as Binary: fmod copysign eq ne lt le gt ge) {
        return Some(f(&x(), other()));
    }
    let of_variables = named!(call.op(), Var as fn(&Var, &Var) -> Var:
        logical_and logical_or logical_xor maximum minimum fmax fmin atan2 hypot logaddexp logaddexp2 ldexp);
    if let Some(f) = of_variables {
        return Some(f(&x(), &variable()));
    }
    Some(match call.op() {
        "add" => left(call).add_scaled(other(), call.scalar_or("alpha", 1)),
        "sub" => left(call).sub_scaled(other(), call.scalar_or("alpha", 1)),
        "rsub" => x().rsub_with(other(), call.scalar_or("alpha", 1)),
        "div" => match call.text_opt("rounding_mode").as_deref() {
            None => left(call).div(other()),
            Some("floor") => left(call).div_rounded(other(), RoundingMode::Floor),
            Some("trunc") => left(call).div_rounded(other(), RoundingMode::Trunc),
            Some(mode) => call.unwritable("rounding_mode", mode),
        },
        "heaviside" => x().heaviside(&call.var("values")),
        "isclose" => {
            let (rtol, atol) = (call.float_or("rtol", 1e-5), call.float_or("atol", 1e-8));
            x().isclose_with(&variable(), rtol, atol, call.bool_or("equal_nan", false))
        }
        "max" if call.has("other") => x().maximum(&variable()),
        "min" if call.has("other") => x().minimum(&variable()),
        "xlogy" => match call.operand("input") {
            Operand::Var(x) => x.xlogy(other()),
            number => xlogy(number, variable()),
        },
        "xlog1py" => match call.operand("input") {
            Operand::Var(x) => x.xlog1py(other()),
            number => xlog1py(number, variable()),
        },
        "float_power" => float_power(call.operand("input"), call.operand("exponent")),
        "pow" => match call.operand("input") {
            Operand::Var(x) => x.pow(call.operand("exponent")),
            number => pow(number, call.var("exponent")),
        },
        _ => return None,
    })
}

fn of_more(call: &Call) -> Option<Var> {
    let x = || call.var("input");
    Some(match call.op() {
        "clamp" => match (call.operand_opt("min"), call.operand_opt("max")) {
            (Some(min), Some(max)) => x().clamp(min, max),
            (Some(min), None) => x().clamp_min(min),
            (None, Some(max)) => x().clamp_max(max),
            (None, None) => call.unwritable("min", "clamp without bounds"),
        },
        "clamp_min" => x().clamp_min(call.operand("min")),
        "clamp_max" => x().clamp_max(call.operand("max")),
        "round" => x().round_decimals(call.int_or("decimals", 0)),
        "logit" => match call.float_opt("eps") {
            None => x().logit(),
            Some(eps) => x().logit_with(eps),
        },
        "nan_to_num" => {
            x().nan_to_num_with(call.float_opt("nan"), call.float_opt("posinf"), call.float_opt("neginf"))
        }
        "where" => where_(&call.var("condition"), call.operand("input"), call.operand("other")),
        "lerp" => x().lerp(&call.var("end"), call.operand("weight")),
        "addcmul" => x().addcmul_with(&call.var("tensor1"), &call.var("tensor2"), call.scalar_or("value", 1)),
        "addcdiv" => x().addcdiv_with(&call.var("tensor1"), &call.var("tensor2"), call.scalar_or("value", 1)),
        _ => return None,
    })
}
