"""Times one training step (zero_grad, forward, cross-entropy, backward, SGD step) in PyTorch; of the language models
with clipped gradients and AdamW.

  python tools/bench_torch.py --model lenet --batch 64 --threads 2 --steps 50

Prints one JSON line for each memory format tried; the best of them is what Tapegrad is
measured against.
"""
import argparse
import json
import time

import torch
import torch.nn.functional as F

from models import GPT, LANGUAGE, WORKLOADS


def images(name, batch, channels_last):
    build, shape, default_batch = WORKLOADS[name]
    batch = batch or default_batch
    model, x = build(), torch.randn(batch, *shape)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return model, optimizer, x, torch.arange(batch) % 10


def language(name, batch):
    sizes, default_batch = LANGUAGE[name]
    batch = batch or default_batch
    model, i = GPT(*sizes), torch.arange(batch * sizes[1])
    x = (i * 7 + i // 3) % sizes[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return model, optimizer, x.view(batch, -1), (i * 5 + i // 7) % sizes[0]


def measure(model_name, batch, threads, steps, channels_last):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    is_language = model_name in LANGUAGE
    work = language(model_name, batch) if is_language else images(model_name, batch, channels_last)
    model, optimizer, x, target = work

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        if is_language:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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
        "batch": len(x),
        "threads": threads,
        "steps": steps,
        "median_ms": times[len(times) // 2] * 1e3,
        "min_ms": times[0] * 1e3,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, choices=[*WORKLOADS, *LANGUAGE])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    has_images = args.model in WORKLOADS and len(WORKLOADS[args.model][1]) == 3
    for channels_last in [False, True] if has_images else [False]:
        print(json.dumps(measure(args.model, args.batch, args.threads, args.steps, channels_last)), flush=True)
