"""Tapegrad and PyTorch side by side, in turns, on the same machine and the same work.

  python tools/compare.py [--threads 2] [--rounds 3] [--tuned] [--tapegrad COMMAND] [MODEL ...]

For each model it alternates the two programs (A B A B ...) and prints the ratio of their medians,
Tapegrad / best PyTorch memory format: below 1.0 Tapegrad is faster. Run it from the project's root.
COMMAND is Tapegrad's program (default: cargo run -q --release --example train_step --); it takes --model --batch
--threads --steps and prints one JSON line with "median_ms". Names with -eval are latencies: the forward pass alone (--eval).
--compile also tries torch.compile.
--tuned gives PyTorch jemalloc with huge pages and no decay (Debian: apt-get install libjemalloc2), which
spares it most page faults: the best PyTorch that an expert would set up.
"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

STEPS = {
    "mlp": 300, "lenet": 200, "cnn3": 50, "vgg11": 6, "resnet18": 4,
    "resnet18-224": 6, "resnet50-224": 3, "mobilenetv2-224": 6, "lstm": 10,
    "gpt-tiny": 40, "gpt-small": 4, "vit": 5, "unet": 5, "dcgan": 4,
    "cartpole": 500, "pinn": 300, "pinn-f64": 200,
}
BATCH = {
    "mlp": 64, "mlp-batch1": 1, "lenet": 64, "cnn3": 50, "vgg11": 128, "resnet18": 128,
    "resnet18-224": 8, "resnet50-224": 8, "mobilenetv2-224": 8, "lstm": 32,
    "gpt-tiny": 12, "gpt-small": 8, "vit": 32, "unet": 8, "dcgan": 32,
    "cartpole": 32, "pinn": 256, "pinn-f64": 256,
    "lenet-eval": 1, "resnet18-224-eval": 1, "gpt-small-eval": 1,
}
EVAL_STEPS = {"lenet": 500, "resnet18-224": 20, "gpt-small": 100}
TUNED = {
    "LD_PRELOAD": "libjemalloc.so.2",
    "MALLOC_CONF": "oversize_threshold:1,background_thread:true,metadata_thp:auto,"
    "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always",
}


def run(command, extra_environment={}):
    environment = {**os.environ, **extra_environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return min(line["median_ms"] for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(BATCH))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tapegrad", default="cargo run -q --release --example train_step --")
    args = parser.parse_args()
    here = pathlib.Path(__file__).resolve().parent
    torch = [sys.executable, str(here / "bench_torch.py")]
    print(f"{'model':17} {'batch':>5} {'tapegrad ms':>12} {'torch ms':>10} {'ratio':>7}   rounds")
    for name in args.models or BATCH:
        model, evaluate = name.removesuffix("-batch1").removesuffix("-eval"), name.endswith("-eval")
        flags = ["--model", model, "--batch", str(BATCH[name]), "--threads", str(args.threads)]
        flags += ["--steps", str((EVAL_STEPS if evaluate else STEPS)[model])] + ["--eval"] * evaluate
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(run(shlex.split(args.tapegrad) + flags))
            theirs.append(run(torch + flags + ["--compile"] * args.compile, TUNED if args.tuned else {}))
        ratios = [a / b for a, b in zip(ours, theirs)]
        print(
            f"{name:17} {BATCH[name]:5} {statistics.median(ours):12.3f} {statistics.median(theirs):10.3f} "
            f"{statistics.median(ratios):7.3f}   " + " ".join(f"{r:.2f}" for r in ratios),
            flush=True,
        )
