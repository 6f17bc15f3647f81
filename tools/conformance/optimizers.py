"""optimizers/: OptimizerInfo's settings, and schedules."""
import warnings

import torch

from common import flatten, stable_int
from encoding import Decoder, Encoder

OPTIMIZERS = "SGD Adam AdamW RMSprop Adagrad Adadelta Adamax NAdam RAdam Rprop ASGD LBFGS".split()
OPTIM_STEPS = 20
OPTIM_STORED = (1, 2, 5, 20)
LR_STEPS = 40


def lbfgs_loss(params, a, b):
    return sum((ai * (p - bi) ** 2).sum() / 2 + (p ** 4).sum() / 4 for p, ai, bi in zip(params, a, b))


def run_optimizer(name, enc, tensors):
    """step -> list of parameters"""
    dec = Decoder(tensors)
    params = [torch.nn.Parameter(dec.value(p, "p")) for p in enc["params"]]
    kwargs = {k: dec.value(v, k) for k, v in enc["kwargs"].items()}
    opt = getattr(torch.optim, name)(params, **kwargs)
    out = {}
    if name == "LBFGS":
        a = [tensors[k] for k in enc["loss"]["a"]]
        b = [tensors[k] for k in enc["loss"]["b"]]
        sign = -1.0 if kwargs.get("maximize") else 1.0

        def closure():
            opt.zero_grad()
            loss = sign * lbfgs_loss(params, a, b)
            loss.backward()
            return loss
    else:
        grads = [tensors[k] for k in enc["grads"]]
        closure = None
    for step in range(1, OPTIM_STEPS + 1):
        if closure is None:
            for p, g in zip(params, grads):
                p.grad = g[step - 1].clone()
            opt.step()
        else:
            opt.step(closure)
        if step in OPTIM_STORED:
            out[step] = [p.detach().clone() for p in params]
    return out


def make_optimizers(output):
    from torch.testing._internal.common_optimizers import optim_db

    by_name = {i.optim_cls.__name__: i for i in optim_db}
    for name in OPTIMIZERS:
        if name not in by_name or not output.wanted(name):
            continue
        items = []
        for i, oi in enumerate(by_name[name].optim_inputs_func(device="cpu")):
            base_id = f"{i:03d}"
            sid = f"o{base_id}"
            flags = [k for k in ("capturable", "foreach", "fused", "differentiable") if oi.kwargs.get(k)]
            if flags or any(isinstance(t, torch.Tensor) for v in oi.kwargs.values() for t in flatten(v)):
                reason = f"{flags[0]}=True" if flags else "tensor hyper-parameter"
                output.skip("optimizers", reason, f"{name} {oi.desc}")
                continue
            enc = Encoder(sid)
            gen = torch.Generator().manual_seed(stable_int("optimizer", output.seed, name, sid) % 2**62)

            def randn(*shape):
                return torch.randn(shape, generator=gen, dtype=torch.float64)

            kwargs = {k: float(v) if k == "lr" else v for k, v in oi.kwargs.items()}
            shapes = ((5, 3), (7,))
            sample = {"id": sid, "desc": oi.desc, "dtype": "float64"}
            sample["kwargs"] = {k: enc.value(v, k) for k, v in kwargs.items()}
            sample["params"] = [enc.tensor(randn(*s), f"param.{j}") for j, s in enumerate(shapes)]
            if name == "LBFGS":
                sample["loss"] = {
                    "formula": "sum over the parameters p of sum(a * (p - b)**2) / 2 + sum(p**4) / 4, "
                               "negated if maximize is true; one closure call evaluates it and its gradient",
                    "a": [enc.store(randn(*s).abs() + 0.5, f"loss.a.{j}") for j, s in enumerate(shapes)],
                    "b": [enc.store(randn(*s), f"loss.b.{j}") for j, s in enumerate(shapes)],
                }
            else:
                sample["grads"] = [enc.store(randn(OPTIM_STEPS, *s), f"grad.{j}") for j, s in enumerate(shapes)]
            try:
                result = run_optimizer(name, sample, enc.tensors)
            except Exception as e:
                output.skip("optimizers", f"PyTorch raised {type(e).__name__}", f"{name} {oi.desc}: {str(e)[:120]}")
                continue
            if not all(torch.isfinite(p).all() for ps in result.values() for p in ps):
                output.skip("optimizers", "diverges", f"{name} {oi.desc}")
                continue
            sample["steps"] = {
                str(s): [enc.store(p, f"step.{s}.{j}") for j, p in enumerate(ps)] for s, ps in result.items()}
            sample["rtol"], sample["atol"] = 1e-7, 1e-9
            items.append((sample, enc.tensors))
        output.write("optimizers", name, {"optimizer": name, "class": f"torch.optim.{name}"}, items)


