"""Trains the tiny GPT of examples/gpt on the project's guide in Tapegrad and in PyTorch, with the same settings, and prints the
validation losses of several seeds: they should agree within what the seeds differ by.

  python tools/gpt_loss.py [--steps 600] [--seeds 0 1 2] [--threads 2] [--tapegrad COMMAND]
"""
import argparse
import math
import pathlib
import re
import shlex
import statistics
import subprocess
import tempfile

import torch
import torch.nn as nn
import torch.nn.functional as F

from models import GPT

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCH, BLOCK, LAYERS, LR = 12, 64, 4, 1e-3


def guide():
    """The numbers of the characters, for training and validation, and the size of the vocabulary."""
    pages = re.findall(r'include_str!\("\.\./\.\./(.*?)"\)', (ROOT / "examples/gpt/text.rs").read_text())
    text = "".join((ROOT / page).read_text() for page in pages)
    characters = sorted(set(text))
    number = {c: i for i, c in enumerate(characters)}
    tokens = torch.tensor([number[c] for c in text])
    count = len(tokens) - len(tokens) // 10
    return tokens[:count], tokens[count:], len(characters)


def make(vocab):
    model = GPT(vocab, BLOCK, LAYERS, 4, 128)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            residual = name.endswith(("c_proj.weight", "c_out.weight"))
            nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    return model


def windows(tokens, starts):
    part = lambda shift: torch.stack([tokens[s + shift : s + shift + BLOCK] for s in starts])
    return part(0), part(1).flatten()


def train(seed, steps):
    tokens, validation, vocab = guide()
    torch.manual_seed(seed)
    model = make(vocab)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    warm_up = max(1, steps // 20)
    for step in range(steps):
        part = max(0, step - warm_up) / max(1, steps - warm_up)
        falling = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * part))
        optimizer.param_groups[0]["lr"] = LR * min(falling, (step + 1) / warm_up)
        x, target = windows(tokens, torch.randint(len(tokens) - BLOCK, (BATCH,)).tolist())
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    starts = list(range(0, len(validation) - BLOCK, BLOCK))[:64]
    with torch.inference_mode():
        x, target = windows(validation, starts)
        return F.cross_entropy(model(x), target).item()


def tapegrad(command, seed, steps, threads):
    with tempfile.TemporaryDirectory() as out:
        flags = ["--preset", "tiny", "--steps", steps, "--every", steps, "--seed", seed, "--threads", threads]
        flags = [*shlex.split(command), *map(str, flags), "--lr", str(LR), "--batch-size", str(BATCH), "--out", out]
        text = subprocess.run(flags, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"validation ([\d.]+)", text).group(1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tapegrad", default="cargo run -q --release --example gpt --")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    losses = {"tapegrad": [], "torch": []}
    for seed in args.seeds:
        losses["tapegrad"].append(tapegrad(args.tapegrad, seed, args.steps, args.threads))
        losses["torch"].append(train(seed, args.steps))
        print(f"seed {seed}: tapegrad {losses['tapegrad'][-1]:.4f}, torch {losses['torch'][-1]:.4f}", flush=True)
    for name, values in losses.items():
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        print(f"{name:9} mean {statistics.mean(values):.4f}, standard deviation {spread:.4f}")
