//! The calls that are timed, by the names in `list.json`; those of PyTorch are in `tools/bench_operations.py`.

use tapegrad::ops::{
    AttentionOptions, AvgPoolOptions, BatchNormOptions, ConvOptions, ConvTransposeOptions, InterpolateMode,
    InterpolateOptions, KlDivReduction, MaxPoolOptions, RecurrentCell, UnfoldOptions,
};
use tapegrad::prelude::*;
use tapegrad::tape::{Reduce, cat, stack, where_};

pub(crate) type Call = fn(&[Var]) -> Var;

/// The operation of this name.
pub(crate) fn call(name: &str) -> Option<Call> {
    [elementwise, reductions, shapes, indices, products, convolutions, images, norms, losses]
        .iter()
        .find_map(|family| family(name))
}

fn elementwise(name: &str) -> Option<Call> {
    Some(match name {
        "add" => |x| &x[0] + &x[1],
        "mul_row" => |x| &x[0] * &x[1],
        "div" => |x| &x[0] / &x[1],
        "exp" => |x| x[0].exp(),
        "tanh" => |x| x[0].tanh(),
        "sigmoid" => |x| x[0].sigmoid(),
        "pow_3" => |x| x[0].pow(3),
        "clamp" => |x| x[0].clamp(-0.5, 0.5),
        "where" => |x| where_(&x[0], &x[1], &x[2]),
        "relu" => |x| ops::relu(&x[0]),
        "gelu" => |x| ops::gelu(&x[0]),
        "silu" => |x| ops::silu(&x[0]),
        "leaky_relu" => |x| ops::leaky_relu(&x[0]),
        "dropout" => |x| ops::dropout(&x[0]),
        "softmax" => |x| ops::softmax(&x[0], -1),
        "log_softmax" => |x| ops::log_softmax(&x[0], -1),
        "sub" => |x| &x[0] - &x[1],
        "maximum" => |x| x[0].maximum(&x[1]),
        "abs" => |x| x[0].abs(),
        "square" => |x| x[0].square(),
        "sqrt" => |x| x[0].sqrt(),
        "rsqrt" => |x| x[0].rsqrt(),
        "log" => |x| x[0].log(),
        "log1p" => |x| x[0].log1p(),
        "sin" => |x| x[0].sin(),
        "erf" => |x| x[0].erf(),
        "atan2" => |x| x[0].atan2(&x[1]),
        "fmod" => |x| x[0].fmod(&x[1]),
        "remainder" => |x| x[0].remainder(&x[1]),
        "lerp" => |x| x[0].lerp(&x[1], 0.3),
        "logaddexp" => |x| x[0].logaddexp(&x[1]),
        "lgamma" => |x| x[0].lgamma(),
        "polygamma_2" => |x| x[0].polygamma(2),
        "erfinv" => |x| x[0].erfinv(),
        "softplus" => |x| ops::softplus(&x[0]),
        "elu" => |x| ops::elu(&x[0]),
        "mish" => |x| ops::mish(&x[0]),
        "glu" => |x| ops::glu(&x[0]),
        _ => return None,
    })
}

fn reductions(name: &str) -> Option<Call> {
    Some(match name {
        "sum" => |x| x[0].sum_all(),
        "sum_rows" => |x| x[0].sum(-1),
        "sum_columns" => |x| x[0].sum(0),
        "max_rows" => |x| x[0].max(-1).0,
        "var_rows" => |x| x[0].var(-1),
        "logsumexp" => |x| x[0].logsumexp(-1),
        "norm" => |x| x[0].norm(),
        "cumsum" => |x| x[0].cumsum(-1),
        "mean_columns" => |x| x[0].mean(0),
        "prod_rows" => |x| x[0].prod(-1),
        "std_rows" => |x| x[0].std(-1),
        "median_rows" => |x| x[0].median(-1).0,
        "cumprod" => |x| x[0].cumprod(-1),
        "logcumsumexp" => |x| x[0].logcumsumexp(-1),
        _ => return None,
    })
}

