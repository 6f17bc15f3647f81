"""How far another implementation may be from the stored results."""
import math

import torch

from common import DTYPES, Skip, same

# (forward rtol, atol, gradient rtol, atol)
TOLERANCES = {
    "float64": (1e-7, 1e-7, 1e-7, 1e-7),
    "float32": (1.3e-6, 1e-5, 1e-4, 1e-5),
    "int64": (0.0, 0.0, 0.0, 0.0),
}
MAX_LOOSENING = 1000.0
ROUNDING_TRIALS = 3


def loosening(pairs, rtol, atol):
    """How many times the tolerance must grow so that PyTorch's own float32 rounding error, doubled,
    fits in it.  pairs: (float32 result, result for the same inputs in float64)."""
    worst = 1.0
    for a, b in pairs:
        if a is None or b is None:
            if (a is None) != (b is None):
                raise Skip("float32 and float64 differ in kind")
            continue
        if not a.dtype.is_floating_point:
            if not same(a, b):
                raise Skip("discrete result depends on float32 rounding")
            continue
        a64, b64 = a.detach().double(), b.detach().double()
        over = a64.isinf() & (b64.abs() > 3.4e38) & (a64.sign() == b64.sign())
        equal = (a64 == b64) | (a64.isnan() & b64.isnan()) | over
        if (~equal & ~(a64.isfinite() & b64.isfinite())).any():
            raise Skip("finiteness depends on float32 rounding")
        diff = torch.where(equal, 0.0, (a64 - b64).abs())
        bound = atol + rtol * torch.where(b64.isfinite(), b64.abs(), 0.0)
        if diff.numel():
            worst = max(worst, 2 * float((diff / bound).max()))
    if worst > MAX_LOOSENING:
        raise Skip("ill-conditioned in float32")
    return worst


def sensitivity(pairs, rtol, atol):
    """The same for inputs that are off by one rounding, four times: a sound algorithm that adds in
    another order errs about that much.  1 where it says nothing (a jump, a tie, overflow)."""
    worst = 1.0
    for a, b in pairs:
        if a is None or b is None or not a.dtype.is_floating_point:
            continue
        a, b = a.detach(), b.detach()
        ok = a.isfinite() & b.isfinite()
        diff = torch.where(ok, (a - b).abs(), 0.0)
        if diff.numel():
            worst = max(worst, 4 * float((diff / (atol + rtol * torch.where(ok, b.abs(), 0.0))).max()))
    return worst if worst <= MAX_LOOSENING else 1.0


def float32_tolerance(run, outs, after, grads, base, trials):
    """Factors (forward, gradients) by which to widen `base`.  run(jitter) gives the same three
    lists of tensors for the inputs in float64; the arguments are the float32 results."""
    outs64, after64, grads64 = run(None)
    scale = loosening(zip(outs + after, outs64 + after64), base[0], base[1])
    grad_scale = loosening(zip(grads, grads64), base[2], base[3])
    for trial in range(trials):
        try:
            o, a, g = run(torch.Generator().manual_seed(trial))
        except (RuntimeError, ValueError):
            continue        # the disturbed inputs left the domain of the function
        scale = max(scale, sensitivity(zip(o + a, outs64 + after64), base[0], base[1]))
        grad_scale = max(grad_scale, sensitivity(zip(g, grads64), base[2], base[3]))
    return scale, grad_scale


def round_up(x):
    """Two significant digits, upwards."""
    if x == 0:
        return 0.0
    e = math.floor(math.log10(x)) - 1
    return float(f"{math.ceil(x / 10**e - 1e-9) * 10**e:.2g}")


def set_tolerances(sample, base, scale=1.0, grad_scale=1.0):
    rtol, atol, grtol, gatol = base
    sample["rtol"] = rtol if scale == 1.0 else round_up(rtol * scale)
    sample["atol"] = atol if scale == 1.0 else round_up(atol * scale)
    sample["grad_rtol"] = grtol if grad_scale == 1.0 else round_up(grtol * grad_scale)
    sample["grad_atol"] = gatol if grad_scale == 1.0 else round_up(gatol * grad_scale)


def info_tolerances(info, dtype_name):
    """The defaults, for float32 widened by the overrides that OpInfo/ModuleInfo gives for CPU tests."""
    base = list(TOLERANCES[dtype_name])
    dtype = DTYPES[dtype_name]
    if dtype != torch.float32:
        return tuple(base)
    for deco in info.decorators:
        if getattr(deco, "device_type", None) not in (None, "cpu"):
            continue
        if getattr(deco, "cls_name", None) not in (None, "TestCommon", "TestModule"):
            continue
        for d in getattr(deco, "decorators", [deco]):
            table = getattr(d, "d", None)
            if not isinstance(table, dict) or dtype not in table:
                continue
            tol = table[dtype]
            if isinstance(tol, float):           # precisionOverride
                base[1] = max(base[1], tol)
            elif hasattr(tol, "rtol"):           # toleranceOverride
                base[0], base[1] = max(base[0], tol.rtol), max(base[1], tol.atol)
    base[2], base[3] = max(base[2], base[0]), max(base[3], base[1])
    return tuple(base)
