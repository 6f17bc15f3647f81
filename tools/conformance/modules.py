"""modules/: ModuleInfo's inputs."""
import inspect
import warnings

import torch

from common import (
    DTYPES, MAX_SAMPLE_BYTES, SHORT, Skip, flatten, same, seed_everything, spread, stable_int,
)
from encoding import Decoder, Encoder
from execution import differentiable, gradients
from tolerance import ROUNDING_TRIALS, float32_tolerance, info_tolerances, set_tolerances


def build_module(cls, enc, tensors, dtype_name, upcast=False, jitter=None):
    dec = Decoder(tensors, upcast, jitter)
    args = [dec.value(a, f"constructor.args.{i}") for i, a in enumerate(enc["constructor"]["args"])]
    kwargs = {k: dec.value(v, f"constructor.kwargs.{k}") for k, v in enc["constructor"]["kwargs"].items()}
    m = cls(*args, **kwargs)
    m = m.double() if upcast else m.to(DTYPES[dtype_name])
    if "state_dict" in enc:
        state = {k: dec.raw(v["tensor"]) for k, v in enc["state_dict"].items()}
        m.load_state_dict(state, strict=True)
    m.train(enc["training"])
    return m


def run_module(cls, enc, tensors, dtype_name, upcast=False, jitter=None):
    m = build_module(cls, enc, tensors, dtype_name, upcast, jitter)
    dec = Decoder(tensors, upcast, jitter)
    args = [dec.value(a, f"args.{i}") for i, a in enumerate(enc["args"])]
    kwargs = {k: dec.value(v, f"kwargs.{k}") for k, v in enc["kwargs"].items()}
    outs = flatten(m(*args, **kwargs))
    return m, dec, outs


def signature_names(sig, n, drop_self):
    names = [p.name for p in sig.parameters.values()
             if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = names[1:] if drop_self else names
    return names[:n] if len(names) >= n else None


def module_gradients(m, dec, outs, cots):
    leaves = {("input", p): t for p, t in dec.leaves.items()}
    leaves.update({("param", n): p for n, p in m.named_parameters()})
    got = gradients(outs, cots, leaves)
    return ({p: g for (k, p), g in got.items() if k == "input"},
            {p: g for (k, p), g in got.items() if k == "param"})


def build_module_sample(info, mi, base_id, training, dname, seed):
    cls = info.module_cls
    sid = f"m{base_id}.{'train' if training else 'eval'}.{SHORT[dname]}"
    enc = Encoder(sid)
    ci, fi = mi.constructor_input, mi.forward_input
    if fi is None:
        raise Skip("no forward input")
    sample = {"id": sid, "desc": mi.desc or None, "dtype": dname, "training": training}
    sample["constructor"] = {
        "args": [enc.value(a, f"constructor.args.{i}") for i, a in enumerate(ci.args)],
        "kwargs": {k: enc.value(v, f"constructor.kwargs.{k}") for k, v in ci.kwargs.items()},
        "names": signature_names(inspect.signature(cls.__init__), len(ci.args), True),
    }
    T = enc.tensors
    torch.manual_seed(stable_int("parameters", seed, cls.__name__, sid) % 2**62)
    m = build_module(cls, sample, T, dname)
    # Constant parameters and running statistics (all ones, all zeros) would hide mistakes.
    with torch.no_grad():
        for name, t in m.state_dict().items():
            if t.dtype.is_floating_point and t.numel() > 1 and bool((t == t.flatten()[0]).all()):
                if name.endswith("running_var"):
                    t.uniform_(0.5, 1.5)
                elif name.endswith("running_mean"):
                    t.normal_(0, 0.5)
                else:
                    t.add_(torch.empty_like(t).uniform_(-0.5, 0.5))
    sample["state_dict"] = {n: enc.tensor(t, f"state.{n}") for n, t in m.state_dict().items()}
    sample["args"] = [enc.value(a, f"args.{i}") for i, a in enumerate(fi.args)]
    sample["kwargs"] = {k: enc.value(v, f"kwargs.{k}") for k, v in fi.kwargs.items()}
    sample["names"] = signature_names(inspect.signature(cls.forward), len(fi.args), True)

    m, dec, outs = run_module(cls, sample, T, dname)
    _, _, outs2 = run_module(cls, sample, T, dname)
    if not all(same(a, b) for a, b in zip(outs, outs2)):
        raise Skip("non-deterministic")
    sample["outputs"] = enc.outputs(outs)
    after = {}
    for n, t in m.state_dict().items():
        if not same(t.detach(), T[sample["state_dict"][n]["tensor"]]):
            after[n] = enc.store(t, f"after.{n}")
    sample["state_dict_after"] = after

    gen = torch.Generator().manual_seed(stable_int("cotangent", seed, cls.__name__, sid) % 2**62)
    diff = set(differentiable(outs))
    sample["cotangents"] = [
        enc.store(torch.randn(o.shape, generator=gen, dtype=o.dtype), f"cot.{i}") if i in diff else None
        for i, o in enumerate(outs)
    ]
    cots = [None if k is None else T[k] for k in sample["cotangents"]]
    gi, gp = module_gradients(m, dec, outs, cots)
    sample["grads"] = {p: None if g is None else enc.store(g, f"grad.{p}") for p, g in gi.items()}
    sample["param_grads"] = {p: None if g is None else enc.store(g, f"pgrad.{p}") for p, g in gp.items()}

    base = info_tolerances(info, dname)
    scale = grad_scale = 1.0
    if dname == "float32":
        def run(jitter):
            m2, d, o = run_module(cls, sample, T, dname, True, jitter)
            i2, p2 = module_gradients(m2, d, o, [d.convert(c) for c in cots])
            state = m2.state_dict()
            return ([t for t in o if isinstance(t, torch.Tensor)], [state[n] for n in after],
                    [i2[p] for p in gi] + [p2[p] for p in gp])

        scale, grad_scale = float32_tolerance(
            run, [t for t in outs if isinstance(t, torch.Tensor)], [T[k] for k in after.values()],
            list(gi.values()) + list(gp.values()), base, ROUNDING_TRIALS)
    set_tolerances(sample, base, scale, grad_scale)
    if sum(t.numel() * t.element_size() for t in T.values()) > MAX_SAMPLE_BYTES:
        raise Skip("sample too large")
    return sample, T


def make_modules(output):
    from torch.testing._internal.common_modules import module_db

    by_name = {i.module_cls.__name__: i for i in module_db}
    for name in output.catalog.modules:
        if name not in by_name:
            output.skip("modules", "not in module_db", name)
            continue
        if not output.wanted(name):
            continue
        info = by_name[name]
        items = []
        modes = [True, False] if info.train_and_eval_differ else [True]
        for dname in ("float64", "float32"):
            for training in modes:
                seed_everything("module values", output.seed, name, dname, training)
                inputs = list(info.module_inputs_func(
                    info, device="cpu", dtype=DTYPES[dname], requires_grad=True, training=training))
                for i in spread(len(inputs), output.cap // len(modes), name, "modules"):
                    base_id = f"{i:03d}"
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            sample, tensors = build_module_sample(
                                info, inputs[i], base_id, training, dname, output.seed)
                    except Skip as e:
                        output.skip("modules", str(e), f"{name} {i} {dname}")
                        continue
                    except Exception as e:
                        output.skip("modules", f"PyTorch raised {type(e).__name__}",
                                 f"{name} {i} {dname} training={training}: {str(e).splitlines()[0][:120]}")
                        continue
                    items.append((sample, tensors))
        output.write("modules", name, {"module": name, "class": f"torch.nn.{name}"}, items)
