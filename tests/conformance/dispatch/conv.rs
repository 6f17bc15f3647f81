//! Convolutions.

use tapegrad::ops;
use tapegrad::ops::{ConvOptions, ConvTransposeOptions, Padding};
use tapegrad::tape::Var;

use super::super::call::Call;
use super::super::data::Value;
use super::super::outcome::Outcome;

/// The arguments of a convolution; also those of a module's constructor.
pub fn options<const D: usize>(call: &Call) -> ConvOptions<D> {
    ConvOptions {
        stride: call.each_or("stride", 1),
        padding: match call.value("padding") {
            Some(Value::Str(_)) => call.choice(
                "padding",
                "valid",
                &[("valid", Padding::Explicit([0; D])), ("same", Padding::Same)],
            ),
            _ => Padding::Explicit(call.each_or("padding", 0)),
        },
        dilation: call.each_or("dilation", 1),
        groups: call.size_or("groups", 1),
    }
}

/// The arguments of a transposed convolution; also those of a module's constructor.
pub fn transpose_options<const D: usize>(call: &Call) -> ConvTransposeOptions<D> {
    ConvTransposeOptions {
        stride: call.each_or("stride", 1),
        padding: call.each_or("padding", 0),
        output_padding: call.each_or("output_padding", 0),
        dilation: call.each_or("dilation", 1),
        groups: call.size_or("groups", 1),
    }
}

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let name = call.function.strip_prefix("torch.nn.functional.conv")?;
    let tensors = || (call.var("input"), call.var("weight"), call.var_opt("bias"));
    fn apply<O>(
        f: fn(&Var, &Var, Option<&Var>, O) -> Var,
        (x, w, b): (Var, Var, Option<Var>),
        options: O,
    ) -> Outcome {
        f(&x, &w, b.as_ref(), options).into()
    }
    Some(match name {
        "1d" => apply(|x, w, b, o| ops::conv1d_with(x, w, b, o), tensors(), options(call)),
        "2d" => apply(|x, w, b, o| ops::conv2d_with(x, w, b, o), tensors(), options(call)),
        "3d" => apply(|x, w, b, o| ops::conv3d_with(x, w, b, o), tensors(), options(call)),
        "_transpose1d" => {
            apply(|x, w, b, o| ops::conv_transpose1d_with(x, w, b, o), tensors(), transpose_options(call))
        }
        "_transpose2d" => {
            apply(|x, w, b, o| ops::conv_transpose2d_with(x, w, b, o), tensors(), transpose_options(call))
        }
        "_transpose3d" => {
            apply(|x, w, b, o| ops::conv_transpose3d_with(x, w, b, o), tensors(), transpose_options(call))
        }
        _ => return None,
    })
}
