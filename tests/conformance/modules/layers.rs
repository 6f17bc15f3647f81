//! Layers with parameters or buffers, padding, normalization, embedding.

use tapegrad::nn::*;

use super::super::call::Call;
use super::super::dispatch::conv;
use super::{Built, unary, with};

/// A convolution or transposed convolution with the arguments of its constructor.
macro_rules! conv {
    ($c:ident, $module:ident, $options:ident, $($option:ident),*) => {{
        let o = conv::$options($c);
        let module = $module::new($c.size("in_channels"), $c.size("out_channels"), $c.each("kernel_size"));
        module$(.$option(o.$option))*.groups(o.groups).bias($c.bool_or("bias", true))
    }};
}

fn padding_mode(c: &Call) -> PaddingMode {
    let modes = [
        ("zeros", PaddingMode::Zeros),
        ("reflect", PaddingMode::Reflect),
        ("replicate", PaddingMode::Replicate),
        ("circular", PaddingMode::Circular),
    ];
    c.choice("padding_mode", "zeros", &modes)
}

/// Zeros, the only padding of a transposed convolution.
fn zeros(c: &Call) {
    c.only("padding_mode", c.text_or("padding_mode", "zeros").as_str(), "zeros");
}

/// A normalization by channels. `momentum=None` means the mean of all batches.
macro_rules! channel_norm {
    ($c:ident, $module:ident, $default:literal) => {{
        let momentum = if $c.has("momentum") { $c.float_opt("momentum") } else { Some(0.1) };
        let affine = $c.bool_or("affine", if $default { true } else { false });
        let module = $module::new($c.size("num_features"))
            .eps($c.float_or("eps", 1e-5))
            .momentum(momentum)
            .affine(affine)
            .track_running_stats($c.bool_or("track_running_stats", $default));
        unary(match $c.bool_opt("bias") {
            Some(bias) => module.bias(affine && bias),
            None => module,
        })
    }};
}

/// Builds the module if it is one of these.
pub fn build(c: &Call) -> Built {
    let bias = || c.bool_or("bias", true);
    let eps = || c.float_or("eps", 1e-5);
    let shape = || c.sizes("normalized_shape");
    let elementwise = || c.bool_or("elementwise_affine", true);
    match c.op() {
        "Linear" => unary(Linear::new(c.size("in_features"), c.size("out_features")).bias(bias())),
        "Conv1d" => unary(conv!(c, Conv1d, options, stride, padding, dilation).padding_mode(padding_mode(c))),
        "Conv2d" => unary(conv!(c, Conv2d, options, stride, padding, dilation).padding_mode(padding_mode(c))),
        "Conv3d" => unary(conv!(c, Conv3d, options, stride, padding, dilation).padding_mode(padding_mode(c))),
        "ConvTranspose1d" => {
            zeros(c);
            unary(conv!(c, ConvTranspose1d, transpose_options, stride, padding, output_padding, dilation))
        }
        "ConvTranspose2d" => {
            zeros(c);
            unary(conv!(c, ConvTranspose2d, transpose_options, stride, padding, output_padding, dilation))
        }
        "ConvTranspose3d" => {
            zeros(c);
            unary(conv!(c, ConvTranspose3d, transpose_options, stride, padding, output_padding, dilation))
        }
        "BatchNorm1d" => channel_norm!(c, BatchNorm1d, true),
        "BatchNorm2d" => channel_norm!(c, BatchNorm2d, true),
        "BatchNorm3d" => channel_norm!(c, BatchNorm3d, true),
        "InstanceNorm1d" => channel_norm!(c, InstanceNorm1d, false),
        "InstanceNorm2d" => channel_norm!(c, InstanceNorm2d, false),
        "InstanceNorm3d" => channel_norm!(c, InstanceNorm3d, false),
        "LayerNorm" => {
            let affine = elementwise();
            let module = LayerNorm::new(&shape()).eps(eps()).elementwise_affine(affine);
            unary(module.bias(affine && bias()))
        }
        "RMSNorm" => unary(RMSNorm::new(&shape()).eps(c.float_opt("eps")).elementwise_affine(elementwise())),
        "GroupNorm" => {
            let affine = c.bool_or("affine", true);
            let module =
                GroupNorm::new(c.size("num_groups"), c.size("num_channels")).eps(eps()).affine(affine);
            unary(module.bias(affine && bias()))
        }
        "LocalResponseNorm" => unary(
            LocalResponseNorm::new(c.size("size"))
                .alpha(c.float_or("alpha", 1e-4))
                .beta(c.float_or("beta", 0.75))
                .k(c.float_or("k", 1.0)),
        ),
        "Bilinear" => {
            let sizes = ["in1_features", "in2_features", "out_features"].map(|name| c.size(name));
            with(Bilinear::new(sizes[0], sizes[1], sizes[2]).bias(bias()), |m, call| {
                m.forward(&call.var("input1"), &call.var("input2")).into()
            })
        }
        "Embedding" => {
            let mut module = Embedding::new(c.size("num_embeddings"), c.size("embedding_dim"))
                .norm_type(c.float_or("norm_type", 2.0))
                .scale_grad_by_freq(c.bool_or("scale_grad_by_freq", false));
            if let Some(row) = c.dim_opt("padding_idx") {
                module = module.padding_idx(row);
            }
            if let Some(norm) = c.float_opt("max_norm") {
                module = module.max_norm(norm);
            }
            // `sparse` is about the gradient's storage alone.
            c.bool_or("sparse", false);
            unary(module)
        }
        _ => padding(c),
    }
}

fn padding(c: &Call) -> Built {
    match c.op() {
        "ZeroPad1d" => unary(ZeroPad1d::new(c.sides("padding"))),
        "ZeroPad2d" => unary(ZeroPad2d::new(c.sides("padding"))),
        "ZeroPad3d" => unary(ZeroPad3d::new(c.sides("padding"))),
        "ConstantPad1d" => unary(ConstantPad1d::new(c.sides("padding"), c.float("value"))),
        "ConstantPad2d" => unary(ConstantPad2d::new(c.sides("padding"), c.float("value"))),
        "ConstantPad3d" => unary(ConstantPad3d::new(c.sides("padding"), c.float("value"))),
        "ReflectionPad1d" => unary(ReflectionPad1d::new(c.sides("padding"))),
        "ReflectionPad2d" => unary(ReflectionPad2d::new(c.sides("padding"))),
        "ReflectionPad3d" => unary(ReflectionPad3d::new(c.sides("padding"))),
        "ReplicationPad1d" => unary(ReplicationPad1d::new(c.sides("padding"))),
        "ReplicationPad2d" => unary(ReplicationPad2d::new(c.sides("padding"))),
        "ReplicationPad3d" => unary(ReplicationPad3d::new(c.sides("padding"))),
        "CircularPad1d" => unary(CircularPad1d::new(c.sides("padding"))),
        "CircularPad2d" => unary(CircularPad2d::new(c.sides("padding"))),
        "CircularPad3d" => unary(CircularPad3d::new(c.sides("padding"))),
        _ => None,
    }
}
