"""Times each family of operations at three sizes in Tapegrad and in PyTorch, in turns, on the same machine.

  python tools/bench_operations.py [--threads 1] [--rounds 3] [--sizes 0 1 2] [--json FILE] [NAME ...]

The list of names and shapes is benches/operations/list.json, which both sides read; benches/operations/main.rs explains it. For each
case the two take turns, and the least time of all rounds counts, forward without recording and backward alone. PyTorch has its
better memory format. Prints the ratio Tapegrad / PyTorch of each (below one Tapegrad is faster), the geometric means and the worst.
"""
import argparse
import json
import math
import os
import pathlib
import shlex
import subprocess
import time

import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUDGET = 0.04


def convolution(padding, stride):
    def call(x, weight, bias):
        return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1] // weight.shape[1])

    return call


def recurrent(function, states):
    def call(x, *weights):
        state = torch.zeros(1, x.shape[1], weights[1].shape[1])
        hidden = (state, state) if states == 2 else state
        return function(x, hidden, weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)[0]

    return call


CALLS = {
    "add": torch.add,
    "mul_row": torch.mul,
    "div": torch.div,
    "exp": torch.exp,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "pow_3": lambda x: x.pow(3),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "where": torch.where,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
    "dropout": lambda x: F.dropout(x, 0.5, True),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "sub": torch.sub,
    "maximum": torch.maximum,
    "abs": torch.abs,
    "square": torch.square,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "log": torch.log,
    "log1p": torch.log1p,
    "sin": torch.sin,
    "erf": torch.erf,
    "atan2": torch.atan2,
    "fmod": torch.fmod,
    "remainder": torch.remainder,
    "lerp": lambda a, b: torch.lerp(a, b, 0.3),
    "logaddexp": torch.logaddexp,
    "lgamma": torch.lgamma,
    "polygamma_2": lambda x: torch.polygamma(2, x),
    "erfinv": torch.erfinv,
    "softplus": F.softplus,
    "elu": F.elu,
    "mish": F.mish,
    "glu": F.glu,
    "sum": torch.sum,
    "sum_rows": lambda x: x.sum(-1),
    "sum_columns": lambda x: x.sum(0),
    "max_rows": lambda x: x.max(-1)[0],
    "var_rows": lambda x: x.var(-1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "norm": torch.norm,
    "cumsum": lambda x: x.cumsum(-1),
    "mean_columns": lambda x: x.mean(0),
    "prod_rows": lambda x: x.prod(-1),
    "std_rows": lambda x: x.std(-1),
    "median_rows": lambda x: x.median(-1)[0],
    "cumprod": lambda x: x.cumprod(-1),
    "logcumsumexp": lambda x: x.logcumsumexp(-1),
    "transpose_copy": lambda x: x.t().flatten(),
    "cat": lambda a, b: torch.cat([a, b], 1),
    "pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "roll": lambda x: x.roll(3, 1),
    "repeat": lambda x: x.repeat(2, 2),
    "triu": torch.triu,
    "stack": lambda a, b: torch.stack([a, b], 1),
    "flip": lambda x: x.flip(1),
    "permute_copy": lambda x: x.permute(0, 2, 3, 1).flatten(),
    "gather": lambda x, i: x.gather(1, i),
    "index_select": lambda x, i: x.index_select(0, i),
    "scatter_add": lambda x, i, y: x.scatter_add(1, i, y),
    "masked_fill": lambda x, m: x.masked_fill(m, 0.0),
    "embedding": F.embedding,
    "sort": lambda x: x.sort(-1)[0],
    "topk": lambda x: x.topk(8, -1)[0],
    "index_add": lambda x, i, y: x.index_add(0, i, y),
    "index_add_vector": lambda x, i, y: x.index_add(0, i, y),
    "index_copy": lambda x, i, y: x.index_copy(0, i, y),
    "scatter_reduce_amax": lambda x, i, y: x.scatter_reduce(1, i, y, "amax"),
    "masked_select": torch.masked_select,
    "embedding_bag": F.embedding_bag,
    "matmul": torch.matmul,
    "linear": F.linear,
    "bmm": torch.bmm,
    "mv": torch.mv,
    "einsum": lambda a, b: torch.einsum("bihd,bjhd->bhij", a, b),
    "cdist": torch.cdist,
    "addmm": torch.addmm,
    "outer": torch.outer,
    "dot": torch.dot,
    "bilinear": F.bilinear,
    "attention": F.scaled_dot_product_attention,
    "attention_causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "lstm": recurrent(torch.lstm, 2),
    "gru": recurrent(torch.gru, 1),
    "conv1d": lambda x, w, b: F.conv1d(x, w, b, padding=1),
    "conv2d_3x3": convolution(1, 1),
    "conv2d_depthwise": convolution(1, 1),
    "conv2d_1x1": convolution(0, 1),
    "conv2d_7x7_stride_2": convolution(3, 2),
    "conv2d_depthwise_7x7": convolution(3, 1),
    "conv_transpose2d": lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1),
    "conv3d": lambda x, w, b: F.conv3d(x, w, b, padding=1),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "upsample_bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "upsample_nearest": lambda x: F.interpolate(x, scale_factor=2),
    "grid_sample": lambda x, g: F.grid_sample(x, g, align_corners=False),
    "unfold": lambda x: F.unfold(x, 3, padding=1),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "upsample_bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "fold": lambda x: F.fold(x, math.isqrt(x.shape[2]), 3, padding=1),
    "batch_norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
    "group_norm": lambda x, w, b: F.group_norm(x, 4, w, b),
    "instance_norm": lambda x, w, b: F.instance_norm(x, None, None, w, b),
    "layer_norm": lambda x, w, b: F.layer_norm(x, w.shape, w, b),
    "rms_norm": lambda x, w: F.rms_norm(x, w.shape, w),
    "normalize": F.normalize,
    "local_response_norm": lambda x: F.local_response_norm(x, 5),
    "cross_entropy": F.cross_entropy,
    "mse_loss": F.mse_loss,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
    "smooth_l1_loss": F.smooth_l1_loss,
    "cosine_similarity": F.cosine_similarity,
    "l1_loss": F.l1_loss,
    "huber_loss": F.huber_loss,
    "kl_div": lambda x, y: F.kl_div(x, y, reduction="batchmean"),
    "nll_loss": F.nll_loss,
    "triplet_margin_loss": F.triplet_margin_loss,
}


