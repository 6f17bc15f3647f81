//! Pooling.

use tapegrad::nn::*;

use super::super::call::Call;
use super::super::dispatch::pool::{avg_options, lp_options, max_options, output_size};
use super::{Built, unary, with};

macro_rules! max_pool {
    ($c:ident, $module:ident) => {{
        let o = max_options($c);
        let module = $module::new(o.kernel_size)
            .stride(o.stride)
            .padding(o.padding)
            .dilation(o.dilation)
            .ceil_mode(o.ceil_mode);
        max!($c, module)
    }};
}

macro_rules! avg_pool {
    ($c:ident, $module:ident) => {{
        let o = avg_options($c);
        let module = $module::new(o.kernel_size)
            .stride(o.stride)
            .padding(o.padding)
            .ceil_mode(o.ceil_mode)
            .count_include_pad(o.count_include_pad);
        match o.divisor_override {
            Some(divisor) => unary(module.divisor_override(divisor)),
            None => unary(module),
        }
    }};
}

macro_rules! lp_pool {
    ($c:ident, $module:ident) => {{
        let o = lp_options($c);
        unary($module::new(o.norm_type, o.kernel_size).stride(o.stride).ceil_mode(o.ceil_mode))
    }};
}

/// With `return_indices` the module's other method is called.
macro_rules! max {
    ($c:ident, $module:expr) => {
        match $c.bool_or("return_indices", false) {
            true => with($module, |m, call| m.forward_with_indices(&call.var("input")).into()),
            false => unary($module),
        }
    };
}

/// Builds the module if it is one of these.
pub fn build(c: &Call) -> Built {
    match c.op() {
        "MaxPool1d" => max_pool!(c, MaxPool1d),
        "MaxPool2d" => max_pool!(c, MaxPool2d),
        "MaxPool3d" => max_pool!(c, MaxPool3d),
        "AvgPool1d" => avg_pool!(c, AvgPool1d),
        "AvgPool2d" => avg_pool!(c, AvgPool2d),
        "AvgPool3d" => avg_pool!(c, AvgPool3d),
        "LPPool1d" => lp_pool!(c, LPPool1d),
        "LPPool2d" => lp_pool!(c, LPPool2d),
        "LPPool3d" => lp_pool!(c, LPPool3d),
        "AdaptiveAvgPool1d" => unary(AdaptiveAvgPool1d::new(output_size(c))),
        "AdaptiveAvgPool2d" => unary(AdaptiveAvgPool2d::new(output_size(c))),
        "AdaptiveAvgPool3d" => unary(AdaptiveAvgPool3d::new(output_size(c))),
        "AdaptiveMaxPool1d" => max!(c, AdaptiveMaxPool1d::new(output_size(c))),
        "AdaptiveMaxPool2d" => max!(c, AdaptiveMaxPool2d::new(output_size(c))),
        "AdaptiveMaxPool3d" => max!(c, AdaptiveMaxPool3d::new(output_size(c))),
        _ => None,
    }
}
