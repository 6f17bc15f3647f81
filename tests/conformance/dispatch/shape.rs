//! Shapes, views, padding, joining and splitting.

use super::super::call::Call;
use super::super::outcome::Outcome;
use tapegrad::tape::{PadMode, Var};
use tapegrad::{ops, tape};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let x = || call.var("input");
    Some(match call.function.as_str() {
        "torch.reshape" => x().reshape(&call.isizes("shape")).into(),
        "torch.Tensor.view" => x().view(&call.isizes("shape")).into(),
        "torch.Tensor.expand" => x().expand(&call.isizes("size")).into(),
        "torch.broadcast_to" => x().broadcast_to(&call.sizes("size")).into(),
        "torch.flatten" => x().flatten((call.dim_or("start_dim", 0), call.dim_or("end_dim", -1))).into(),
        "torch.unflatten" => x().unflatten(call.dim("dim"), &call.isizes("sizes")).into(),
        "torch.squeeze" => match call.ints_opt("dim") {
            None => x().squeeze_all(),
            Some(_) if call.is_list("dim") => x().squeeze_dims(&call.dims("dim")),
            Some(_) => x().squeeze(call.dim("dim")),
        }
        .into(),
        "torch.unsqueeze" => x().unsqueeze(call.dim("dim")).into(),
        "torch.permute" => x().permute(&call.isizes("dims")).into(),
        "torch.transpose" => x().transpose(call.dim("dim0"), call.dim("dim1")).into(),
        "torch.t" => x().t().into(),
        "torch.movedim" => x().movedim(&call.isizes("source"), &call.isizes("destination")).into(),
        "torch.Tensor.repeat" => x().repeat(&call.sizes("repeats")).into(),
        "torch.tile" => x().tile(&call.sizes("dims")).into(),
        "torch.cat" => tape::cat(&call.vars(first_name(call)), call.dim_or("dim", 0)).into(),
        "torch.stack" => tape::stack(&call.vars(first_name(call)), call.dim_or("dim", 0)).into(),
        "torch.split" => {
            let dim = call.dim_or("dim", 0);
            match call.is_list("split_size_or_sections") {
                true => x().split_with_sizes(&call.sizes("split_size_or_sections"), dim),
                false => x().split(call.size("split_size_or_sections"), dim),
            }
            .into()
        }
        "torch.chunk" => x().chunk(call.size("chunks"), call.dim_or("dim", 0)).into(),
        "torch.unbind" => x().unbind(call.dim_or("dim", 0)).into(),
        "torch.narrow" => narrow(call).into(),
        "torch.select" => x().select(call.dim("dim"), call.dim("index")).into(),
        "torch.diagonal" => {
            x().diagonal_with(call.dim_or("offset", 0), call.dim_or("dim1", 0), call.dim_or("dim2", 1)).into()
        }
        "torch.flip" => x().flip(&call.isizes("dims")).into(),
        "torch.roll" => x().roll(&call.isizes("shifts"), &call.dims("dims")).into(),
        "torch.tril" => x().tril_with(call.dim_or("diagonal", 0)).into(),
        "torch.triu" => x().triu_with(call.dim_or("diagonal", 0)).into(),
        "torch.nn.functional.pad" => {
            let mode = match call.text_or("mode", "constant").as_str() {
                "constant" => PadMode::Constant(call.float_or("value", 0.0)),
                "reflect" => PadMode::Reflect,
                "replicate" => PadMode::Replicate,
                "circular" => PadMode::Circular,
                other => call.unwritable("mode", format!("\"{other}\" names no variant of the enum")),
            };
            x().pad_with(&call.isizes("pad"), mode).into()
        }
        "torch.nn.functional.unfold" => ops::unfold(&x(), patches(call)).into(),
        "torch.nn.functional.fold" => ops::fold(&x(), call.each::<2>("output_size"), patches(call)).into(),
        _ => return None,
    })
}

fn patches(call: &Call) -> ops::UnfoldOptions {
    ops::UnfoldOptions {
        kernel_size: call.each("kernel_size"),
        dilation: call.each_or("dilation", 1),
        padding: call.each_or("padding", 0),
        stride: call.each_or("stride", 1),
    }
}

/// `cat` and `stack` take a list, which their samples store as the input.
fn first_name(call: &Call) -> &'static str {
    if call.has("tensors") { "tensors" } else { "input" }
}

/// The start may be a tensor of one integer.
fn narrow(call: &Call) -> Var {
    use super::super::data::Value;
    let start = match call.value("start") {
        Some(Value::Tensor(t)) if t.dtype() == tape::DType::I64 => t.item() as isize,
        _ => call.dim("start"),
    };
    call.var("input").narrow(call.dim("dim"), start, call.size("length"))
}
