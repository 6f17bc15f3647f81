"""Times one training step (zero_grad, forward, cross-entropy, backward, SGD step) in PyTorch.

  python tools/bench_torch.py --model lenet --batch 64 --threads 2 --steps 50

Prints one JSON line for each memory format tried; the best of them is what Tapegrad is
measured against.
"""
import argparse
import json
import time

import torch
import torch.nn.functional as F

from models import WORKLOADS


def measure(model_name, batch, threads, steps, channels_last):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    build, shape, default_batch = WORKLOADS[model_name]
    batch = batch or default_batch
    model, x = build(), torch.randn(batch, *shape)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    target = torch.arange(batch) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

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
        "format": "channels_last" if channels_last else "contiguous",
        "model": model_name,
        "batch": batch,
        "threads": threads,
        "steps": steps,
        "median_ms": times[len(times) // 2] * 1e3,
        "min_ms": times[0] * 1e3,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, choices=WORKLOADS)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    for channels_last in [False, True] if len(WORKLOADS[args.model][1]) == 3 else [False]:
        print(json.dumps(measure(args.model, args.batch, args.threads, args.steps, channels_last)), flush=True)
