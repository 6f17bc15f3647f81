"""`--verify`: decodes every sample, runs it in PyTorch and compares all that is stored."""
import json
import math
import os
import re
import warnings

import torch
from safetensors.torch import load_file

from common import DTYPE_NAMES, resolve
from encoding import Decoder
from execution import gradients, run_op, run_second
from modules import module_gradients, run_module
from optimizers import run_optimizer, run_scheduler


class Mismatch(Exception):
    pass


def compare(what, got, want, rtol, atol):
    if got is None or want is None:
        if (got is None) != (want is None):
            raise Mismatch(f"{what}: one side is missing")
        return
    if not isinstance(got, torch.Tensor):
        if got != want:
            raise Mismatch(f"{what}: {got} != {want}")
        return
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Mismatch(f"{what}: {tuple(got.shape)} {got.dtype} != {tuple(want.shape)} {want.dtype}")
    if got.dtype.is_floating_point:
        ok = torch.allclose(got.detach(), want, rtol=rtol, atol=atol, equal_nan=True)
    else:
        ok = torch.equal(got, want)
    if not ok:
        raise Mismatch(f"{what}: values differ")


def compare_outputs(s, outs, T):
    if len(outs) != len(s["outputs"]):
        raise Mismatch("number of outputs")
    for i, (o, w) in enumerate(zip(outs, s["outputs"])):
        if isinstance(w, dict) and "tensor" in w:
            t = T[w["tensor"]]
            if list(t.shape) != w["shape"] or DTYPE_NAMES[t.dtype] != w["dtype"]:
                raise Mismatch(f"output {i}: JSON and stored tensor disagree")
            compare(f"output {i}", o, t, s["rtol"], s["atol"])
        else:
            compare(f"output {i}", o, Decoder({}).value(w, ""), 0, 0)


def tensor_of(T, key):
    return None if key is None else T[key]


def verify_op(head, s, T):
    fn = resolve(head["function"])
    dec, outs = run_op(fn, s, T)
    compare_outputs(s, outs, T)
    for p, k in s.get("after", {}).items():
        compare(f"after {p}", dec.plain[p], T[k], s["rtol"], s["atol"])
    cots = [tensor_of(T, k) for k in s["cotangents"]]
    got = gradients(outs, cots, dec.leaves)
    if set(got) != set(s["grads"]):
        raise Mismatch("set of gradients")
    for p, k in s["grads"].items():
        compare(f"grad {p}", got[p], tensor_of(T, k), s["grad_rtol"], s["grad_atol"])
    if "second" in s:
        sec = s["second"]
        g2, c2 = run_second(fn, s, T, s["cotangents"], sec["v"])
        for p, g in g2.items():
            compare(f"second {p}", g, tensor_of(T, sec["grads"].get(p)), s["grad_rtol"], s["grad_atol"])
        for i, g in enumerate(c2):
            compare(f"second cotangent {i}", g, tensor_of(T, sec["cotangent_grads"][i]),
                    s["grad_rtol"], s["grad_atol"])


def verify_error(head, s, T):
    try:
        run_op(resolve(head["function"]), s, T)
    except Exception as e:
        if type(e).__name__ != s["error_type"] or not re.search(s["message_regex"], str(e)):
            raise Mismatch(f"raised {type(e).__name__}: {e}")
        return
    raise Mismatch("did not raise")


def verify_module(head, s, T):
    m, dec, outs = run_module(resolve(head["class"]), s, T, s["dtype"])
    compare_outputs(s, outs, T)
    for n, t in m.state_dict().items():
        key = s["state_dict_after"].get(n, s["state_dict"][n]["tensor"])
        compare(f"state {n}", t, T[key], s["rtol"], s["atol"])
    gi, gp = module_gradients(m, dec, outs, [tensor_of(T, k) for k in s["cotangents"]])
    for kind, got, want in (("grad", gi, s["grads"]), ("parameter grad", gp, s["param_grads"])):
        if set(got) != set(want):
            raise Mismatch(f"set of {kind}s")
        for p, k in want.items():
            compare(f"{kind} {p}", got[p], tensor_of(T, k), s["grad_rtol"], s["grad_atol"])


def verify_optimizer(head, s, T):
    if "scheduler" in s:
        lrs, moms = run_scheduler(s)
        pairs = list(zip(lrs, s["lrs"])) + list(zip(moms, s.get("momentums", moms)))
        if len(lrs) != len(s["lrs"]) or not all(
                math.isclose(a, b, rel_tol=s["rtol"], abs_tol=s["atol"]) for a, b in pairs):
            raise Mismatch("learning rates differ")
        return
    for step, params in run_optimizer(head["optimizer"], s, T).items():
        for j, p in enumerate(params):
            compare(f"step {step} parameter {j}", p, T[s["steps"][str(step)][j]], s["rtol"], s["atol"])


def keys_used(v):
    """Every string in the sample that could be a tensor key."""
    if isinstance(v, str):
        yield v
    elif isinstance(v, list):
        for x in v:
            yield from keys_used(x)
    elif isinstance(v, dict):
        for x in v.values():
            yield from keys_used(x)


def verify(folder):
    check = {"ops": verify_op, "errors": verify_error, "modules": verify_module, "optimizers": verify_optimizer}
    failed = 0
    for suite, fn in check.items():
        path = os.path.join(folder, suite)
        files = sorted(f for f in os.listdir(path) if f.endswith(".json")) if os.path.isdir(path) else []
        good = 0
        for name in files:
            with open(os.path.join(path, name)) as f:
                head = json.load(f)
            samples = head.pop("samples")
            T = load_file(os.path.join(path, head["tensors"])) if "tensors" in head else {}
            used = set(keys_used(samples))
            if not set(T) <= used:
                print(f"{suite}/{name}: {len(set(T) - used)} tensors that no sample uses")
                failed += 1
            for s in samples:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        fn(head, s, T)
                    good += 1
                except Exception as e:
                    failed += 1
                    print(f"{suite}/{name} {s['id']}: {type(e).__name__}: {str(e)[:200]}")
        print(f"{suite}: {good} samples in {len(files)} files replayed")
    return failed