def scheduler_configs():
    metrics = [1.0, 0.9, 0.8, 0.8, 0.79, 0.8, 0.81, 0.82, 0.8, 0.78, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.69, 0.69, 0.69,
               0.69, 0.69, 0.69, 0.69, 0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.4, 0.41, 0.42, 0.43, 0.44, 0.45, 0.46,
               0.47, 0.48, 0.49, 0.5]

    def sub(name, **kwargs):
        return {"scheduler": name, "kwargs": kwargs}

    return [
        (0.1, "StepLR", dict(step_size=3, gamma=0.5), {}),
        (0.05, "StepLR", dict(step_size=10), {}),
        (0.1, "StepLR", dict(step_size=1, gamma=0.9), {}),
        (0.1, "MultiStepLR", dict(milestones=[2, 5, 9], gamma=0.1), {}),
        (0.05, "MultiStepLR", dict(milestones=[10, 10, 30], gamma=0.5), {}),
        (0.3, "MultiStepLR", dict(milestones=[1, 39]), {}),
        (0.1, "ExponentialLR", dict(gamma=0.9), {}),
        (2.0, "ExponentialLR", dict(gamma=0.99), {}),
        (0.1, "CosineAnnealingLR", dict(T_max=10), {}),
        (0.05, "CosineAnnealingLR", dict(T_max=40, eta_min=1e-4), {}),
        (0.1, "CosineAnnealingLR", dict(T_max=7, eta_min=0.01), {}),
        (0.1, "CosineAnnealingWarmRestarts", dict(T_0=10), {}),
        (0.05, "CosineAnnealingWarmRestarts", dict(T_0=5, T_mult=2, eta_min=1e-3), {}),
        (0.1, "CosineAnnealingWarmRestarts", dict(T_0=1, T_mult=3), {}),
        (0.1, "OneCycleLR", dict(max_lr=0.5, total_steps=50), {}),
        (0.1, "OneCycleLR", dict(max_lr=0.5, total_steps=45, pct_start=0.2, anneal_strategy="linear"), {}),
        (0.1, "OneCycleLR", dict(max_lr=1.0, epochs=5, steps_per_epoch=10, three_phase=True), {}),
        (0.1, "OneCycleLR", dict(max_lr=0.3, total_steps=60, div_factor=10.0, final_div_factor=100.0,
                                 base_momentum=0.8, max_momentum=0.9), {}),
        (0.1, "OneCycleLR", dict(max_lr=0.3, total_steps=40, cycle_momentum=False), {}),
        (0.1, "LinearLR", dict(), {}),
        (0.1, "LinearLR", dict(start_factor=0.5, end_factor=1.0, total_iters=20), {}),
        (0.1, "LinearLR", dict(start_factor=1.0, end_factor=0.1, total_iters=30), {}),
        (0.1, "ReduceLROnPlateau", dict(mode="min", factor=0.5, patience=2), {"metrics": metrics}),
        (0.1, "ReduceLROnPlateau", dict(mode="max", factor=0.5, patience=3, cooldown=2), {"metrics": metrics}),
        (0.1, "ReduceLROnPlateau", dict(mode="min", factor=0.1, patience=1, threshold=0.05, threshold_mode="abs",
                                        min_lr=1e-3), {"metrics": metrics}),
        (0.1, "ReduceLROnPlateau", dict(mode="min", factor=0.2, patience=0, threshold=0.1, threshold_mode="rel",
                                        cooldown=1, min_lr=1e-5, eps=1e-6), {"metrics": metrics}),
        (0.1, "PolynomialLR", dict(total_iters=10, power=1.0), {}),
        (0.1, "PolynomialLR", dict(total_iters=40, power=2.0), {}),
        (0.2, "PolynomialLR", dict(total_iters=25, power=0.5), {}),
        (0.1, "SequentialLR", dict(milestones=[5]), {"schedulers": [
            sub("LinearLR", start_factor=0.1, total_iters=5), sub("CosineAnnealingLR", T_max=35)]}),
        (0.1, "SequentialLR", dict(milestones=[10]), {"schedulers": [
            sub("LinearLR", start_factor=0.01, end_factor=1.0, total_iters=10),
            sub("CosineAnnealingLR", T_max=30, eta_min=1e-3)]}),
        (0.1, "SequentialLR", dict(milestones=[4, 20]), {"schedulers": [
            sub("LinearLR", start_factor=0.25, total_iters=4), sub("CosineAnnealingLR", T_max=16),
            sub("ExponentialLR", gamma=0.9)]}),
    ]


def run_scheduler(enc):
    """Learning rate (and momentum) in force at steps 0..39, then after each of 40 steps."""
    from torch.optim import lr_scheduler

    dec = Decoder({})

    def kw(d):
        return {k: dec.value(v, k) for k, v in d.items()}

    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = torch.optim.SGD([p], lr=float(enc["base_lr"]["float"]), momentum=0.9)
    cls = getattr(lr_scheduler, enc["scheduler"])
    if "schedulers" in enc:
        parts = [getattr(lr_scheduler, s["scheduler"])(opt, **kw(s["kwargs"])) for s in enc["schedulers"]]
        sch = cls(opt, parts, **kw(enc["kwargs"]))
    else:
        sch = cls(opt, **kw(enc["kwargs"]))
    lrs, moms = [], []
    for i in range(LR_STEPS):
        lrs.append(float(opt.param_groups[0]["lr"]))
        moms.append(float(opt.param_groups[0]["momentum"]))
        opt.step()
        if i + 1 < LR_STEPS:
            sch.step(enc["metrics"][i]) if "metrics" in enc else sch.step()
    return lrs, moms


def make_schedulers(output):
    if not output.wanted("lr_schedulers"):
        return
    items = []
    enc = Encoder("lr")
    for i, (lr, name, kwargs, more) in enumerate(scheduler_configs()):
        base_id = f"{i:03d}"
        sample = {"id": f"lr{base_id}", "scheduler": name, "base_lr": {"float": lr},
                  "kwargs": {k: enc.value(v, k) for k, v in kwargs.items()}}
        if "metrics" in more:
            sample["metrics"] = more["metrics"]
        if "schedulers" in more:
            sample["schedulers"] = [
                {"scheduler": s["scheduler"], "kwargs": {k: enc.value(v, k) for k, v in s["kwargs"].items()}}
                for s in more["schedulers"]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lrs, moms = run_scheduler(sample)
        sample["lrs"] = lrs
        if len(set(moms)) > 1:
            sample["momentums"] = moms
        sample["rtol"], sample["atol"] = 1e-9, 1e-12
        items.append((sample, {}))
    head = {"optimizer": "SGD", "momentum": {"float": 0.9}}
    output.write("optimizers", "lr_schedulers", head, items, with_tensors=False)
