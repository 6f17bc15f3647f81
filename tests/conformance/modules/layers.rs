//! Layers with parameters or buffers, padding, normalisation, embedding.

use nn::*;

use super::super::call::Call;
use super::super::dispatch::conv;
use super::{Subject, unary};

/// A convolution or transposed convolution with the arguments of its constructor.
macro_rules! conv {
    ($c:ident, $module:ident, $options:ident, $($option:ident),*) => {{
        let o = conv::$options($c);
        $c.only("padding_mode", $c.text_or("padding_mode", "zeros").as_str(), "zeros");
        let module = $module::new($c.size("in_channels"), $c.size("out_channels"), $c.each("kernel_size"));
        unary(module$(.$option(o.$option))*.groups(o.groups).bias($c.bool_or("bias", true)))
    }};
}

/// Builds the module if it is one of these.
pub fn build(c: &Call) -> Option<Box<dyn Subject>> {
    let bias = || c.bool_or("bias", true);
    match c.op() {
        "Linear" => unary(Linear::new(c.size("in_features"), c.size("out_features")).bias(bias())),
        "Conv1d" => conv!(c, Conv1d, options, stride, padding, dilation),
        "Conv2d" => conv!(c, Conv2d, options, stride, padding, dilation),
        "Conv3d" => conv!(c, Conv3d, options, stride, padding, dilation),
        "ConvTranspose1d" => {
            conv!(c, ConvTranspose1d, transpose_options, stride, padding, output_padding, dilation)
        }
        "ConvTranspose2d" => {
            conv!(c, ConvTranspose2d, transpose_options, stride, padding, output_padding, dilation)
        }
        "ConvTranspose3d" => {
            conv!(c, ConvTranspose3d, transpose_options, stride, padding, output_padding, dilation)
        }
        _ => None,
    }
}