fn shapes(name: &str) -> Option<Call> {
    Some(match name {
        "transpose_copy" => |x| x[0].t().flatten((0, 1)),
        "cat" => |x| cat(&[&x[0], &x[1]], 1),
        "pad" => |x| x[0].pad((1, 1, 1, 1)),
        "roll" => |x| x[0].roll(3, 1),
        "repeat" => |x| x[0].repeat((2, 2)),
        "triu" => |x| x[0].triu(),
        "stack" => |x| stack(&[&x[0], &x[1]], 1),
        "flip" => |x| x[0].flip(1),
        "permute_copy" => |x| x[0].permute((0, 2, 3, 1)).flatten((0, 3)),
        _ => return None,
    })
}

fn indices(name: &str) -> Option<Call> {
    Some(match name {
        "gather" => |x| x[0].gather(1, &x[1]),
        "index_select" => |x| x[0].index_select(0, &x[1]),
        "scatter_add" => |x| x[0].scatter_add(1, &x[1], &x[2]),
        "masked_fill" => |x| x[0].masked_fill(&x[1], 0.0),
        "embedding" => |x| ops::embedding(&x[0], &x[1]),
        "sort" => |x| x[0].sort(-1).0,
        "topk" => |x| x[0].topk(8, -1).0,
        "index_add" | "index_add_vector" => |x| x[0].index_add(0, &x[1], &x[2]),
        "index_copy" => |x| x[0].index_copy(0, &x[1], &x[2]),
        "scatter_reduce_amax" => |x| x[0].scatter_reduce(1, &x[1], &x[2], Reduce::Amax),
        "masked_select" => |x| x[0].masked_select(&x[1]),
        "embedding_bag" => |x| ops::embedding_bag(&x[0], &x[1]),
        _ => return None,
    })
}

fn products(name: &str) -> Option<Call> {
    Some(match name {
        "matmul" => |x| ops::matmul(&x[0], &x[1]),
        "linear" => |x| ops::linear(&x[0], &x[1], &x[2]),
        "bmm" => |x| ops::bmm(&x[0], &x[1]),
        "mv" => |x| ops::mv(&x[0], &x[1]),
        "einsum" => |x| ops::einsum("bihd,bjhd->bhij", &[&x[0], &x[1]]),
        "cdist" => |x| ops::cdist(&x[0], &x[1]),
        "addmm" => |x| ops::addmm(&x[0], &x[1], &x[2]),
        "outer" => |x| ops::outer(&x[0], &x[1]),
        "dot" => |x| ops::dot(&x[0], &x[1]),
        "bilinear" => |x| ops::bilinear(&x[0], &x[1], &x[2], &x[3]),
        "attention" => |x| ops::scaled_dot_product_attention(&x[0], &x[1], &x[2]),
        "attention_causal" => |x| {
            let options = AttentionOptions::new().is_causal(true);
            ops::scaled_dot_product_attention_with(&x[0], &x[1], &x[2], options)
        },
        "lstm" => |x| recurrent(RecurrentCell::Lstm, x),
        "gru" => |x| recurrent(RecurrentCell::Gru, x),
        _ => return None,
    })
}

/// One layer with states of zeros, for `[steps, N, size]`, the weights of inputs and states, and their biases.
fn recurrent(cell: RecurrentCell, x: &[Var]) -> Var {
    let state = Var::zeros((x[0].shape()[1], x[2].shape()[1]));
    let c = matches!(cell, RecurrentCell::Lstm).then_some(&state);
    let inputs = ops::linear(&x[0], &x[1], &x[3]);
    ops::recurrent(cell, &inputs, &x[2], Some(&x[4]), &state, c, false).0
}

/// A convolution with this padding and stride, whose groups the weight's shape tells.
fn convolution(x: &[Var], padding: usize, stride: usize) -> Var {
    let groups = x[0].shape()[1] / x[1].shape()[1];
    ops::conv2d_with(&x[0], &x[1], &x[2], ConvOptions::new().padding(padding).stride(stride).groups(groups))
}

