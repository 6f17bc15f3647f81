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
    let f = match call.op() {
        "abs" => Var::abs,
        "acos" => Var::acos,
        "acosh" => Var::acosh,
        "asin" => Var::asin,
        "asinh" => Var::asinh,
        "atan" => Var::atan,
        "atanh" => Var::atanh,
        "ceil" => Var::ceil,
        "cos" => Var::cos,
        "cosh" => Var::cosh,
        "deg2rad" => Var::deg2rad,
        "digamma" => Var::digamma,
        "entr" => Var::entr,
        "erf" => Var::erf,
        "erfc" => Var::erfc,
        "erfcx" => Var::erfcx,
        "erfinv" => Var::erfinv,
        "exp" => Var::exp,
        "exp2" => Var::exp2,
        "expm1" => Var::expm1,
        "floor" => Var::floor,
        "frac" => Var::frac,
        "i0" => Var::i0,
        "i0e" => Var::i0e,
        "i1" => Var::i1,
        "i1e" => Var::i1e,
        "isfinite" => Var::isfinite,
        "isinf" => Var::isinf,
        "isnan" => Var::isnan,
        "lgamma" => Var::lgamma,
        "log" => Var::log,
        "log10" => Var::log10,
        "log1p" => Var::log1p,
        "log2" => Var::log2,
        "log_ndtr" => Var::log_ndtr,
        "logical_not" => Var::logical_not,
        "ndtr" => Var::ndtr,
        "ndtri" => Var::ndtri,
        "neg" => Var::neg,
        "positive" => Var::positive,
        "rad2deg" => Var::rad2deg,
        "reciprocal" => Var::reciprocal,
        "rsqrt" => Var::rsqrt,
        "sigmoid" => Var::sigmoid,
        "sgn" => Var::sgn,
        "sign" => Var::sign,
        "signbit" => Var::signbit,
        "sin" => Var::sin,
        "sinc" => Var::sinc,
        "sinh" => Var::sinh,
        "sqrt" => Var::sqrt,
        "square" => Var::square,
        "tan" => Var::tan,
        "tanh" => Var::tanh,
        "trunc" => Var::trunc,
        _ => return None,
    };
    Some(f(&call.var("input")))
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
    Some(match call.op() {
        "add" => left(call).add_scaled(other(), call.scalar_or("alpha", 1)),
        "sub" => left(call).sub_scaled(other(), call.scalar_or("alpha", 1)),
        "rsub" => x().rsub_with(other(), call.scalar_or("alpha", 1)),
        "mul" => left(call).mul(other()),
        "true_divide" => left(call).true_divide(other()),
        "div" => match call.text_opt("rounding_mode").as_deref() {
            None => left(call).div(other()),
            Some("floor") => left(call).div_rounded(other(), RoundingMode::Floor),
            Some("trunc") => left(call).div_rounded(other(), RoundingMode::Trunc),
            Some(mode) => call.unwritable("rounding_mode", mode),
        },
        "floor_divide" => left(call).floor_divide(other()),
        "fmod" => x().fmod(other()),
        "remainder" => left(call).remainder(other()),
        "copysign" => x().copysign(other()),
        "heaviside" => x().heaviside(&call.var("values")),
        "ldexp" => x().ldexp(&variable()),
        "isclose" => {
            let (rtol, atol) = (call.float_or("rtol", 1e-5), call.float_or("atol", 1e-8));
            x().isclose_with(&variable(), rtol, atol, call.bool_or("equal_nan", false))
        }
        "eq" => x().eq(other()),
        "ne" => x().ne(other()),
        "lt" => x().lt(other()),
        "le" => x().le(other()),
        "gt" => x().gt(other()),
        "ge" => x().ge(other()),
        "logical_and" => x().logical_and(&variable()),
        "logical_or" => x().logical_or(&variable()),
        "logical_xor" => x().logical_xor(&variable()),
        "max" if call.has("other") => x().maximum(&variable()),
        "min" if call.has("other") => x().minimum(&variable()),
        "maximum" => x().maximum(&variable()),
        "minimum" => x().minimum(&variable()),
        "fmax" => x().fmax(&variable()),
        "fmin" => x().fmin(&variable()),
        "atan2" => x().atan2(&variable()),
        "hypot" => x().hypot(&variable()),
        "logaddexp" => x().logaddexp(&variable()),
        "logaddexp2" => x().logaddexp2(&variable()),
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
        "round" => x().round_decimals(call.int_or("decimals", 0) as i32),
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
