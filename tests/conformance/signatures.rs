//! Parameter names, for calls whose sample does not tell them and for parameters with two names.

/// Names of the positional arguments. PyTorch's own names come first; where they are unknown, the function's usual
/// signature. May be shorter than `count`: what is left over belongs to the last parameter.
pub fn names(function: &str, known: Option<Vec<String>>, count: usize, keywords: &[&str]) -> Vec<String> {
    // A comparison of two Python numbers binds to the operator module's `(a, b)`.
    let known = known
        .filter(|n| n.len() == count && n.first().is_none_or(|f| f != "a") || function == "torch.tensordot");
    if let Some(names) = known {
        return names.into_iter().map(|n| keyword(function, &n)).collect();
    }
    let usual = usual(function).iter().filter(|n| !keywords.contains(n));
    usual.take(count).map(|n| n.to_string()).collect()
}

/// The name by which rows know a parameter.
pub fn keyword(function: &str, name: &str) -> String {
    let name = match (function, name) {
        (_, "self") => "input",
        (_, "axis") => "dim",
        ("torch.split", "tensor") => "input",
        ("torch.split", "split_size") => "split_size_or_sections",
        ("torch.nn.RMSNorm", "x") => "input",
        _ => name,
    };
    name.to_string()
}

fn usual(function: &str) -> &'static [&'static str] {
    match function.strip_prefix("torch.").unwrap_or(function) {
        "pow" => &["input", "exponent"],
        "clamp" => &["input", "min", "max"],
        "clamp_min" => &["input", "min"],
        "clamp_max" => &["input", "max"],
        "cat" | "stack" => &["tensors", "dim"],
        "where" => &["condition", "input", "other"],
        "heaviside" => &["input", "values"],
        "lerp" => &["input", "end", "weight"],
        "addcmul" | "addcdiv" => &["input", "tensor1", "tensor2"],
        "addmm" => &["input", "mat1", "mat2"],
        "baddbmm" => &["input", "batch1", "batch2"],
        "mm" | "bmm" => &["input", "mat2"],
        "mv" => &["input", "vec"],
        "dot" => &["input", "tensor"],
        "outer" => &["input", "vec2"],
        "einsum" => &["equation", "operands"],
        "tensordot" => &["a", "b", "dims"],
        "gather" | "index_select" | "select" => &["input", "dim", "index"],
        "scatter" | "scatter_add" => &["input", "dim", "index", "src"],
        "masked_fill" => &["input", "mask", "value"],
        "take_along_dim" => &["input", "indices", "dim"],
        "narrow" => &["input", "dim", "start", "length"],
        "movedim" => &["input", "source", "destination"],
        "transpose" => &["input", "dim0", "dim1"],
        "diagonal" => &["input", "offset", "dim1", "dim2"],
        "tril" | "triu" => &["input", "diagonal"],
        "roll" => &["input", "shifts", "dims"],
        "flip" | "permute" | "tile" => &["input", "dims"],
        "flatten" => &["input", "start_dim", "end_dim"],
        "unflatten" => &["input", "dim", "sizes"],
        "reshape" | "Tensor.view" => &["input", "shape"],
        "Tensor.repeat" => &["input", "repeats"],
        "Tensor.expand" | "broadcast_to" | "Tensor.sum_to_size" => &["input", "size"],
        "Tensor.unfold" => &["input", "dimension", "size", "step"],
        "block_diag" | "broadcast_tensors" | "cartesian_prod" | "meshgrid" => &["tensors"],
        "Tensor.__getitem__" => &["input", "index"],
        "split" => &["input", "split_size_or_sections", "dim"],
        "chunk" => &["input", "chunks", "dim"],
        "topk" => &["input", "k", "dim", "largest", "sorted"],
        "sort" => &["input", "dim", "descending"],
        "norm" => &["input", "p", "dim", "keepdim"],
        "linalg.vector_norm" => &["input", "ord", "dim", "keepdim"],
        "logit" => &["input", "eps"],
        "sum" | "mean" | "prod" | "amax" | "amin" | "argmax" | "argmin" | "all" | "any" | "logsumexp"
        | "var" | "std" | "var_mean" | "std_mean" | "cumsum" | "cumprod" | "squeeze" | "unsqueeze"
        | "unbind" | "count_nonzero" | "softmax" | "log_softmax" => &["input", "dim", "keepdim"],
        "addbmm" => &["input", "batch1", "batch2"],
        "addr" => &["input", "vec1", "vec2"],
        "addmv" => &["input", "mat", "vec"],
        "cdist" => &["x1", "x2", "p", "compute_mode"],
        "cholesky_solve" => &["input", "input2", "upper"],
        "dist" => &["input", "other", "p"],
        "renorm" => &["input", "p", "dim", "maxnorm"],
        "linalg.matrix_norm" | "linalg.norm" => &["input", "ord", "dim", "keepdim"],
        "linalg.lstsq" => &["input", "b"],
        "linalg.matrix_power" => &["input", "n"],
        "linalg.multi_dot" => &["tensors"],
        "linalg.solve" => &["A", "B"],
        "linalg.det" | "linalg.inv" | "linalg.slogdet" | "linalg.svdvals" => &["A"],
        "linalg.solve_triangular" => &["input", "B"],
        "linalg.vecdot" => &["x", "y"],
        f if f.starts_with("nn.functional.") => functional(&f["nn.functional.".len()..]),
        _ => &["input", "other"],
    }
}

