"""ops/ and errors/: OpInfo's sample inputs, and those that PyTorch refuses."""
import re
import warnings

import torch

from common import (
    DTYPES, MAX_SAMPLE_BYTES, SHORT, Skip, flatten, resolve, same, seed_everything, spread, stable_int,
)
from encoding import Encoder
from execution import differentiable, gradients, run_op, run_second
from names import argument_names
from tolerance import ROUNDING_TRIALS, float32_tolerance, info_tolerances, set_tolerances

MAX_NONCONTIGUOUS = 2      # samples for an op and dtype that are copies with non-contiguous inputs
MAX_REFERENCE = 8          # and that are reference_inputs, which fill up small ops
MAX_REF_ELEMENTS = 4_000   # in any one tensor of a reference input

# OpInfo calls a few ops through a wrapper with another argument order.  They are stored in the
# order of the function itself: op name -> (function, (input, args) -> (input, args)).
REORDERED = {
    "where": ("torch.where", lambda i, a: (a[0], (i,) + tuple(a[1:]))),
    "einsum": ("torch.einsum", lambda i, a: (a[0], (list(i),) + tuple(a[1:]))),
    "nn.functional.embedding": ("torch.nn.functional.embedding", lambda i, a: (a[0], (i,) + tuple(a[1:]))),
    "expand": ("torch.Tensor.expand", None),
    "view": ("torch.Tensor.view", None),
    "repeat": ("torch.Tensor.repeat", None),
    "__getitem__": ("torch.Tensor.__getitem__", None),
}


def function_path(op):
    if op.name in REORDERED:
        return REORDERED[op.name][0]
    # A few exist as methods alone.
    return "torch." + op.name if "." in op.name or hasattr(torch, op.name) else "torch.Tensor." + op.name


def reorder(op, input, args):
    fix = REORDERED.get(op.name, (None, None))[1]
    return fix(input, tuple(args)) if fix else (input, tuple(args))


def op_candidates(op, dtype, seed, cap):
    """(base id, kind, SampleInput), at most `cap`, chosen evenly."""
    grad = bool(op.supports_autograd) and dtype.is_floating_point
    seed_everything("values", seed, op.full_name, dtype)
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=grad, set_seed=False))
    random_ones = sum(1 for s in samples if s.kwargs.get("dropout_p", 0.0) != 0.0)
    samples = [s for s in samples if s.kwargs.get("dropout_p", 0.0) == 0.0]
    refs = []
    if op.reference_inputs_func is not None and len(samples) < cap:
        seed_everything("reference", seed, op.full_name, dtype)
        for g in (grad, False):
            # Some generators of reference inputs refuse requires_grad.
            try:
                found = list(op.reference_inputs("cpu", dtype, requires_grad=g, set_seed=False))
                break
            except ValueError:
                found = []
        for i, s in enumerate(found[len(samples):]):
            sizes = [t.numel() for t in flatten([s.input, list(s.args), list(s.kwargs.values())])
                     if isinstance(t, torch.Tensor)]
            if max(sizes, default=0) <= MAX_REF_ELEMENTS:
                refs.append((f"r{i:03d}", "reference", s))
    movable = [
        i for i, s in enumerate(samples)
        if any(isinstance(t, torch.Tensor) and t.numel() > 1 and t.dtype.is_floating_point
               for t in flatten([s.input, list(s.args), list(s.kwargs.values())]))
    ]
    n_extra = min(MAX_NONCONTIGUOUS, len(movable))
    picked = spread(len(samples), cap - n_extra, op.full_name, "samples")
    out = [(f"{i:03d}", "sample", samples[i]) for i in picked]
    if movable:
        in_pick = [i for i in movable if i in set(picked)] or movable
        for j in spread(len(in_pick), n_extra, op.full_name, "noncontiguous"):
            # The same number as its original.
            out.append((f"{in_pick[j]:03d}", "noncontiguous", samples[in_pick[j]].noncontiguous()))
    room = min(MAX_REFERENCE, cap - len(out))
    if room > 0 and refs:
        out += [refs[j] for j in spread(len(refs), room, op.full_name, "reference")]
    return out, random_ones


def add_second_order(sample, enc, fn, grads, gen):
    v_keys = {
        p: enc.store(torch.randn(g.shape, generator=gen, dtype=g.dtype), f"v.{p}")
        for p, g in grads.items() if g is not None
    }
    try:
        second, cot_grads = run_second(fn, sample, enc.tensors, sample["cotangents"], v_keys) if v_keys else ({}, [])
    except (RuntimeError, NotImplementedError) as e:
        second, cot_grads = {}, []
        sample["second_error"] = str(e).splitlines()[0][:120]
    if any(g is not None for g in list(second.values()) + cot_grads):
        sample["second"] = {
            "v": v_keys,
            "grads": {p: enc.store(g, f"second.{p}") for p, g in second.items() if g is not None},
            "cotangent_grads": [
                None if g is None else enc.store(g, f"second.cot.{i}") for i, g in enumerate(cot_grads)],
        }
    else:
        for k in v_keys.values():
            del enc.tensors[k]


