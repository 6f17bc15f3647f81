//! Activations.

use tapegrad::nn::*;
use tapegrad::ops::Approximate;

use super::super::call::Call;
use super::{Built, unary};

/// The module of this name, if it is one of a list of modules without arguments.
macro_rules! unary_modules {
    ($name:expr, $($module:ident)*) => {
        match $name {
            $(stringify!($module) => unary($module::new()),)*
            _ => None,
        }
    };
}

/// Builds the module if it is one of these.
pub fn build(c: &Call) -> Built {
    // Whether an operand is overwritten is decided by its ownership.
    c.bool_opt("inplace");
    let plain = unary_modules!(c.op(),
        ReLU ReLU6 SELU SiLU Mish Softsign Sigmoid LogSigmoid Tanh Tanhshrink Hardsigmoid
        Hardswish Softmax2d);
    plain.or_else(|| match c.op() {
        "LeakyReLU" => unary(LeakyReLU::new().negative_slope(c.float_or("negative_slope", 0.01))),
        "ELU" => unary(ELU::new().alpha(c.float_or("alpha", 1.0))),
        "CELU" => unary(CELU::new().alpha(c.float_or("alpha", 1.0))),
        "GELU" => {
            let variants = [("none", Approximate::None), ("tanh", Approximate::Tanh)];
            unary(GELU::new().approximate(c.choice("approximate", "none", &variants)))
        }
        "Softplus" => {
            unary(Softplus::new().beta(c.float_or("beta", 1.0)).threshold(c.float_or("threshold", 20.0)))
        }
        "Hardshrink" => unary(Hardshrink::new().lambd(c.float_or("lambd", 0.5))),
        "Softshrink" => unary(Softshrink::new().lambd(c.float_or("lambd", 0.5))),
        "Hardtanh" => {
            unary(Hardtanh::new().min_val(c.float_or("min_val", -1.0)).max_val(c.float_or("max_val", 1.0)))
        }
        "Threshold" => unary(Threshold::new(c.float("threshold"), c.float("value"))),
        "GLU" => unary(GLU::new().dim(c.dim_or("dim", -1))),
        "Softmax" => unary(Softmax::new(c.dim("dim"))),
        "LogSoftmax" => unary(LogSoftmax::new(c.dim("dim"))),
        "Softmin" => unary(Softmin::new(c.dim("dim"))),
        "PReLU" => unary(PReLU::new(c.size_or("num_parameters", 1)).init(c.float_or("init", 0.25))),
        _ => None,
    })
}
