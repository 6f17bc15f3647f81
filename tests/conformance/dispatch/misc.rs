//! Embedding, interpolation, attention.

use tapegrad::ops;
use tapegrad::ops::{
    AttentionOptions, EmbeddingBagMode, EmbeddingBagOptions, EmbeddingOptions, GridPadding, GridSampleMode,
    GridSampleOptions, InterpolateMode, InterpolateOptions,
};
use tapegrad::tape::DType;

use super::super::call::Call;
use super::super::outcome::Outcome;

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let x = || call.var("input");
    Some(match call.function.strip_prefix("torch.nn.functional.")? {
        "embedding" => {
            let options = EmbeddingOptions {
                padding_idx: call.dim_opt("padding_idx"),
                max_norm: call.float_opt("max_norm"),
                norm_type: call.float_or("norm_type", 2.0),
                scale_grad_by_freq: call.bool_or("scale_grad_by_freq", false),
                sparse: call.bool_or("sparse", false),
            };
            ops::embedding_with(&x(), &call.var("weight"), options).into()
        }
        "normalize" => ops::normalize_with(
            &x(),
            call.float_or("p", 2.0),
            call.dim_or("dim", 1),
            call.float_or("eps", 1e-12),
        )
        .into(),
        "cosine_similarity" => {
            let (a, b) = (call.var("x1"), call.var("x2"));
            ops::cosine_similarity_with(&a, &b, call.dim_or("dim", 1), call.float_or("eps", 1e-8)).into()
        }
        "pairwise_distance" => {
            let (a, b) = (call.var("x1"), call.var("x2"));
            let (p, eps) = (call.float_or("p", 2.0), call.float_or("eps", 1e-6));
            ops::pairwise_distance_with(&a, &b, p, eps, call.bool_or("keepdim", false)).into()
        }
        "pixel_shuffle" => ops::pixel_shuffle(&x(), call.size("upscale_factor")).into(),
        "pixel_unshuffle" => ops::pixel_unshuffle(&x(), call.size("downscale_factor")).into(),
        "interpolate" => {
            let mode = call.choice(
                "mode",
                "nearest",
                &[
                    ("nearest", InterpolateMode::Nearest),
                    ("linear", InterpolateMode::Linear),
                    ("bilinear", InterpolateMode::Bilinear),
                    ("trilinear", InterpolateMode::Trilinear),
                    ("bicubic", InterpolateMode::Bicubic),
                    ("area", InterpolateMode::Area),
                    ("nearest-exact", InterpolateMode::NearestExact),
                ],
            );
            let options = size(call);
            let options = options
                .mode(mode)
                .align_corners(call.bool_or("align_corners", false))
                .recompute_scale_factor(call.bool_or("recompute_scale_factor", false))
                .antialias(call.bool_or("antialias", false));
            ops::interpolate(&x(), options).into()
        }
        "upsample_bilinear" => ops::upsample_bilinear(&x(), size(call)).into(),
        "upsample_nearest" => ops::upsample_nearest(&x(), size(call)).into(),
        "channel_shuffle" => ops::channel_shuffle(&x(), call.size("groups")).into(),
        "pdist" => ops::pdist_with(&x(), call.float_or("p", 2.0)).into(),
        "grid_sample" => {
            let modes = [
                ("bilinear", GridSampleMode::Bilinear),
                ("nearest", GridSampleMode::Nearest),
                ("bicubic", GridSampleMode::Bicubic),
            ];
            let paddings = [
                ("zeros", GridPadding::Zeros),
                ("border", GridPadding::Border),
                ("reflection", GridPadding::Reflection),
            ];
            let options = GridSampleOptions {
                mode: call.choice("mode", "bilinear", &modes),
                padding_mode: call.choice("padding_mode", "zeros", &paddings),
                align_corners: call.bool_or("align_corners", false),
            };
            ops::grid_sample_with(&x(), &call.var("grid"), options).into()
        }
        "embedding_bag" => embedding_bag(call),
        "scaled_dot_product_attention" => {
            let mask = call.var_opt("attn_mask");
            let options = AttentionOptions {
                attn_mask: mask.as_ref(),
                dropout_p: call.float_or("dropout_p", 0.0),
                is_causal: call.bool_or("is_causal", false),
                scale: call.float_opt("scale"),
                enable_gqa: call.bool_or("enable_gqa", false),
            };
            let (q, k, v) = (call.var("query"), call.var("key"), call.var("value"));
            ops::scaled_dot_product_attention_with(&q, &k, &v, options).into()
        }
        _ => return None,
    })
}

/// The size or the factor of a resizing.
fn size(call: &Call) -> InterpolateOptions {
    let factors = call.floats_opt("scale_factor");
    match (factors, call.ints_opt("size")) {
        (Some(factors), _) => InterpolateOptions::scale_factor(factors),
        (None, _) => InterpolateOptions::size(call.sizes("size")),
    }
}

fn embedding_bag(call: &Call) -> Outcome {
    // PyTorch takes the older order as well: the table first.
    let (first, second) = (call.var("input"), call.var("weight"));
    let (indices, weight) = if first.dtype() == DType::I64 { (first, second) } else { (second, first) };
    let modes =
        [("sum", EmbeddingBagMode::Sum), ("mean", EmbeddingBagMode::Mean), ("max", EmbeddingBagMode::Max)];
    let options = EmbeddingBagOptions {
        offsets: call.var_opt("offsets"),
        max_norm: call.float_opt("max_norm"),
        norm_type: call.float_or("norm_type", 2.0),
        scale_grad_by_freq: call.bool_or("scale_grad_by_freq", false),
        mode: call.choice("mode", "mean", &modes),
        per_sample_weights: call.var_opt("per_sample_weights"),
        include_last_offset: call.bool_or("include_last_offset", false),
        padding_idx: call.dim_opt("padding_idx"),
        sparse: call.bool_or("sparse", false),
    };
    ops::embedding_bag_with(&indices, &weight, options).into()
}
