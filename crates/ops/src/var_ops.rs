//! The operations of this crate as methods.

use crate::*;
use tapegrad_tape::{Generator, Int, IntList, Operand, OptionalInt, Scalar, Var};

/// Defines the trait and its implementation; a row is a method and the arguments of the function that it calls. The
/// second list is of functions with two results.
macro_rules! methods {
    ($($name:ident $(<$lt:lifetime>)? ($($arg:ident: $ty:ty),*) => ($($pass:expr),*);)*
     -> $two:ty: $($name2:ident ($($arg2:ident: $ty2:ty),*) => ($($pass2:expr),*);)*) => {
        /// The operations of this crate whose first argument is a variable as methods of [`Var`]; many of them have this
        /// name on `torch.Tensor`, too.
        ///
        /// ```
        /// use tapegrad_ops::VarOps;
        /// use tapegrad_tape::Var;
        /// let x = Var::from_vec(vec![1f32, -2.0], 2);
        /// assert_eq!(x.relu().dot(&x).item(), 1.0);
        /// ```
        #[allow(clippy::too_many_arguments)]
        pub trait VarOps {
            $(
                #[doc = concat!("See [`crate::", stringify!($name), "()`].")]
                #[track_caller]
                fn $name$(<$lt>)?(&self, $($arg: $ty),*) -> Var;
            )*
            $(
                #[doc = concat!("See [`crate::", stringify!($name2), "()`].")]
                #[track_caller]
                fn $name2(&self, $($arg2: $ty2),*) -> $two;
            )*
        }

        impl VarOps for Var {
            $(
                #[track_caller]
                fn $name$(<$lt>)?(&self, $($arg: $ty),*) -> Var {
                    crate::$name(self, $($pass),*)
                }
            )*
            $(
                #[track_caller]
                fn $name2(&self, $($arg2: $ty2),*) -> $two {
                    crate::$name2(self, $($pass2),*)
                }
            )*
        }
    };
}
methods! {
    adaptive_avg_pool1d(output_size: impl Into<OutputSize<1>>) => (output_size);
    adaptive_avg_pool2d(output_size: impl Into<OutputSize<2>>) => (output_size);
    adaptive_avg_pool3d(output_size: impl Into<OutputSize<3>>) => (output_size);
    adaptive_max_pool1d(output_size: impl Into<OutputSize<1>>) => (output_size);
    adaptive_max_pool2d(output_size: impl Into<OutputSize<2>>) => (output_size);
    adaptive_max_pool3d(output_size: impl Into<OutputSize<3>>) => (output_size);
    addbmm(a: &Var, b: &Var) => (a, b);
    addbmm_with(a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, b, beta, alpha);
    addmm(a: &Var, b: &Var) => (a, b);
    addmm_with(a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, b, beta, alpha);
    addmv(a: &Var, x: &Var) => (a, x);
    addmv_with(a: &Var, x: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, x, beta, alpha);
    addr(x: &Var, y: &Var) => (x, y);
    addr_with(x: &Var, y: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (x, y, beta, alpha);
    avg_pool1d(options: impl Into<AvgPoolOptions<1>>) => (options);
    avg_pool2d(options: impl Into<AvgPoolOptions<2>>) => (options);
    avg_pool3d(options: impl Into<AvgPoolOptions<3>>) => (options);
    baddbmm(a: &Var, b: &Var) => (a, b);
    baddbmm_with(a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) => (a, b, beta, alpha);
    batch_norm<'a>(running: Option<(&Var, &Var)>, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>) => (running, weight, bias);
    batch_norm_relu(running: Option<(&Var, &Var)>, weight: Option<&Var>, bias: Option<&Var>, residual: Option<&Var>, options: BatchNormOptions) => (running, weight, bias, residual, options);
    batch_norm_relu6(running: Option<(&Var, &Var)>, weight: Option<&Var>, bias: Option<&Var>, options: BatchNormOptions) => (running, weight, bias, options);
    batch_norm_with<'a>(running: Option<(&Var, &Var)>, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>, options: BatchNormOptions) => (running, weight, bias, options);
    bilinear<'a>(x2: &Var, weight: &Var, bias: impl Into<Option<&'a Var>>) => (x2, weight, bias);
    binary_cross_entropy(target: &Var) => (target);
    binary_cross_entropy_with<'a>(target: &Var, weight: impl Into<Option<&'a Var>>, reduction: Reduction) => (target, weight, reduction);
    binary_cross_entropy_with_logits(target: &Var) => (target);
    binary_cross_entropy_with_logits_with(target: &Var, options: BceWithLogitsOptions) => (target, options);
    bmm(b: &Var) => (b);
    cdist(x2: &Var) => (x2);
    cdist_with(x2: &Var, p: f64, mode: CdistMode) => (x2, p, mode);
    celu() => ();
    celu_with(alpha: f64) => (alpha);
    channel_shuffle(groups: usize) => (groups);
    conv1d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv1d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvOptions<1>) => (weight, bias, options);
    conv2d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv2d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvOptions<2>) => (weight, bias, options);
    conv3d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv3d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvOptions<3>) => (weight, bias, options);
    conv_transpose1d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv_transpose1d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvTransposeOptions<1>) => (weight, bias, options);
    conv_transpose2d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv_transpose2d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvTransposeOptions<2>) => (weight, bias, options);
    conv_transpose3d<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    conv_transpose3d_with<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>, options: ConvTransposeOptions<3>) => (weight, bias, options);
    corrcoef() => ();
    cosine_embedding_loss(input2: &Var, target: &Var) => (input2, target);
    cosine_embedding_loss_with(input2: &Var, target: &Var, margin: f64, reduction: Reduction) => (input2, target, margin, reduction);
    cosine_similarity(x2: &Var) => (x2);
    cosine_similarity_with(x2: &Var, dim: impl Int, eps: f64) => (x2, dim, eps);
    cov() => ();
    cov_with(options: CovOptions) => (options);
    cross(b: &Var) => (b);
    cross_entropy(target: &Var) => (target);
    cross_entropy_with(target: &Var, options: CrossEntropyOptions) => (target, options);
    cross_with(b: &Var, dim: impl OptionalInt) => (b, dim);
    ctc_loss(targets: &Var, input_lengths: impl IntList, target_lengths: impl IntList) => (targets, input_lengths, target_lengths);
    ctc_loss_with(targets: &Var, input_lengths: impl IntList, target_lengths: impl IntList, options: CtcOptions) => (targets, input_lengths, target_lengths, options);
    dist(b: &Var) => (b);
    dist_with(b: &Var, p: f64) => (b, p);
    dot(b: &Var) => (b);
    dropout() => ();
    dropout1d() => ();
    dropout1d_with(p: f64, training: bool) => (p, training);
    dropout2d() => ();
    dropout2d_with(p: f64, training: bool) => (p, training);
    dropout_with(p: f64, training: bool) => (p, training);
    elu() => ();
    elu_with(alpha: f64) => (alpha);
    embedding(weight: &Var) => (weight);
    embedding_bag(weight: &Var) => (weight);
    embedding_bag_with(weight: &Var, options: EmbeddingBagOptions) => (weight, options);
    embedding_with(weight: &Var, options: EmbeddingOptions) => (weight, options);
    fold(output_size: impl Into<Size<2>>, options: impl Into<UnfoldOptions>) => (output_size, options);
    gaussian_nll_loss(target: &Var, var: impl Into<Operand>) => (target, var);
    gaussian_nll_loss_with(target: &Var, var: impl Into<Operand>, options: GaussianNllOptions) => (target, var, options);
    gelu() => ();
    gelu_with(approximate: Approximate) => (approximate);
    glu() => ();
    glu_with(dim: impl Int) => (dim);
    grid_sample(grid: &Var) => (grid);
    grid_sample_with(grid: &Var, options: GridSampleOptions) => (grid, options);
    group_norm<'a>(groups: usize, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>) => (groups, weight, bias);
    group_norm_with<'a>(groups: usize, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>, eps: f64) => (groups, weight, bias, eps);
    gumbel_softmax() => ();
    gumbel_softmax_from(options: GumbelSoftmaxOptions, generator: &mut Generator) => (options, generator);
    gumbel_softmax_with(options: GumbelSoftmaxOptions) => (options);
    hardshrink() => ();
    hardshrink_with(lambd: f64) => (lambd);
    hardsigmoid() => ();
    hardswish() => ();
    hardtanh() => ();
    hardtanh_with(min_val: f64, max_val: f64) => (min_val, max_val);
    hinge_embedding_loss(target: &Var) => (target);
    hinge_embedding_loss_with(target: &Var, margin: f64, reduction: Reduction) => (target, margin, reduction);
    hinge_loss(target: &Var) => (target);
    hinge_loss_with(target: &Var, reduction: Reduction) => (target, reduction);
    huber_loss(target: &Var) => (target);
    huber_loss_with(target: &Var, delta: f64, reduction: Reduction) => (target, delta, reduction);
    inner(b: &Var) => (b);
    instance_norm<'a>(running: Option<(&Var, &Var)>, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>) => (running, weight, bias);
    instance_norm_with<'a>(running: Option<(&Var, &Var)>, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>, options: InstanceNormOptions) => (running, weight, bias, options);
    interpolate(options: InterpolateOptions) => (options);
    kl_div(target: &Var) => (target);
    kl_div_with(target: &Var, reduction: KlDivReduction, log_target: bool) => (target, reduction, log_target);
    kron(b: &Var) => (b);
    l1_loss(target: &Var) => (target);
    l1_loss_with(target: &Var, reduction: Reduction) => (target, reduction);
    layer_norm<'a>(shape: impl IntList, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>) => (shape, weight, bias);
    layer_norm_with<'a>(shape: impl IntList, weight: impl Into<Option<&'a Var>>, bias: impl Into<Option<&'a Var>>, eps: f64) => (shape, weight, bias, eps);
    leaky_relu() => ();
    leaky_relu_with(negative_slope: f64) => (negative_slope);
    linalg_cross(b: &Var) => (b);
    linalg_cross_with(b: &Var, dim: impl Int) => (b, dim);
    linear<'a>(weight: &Var, bias: impl Into<Option<&'a Var>>) => (weight, bias);
    linear_cross_entropy<'a>(linear_weight: &Var, target: &Var, linear_bias: impl Into<Option<&'a Var>>) => (linear_weight, target, linear_bias);
    linear_cross_entropy_with<'a>(linear_weight: &Var, target: &Var, linear_bias: impl Into<Option<&'a Var>>, options: CrossEntropyOptions) => (linear_weight, target, linear_bias, options);
    local_response_norm(size: usize) => (size);
    local_response_norm_with(size: usize, alpha: f64, beta: f64, k: f64) => (size, alpha, beta, k);
    log_softmax(dim: impl Int) => (dim);
    logsigmoid() => ();
    lp_pool1d(options: LpPoolOptions<1>) => (options);
    lp_pool2d(options: LpPoolOptions<2>) => (options);
    lp_pool3d(options: LpPoolOptions<3>) => (options);
    margin_ranking_loss(input2: &Var, target: &Var) => (input2, target);
    margin_ranking_loss_with(input2: &Var, target: &Var, margin: f64, reduction: Reduction) => (input2, target, margin, reduction);
    matmul(b: &Var) => (b);
    max_pool1d(options: impl Into<MaxPoolOptions<1>>) => (options);
    max_pool2d(options: impl Into<MaxPoolOptions<2>>) => (options);
    max_pool3d(options: impl Into<MaxPoolOptions<3>>) => (options);
    max_unpool1d(indices: &Var, options: impl Into<MaxUnpoolOptions<1>>) => (indices, options);
    max_unpool2d(indices: &Var, options: impl Into<MaxUnpoolOptions<2>>) => (indices, options);
    max_unpool3d(indices: &Var, options: impl Into<MaxUnpoolOptions<3>>) => (indices, options);
    mish() => ();
    mm(b: &Var) => (b);
    mse_loss(target: &Var) => (target);
    mse_loss_with(target: &Var, reduction: Reduction) => (target, reduction);
    multi_margin_loss(target: &Var) => (target);
    multi_margin_loss_with(target: &Var, options: MultiMarginOptions) => (target, options);
    multilabel_margin_loss(target: &Var) => (target);
    multilabel_margin_loss_with(target: &Var, reduction: Reduction) => (target, reduction);
    multilabel_soft_margin_loss(target: &Var) => (target);
    multilabel_soft_margin_loss_with<'a>(target: &Var, weight: impl Into<Option<&'a Var>>, reduction: Reduction) => (target, weight, reduction);
    mv(x: &Var) => (x);
    nll_loss(target: &Var) => (target);
    nll_loss_with(target: &Var, options: NllLossOptions) => (target, options);
    normalize() => ();
    normalize_with(p: f64, dim: impl Int, eps: f64) => (p, dim, eps);
    outer(b: &Var) => (b);
    pairwise_distance(x2: &Var) => (x2);
    pairwise_distance_with(x2: &Var, p: f64, eps: f64, keepdim: bool) => (x2, p, eps, keepdim);
    pdist() => ();
    pdist_with(p: f64) => (p);
    pixel_shuffle(upscale_factor: usize) => (upscale_factor);
    pixel_unshuffle(downscale_factor: usize) => (downscale_factor);
    poisson_nll_loss(target: &Var) => (target);
    poisson_nll_loss_with(target: &Var, options: PoissonNllOptions) => (target, options);
    prelu(weight: &Var) => (weight);
    relu() => ();
    relu6() => ();
    renorm(p: f64, dim: impl Int, maxnorm: f64) => (p, dim, maxnorm);
    rms_norm<'a>(shape: impl IntList, weight: impl Into<Option<&'a Var>>) => (shape, weight);
    rms_norm_with<'a>(shape: impl IntList, weight: impl Into<Option<&'a Var>>, eps: impl Into<Option<f64>>) => (shape, weight, eps);
    rrelu() => ();
    rrelu_with(lower: f64, upper: f64, training: bool) => (lower, upper, training);
    scaled_dot_product_attention(key: &Var, value: &Var) => (key, value);
    scaled_dot_product_attention_with(key: &Var, value: &Var, options: AttentionOptions) => (key, value, options);
    selu() => ();
    silu() => ();
    smooth_l1_loss(target: &Var) => (target);
    smooth_l1_loss_with(target: &Var, beta: f64, reduction: Reduction) => (target, beta, reduction);
    soft_margin_loss(target: &Var) => (target);
    soft_margin_loss_with(target: &Var, reduction: Reduction) => (target, reduction);
    softmax(dim: impl Int) => (dim);
    softmin(dim: impl Int) => (dim);
    softplus() => ();
    softplus_with(beta: f64, threshold: f64) => (beta, threshold);
    softshrink() => ();
    softshrink_with(lambd: f64) => (lambd);
    softsign() => ();
    tanhshrink() => ();
    tensordot(b: &Var) => (b);
    tensordot_with(b: &Var, dims: impl Into<TensordotDims>) => (b, dims);
    threshold(limit: f64, value: f64) => (limit, value);
    trace() => ();
    triplet_margin_loss(positive: &Var, negative: &Var) => (positive, negative);
    triplet_margin_loss_with(positive: &Var, negative: &Var, options: TripletMarginOptions) => (positive, negative, options);
    triplet_margin_with_distance_loss(positive: &Var, negative: &Var, distance: impl Fn(&Var, &Var) -> Var) => (positive, negative, distance);
    triplet_margin_with_distance_loss_with(positive: &Var, negative: &Var, distance: impl Fn(&Var, &Var) -> Var, margin: f64, swap: bool, reduction: Reduction) => (positive, negative, distance, margin, swap, reduction);
    upsample_bilinear(options: InterpolateOptions) => (options);
    upsample_nearest(options: InterpolateOptions) => (options);
    vdot(b: &Var) => (b);
    -> (Var, Var):
    adaptive_max_pool1d_with_indices(output_size: impl Into<OutputSize<1>>) => (output_size);
    adaptive_max_pool2d_with_indices(output_size: impl Into<OutputSize<2>>) => (output_size);
    adaptive_max_pool3d_with_indices(output_size: impl Into<OutputSize<3>>) => (output_size);
    max_pool1d_with_indices(options: impl Into<MaxPoolOptions<1>>) => (options);
    max_pool2d_with_indices(options: impl Into<MaxPoolOptions<2>>) => (options);
    max_pool3d_with_indices(options: impl Into<MaxPoolOptions<3>>) => (options);
    scaled_dot_product_attention_with_weights(key: &Var, value: &Var, options: AttentionOptions) => (key, value, options);
}
