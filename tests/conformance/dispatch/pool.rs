//! Pooling.

use tapegrad::ops;
use tapegrad::ops::{AvgPoolOptions, LpPoolOptions, MaxPoolOptions, MaxUnpoolOptions};

use super::super::call::Call;
use super::super::data::Value;
use super::super::outcome::Outcome;

/// The arguments of a max pooling; also those of a module's constructor.
pub fn max_options<const D: usize>(call: &Call) -> MaxPoolOptions<D> {
    let kernel_size = call.each("kernel_size");
    MaxPoolOptions {
        kernel_size,
        stride: stride(call, kernel_size),
        padding: call.each_or("padding", 0),
        dilation: call.each_or("dilation", 1),
        ceil_mode: call.bool_or("ceil_mode", false),
    }
}

/// The arguments of an average pooling; also those of a module's constructor.
pub fn avg_options<const D: usize>(call: &Call) -> AvgPoolOptions<D> {
    let kernel_size = call.each("kernel_size");
    AvgPoolOptions {
        kernel_size,
        stride: stride(call, kernel_size),
        padding: call.each_or("padding", 0),
        ceil_mode: call.bool_or("ceil_mode", false),
        count_include_pad: call.bool_or("count_include_pad", true),
        divisor_override: call.int_opt("divisor_override").map(|n| n as isize),
    }
}

/// The arguments of a power-average pooling; also those of a module's constructor.
pub fn lp_options<const D: usize>(call: &Call) -> LpPoolOptions<D> {
    let kernel_size = call.each("kernel_size");
    LpPoolOptions {
        norm_type: call.float("norm_type"),
        kernel_size,
        stride: stride(call, kernel_size),
        ceil_mode: call.bool_or("ceil_mode", false),
    }
}

/// The arguments of a max unpooling; the size of the result may begin with batch and channels.
fn unpool_options<const D: usize>(call: &Call) -> MaxUnpoolOptions<D> {
    let kernel_size = call.each("kernel_size");
    let size = call.ints_opt("output_size").map(|_| call.sizes("output_size"));
    let output_size = size.map(|s| {
        let spatial = if s.len() == D + 2 { s[2..].to_vec() } else { s };
        let n = spatial.len();
        spatial
            .try_into()
            .unwrap_or_else(|_| call.unwritable("output_size", format!("{n} numbers for {D} dimensions")))
    });
    MaxUnpoolOptions {
        kernel_size,
        stride: stride(call, kernel_size),
        padding: call.each_or("padding", 0),
        output_size,
    }
}

/// An empty list stands for the kernel's size.
fn stride<const D: usize>(call: &Call, kernel_size: [usize; D]) -> [usize; D] {
    match call.ints_opt("stride") {
        Some(list) if !list.is_empty() => call.each("stride"),
        _ => kernel_size,
    }
}

/// The output's size, `None` where the input's is kept; also that of a module's constructor.
pub fn output_size<const D: usize>(call: &Call) -> [Option<usize>; D] {
    let one =
        |v: &Value| match v {
            Value::None => None,
            Value::Int(n) => Some(usize::try_from(*n).unwrap_or_else(|_| {
                call.unwritable("output_size", format!("{n} where the type is unsigned"))
            })),
            other => call.unwritable("output_size", format!("{} where an int is expected", other.kind())),
        };
    match call.value("output_size") {
        Some(Value::List(items)) => match &items[..] {
            [all] => [one(all); D],
            _ => items.iter().map(one).collect::<Vec<_>>().try_into().unwrap_or_else(|l: Vec<_>| {
                call.unwritable("output_size", format!("{} numbers where there are {D} dimensions", l.len()))
            }),
        },
        Some(all) => [one(&all); D],
        None => call.unwritable("output_size", "nothing where a size is required"),
    }
}

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let name = call.function.strip_prefix("torch.nn.functional.")?;
    let x = || call.var("input");
    let indices = || call.bool_or("return_indices", false);
    Some(match name {
        "max_pool1d" if indices() => ops::max_pool1d_with_indices(&x(), max_options(call)).into(),
        "max_pool2d" if indices() => ops::max_pool2d_with_indices(&x(), max_options(call)).into(),
        "max_pool3d" if indices() => ops::max_pool3d_with_indices(&x(), max_options(call)).into(),
        "max_pool1d" => ops::max_pool1d(&x(), max_options(call)).into(),
        "max_pool2d" => ops::max_pool2d(&x(), max_options(call)).into(),
        "max_pool3d" => ops::max_pool3d(&x(), max_options(call)).into(),
        "avg_pool1d" => ops::avg_pool1d(&x(), avg_options(call)).into(),
        "avg_pool2d" => ops::avg_pool2d(&x(), avg_options(call)).into(),
        "avg_pool3d" => ops::avg_pool3d(&x(), avg_options(call)).into(),
        "lp_pool1d" => ops::lp_pool1d(&x(), lp_options(call)).into(),
        "lp_pool2d" => ops::lp_pool2d(&x(), lp_options(call)).into(),
        "lp_pool3d" => ops::lp_pool3d(&x(), lp_options(call)).into(),
        "max_unpool1d" => ops::max_unpool1d(&x(), &call.var("indices"), unpool_options(call)).into(),
        "max_unpool2d" => ops::max_unpool2d(&x(), &call.var("indices"), unpool_options(call)).into(),
        "max_unpool3d" => ops::max_unpool3d(&x(), &call.var("indices"), unpool_options(call)).into(),
        "adaptive_avg_pool1d" => ops::adaptive_avg_pool1d(&x(), output_size(call)).into(),
        "adaptive_avg_pool2d" => ops::adaptive_avg_pool2d(&x(), output_size(call)).into(),
        "adaptive_avg_pool3d" => ops::adaptive_avg_pool3d(&x(), output_size(call)).into(),
        "adaptive_max_pool1d" if indices() => {
            ops::adaptive_max_pool1d_with_indices(&x(), output_size(call)).into()
        }
        "adaptive_max_pool1d" => ops::adaptive_max_pool1d(&x(), output_size(call)).into(),
        "adaptive_max_pool2d" if indices() => {
            ops::adaptive_max_pool2d_with_indices(&x(), output_size(call)).into()
        }
        "adaptive_max_pool2d" => ops::adaptive_max_pool2d(&x(), output_size(call)).into(),
        "adaptive_max_pool3d" if indices() => {
            ops::adaptive_max_pool3d_with_indices(&x(), output_size(call)).into()
        }
        "adaptive_max_pool3d" => ops::adaptive_max_pool3d(&x(), output_size(call)).into(),
        _ => return None,
    })
}
