"""Prints what PyTorch's losses give at their edges, the text of crates/ops/tests/loss_edges.txt.

Each line: the loss, its case, the reduction; then the values, the gradient for the input, and the gradient of
`sum(gradient * [1, 2, 3, ...])`, the second order.
"""

import torch
import torch.nn.functional as F

INF = float("inf")


def t(*rows):
    return torch.tensor(rows, dtype=torch.float64)


PLAIN = [[1.0, -2.0, 0.5], [0.25, 0.0, -1.0]]
UP = [[INF, -2.0, 0.5], [0.25, 0.0, -1.0]]
DOWN = [[-INF, -2.0, 0.5], [0.25, 0.0, -1.0]]
NOTHING = torch.zeros(0, 3, dtype=torch.float64)


def classes(f):
    """The cases of a loss with class numbers: input, and the call."""

    def call(target, **options):
        return lambda x, r: f(x, torch.tensor(target, dtype=torch.int64), reduction=r, **options)

    zero = torch.zeros(3, dtype=torch.float64)
    some = t(0.0, 1.0, 2.0)
    return {
        "all ignored": (t(*PLAIN), call([-100, -100])),
        "all ignored, weights": (t(*PLAIN), call([-100, -100], weight=some)),
        "one ignored": (t(*PLAIN), call([-100, 1])),
        "one ignored, infinite": (t(*DOWN), call([-100, 1])),
        "zero weights": (t(*PLAIN), call([0, 2], weight=zero)),
        "one zero weight": (t(*PLAIN), call([0, 2], weight=some)),
        "one class": (t([3.0], [-1.0]), call([0, 0])),
        "up, at the target": (t(*UP), call([0, 2])),
        "up, beside the target": (t(*UP), call([1, 2])),
        "down, at the target": (t(*DOWN), call([0, 2])),
        "down, beside the target": (t(*DOWN), call([1, 2])),
        "empty batch": (NOTHING, call([])),
    }


def smooth(x, target, **options):
    return F.cross_entropy(x, target, label_smoothing=0.5, **options)


def probabilities():
    p = t([0.5, 0.5, 0.0], [0.0, 0.0, 1.0])

    def call(p, **options):
        return lambda x, r: F.cross_entropy(x, p, reduction=r, **options)

    return {
        "zero weights": (t(*PLAIN), call(p, weight=torch.zeros(3, dtype=torch.float64))),
        "one class": (t([3.0], [-1.0]), call(t([1.0], [1.0]))),
        "up": (t(*UP), call(p)),
        "down": (t(*DOWN), call(p)),
        "empty batch": (NOTHING, call(NOTHING)),
    }


def margins():
    def call(target, **options):
        return lambda x, r: F.multi_margin_loss(x, torch.tensor(target, dtype=torch.int64), reduction=r, **options)

    cases = {}
    for p in (1, 2):
        cases |= {
            f"p {p}, zero weights": (t(*PLAIN), call([0, 2], p=p, weight=torch.zeros(3, dtype=torch.float64))),
            f"p {p}, one class": (t([3.0], [-1.0]), call([0, 0], p=p)),
            f"p {p}, up": (t(*UP), call([1, 2], p=p)),
            f"p {p}, down": (t(*DOWN), call([1, 2], p=p)),
        }
    return cases


def pairs(f):
    """The cases of a loss of two tensors."""
    other = t([0.5, 1.0, 0.0], [1.0, 0.0, 0.25])
    return {
        "up": (t(*UP), lambda x, r: f(x, other, r)),
        "down": (t(*DOWN), lambda x, r: f(x, other, r)),
        "equal": (t(*PLAIN), lambda x, r: f(x, t(*PLAIN), r)),
        "empty batch": (NOTHING, lambda x, r: f(x, NOTHING, r)),
    }


def signs(f):
    sign = t([1.0, -1.0, 1.0], [-1.0, 1.0, -1.0])
    return {
        "up": (t(*UP), lambda x, r: f(x, sign, r)),
        "down": (t(*DOWN), lambda x, r: f(x, sign, r)),
        "at the corner": (t([1.0, 1.0, 0.0]), lambda x, r: f(x, sign[:1], r)),
        "empty batch": (NOTHING, lambda x, r: f(x, NOTHING, r)),
    }


