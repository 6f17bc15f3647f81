"""Values of PyTorch for schedules, averages, optimizers, parametrizations and pruning.

    python tools/training_tools.py crates/nn/tests/samples/training_tools.safetensors

`crates/nn/tests/training_tools.rs` compares with them. Optimizers that PyTorch does not have are written out here, from their
papers.
"""

import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim import swa_utils
from torch.optim import lr_scheduler as L

torch.set_default_dtype(torch.float64)
OUT = {}


def put(name, value):
    value = torch.as_tensor(value)
    OUT[name] = value.detach().clone().contiguous()


# Schedules: the learning rate, and the momentum where it changes, at each of 70 steps.

STEPS = 70


def schedule(name, make, momentum=False, before=None):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05, momentum=0.9)
    first = before(optimizer) if before else None
    scheduler = make(optimizer)
    lrs, momenta = [], []
    for step in range(STEPS):
        group = optimizer.param_groups[0]
        lrs.append(group["lr"])
        momenta.append(group["momentum"])
        optimizer.step()
        (first if first and step < 20 else scheduler).step()
    put(f"schedule.{name}.lr", lrs)
    if momentum:
        put(f"schedule.{name}.momentum", momenta)


def schedules():
    cyclic = dict(base_lr=0.01, max_lr=0.1)
    schedule("cyclic", lambda o: L.CyclicLR(o, **cyclic, step_size_up=7), True)
    schedule("cyclic_uneven", lambda o: L.CyclicLR(o, **cyclic, step_size_up=5, step_size_down=8, mode="triangular2"), True)
    schedule(
        "cyclic_exp",
        lambda o: L.CyclicLR(o, **cyclic, step_size_up=6, mode="exp_range", gamma=0.97, base_momentum=0.7, max_momentum=0.95),
        True,
    )
    schedule("cyclic_scaled", lambda o: L.CyclicLR(o, **cyclic, step_size_up=4, scale_fn=lambda c: 1 / (1 + c) ** 0.5), True)
    schedule(
        "cyclic_steps",
        lambda o: L.CyclicLR(
            o, **cyclic, step_size_up=4, scale_fn=lambda i: 0.5 ** (i / 9), scale_mode="iterations", cycle_momentum=False
        ),
        True,
    )
    schedule("multiplicative", lambda o: L.MultiplicativeLR(o, lambda step: 1 - 0.02 * (step % 7)))
    schedule(
        "chained",
        lambda o: L.ChainedScheduler(
            [L.LinearLR(o, 0.25, total_iters=6), L.ExponentialLR(o, 0.97), L.MultiStepLR(o, [15, 40], 0.5)]
        ),
    )
    schedule(
        "chained_cosine",
        lambda o: L.ChainedScheduler([L.ConstantLR(o, 0.1, 20), L.StepLR(o, 9, 0.8), L.CosineAnnealingLR(o, 90)]),
    )
    schedule("swa_cos", lambda o: swa_utils.SWALR(o, 0.2))
    schedule("swa_linear", lambda o: swa_utils.SWALR(o, 0.01, anneal_epochs=33, anneal_strategy="linear"))
    schedule("swa_at_once", lambda o: swa_utils.SWALR(o, 0.01, anneal_epochs=0))
    schedule("swa_after_decay", lambda o: swa_utils.SWALR(o, 0.2), before=lambda o: L.ExponentialLR(o, 0.9))
    schedules_of_groups()


