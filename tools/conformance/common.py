"""What the parts of the generator share."""
import hashlib
import random

import numpy as np
import torch

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "int64": torch.int64,
    "bool": torch.bool,
}
DTYPE_NAMES = {v: k for k, v in DTYPES.items()}
SHORT = {"float64": "f64", "float32": "f32", "int64": "i64"}
MAX_SAMPLE_BYTES = 256_000


class Skip(Exception):
    """A sample that cannot be used; the text is the reason that gets counted."""


def stable_int(*parts):
    return int(hashlib.sha256(":".join(str(p) for p in parts).encode()).hexdigest(), 16)


def seed_everything(*parts):
    s = stable_int(*parts) % (2**31)
    torch.manual_seed(s)
    np.random.seed(s)
    random.seed(s)


def spread(n, k, *key):
    """k of range(n): one from each of k equal stretches, at a fixed pseudo-random place in it, so
    that a step that divides the period of a nested loop does not pick the same options always."""
    if n <= k:
        return list(range(n))
    rng = random.Random(stable_int("spread", *key))
    out = []
    for i in range(k):
        lo, hi = i * n // k, (i + 1) * n // k
        out.append(rng.randrange(lo, hi))
    return out


def resolve(path):
    obj = torch
    for part in path.split(".")[1:]:
        obj = getattr(obj, part)
    return obj


def flatten(value):
    if isinstance(value, (list, tuple)):
        return [x for v in value for x in flatten(v)]
    return [value]


def same(a, b):
    """Equal, with NaN equal to NaN."""
    if isinstance(a, torch.Tensor) != isinstance(b, torch.Tensor):
        return False
    if not isinstance(a, torch.Tensor):
        return a == b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.is_floating_point:
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    return bool((a == b).all())