def build_op_sample(op, path, fn, base_id, kind, si, dtype_name, seed):
    from torch.testing._internal.opinfo.core import BinaryUfuncInfo, UnaryUfuncInfo

    letter = {"sample": "s", "noncontiguous": "n", "reference": "r"}[kind]
    sid = f"{letter}{base_id.lstrip('r')}.{SHORT[dtype_name]}"
    enc = Encoder(sid)
    input, args = reorder(op, si.input, si.args)
    kwargs = dict(si.kwargs)
    if op.name == "__getitem__" and not isinstance(args[0], tuple):
        args = ((args[0],),)
    sample = {"id": sid, "kind": kind, "dtype": dtype_name}
    sample.update(enc.call(input, args, kwargs, index=op.name == "__getitem__"))
    names = argument_names(path, fn, input, args, kwargs)
    sample["names"] = names
    T = enc.tensors

    # Forward, twice, each time from the encoded form.
    torch.manual_seed(1)
    dec, outs = run_op(fn, sample, T)
    torch.manual_seed(2)
    _, outs2 = run_op(fn, sample, T)
    if len(outs) != len(outs2) or not all(same(a, b) for a, b in zip(outs, outs2)):
        raise Skip("non-deterministic")
    sample["outputs"] = enc.outputs(outs)
    after = {}
    for p, t in dec.plain.items():
        before = T[f"{sid}/{p}"]
        if not same(t, before):
            after[p] = enc.store(t, f"after.{p}")
    if after:
        sample["after"] = after

    # First-order gradients.
    gen = torch.Generator().manual_seed(stable_int("cotangent", seed, op.full_name, sid) % 2**62)
    diff = set(differentiable(outs)) if dec.leaves else set()
    sample["cotangents"] = [
        enc.store(torch.randn(o.shape, generator=gen, dtype=o.dtype), f"cot.{i}") if i in diff else None
        for i, o in enumerate(outs)
    ]
    cots = [None if k is None else T[k] for k in sample["cotangents"]]
    grads = gradients(outs, cots, dec.leaves)
    for p, g in grads.items():
        if g is not None and g.is_sparse:
            raise Skip("sparse gradient")
    sample["grads"] = {p: None if g is None else enc.store(g, f"grad.{p}") for p, g in grads.items()}

    # Tolerances.
    scale = grad_scale = 1.0
    base = info_tolerances(op, dtype_name)
    if dtype_name == "float32":
        def run(jitter):
            d, o = run_op(fn, sample, T, True, jitter)
            g = gradients(o, [d.convert(c) for c in cots], d.leaves)
            return ([t for t in o if isinstance(t, torch.Tensor)], [d.plain[p] for p in after],
                    [g.get(p) for p in grads])

        pointwise = isinstance(op, (UnaryUfuncInfo, BinaryUfuncInfo)) or kind == "reference"
        scale, grad_scale = float32_tolerance(
            run, [t for t in outs if isinstance(t, torch.Tensor)], [T[k] for k in after.values()],
            list(grads.values()), base, 0 if pointwise else ROUNDING_TRIALS)

    # Second-order gradients.
    if dtype_name == "float64" and op.supports_gradgrad and kind != "reference":
        add_second_order(sample, enc, fn, grads, gen)
    set_tolerances(sample, base, scale, grad_scale)
    if sum(t.numel() * t.element_size() for t in T.values()) > MAX_SAMPLE_BYTES:
        raise Skip("sample too large")
    return sample, T


def op_list(catalog):
    from torch.testing._internal.common_methods_invocations import op_db

    order = {n: i for i, n in enumerate(catalog.ops)}
    found = [o for o in op_db if o.name in order and o.full_name not in catalog.skipped_variants]
    return sorted(found, key=lambda o: (order[o.name], o.variant_test_name))


def make_ops(output):
    for op in op_list(output.catalog):
        if not output.wanted(op.full_name):
            continue
        path = function_path(op)
        fn = resolve(path)
        dtypes = [d for d in ("float64", "float32") if op.supports_dtype(DTYPES[d], "cpu")] or ["int64"]
        items = []
        for dname in dtypes:
            cands, random_ones = op_candidates(op, DTYPES[dname], output.seed, output.cap)
            for _ in range(random_ones):
                output.skip("ops", "dropout", op.full_name)
            for base_id, kind, si in cands:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        sample, tensors = build_op_sample(op, path, fn, base_id, kind, si, dname, output.seed)
                except Skip as e:
                    output.skip("ops", str(e), f"{op.full_name} {kind} {base_id} {dname}")
                    continue
                except Exception as e:
                    output.skip("ops", f"PyTorch raised {type(e).__name__}",
                             f"{op.full_name} {kind} {base_id} {dname}: {str(e).splitlines()[0][:120]}")
                    continue
                items.append((sample, tensors))
        head = {"op": op.name, "variant": op.variant_test_name or None, "function": path}
        output.write("ops", op.full_name, head, items)


def make_errors(output):
    for op in op_list(output.catalog):
        if op.error_inputs_func is None or not output.wanted(op.full_name):
            continue
        path = function_path(op)
        fn = resolve(path)
        seed_everything("errors", output.seed, op.full_name)
        items = []
        for i, ei in enumerate(op.error_inputs("cpu", set_seed=False)):
            si = ei.sample_input
            sid = f"e{i:03d}"
            try:
                enc = Encoder(sid)
                input, args = reorder(op, si.input, si.args)
                sample = {"id": sid}
                sample.update(enc.call(input, args, si.kwargs))
                sample["names"] = argument_names(path, fn, input, args, si.kwargs)
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        run_op(fn, sample, enc.tensors)
                except Exception as e:
                    if not isinstance(e, ei.error_type) or not re.search(ei.error_regex, str(e)):
                        raise Skip("raises another error than the listed one")
                    sample["error_type"] = type(e).__name__
                    sample["message_regex"] = ei.error_regex
                    sample["message"] = str(e).splitlines()[0] if str(e) else ""
                else:
                    raise Skip("does not raise from the encoded form")
            except Skip as e:
                output.skip("errors", str(e), f"{op.full_name} {sid}")
                continue
            items.append((sample, enc.tensors))
        head = {"op": op.name, "variant": op.variant_test_name or None, "function": path}
        output.write("errors", op.full_name, head, items)