fn convolutions(name: &str) -> Option<Call> {
    Some(match name {
        "conv1d" => |x| ops::conv1d_with(&x[0], &x[1], &x[2], ConvOptions::new().padding(1)),
        "conv2d_3x3" | "conv2d_depthwise" => |x| convolution(x, 1, 1),
        "conv2d_1x1" => |x| convolution(x, 0, 1),
        "conv2d_7x7_stride_2" => |x| convolution(x, 3, 2),
        "conv2d_depthwise_7x7" => |x| convolution(x, 3, 1),
        "conv_transpose2d" => |x| {
            ops::conv_transpose2d_with(&x[0], &x[1], &x[2], ConvTransposeOptions::new().stride(2).padding(1))
        },
        "conv3d" => |x| ops::conv3d_with(&x[0], &x[1], &x[2], ConvOptions::new().padding(1)),
        _ => return None,
    })
}

fn images(name: &str) -> Option<Call> {
    Some(match name {
        "max_pool2d" => |x| ops::max_pool2d(&x[0], MaxPoolOptions::new(2)),
        "avg_pool2d" => |x| ops::avg_pool2d(&x[0], AvgPoolOptions::new(2)),
        "adaptive_avg_pool2d" => |x| ops::adaptive_avg_pool2d(&x[0], [Some(1), Some(1)]),
        "upsample_bilinear" => |x| {
            ops::interpolate(&x[0], InterpolateOptions::scale_factor([2.0]).mode(InterpolateMode::Bilinear))
        },
        "upsample_nearest" => |x| ops::interpolate(&x[0], InterpolateOptions::scale_factor([2.0])),
        "grid_sample" => |x| ops::grid_sample(&x[0], &x[1]),
        "unfold" => |x| ops::unfold(&x[0], UnfoldOptions::new(3).padding(1)),
        "pixel_shuffle" => |x| ops::pixel_shuffle(&x[0], 2),
        "pixel_unshuffle" => |x| ops::pixel_unshuffle(&x[0], 2),
        "upsample_bicubic" => |x| {
            ops::interpolate(&x[0], InterpolateOptions::scale_factor([2.0]).mode(InterpolateMode::Bicubic))
        },
        "fold" => |x| {
            let side = x[0].shape()[2].isqrt();
            ops::fold(&x[0], [side, side], UnfoldOptions::new(3).padding(1))
        },
        _ => return None,
    })
}

fn norms(name: &str) -> Option<Call> {
    Some(match name {
        "batch_norm" => |x| {
            let options = BatchNormOptions { training: true, momentum: 0.1, eps: 1e-5 };
            ops::batch_norm_with(&x[0], None, &x[1], &x[2], options)
        },
        "group_norm" => |x| ops::group_norm(&x[0], 4, &x[1], &x[2]),
        "instance_norm" => |x| ops::instance_norm(&x[0], None, &x[1], &x[2]),
        "layer_norm" => |x| ops::layer_norm(&x[0], x[1].shape(), &x[1], &x[2]),
        "rms_norm" => |x| ops::rms_norm(&x[0], x[1].shape(), &x[1]),
        "normalize" => |x| ops::normalize(&x[0]),
        "local_response_norm" => |x| ops::local_response_norm(&x[0], 5),
        _ => return None,
    })
}

fn losses(name: &str) -> Option<Call> {
    Some(match name {
        "cross_entropy" => |x| ops::cross_entropy(&x[0], &x[1]),
        "mse_loss" => |x| ops::mse_loss(&x[0], &x[1]),
        "bce_with_logits" => |x| ops::binary_cross_entropy_with_logits(&x[0], &x[1]),
        "smooth_l1_loss" => |x| ops::smooth_l1_loss(&x[0], &x[1]),
        "cosine_similarity" => |x| ops::cosine_similarity(&x[0], &x[1]),
        "l1_loss" => |x| ops::l1_loss(&x[0], &x[1]),
        "huber_loss" => |x| ops::huber_loss(&x[0], &x[1]),
        "kl_div" => |x| ops::kl_div_with(&x[0], &x[1], KlDivReduction::BatchMean, false),
        "nll_loss" => |x| ops::nll_loss(&x[0], &x[1]),
        "triplet_margin_loss" => |x| ops::triplet_margin_loss(&x[0], &x[1], &x[2]),
        _ => return None,
    })
}
