"""Times one training step (zero_grad, forward, loss, backward, the optimizer's step) in PyTorch, or with --eval the forward
pass alone, in evaluation mode.

  python tools/bench_torch.py --model lenet --batch 64 --threads 2 --steps 50

Prints one JSON line for each way that is tried: memory formats of images, the optimizer with a kernel for each operation or
fused, and with --compile also `torch.compile`, which takes a minute. The best of them is what Tapegrad is measured against.
examples/train_step/work.rs has the same work in Tapegrad.
"""
import argparse
import itertools
import json
import math
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

from models import GPT, LANGUAGE, WORKLOADS, Discriminator, Generator, dcgan_init

# Workloads of their own, and the sizes of their batches.
OTHERS = {"dcgan": 32, "cartpole": 32, "pinn": 256, "pinn-f64": 256}


class Way:
    """One way to run a workload."""

    def __init__(self, channels_last, fused, compiled):
        self.channels_last, self.fused, self.compiled = channels_last, fused, compiled

    def model(self, model):
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
        return torch.compile(model) if self.compiled else model

    def images(self, *shape):
        x = torch.randn(*shape)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.dim() == 4 else x

    def optimizer(self, kind, model, lr, **options):
        return kind(model.parameters(), lr=lr, fused=self.fused, **options)


def forward(model, *inputs):
    model.eval()

    def step():
        with torch.inference_mode():
            model(*inputs)

    return step


def images(name, batch, way, evaluate):
    build, shape, _ = WORKLOADS[name]
    model, x = way.model(build()), way.images(batch, *shape)
    if evaluate:
        return forward(model, x)
    if name == "unet":
        target = (torch.arange(batch * 64 * 64) // 7 % 2).view(batch, 64, 64)
        optimizer = way.optimizer(torch.optim.Adam, model, 1e-3)
    elif name == "vit":
        target, optimizer = torch.arange(batch) % 10, way.optimizer(torch.optim.AdamW, model, 1e-3)
    else:
        target = torch.arange(batch) % 10
        optimizer = way.optimizer(torch.optim.SGD, model, 0.01, momentum=0.9, weight_decay=5e-4)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        optimizer.step()

    return step


def language(name, batch, way, evaluate):
    sizes, _ = LANGUAGE[name]
    vocab, block, layers = sizes[:3]
    model, i = way.model(GPT(*sizes)), torch.arange(batch * block)
    x = ((i * 7 + i // 3) % vocab).view(batch, -1)
    if evaluate:
        past = [[] for _ in range(layers)]
        model.eval()
        with torch.inference_mode():
            model(x[:, : block // 2], past)
        token = x[:, block // 2 : block // 2 + 1].contiguous()

        def step():
            with torch.inference_mode():
                # The lists are changed, not the tensors in them.
                model(token, [list(p) for p in past])

        return step
    target = (i * 5 + i // 7) % vocab
    optimizer = way.optimizer(torch.optim.AdamW, model, 1e-3)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def dcgan(batch, way, evaluate):
    generator, noise = way.model(Generator().apply(dcgan_init)), torch.randn(batch, 100, 1, 1)
    if evaluate:
        return forward(generator, noise)
    discriminator = way.model(Discriminator().apply(dcgan_init))
    of_d, of_g = [
        way.optimizer(torch.optim.Adam, m, 2e-4, betas=(0.5, 0.999)) for m in (discriminator, generator)
    ]
    real, ones, zeros = way.images(batch, 3, 64, 64), torch.ones(batch), torch.zeros(batch)

    def loss(x, labels):
        return F.binary_cross_entropy(discriminator(x).flatten(), labels)

    def step():
        of_d.zero_grad()
        loss(real, ones).backward()
        fake = generator(noise)
        loss(fake.detach(), zeros).backward()
        of_d.step()
        of_g.zero_grad()
        loss(fake, ones).backward()
        of_g.step()

    return step


def q_network():
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def cartpole(batch, way, evaluate):
    net, target_net = way.model(q_network()), way.model(q_network())
    states, following, state = torch.randn(batch, 4), torch.randn(batch, 4), torch.randn(1, 4)
    if evaluate:
        return forward(net, states)
    target_net.load_state_dict(net.state_dict())
    reward, actions = torch.randn(batch), (torch.arange(batch) % 2).view(-1, 1)
    goes_on = (torch.arange(batch) % 8 != 0).float()
    optimizer = way.optimizer(torch.optim.Adam, net, 1e-3)

    def step():
        with torch.inference_mode():
            net(state).argmax(1).item()
        # Inference tensors take no part in what is recorded.
        with torch.no_grad():
            target = reward + 0.99 * target_net(following).max(1).values * goes_on
        optimizer.zero_grad()
        F.smooth_l1_loss(net(states).gather(1, actions).squeeze(1), target).backward()
        optimizer.step()

    return step


def pinn(batch, dtype, way, evaluate):
    net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)).to(dtype)
    points = torch.rand(batch, 2, dtype=dtype, requires_grad=True)
    border = torch.rand(batch, 2, dtype=dtype)
    if evaluate:
        return forward(way.model(net), border)
    values = torch.sin(border[:, :1] * math.pi)
    optimizer = way.optimizer(torch.optim.Adam, net, 1e-3)

    def step():
        optimizer.zero_grad()
        first = torch.autograd.grad(net(points).sum(), points, create_graph=True)[0]
        second = torch.autograd.grad(first[:, :1].sum(), points, create_graph=True)[0][:, :1]
        loss = (first[:, 1:] - second * 0.1).square().mean() + F.mse_loss(net(border), values)
        loss.backward()
        optimizer.step()

    return step


def work(name, batch, way, evaluate):
    if name in WORKLOADS:
        return images(name, batch, way, evaluate)
    if name in LANGUAGE:
        return language(name, batch, way, evaluate)
    if name == "dcgan":
        return dcgan(batch, way, evaluate)
    if name == "cartpole":
        return cartpole(batch, way, evaluate)
    return pinn(batch, torch.float64 if name == "pinn-f64" else torch.float32, way, evaluate)


def measure(name, batch, threads, steps, way, evaluate):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = work(name, batch, way, evaluate)
    for _ in range(3):
        step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    times.sort()
    return {
        "library": "torch " + torch.__version__,
        "format": "channels_last" if way.channels_last else "contiguous",
        "fused": way.fused,
        "compiled": way.compiled,
        "model": name,
        "batch": batch,
        "threads": threads,
        "steps": steps,
        "median_ms": times[len(times) // 2] * 1e3,
        "min_ms": times[0] * 1e3,
    }


def default_batch(name):
    if name in WORKLOADS:
        return WORKLOADS[name][2]
    return LANGUAGE[name][1] if name in LANGUAGE else OTHERS[name]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, choices=[*WORKLOADS, *LANGUAGE, *OTHERS])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eval", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    name, batch = args.model, args.batch or (1 if args.eval else default_batch(args.model))
    has_images = name == "dcgan" or (name in WORKLOADS and len(WORKLOADS[name][1]) == 3)
    # What is compiled has no second derivatives, and a cache that grows is compiled anew for each length.
    may_compile = args.compile and not name.startswith("pinn") and not (args.eval and name in LANGUAGE)
    ways = itertools.product(
        [False, True] if has_images else [False],
        [False] if args.eval else [False, True],
        [False, True] if may_compile else [False],
    )
    for way in ways:
        line = measure(name, batch, args.threads, args.steps, Way(*way), args.eval)
        print(json.dumps(line), flush=True)