def logits():
    target = t([0.0, 1.0, 0.5], [1.0, 0.0, 1.0])
    zero = torch.zeros(3, dtype=torch.float64)

    def call(target, **options):
        return lambda x, r: F.binary_cross_entropy_with_logits(x, target, reduction=r, **options)

    return {
        "up": (t(*UP), call(target)),
        "up, right": (t(*UP), call(1 - target)),
        "down": (t(*DOWN), call(target)),
        "down, wrong": (t(*DOWN), call(1 - target)),
        "zero weights": (t(*PLAIN), call(target, weight=zero)),
        "zero pos_weight": (t(*PLAIN), call(target, pos_weight=zero)),
        "up, pos_weight": (t(*UP), call(target, pos_weight=zero + 2)),
        "empty batch": (NOTHING, call(NOTHING)),
    }


def unit():
    target = t([0.0, 1.0, 0.5])

    def call(target, **options):
        return lambda x, r: F.binary_cross_entropy(x, target, reduction=r, **options)

    return {
        "certain and right": (t([0.0, 1.0, 0.5]), call(target)),
        "certain and wrong": (t([1.0, 0.0, 0.5]), call(target)),
        "zero weights": (t([0.25, 1.0, 0.5]), call(target, weight=torch.zeros(3, dtype=torch.float64))),
        "empty batch": (NOTHING, call(NOTHING)),
    }


def divergence(log):
    p = t([0.0, 1.0, 0.5], [0.25, 0.5, 0.25])
    target = p.log() if log else p

    def call(target):
        return lambda x, r: F.kl_div(x, target, reduction=r, log_target=log)

    return {
        "zero probabilities": (t(*PLAIN), call(target)),
        "down, at a zero": (t(*DOWN), call(target)),
        "down": (t([-1.0, -INF, 0.0], [-1.0, -1.0, -1.0]), call(target)),
        "empty batch": (NOTHING, call(NOTHING)),
    }


def cosine():
    other = t([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])

    def call(other, target):
        return lambda x, r: F.cosine_embedding_loss(x, other, target, reduction=r)

    return {
        "zero vector": (t([0.0, 0.0, 0.0], [1.0, 1.0, 0.0]), call(other, t(1.0, -1.0))),
        "up": (t(*UP), call(other, t(1.0, -1.0))),
        "empty batch": (NOTHING, call(NOTHING, torch.zeros(0, dtype=torch.float64))),
    }


LOSSES = {
    "cross_entropy": classes(F.cross_entropy),
    "cross_entropy, smoothed": classes(smooth),
    "cross_entropy, probabilities": probabilities(),
    "nll_loss": classes(F.nll_loss),
    "multi_margin_loss": margins(),
    "mse_loss": pairs(lambda x, y, r: F.mse_loss(x, y, reduction=r)),
    "l1_loss": pairs(lambda x, y, r: F.l1_loss(x, y, reduction=r)),
    "smooth_l1_loss": pairs(lambda x, y, r: F.smooth_l1_loss(x, y, reduction=r)),
    "huber_loss": pairs(lambda x, y, r: F.huber_loss(x, y, reduction=r)),
    "binary_cross_entropy": unit(),
    "binary_cross_entropy_with_logits": logits(),
    "kl_div": divergence(False),
    "kl_div, log_target": divergence(True),
    "soft_margin_loss": signs(lambda x, y, r: F.soft_margin_loss(x, y, reduction=r)),
    "hinge_embedding_loss": signs(lambda x, y, r: F.hinge_embedding_loss(x, y, reduction=r)),
    "margin_ranking_loss": signs(lambda x, y, r: F.margin_ranking_loss(x, 1 - x.detach(), y, margin=0.5, reduction=r)),
    "cosine_embedding_loss": cosine(),
}


def show(values):
    return " ".join(f"{v:.10g}" for v in values.detach().flatten().tolist())


for loss, cases in LOSSES.items():
    for case, (data, f) in cases.items():
        for reduction in ("none", "mean", "sum"):
            x = data.clone().requires_grad_()
            y = f(x, reduction)
            (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            second = None
            if g.requires_grad:
                factors = torch.arange(1, x.numel() + 1, dtype=torch.float64).reshape(x.shape)
                try:
                    (second,) = torch.autograd.grad((g * factors).sum(), x, materialize_grads=True)
                    second = show(second)
                except RuntimeError:
                    # PyTorch has no second derivative.
                    second = None
            print(" | ".join([loss, case, reduction, show(y), show(g), "-" if second is None else second]))
