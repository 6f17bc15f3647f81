"""Which operations and modules are taken, and which variants of operations are not."""
from dataclasses import dataclass


@dataclass
class Catalog:
    ops: list
    modules: list
    skipped_variants: dict


_OPS = """
abs neg exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square reciprocal sin cos tan sinh cosh tanh asin acos
atan asinh acosh atanh erf erfc sigmoid logit sign floor ceil round trunc clamp clamp_min clamp_max nan_to_num
add sub rsub mul div true_divide pow maximum minimum fmax fmin where atan2 hypot xlogy logaddexp lerp addcmul
addcdiv eq ne lt le gt ge isnan isfinite isinf logical_and logical_or logical_not
sum mean prod amax amin max min argmax argmin var std var_mean std_mean logsumexp norm linalg.vector_norm cumsum
cumprod all any count_nonzero topk sort
reshape view flatten unflatten squeeze unsqueeze permute transpose t movedim expand broadcast_to repeat tile cat
stack split chunk unbind narrow select __getitem__ index_select gather scatter scatter_add masked_fill
take_along_dim flip roll tril triu diagonal nn.functional.pad nn.functional.unfold nn.functional.one_hot
matmul mm bmm mv dot outer addmm baddbmm einsum tensordot softmax log_softmax
""".split() + ["nn.functional." + n for n in """
linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d max_pool1d max_pool2d
max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d
adaptive_max_pool2d batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm relu relu6
leaky_relu prelu elu celu selu gelu silu mish softplus softsign logsigmoid hardtanh hardsigmoid hardswish
hardshrink softshrink tanhshrink threshold glu softmin softmax log_softmax cross_entropy nll_loss
binary_cross_entropy binary_cross_entropy_with_logits mse_loss l1_loss smooth_l1_loss huber_loss kl_div
hinge_embedding_loss margin_ranking_loss multi_margin_loss soft_margin_loss cosine_embedding_loss
cosine_similarity pairwise_distance normalize interpolate pixel_shuffle pixel_unshuffle embedding
scaled_dot_product_attention
""".split()]

_MODULES = """
Linear Bilinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d BatchNorm1d BatchNorm2d BatchNorm3d LayerNorm
GroupNorm InstanceNorm1d InstanceNorm2d RMSNorm LocalResponseNorm MaxPool1d MaxPool2d AvgPool1d AvgPool2d
AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveMaxPool1d AdaptiveMaxPool2d
CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh ReLU ReLU6 LeakyReLU PReLU SELU Sigmoid LogSigmoid SiLU
Softmax Softmax2d LogSoftmax Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold Mish Embedding
CosineEmbeddingLoss L1Loss SmoothL1Loss KLDivLoss MSELoss MarginRankingLoss MultiMarginLoss SoftMarginLoss NLLLoss
HingeEmbeddingLoss HuberLoss BCELoss BCEWithLogitsLoss CrossEntropyLoss
ZeroPad1d ZeroPad2d ConstantPad1d ConstantPad2d ReflectionPad1d ReflectionPad2d ReplicationPad1d ReplicationPad2d
RNNCell LSTMCell GRUCell RNN LSTM GRU MultiheadAttention TransformerEncoderLayer
""".split()

# Variants that test something else than the operation itself, or are out of scope.
_SKIPPED_VARIANTS = {
    "addmm.decomposed": "same function as addmm",
    "bmm.triton_optimized": "same function as bmm",
    "nn.functional.batch_norm.without_cudnn": "same function as nn.functional.batch_norm",
    "nn.functional.silu.complex": "complex only",
    "norm.nuc": "needs a singular value decomposition",
    "nn.functional.interpolate.nearest-exact": "mode out of scope",
    "nn.functional.interpolate.linear": "mode out of scope",
    "nn.functional.interpolate.bicubic": "mode out of scope",
    "nn.functional.interpolate.trilinear": "mode out of scope",
    "nn.functional.interpolate.area": "mode out of scope",
}

_OPS_MORE = """
addbmm addmv addr aminmax argsort atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors bucketize
cartesian_prod cdist column_stack copysign corrcoef cov cross cummax cummin cumulative_trapezoid deg2rad diag
diag_embed diagflat diagonal_scatter diff digamma dist dstack dsplit erfinv expand_as fliplr flipud float_power
floor_divide fmod frac gradient heaviside hsplit hstack index_add index_copy index_fill index_put index_reduce inner
isclose isin kron kthvalue ldexp lgamma logaddexp2 logcumsumexp logical_xor masked_scatter masked_select median
meshgrid msort nanmean nanmedian nanquantile nansum positive put quantile rad2deg ravel remainder renorm
repeat_interleave rot90 scatter_reduce searchsorted select_scatter sgn signbit sinc slice_scatter special.entr
special.erfcx special.i0e special.i1 special.log_ndtr special.ndtr special.ndtri special.xlog1py split_with_sizes
sum_to_size take tensor_split trace trapezoid unfold unique unique_consecutive vdot vsplit vstack
linalg.cholesky linalg.cross linalg.det linalg.eigvalsh linalg.inv linalg.lstsq linalg.matrix_norm
linalg.matrix_power linalg.multi_dot linalg.norm linalg.pinv linalg.slogdet linalg.solve
linalg.solve_triangular linalg.svdvals linalg.vecdot logdet cholesky_solve
""".split() + ["nn.functional." + n for n in """
adaptive_avg_pool3d adaptive_max_pool3d channel_shuffle ctc_loss embedding_bag gaussian_nll_loss grid_sample
interpolate max_unpool1d max_unpool2d max_unpool3d multilabel_margin_loss
multilabel_soft_margin_loss pdist poisson_nll_loss triplet_margin_loss triplet_margin_with_distance_loss
upsample_bilinear upsample_nearest
""".split()]
_MODULES_MORE = """
AdaptiveAvgPool3d AdaptiveMaxPool3d AvgPool3d CTCLoss CircularPad1d CircularPad2d CircularPad3d ConstantPad3d
ConvTranspose3d GaussianNLLLoss InstanceNorm3d LPPool1d LPPool2d LPPool3d MaxPool3d MultiLabelMarginLoss
MultiLabelSoftMarginLoss PoissonNLLLoss ReflectionPad3d ReplicationPad3d ZeroPad3d Transformer TransformerDecoderLayer
TransformerEncoder
""".split()
_SKIPPED_MORE = {
    "nn.functional.interpolate.nearest": "in the first set",
    "nn.functional.interpolate.bilinear": "in the first set",
    "linalg.lstsq.grad_oriented": "same function as linalg.lstsq",
    "linalg.pinv.singular": "same function as linalg.pinv",
    "linalg.pinv.hermitian": "same function as linalg.pinv",
}

SETS = {
    "core": Catalog(_OPS, _MODULES, _SKIPPED_VARIANTS),
    # What else a PyTorch user meets in training code.
    "more": Catalog(_OPS_MORE, _MODULES_MORE, _SKIPPED_MORE),
}