fn functional(name: &str) -> &'static [&'static str] {
    match name {
        "conv1d" | "conv2d" | "conv3d" => {
            &["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
        }
        "conv_transpose1d" | "conv_transpose2d" | "conv_transpose3d" => {
            &["input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"]
        }
        "max_pool1d" | "max_pool2d" | "max_pool3d" => {
            &["input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"]
        }
        "avg_pool1d" => &["input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"],
        "avg_pool2d" | "avg_pool3d" => &[
            "input",
            "kernel_size",
            "stride",
            "padding",
            "ceil_mode",
            "count_include_pad",
            "divisor_override",
        ],
        "adaptive_max_pool1d" | "adaptive_max_pool2d" => &["input", "output_size", "return_indices"],
        "adaptive_avg_pool1d" | "adaptive_avg_pool2d" => &["input", "output_size"],
        "linear" => &["input", "weight", "bias"],
        "bilinear" => &["input1", "input2", "weight", "bias"],
        "embedding" | "prelu" => &["input", "weight"],
        "pad" => &["input", "pad", "mode", "value"],
        "one_hot" => &["input", "num_classes"],
        "unfold" => &["input", "kernel_size", "dilation", "padding", "stride"],
        "layer_norm" => &["input", "normalized_shape", "weight", "bias", "eps"],
        "rms_norm" => &["input", "normalized_shape", "weight", "eps"],
        "group_norm" => &["input", "num_groups", "weight", "bias", "eps"],
        "batch_norm" => {
            &["input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"]
        }
        "instance_norm" => {
            &["input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"]
        }
        "local_response_norm" => &["input", "size", "alpha", "beta", "k"],
        "hardtanh" => &["input", "min_val", "max_val"],
        "threshold" => &["input", "threshold", "value"],
        "softplus" => &["input", "beta", "threshold"],
        "elu" | "celu" => &["input", "alpha"],
        "leaky_relu" => &["input", "negative_slope"],
        "hardshrink" | "softshrink" => &["input", "lambd"],
        "glu" | "softmax" | "log_softmax" | "softmin" => &["input", "dim"],
        "gelu" => &["input", "approximate"],
        "pixel_shuffle" => &["input", "upscale_factor"],
        "pixel_unshuffle" => &["input", "downscale_factor"],
        "normalize" => &["input", "p", "dim", "eps"],
        "interpolate" => &["input", "size", "scale_factor", "mode", "align_corners"],
        "cosine_similarity" => &["x1", "x2", "dim", "eps"],
        "pairwise_distance" => &["x1", "x2", "p", "eps", "keepdim"],
        "scaled_dot_product_attention" => &["query", "key", "value", "attn_mask"],
        "triplet_margin_loss" | "triplet_margin_with_distance_loss" => &["anchor", "positive", "negative"],
        "gaussian_nll_loss" => &["input", "target", "var"],
        "ctc_loss" => &["log_probs", "targets", "input_lengths", "target_lengths"],
        "grid_sample" => &["input", "grid", "mode", "padding_mode", "align_corners"],
        "max_unpool1d" | "max_unpool2d" | "max_unpool3d" => {
            &["input", "indices", "kernel_size", "stride", "padding", "output_size"]
        }
        "lp_pool1d" | "lp_pool2d" | "lp_pool3d" => {
            &["input", "norm_type", "kernel_size", "stride", "ceil_mode"]
        }
        "embedding_bag" => &["input", "weight", "offsets"],
        "channel_shuffle" => &["input", "groups"],
        "pdist" => &["input", "p"],
        "adaptive_max_pool3d" => &["input", "output_size", "return_indices"],
        "adaptive_avg_pool3d" => &["input", "output_size"],
        "margin_ranking_loss" | "cosine_embedding_loss" => &["input1", "input2", "target", "margin"],
        _ => &["input", "target", "weight"],
    }
}
