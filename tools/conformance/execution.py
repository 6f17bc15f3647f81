"""Encoded calls, run by PyTorch: outputs and gradients."""
import torch

from common import flatten
from encoding import Decoder


def differentiable(outs):
    return [
        i for i, o in enumerate(outs)
        if isinstance(o, torch.Tensor) and o.dtype.is_floating_point and o.requires_grad
    ]


def gradients(outs, cots, leaves, create_graph=False):
    idx = [i for i in differentiable(outs) if cots[i] is not None]
    if not idx or not leaves:
        return {}
    got = torch.autograd.grad(
        [outs[i] for i in idx], list(leaves.values()), [cots[i] for i in idx],
        allow_unused=True, create_graph=create_graph,
    )
    return dict(zip(leaves, got))


def run_op(fn, enc, tensors, upcast=False, jitter=None):
    dec = Decoder(tensors, upcast, jitter)
    input, args, kwargs = dec.call(enc)
    if getattr(fn, "__name__", "") == "__getitem__":
        # Inside an index, a JSON list is a tuple.
        args = [tuple(a) if isinstance(a, list) else a for a in args]
    return dec, flatten(fn(input, *args, **kwargs))


def run_second(fn, enc, tensors, cot_keys, v_keys):
    """Gradients of sum(first gradient * v) for the leaves and for the cotangents."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # The fused attention kernel has no second derivative.
    with sdpa_kernel([SDPBackend.MATH]):
        dec, outs = run_op(fn, enc, tensors)
    cots = [None if k is None else tensors[k].clone().requires_grad_() for k in cot_keys]
    first = gradients(outs, cots, dec.leaves, create_graph=True)
    total = None
    for path, key in v_keys.items():
        g = first.get(path)
        if g is None or not g.requires_grad:
            continue
        term = (g * tensors[key]).sum()
        total = term if total is None else total + term
    if total is None:
        return {}, [None] * len(cots)
    live = [c for c in cots if c is not None]
    got = torch.autograd.grad(total, list(dec.leaves.values()) + live, allow_unused=True)
    n = len(dec.leaves)
    rest = iter(got[n:])
    return dict(zip(dec.leaves, got[:n])), [None if c is None else next(rest) for c in cots]
