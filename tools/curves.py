"""Loss curves that another library must reproduce: same weights, same batch, same optimizer.

Nothing random is involved. `fill(shape, salt, bound)` gives element i of a tensor (row-major)
    u = (i * 2654435761 + salt * 40503 + 12345) mod 2**32
    u = u xor (u >> 16);  u = u * 2246822519 mod 2**32;  u = u xor (u >> 13)
    value = (u / 2**32 * 2 - 1) * bound                      (computed in f64, then cast)
Parameters are numbered k = 0, 1, ... in state-dict order, running statistics and
num_batches_tracked left out. A weight with two or more dimensions: fill(shape, k, sqrt(3 / fan_in)),
fan_in = its elements / its first dimension. A batch-norm weight: ones. Any bias: zeros.
Input: fill(input shape, 1000, 1.732). Targets: i mod 10.
Optimizer: SGD lr=0.01, momentum=0.9, weight_decay=5e-4; loss: mean cross-entropy; training mode.

  python tools/curves.py > parity.json

parity.json: for each model and dtype, the batch, the loss before each of `steps` updates, the
gradient norm of every parameter at the first step, and the logits' sum after the last update
(evaluation mode, same batch).
"""
import json
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F

from models import WORKLOADS

BATCH = {"mlp": 16, "lenet": 16, "cnn3": 8, "vgg11": 8, "resnet18": 4}
STEPS = 10


def fill(shape, salt, bound):
    i = np.arange(math.prod(shape), dtype=np.uint64)
    u = (i * np.uint64(2654435761) + np.uint64(salt * 40503 + 12345)) & np.uint64(0xFFFFFFFF)
    u ^= u >> np.uint64(16)
    u = (u * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    u ^= u >> np.uint64(13)
    return torch.from_numpy(((u.astype(np.float64) / 2**32 * 2 - 1) * bound).reshape(shape))


def curve(name, dtype):
    build, shape, _ = WORKLOADS[name]
    model = build().to(dtype)
    with torch.no_grad():
        for k, (key, p) in enumerate(model.named_parameters()):
            if p.dim() >= 2:
                p.copy_(fill(p.shape, k, math.sqrt(3 / (p.numel() / p.shape[0]))).to(dtype))
            else:
                p.fill_(1.0 if key.endswith("weight") else 0.0)
    x = fill((BATCH[name], *shape), 1000, 1.732).to(dtype)
    target = torch.arange(BATCH[name]) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    losses, norms = [], None
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        if norms is None:
            norms = {key: p.grad.norm().item() for key, p in model.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        logits_sum = model(x).sum().item()
    return {"batch": BATCH[name], "losses": losses, "grad_norms": norms, "logits_sum": logits_sum}


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    result = {
        name: {str(d).removeprefix("torch."): curve(name, d) for d in (torch.float64, torch.float32)}
        for name in BATCH
    }
    json.dump(result, sys.stdout, indent=1)
