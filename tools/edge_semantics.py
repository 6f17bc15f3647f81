"""Prints what PyTorch gives at the edges of its operations, as the rows of crates/ops/tests/edge_semantics.rs.

Each row: the expression, its values, and the gradient of their sum for `x` (nothing where there is none).
"""

import torch
import torch.nn.functional as F

INF, NAN = float("inf"), float("nan")


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


CASES = [
    ("max", t(2, 1, 2), lambda x: x.max()),
    ("max(0)", t(2, 1, 2), lambda x: x.max(0).values),
    ("amax", t(2, 1, 2), lambda x: x.amax()),
    ("amax, nan", t(1, NAN, NAN), lambda x: x.amax()),
    ("max, nan", t(1, NAN, NAN), lambda x: x.max()),
    ("min(0), nan", t(1, NAN, NAN), lambda x: x.min(0).values),
    ("maximum(1)", t(1, 0, 2, NAN), lambda x: torch.maximum(x, t(1, 1, 1, 1))),
    ("minimum(1)", t(1, 0, 2, NAN), lambda x: torch.minimum(x, t(1, 1, 1, 1))),
    ("clamp(0, 1)", t(0, 1, -1, 2, NAN), lambda x: x.clamp(0, 1)),
    ("clamp_min(0)", t(0, -1, 1, NAN), lambda x: x.clamp_min(0)),
    ("clamp(1, 0)", t(0, 0.5, 2), lambda x: x.clamp(1, 0)),
    ("pow(0)", t(0, 2, NAN, INF), lambda x: x.pow(0)),
    ("pow(1)", t(0, 2), lambda x: x.pow(1)),
    ("pow(0.5)", t(0, 4), lambda x: x.pow(0.5)),
    ("pow(-1)", t(0, 2), lambda x: x.pow(-1)),
    ("pow([0, 2])", t(0, 0), lambda x: x.pow(t(0, 2))),
    ("0^x", t(0, 2, -1), lambda x: torch.pow(0.0, x)),
    ("1^x", t(0, NAN, INF), lambda x: torch.pow(1.0, x)),
    ("norm(0)", t(0, 0, 3), lambda x: torch.linalg.vector_norm(x, 0)),
    ("norm(0.5)", t(0, 0), lambda x: torch.linalg.vector_norm(x, 0.5)),
    ("norm(1)", t(0, 0), lambda x: torch.linalg.vector_norm(x, 1)),
    ("norm(1.5)", t(0, 0), lambda x: torch.linalg.vector_norm(x, 1.5)),
    ("norm(2)", t(0, 0), lambda x: torch.linalg.vector_norm(x, 2)),
    ("norm(3)", t(0, 0), lambda x: torch.linalg.vector_norm(x, 3)),
    ("norm(inf)", t(0, 0), lambda x: torch.linalg.vector_norm(x, INF)),
    ("norm(-inf)", t(0, 0), lambda x: torch.linalg.vector_norm(x, -INF)),
    ("norm(-1)", t(0, 0), lambda x: torch.linalg.vector_norm(x, -1)),
    ("norm(inf), ties", t(-3, 3, 1), lambda x: torch.linalg.vector_norm(x, INF)),
    ("where(x > 0, x, 0)", t(1, NAN, -1, INF), lambda x: torch.where(x > 0, x, t(0, 0, 0, 0))),
    ("where(x > 0, sqrt, 0)", t(4, 0, -1), lambda x: torch.where(x > 0, x.sqrt(), t(0, 0, 0))),
    ("prod", t(2, 0, 3), lambda x: x.prod()),
    ("prod, two zeros", t(2, 0, 0), lambda x: x.prod()),
    ("prod(0)", t(2, 0, 3), lambda x: x.prod(0)),
    ("cumprod(0)", t(2, 0, 3), lambda x: x.cumprod(0)),
    ("sqrt", t(0, -1), lambda x: x.sqrt()),
    ("rsqrt", t(0, 4), lambda x: x.rsqrt()),
    ("log", t(0, -1), lambda x: x.log()),
    ("xlogy(0)", t(0, 2, NAN), lambda x: torch.xlogy(x, t(0, 0, 0))),
    ("abs", t(0, -2, NAN), lambda x: x.abs()),
    ("sign", t(0, -2, NAN), lambda x: x.sign()),
    ("relu", t(0, -2, 3, NAN), lambda x: F.relu(x)),
    ("leaky_relu(0.1)", t(0, -2, NAN), lambda x: F.leaky_relu(x, 0.1)),
    ("hardtanh(-1, 1)", t(-1, 1, 0, 2, NAN), lambda x: F.hardtanh(x)),
    ("relu6", t(0, 6, 3, 7, NAN), lambda x: F.relu6(x)),
    ("elu", t(0, -INF, NAN), lambda x: F.elu(x)),
    ("softplus", t(0, 30, INF, -INF), lambda x: F.softplus(x)),
    ("sort, ties", t(2, 1, 2, 1, NAN), lambda x: x.sort(dim=0, stable=True).values),
    ("argsort, ties", t(2, 1, 2, 1, NAN), lambda x: x.argsort(dim=0, stable=True)),
    ("argsort, descending", t(2, 1, 2, 1, NAN), lambda x: x.argsort(dim=0, descending=True, stable=True)),
    ("argmax, ties", t(1, 2, 2), lambda x: x.argmax()),
    ("argmax, nan", t(1, NAN, 2, NAN), lambda x: x.argmax()),
    ("argmin, nan", t(1, NAN, 2, NAN), lambda x: x.argmin()),
    ("topk(2), nan", t(1, NAN, 3), lambda x: x.topk(2).values),
    ("topk(2), smallest, nan", t(1, NAN, 3), lambda x: x.topk(2, largest=False).values),
    ("median", t(3, 1, 2, 4), lambda x: x.median()),
    ("median, nan", t(3, NAN, 1), lambda x: x.median()),
    ("median(0), nan", t(3, NAN, 1), lambda x: x.median(0).values),
    ("logsumexp(0)", t(-INF, -INF), lambda x: x.logsumexp(0)),
    ("logsumexp(0), inf", t(INF, 1), lambda x: x.logsumexp(0)),
    ("logsumexp(0), one -inf", t(-INF, 1), lambda x: x.logsumexp(0)),
    ("softmax(0)", t(-INF, -INF), lambda x: x.softmax(0)),
    ("softmax(0), one -inf", t(-INF, 0), lambda x: x.softmax(0)),
    ("log_softmax(0)", t(-INF, -INF), lambda x: x.log_softmax(0)),
    ("log_softmax(0), one -inf", t(-INF, 0), lambda x: x.log_softmax(0)),
    ("x / 0", t(1, 0, -1), lambda x: x / t(0, 0, 0)),
    ("1 / x", t(0, -0.0, INF), lambda x: 1 / x),
    ("div, floor", t(7, -7), lambda x: torch.div(x, 2, rounding_mode="floor")),
    ("div, trunc", t(7, -7), lambda x: torch.div(x, 2, rounding_mode="trunc")),
    ("round", t(0.5, 1.5, 2.5, -0.5, -1.5), lambda x: x.round()),
    ("sum of nothing", t(), lambda x: x.sum()),
    ("prod of nothing", t(), lambda x: x.prod()),
    ("mean of nothing", t(), lambda x: x.mean()),
    ("var of one", t(3), lambda x: x.var()),
    ("std of one", t(3), lambda x: x.std()),
    ("std of equals", t(3, 3), lambda x: x.std()),
    ("var, correction 0", t(3), lambda x: x.var(correction=0)),
    ("atan2(0, 0)", t(0), lambda x: torch.atan2(x, t(0))),
]


def show(v):
    v = v.detach().to(torch.float64).flatten().tolist()
    word = lambda v: "NAN" if v != v else ("INF" if v > 0 else "-INF") if abs(v) == INF else repr(v)
    return "&[" + ", ".join(word(v) for v in v) + "]"


for name, data, f in CASES:
    x = data.clone().requires_grad_()
    y = f(x)
    gradient = "None"
    if y.requires_grad:
        (g,) = torch.autograd.grad(y.sum(), x, allow_unused=True)
        gradient = f"Some({show(g if g is not None else torch.zeros_like(x))})"
    print(f'    ("{name}", {show(data)}, {show(y)}, {gradient}),')
for name, f in [
    ("1 // 0", lambda: torch.tensor([1]) // torch.tensor([0])),
    ("max of nothing", lambda: torch.zeros(0).max()),
    ("0 ** -1", lambda: torch.tensor([0]) ** torch.tensor([-1])),
]:
    try:
        print(f"    // {name}: {f()}")
    except Exception as e:
        print(f"    // {name}: {e}")