def groups(name, make, adam=False):
    bases = [0.05, 0.2, 0.001]
    parts = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in bases]
    optimizer = torch.optim.AdamW(parts) if adam else torch.optim.SGD(parts, lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    lrs, momenta = [], []
    for _ in range(300):
        lrs.append([group["lr"] for group in optimizer.param_groups])
        momenta.append([group["betas"][0] if adam else group["momentum"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    put(f"groups.{name}.lr", lrs)
    put(f"groups.{name}.momentum", momenta)


def schedules_of_groups():
    """Three groups of parameters, 300 steps."""

    def cyclic(o, **options):
        return L.CyclicLR(o, 0.01, 0.1, step_size_up=11, step_size_down=17, **options)

    groups("cyclic", lambda o: cyclic(o))
    groups("cyclic_adam", lambda o: cyclic(o, mode="exp_range", gamma=0.99, base_momentum=0.7), adam=True)
    groups(
        "chained",
        lambda o: L.ChainedScheduler(
            [
                L.LinearLR(o, 0.25, total_iters=20),
                L.PolynomialLR(o, 250, 2.0),
                L.ExponentialLR(o, 0.99),
                L.CosineAnnealingLR(o, 400),
            ]
        ),
    )
    groups("swa", lambda o: swa_utils.SWALR(o, 0.02, anneal_epochs=200))
    groups("swa_linear", lambda o: swa_utils.SWALR(o, 0.02, anneal_epochs=250, anneal_strategy="linear"))


# Averages of a model whose weights change by a formula.


def averages():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.bn = nn.Linear(3, 2), nn.BatchNorm1d(2)

        def forward(self, x):
            return self.bn(self.fc(x))

    torch.manual_seed(0)
    x = torch.randn(4, 6, 3)
    put("average.x", x)
    kinds = {
        "equal": dict(),
        "equal_buffers": dict(use_buffers=True),
        "ema": dict(multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9)),
        "ema_buffers": dict(multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True),
    }
    for name, options in kinds.items():
        torch.manual_seed(1)
        net = Net()
        if name == "equal":
            for key, value in net.state_dict().items():
                put(f"average.start.{key}", value)
        averaged = swa_utils.AveragedModel(net, **options)
        for step in range(5):
            net(x[step % 4])
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(torch.sin(p * 3 + step))
            averaged.update_parameters(net)
        for key, value in averaged.module.state_dict().items():
            if value.is_floating_point():
                put(f"average.{name}.{key}", value)
        if name == "equal":
            swa_utils.update_bn(list(x), averaged)
            for key in ["running_mean", "running_var"]:
                put(f"average.update_bn.bn.{key}", getattr(averaged.module.bn, key))


# Optimizers: parameters after each of 12 steps with the gradient of `sum(a (p - b)^2) / 2 + sum(sin(p step))`.

SHAPES = {"matrix": (4, 3), "vector": (5,), "kernel": (2, 3, 2, 2)}


def setup():
    torch.manual_seed(2)
    return [[torch.randn(s) for s in SHAPES.values()], [torch.rand(s) + 0.1 for s in SHAPES.values()], [torch.randn(s) for s in SHAPES.values()]]


def gradient(p, a, b, step):
    return a * (p - b) + step * torch.cos(p * step)


def record(name, stepper, steps=12):
    start, a, b = setup()
    params = [nn.Parameter(p.clone()) for p in start]
    states = [[] for _ in params]
    step_of = stepper(params)
    for step in range(1, steps + 1):
        for p, a_, b_ in zip(params, a, b):
            p.grad = gradient(p.detach(), a_, b_, step)
        step_of(step)
        for p, kept in zip(params, states):
            kept.append(p.detach().clone())
    for shape, kept in zip(SHAPES, states):
        put(f"optimizer.{name}.{shape}", torch.stack(kept))


def by_torch(make):
    def stepper(params):
        optimizer = make(params)
        return lambda step: optimizer.step()

    return stepper


def lion(lr, betas, weight_decay):
    """Algorithm 2 of Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"."""

    def stepper(params):
        means = [torch.zeros_like(p) for p in params]

        @torch.no_grad()
        def step_of(step):
            for p, m in zip(params, means):
                c = betas[0] * m + (1 - betas[0]) * p.grad
                p.sub_(lr * (c.sign() + weight_decay * p))
                m.copy_(betas[1] * m + (1 - betas[1]) * p.grad)

        return step_of

    return stepper


def schedule_free(lr, beta1, warmup, weight_decay, adam=None):
    """Defazio et al. 2024, "The Road Less Scheduled": equations 3 to 5, and algorithm 1 with `adam = (beta2, eps)`.

    Parameters hold y; after the last step of the record, x is put.
    """

    def stepper(params):
        xs, zs, vs = ([t.detach().clone() for t in params] for _ in range(3))
        for v in vs:
            v.zero_()
        total = 0.0

        @torch.no_grad()
        def step_of(t):
            nonlocal total
            rate = lr * min(1.0, t / warmup) if warmup else lr
            if adam:
                rate *= (1 - adam[0] ** t) ** 0.5
            total += rate**2
            c = rate**2 / total
            for y, x, z, v in zip(params, xs, zs, vs):
                g = y.grad
                if adam:
                    v.mul_(adam[0]).add_((1 - adam[0]) * g * g)
                    g = g / (v.sqrt() + adam[1])
                z.sub_(rate * g + rate * weight_decay * y)
                x.copy_((1 - c) * x + c * z)
                y.copy_((1 - beta1) * z + beta1 * x)

        step_of.averages = xs
        return step_of

    return stepper


def with_averages(name, stepper):
    held = []

    def keep(params):
        held.append(stepper(params))
        return held[0]

    record(name, keep)
    for shape, x in zip(SHAPES, held[0].averages):
        put(f"optimizer.{name}.averages.{shape}", x)


def optimizers():
    for kind, values in zip(["start", "a", "b"], setup()):
        for shape, value in zip(SHAPES, values):
            put(f"optimizer.{kind}.{shape}", value)
    adafactor = torch.optim.Adafactor
    record("adafactor", by_torch(lambda p: adafactor(p, lr=0.05)))
    record("adafactor_all", by_torch(lambda p: adafactor(p, lr=0.5, beta2_decay=-0.6, eps=(1e-3, 1e-2), d=1.5, weight_decay=0.1)))
    record("adafactor_max", by_torch(lambda p: adafactor(p, lr=0.05, maximize=True)))
    record("lion", lion(0.03, (0.9, 0.99), 0.0))
    record("lion_decay", lion(0.02, (0.8, 0.95), 0.2))
    with_averages("schedule_free_sgd", schedule_free(0.1, 0.9, 0, 0.0))
    with_averages("schedule_free_sgd_all", schedule_free(0.05, 0.8, 5, 0.1))
    with_averages("schedule_free_adamw", schedule_free(0.05, 0.9, 0, 0.0, (0.999, 1e-8)))
    with_averages("schedule_free_adamw_all", schedule_free(0.1, 0.95, 4, 0.05, (0.9, 1e-6)))


# Rows of a table: sparse gradients.


def sparse():
    torch.manual_seed(3)
    start, out = torch.randn(9, 4), torch.randn(6, 2, 3, 4)
    indices = torch.randint(0, 8, (6, 2, 3))
    put("sparse.start", start)
    put("sparse.out", out)
    put("sparse.indices", indices)
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
        "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.05),
        "sparse_adam": lambda p: torch.optim.SparseAdam(p, lr=0.1, betas=(0.8, 0.9)),
    }
    for name, make in makers.items():
        weight = nn.Parameter(start.clone())
        optimizer = make([weight])
        kept = []
        for i, o in zip(indices, out):
            optimizer.zero_grad()
            # Two look-ups of one table in each step.
            for j, part in zip(i, o):
                (nn.functional.embedding(j, weight, padding_idx=2, sparse=True) * part).sum().backward()
            optimizer.step()
            kept.append(weight.detach().clone())
        put(f"sparse.{name}", torch.stack(kept))


# Parametrizations: a state, an input, and the output, the gradients and the state after the pass.


def parametrized(name, layer, x, mode=True):
    layer.train(mode)
    for key, value in layer.state_dict().items():
        put(f"parametrized.{name}.before.{key}", value)
    put(f"parametrized.{name}.x", x)
    y = layer(x)
    put(f"parametrized.{name}.y", y)
    (y * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)).sum().backward()
    for key, p in layer.named_parameters():
        put(f"parametrized.{name}.grad.{key}", p.grad)
    for key, value in layer.state_dict().items():
        put(f"parametrized.{name}.after.{key}", value)


def parametrizations_():
    torch.manual_seed(4)
    weight_norm, spectral, orthogonal = (getattr(parametrizations, n) for n in ["weight_norm", "spectral_norm", "orthogonal"])
    vectors, images = torch.randn(6, 5), torch.randn(2, 3, 6, 5)
    conv = lambda: nn.Conv2d(3, 4, (3, 2))
    transposed = lambda: nn.ConvTranspose2d(3, 4, (3, 2))
    parametrized("weight_norm_linear", weight_norm(nn.Linear(5, 4)), vectors)
    parametrized("weight_norm_columns", weight_norm(nn.Linear(5, 4), dim=1), vectors)
    parametrized("weight_norm_whole", weight_norm(nn.Linear(5, 4), dim=None), vectors)
    parametrized("weight_norm_conv", weight_norm(conv()), images)
    parametrized("weight_norm_bias", weight_norm(nn.Linear(5, 4), "bias"), vectors)
    parametrized("spectral_norm_linear", spectral(nn.Linear(5, 4)), vectors)
    parametrized("spectral_norm_eval", spectral(nn.Linear(5, 4)), vectors, False)
    parametrized("spectral_norm_conv", spectral(conv(), n_power_iterations=3), images)
    parametrized("spectral_norm_transposed", spectral(transposed()), images)
    parametrized("spectral_norm_bias", spectral(nn.Linear(5, 4), "bias"), vectors)
    for kind in ["matrix_exp", "cayley", "householder"]:
        for shape in [(5, 5), (5, 4), (5, 7)]:
            layer = orthogonal(nn.Linear(*shape), orthogonal_map=kind)
            with torch.no_grad():
                for p in layer.parametrizations.parameters():
                    p.add_(0.3 * torch.randn_like(p))
            parametrized(f"orthogonal_{kind}_{shape[1]}_{shape[0]}", layer, vectors)
    layer = orthogonal(nn.Linear(5, 4), orthogonal_map="householder", use_trivialization=False)
    parametrized("orthogonal_plain", layer, vectors)


# Pruning: masks, step by step.


def pruning():
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(6, 5))
    for key, value in net.state_dict().items():
        put(f"prune.start.{key}", value)
    scores = torch.rand(5, 6)
    put("prune.scores", scores)
    mask = (torch.rand(5, 6) > 0.2).to(torch.get_default_dtype())
    put("prune.mask", mask)
    kept = lambda name: [put(f"prune.{name}.{key}", value) for key, value in net.state_dict().items()]
    prune.l1_unstructured(net[1], "weight", 0.3)
    kept("l1")
    prune.l1_unstructured(net[1], "weight", 5, importance_scores=scores)
    kept("l1_scores")
    prune.ln_structured(net[0], "weight", 1, n=2, dim=0)
    kept("ln")
    prune.ln_structured(net[1], "weight", 0.5, n=float("inf"), dim=1)
    kept("ln_columns")
    prune.custom_from_mask(net[1], "weight", mask)
    kept("custom")
    parameters = [(net[0], "weight"), (net[1], "weight"), (net[1], "bias")]
    prune.global_unstructured(parameters, prune.L1Unstructured, amount=0.4)
    kept("global")
    x = torch.randn(3, 6)
    put("prune.x", x)
    # The hooks run before the forward pass.
    y = net[1](x)
    put("prune.y", y)
    (y * y).sum().backward()
    put("prune.grad", net[1].weight_orig.grad)
    prune.remove(net[1], "weight")
    kept("removed")


for part in [schedules, averages, optimizers, sparse, parametrizations_, pruning]:
    part()
save_file(OUT, sys.argv[1])
print(f"{len(OUT)} tensors, {sum(t.numel() * t.element_size() for t in OUT.values())} bytes")
