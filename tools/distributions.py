"""Prints values of torch.distributions and their gradients, the text of crates/ops/tests/distributions.txt; with `implicit`,
derivatives by mpmath, the text of crates/ops/tests/implicit.txt.

A line is a function, its distribution (two for kl_divergence) with parameters, the value's argument if there is one, the
results, and the gradients of their sum for each parameter and the argument. Fields are separated by ` | `.
"""

import sys

import torch
import torch.distributions as D

torch.set_default_dtype(torch.float64)
A, B = [0.3, 1.0, 2.5], [0.7, 2.0, 1.5]
ROWS = [[0.5, 1.5, 3.0], [2.0, 0.25, 1.0]]
FAMILIES = {
    "Normal": (D.Normal, [[0.5, -1.0, 2.0], B], [[0.1, 0.2, -3.0]]),
    "LogNormal": (D.LogNormal, [[0.5, -1.0, 0.2], B], [[0.1, 1.2, 3.0]]),
    "Laplace": (D.Laplace, [[0.5, -1.0, 2.0], B], [[0.1, 0.2, -3.0]]),
    "Uniform": (D.Uniform, [[0.1, 0.25, 0.5], [0.6, 0.75, 0.9]], [[0.3, 0.25, 0.8]]),
    "Exponential": (D.Exponential, [B], [[0.1, 0.2, 3.0]]),
    "Gamma": (D.Gamma, [A, B], [[0.1, 1.2, 3.0]]),
    "Beta": (D.Beta, [A, B], [[0.1, 0.2, 0.7]]),
    "Dirichlet": (D.Dirichlet, [ROWS], [[[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]]),
    "Bernoulli.probs": (lambda p: D.Bernoulli(probs=p), [[0.2, 0.5, 0.9]], [[1.0, 0.0, 1.0]]),
    "Bernoulli.logits": (lambda p: D.Bernoulli(logits=p), [[-1.0, 0.5, 3.0]], [[1.0, 0.0, 1.0]]),
    "Categorical.probs": (lambda p: D.Categorical(probs=p), [ROWS], [[2.0, 0.0]]),
    "Categorical.logits": (lambda p: D.Categorical(logits=p), [ROWS], [[2.0, 0.0]]),
}
OTHERS = {
    "Normal": [[-0.5, 1.0, 0.3], [1.5, 0.5, 2.0]],
    "LogNormal": [[-0.5, 1.0, 0.3], [1.5, 0.5, 2.0]],
    "Laplace": [[-0.5, 1.0, 0.3], [1.5, 0.5, 2.0]],
    "Uniform": [[-0.5, 0.0, 0.6], [1.5, 1.0, 2.0]],
    "Exponential": [[1.5, 0.5, 2.0]],
    "Gamma": [[1.5, 0.5, 2.0], [0.5, 3.0, 1.0]],
    "Beta": [[1.5, 0.5, 2.0], [0.5, 3.0, 1.0]],
    "Dirichlet": [[[1.0, 0.5, 2.0], [0.3, 3.0, 1.0]]],
    "Bernoulli.probs": [[0.4, 0.3, 0.1]],
    "Bernoulli.logits": [[0.4, 0.3, -0.1]],
    "Categorical.probs": [[[1.0, 0.5, 2.0], [0.3, 3.0, 1.0]]],
    "Categorical.logits": [[[1.0, 0.5, 2.0], [0.3, 3.0, 1.0]]],
}


def text(values):
    return " ".join(f"{v:.14g}" for v in values.reshape(-1).tolist())


def leaves(lists):
    return [torch.tensor(v, requires_grad=True) for v in lists]


def gradient(y, x):
    """NaN where PyTorch has no derivative."""
    try:
        (g,) = torch.autograd.grad(y.sum(), [x], allow_unused=True, retain_graph=True) if y.requires_grad else (None,)
    except NotImplementedError:
        return torch.full_like(x, torch.nan)
    return torch.zeros_like(x) if g is None else g


def line(name, inputs, y):
    grads = [gradient(y, x) for x in inputs]
    print(" | ".join([name, text(y), *map(text, grads)]))


def functions():
    for name, (make, parameters, values) in FAMILIES.items():
        for f in ["mean", "variance", "stddev", "entropy", "log_prob", "cdf", "icdf"]:
            inputs = leaves(parameters)
            d = make(*inputs)
            try:
                if f in ["mean", "variance", "stddev"]:
                    y = getattr(d, f)
                elif f == "entropy":
                    y = d.entropy()
                else:
                    inputs += leaves([[0.1, 0.5, 0.8]] if f == "icdf" else values)
                    y = getattr(d, f)(inputs[-1])
            except NotImplementedError:
                continue
            line(f"{name}.{f}", inputs, y)


def divergences():
    for p, (make, parameters, _) in FAMILIES.items():
        for q in FAMILIES:
            a, b = leaves(parameters), leaves(OTHERS[q])
            try:
                kl = D.kl_divergence(make(*a), FAMILIES[q][0](*b))
            except NotImplementedError:
                continue
            if "." in p and p != q:
                continue
            line(f"kl_divergence {p} {q}", a + b, kl)
    make = FAMILIES["Normal"][0]
    a, b = leaves(FAMILIES["Normal"][1]), leaves(OTHERS["Normal"])
    independent = [D.Independent(make(*v), 1) for v in (a, b)]
    line("kl_divergence Independent Independent", a + b, D.kl_divergence(*independent))


def samples():
    torch.manual_seed(0)
    for a in [0.05, 0.5, 1.0, 3.0, 20.0, 500.0]:
        a = torch.full((6,), a)
        x = torch._standard_gamma(a)
        print(" | ".join(["standard_gamma_grad", text(a), text(x), text(torch._standard_gamma_grad(a, x))]))
    for a in [[0.5, 0.5], [1.0, 3.0], [0.2, 2.0, 7.0], [20.0, 10.0, 5.0], [0.1, 0.1, 0.1, 0.1], [100.0, 30.0]]:
        a = torch.tensor(a)
        x = torch._sample_dirichlet(a)
        slope = torch._dirichlet_grad(x, a, a.sum().expand_as(a).contiguous())
        print(" | ".join(["dirichlet_grad", text(a), text(x), text(slope)]))


def implicit():
    import mpmath as mp

    mp.mp.dps = 40
    for a in [0.01, 0.3, 1.0, 2.5, 30.0, 1000.0, 40000.0, 200000.0]:
        for at in [0.01, 0.3, 0.9, 1.0, 1.1, 2.0, 5.0]:
            x = mp.mpf(a * at if a < 100 else a + (at - 1.0) * a**0.5)
            cdf = mp.gammainc(a, 0, x, regularized=True)
            slope = mp.diff(lambda b: mp.gammainc(b, 0, x, regularized=True), a, h=mp.mpf(10) ** -12 * a)
            density = mp.exp((a - 1) * mp.log(x) - x - mp.loggamma(a))
            print("gamma", a, mp.nstr(x, 20), mp.nstr(-slope / density, 15))
            if a < 1e5:
                print("gamma_cdf", a, mp.nstr(x, 20), mp.nstr(cdf, 15))
    for a, b in [(0.1, 0.2), (1.0, 1.0), (0.5, 4.0), (6.0, 0.3), (3.0, 5.0), (80.0, 30.0), (900.0, 2000.0)]:
        for x in [0.001, 0.2, 0.5, 0.8, 0.99] if a < 50 else [a / (a + b) - 0.02, a / (a + b), a / (a + b) + 0.02]:
            x = mp.mpf(x)
            slope = mp.diff(lambda c: mp.betainc(c, b, 0, x, regularized=True), a, h=mp.mpf(10) ** -12 * a)
            density = x ** (a - 1) * (1 - x) ** (b - 1) / mp.beta(a, b)
            print("beta", a, b, mp.nstr(x, 20), mp.nstr(-slope / density, 15))


if sys.argv[1:] == ["implicit"]:
    implicit()
else:
    functions()
    divergences()
    samples()
