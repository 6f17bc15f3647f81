//! Embedding, interpolation, attention.

use tapegrad::ops;
use tapegrad::ops::{AttentionOptions, EmbeddingOptions, InterpolateMode, InterpolateOptions};

use super::super::call::{Call, Outcome};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let x = || call.var("input");
    Some(match call.function.strip_prefix("torch.nn.functional.")? {
        "embedding" => {
            // `sparse` is about the gradient's storage alone.
            call.bool_or("sparse", false);
            let options = EmbeddingOptions {
                padding_idx: call.dim_opt("padding_idx"),
                max_norm: call.float_opt("max_norm"),
                norm_type: call.float_or("norm_type", 2.0),
                scale_grad_by_freq: call.bool_or("scale_grad_by_freq", false),
            };
            ops::embedding_with(&x(), &call.var("weight"), options).into()
        }
        "normalize" => {
            ops::normalize(&x(), call.float_or("p", 2.0), call.dim_or("dim", 1), call.float_or("eps", 1e-12))
                .into()
        }
        "cosine_similarity" => {
            let (a, b) = (call.var("x1"), call.var("x2"));
            ops::cosine_similarity(&a, &b, call.dim_or("dim", 1), call.float_or("eps", 1e-8)).into()
        }
        "pairwise_distance" => {
            let (a, b) = (call.var("x1"), call.var("x2"));
            let (p, eps) = (call.float_or("p", 2.0), call.float_or("eps", 1e-6));
            ops::pairwise_distance(&a, &b, p, eps, call.bool_or("keepdim", false)).into()
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
                ],
            );
            let options = match call.floats_opt("scale_factor") {
                Some(factors) => InterpolateOptions::scale_factor(factors),
                None => InterpolateOptions::size(call.sizes("size")),
            };
            call.ints_opt("size");
            let options = options
                .mode(mode)
                .align_corners(call.bool_or("align_corners", false))
                .recompute_scale_factor(call.bool_or("recompute_scale_factor", false));
            ops::interpolate(&x(), options).into()
        }
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