def make(text, channels_last):
    shape = [int(n) for n in text.rstrip("?+").split("%")[0].split("x")]
    i = torch.arange(math.prod(shape))
    if text.endswith("?"):
        return (i % 3 == 0).view(shape)
    if "%" in text:
        return (i * 7919 % int(text.split("%")[1])).view(shape)
    x = ((i * 7919 % 2003) / 1001.5 + (0.001 if text.endswith("+") else -1)).view(shape)
    if channels_last and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


def least(f):
    """Calls `f`, which returns the time that counts, for a while; the least time, in microseconds."""
    begin = time.perf_counter()
    f()
    best, calls = math.inf, 0
    while calls < 2 or time.perf_counter() - begin < BUDGET:
        best = min(best, f())
        calls += 1
    return best * 1e6


def measure(family, size, channels_last):
    call, inputs = CALLS[family["name"]], [make(text, channels_last) for text in family["sizes"][size]]
    parameters = [x for x in inputs if x.requires_grad]

    def forward():
        begin = time.perf_counter()
        y = call(*inputs)
        return time.perf_counter() - begin

    def backward():
        y = call(*inputs)
        begin = time.perf_counter()
        y.backward(grad)
        end = time.perf_counter() - begin
        for p in parameters:
            p.grad = None
        return end

    with torch.inference_mode():
        times = {"forward": least(forward)}
    grad = call(*inputs).detach()
    times["backward"] = least(backward)
    return times


def smaller(a, b):
    return {key: min(a[key], b[key]) for key in a} if a else b


def geometric(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--json", help="a file for the times")
    parser.add_argument("--tapegrad", default="cargo bench -q --bench operations --")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    families = json.loads((ROOT / "benches/operations/list.json").read_text())
    families = [f for f in families if not args.names or f["name"] in args.names]
    environment = {**os.environ, "TAPEGRAD_NUM_THREADS": str(args.threads)}
    command = [*shlex.split(args.tapegrad), "--serve"]
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    results = []
    for family in families:
        for size in args.sizes:
            ours, theirs = None, None
            for _ in range(args.rounds):
                server.stdin.write(f"{family['name']} {size}\n")
                server.stdin.flush()
                ours = smaller(ours, json.loads(server.stdout.readline()))
                for channels_last in [True, False] if family.get("images") else [False]:
                    theirs = smaller(theirs, measure(family, size, channels_last))
            for direction in ours:
                name = f"{family['name']} {direction} {','.join(family['sizes'][size])}"
                results.append((ours[direction] / theirs[direction], name, ours[direction], theirs[direction]))
                ratio, name, a, b = results[-1]
                print(f"{ratio:6.2f}  {a:12.1f} {b:12.1f} us  {name}", flush=True)
    server.stdin.close()
    server.wait()
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=0))
    for part in ["forward", "backward", ""]:
        ratios = [r[0] for r in results if part in r[1].split()[1]]
        print(f"geometric mean {part or 'of all'}: {geometric(ratios):.3f} ({len(ratios)} cases)")
    print("the worst:")
    for ratio, name, a, b in sorted(results, reverse=True)[:10]:
        print(f"{ratio:6.2f}  {a:12.1f} {b:12.1f} us  {name}")
