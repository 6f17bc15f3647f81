"""The folder of samples: a JSON and a safetensors file for each name, and a summary."""
import collections
import json
import os
import re

import torch
from safetensors.torch import save_file

FORMAT = 1


class Output:
    """Where samples go, what is wanted, and what was skipped and why."""

    def __init__(self, root, catalog, seed, cap, only=None):
        self.root = root
        self.catalog = catalog
        self.seed = seed
        self.cap = cap
        self.only = re.compile(only) if only else None
        self.counts = collections.defaultdict(dict)
        self.skipped = collections.defaultdict(collections.Counter)
        self.skip_examples = {}

    def wanted(self, name):
        return self.only is None or self.only.search(name)

    def skip(self, suite, reason, where):
        self.skipped[suite][reason] += 1
        self.skip_examples.setdefault(f"{suite}: {reason}", where)

    def write(self, suite, name, head, items, with_tensors=True):
        """items: (sample, tensors)"""
        if not items:
            return
        samples = [sample for sample, _ in items]
        folder = os.path.join(self.root, suite)
        os.makedirs(folder, exist_ok=True)
        head = {"format": FORMAT, "suite": suite, **head}
        if with_tensors:
            head["tensors"] = name + ".safetensors"
            save_file({k: t for _, tensors in items for k, t in tensors.items()}, os.path.join(folder, head["tensors"]))
        text = json.dumps(head, separators=(",", ":"), allow_nan=False)
        lines = [json.dumps(s, separators=(",", ":"), allow_nan=False) for s in samples]
        with open(os.path.join(folder, name + ".json"), "w") as f:
            f.write(text[:-1] + ',"samples":[\n' + ",\n".join(lines) + "\n]}\n")
        by = collections.Counter(s.get("dtype", "float64") for s in samples) if suite != "errors" else {}
        count = {"samples": len(samples), **dict(sorted(by.items()))}
        if suite == "ops":
            count["with_grads"] = sum(1 for s in samples if s.get("grads"))
            count["with_second"] = sum(1 for s in samples if "second" in s)
        self.counts[suite][name] = count

    def summary(self):
        suites = {}
        for suite, names in sorted(self.counts.items()):
            suites[suite] = {
                "files": len(names),
                "samples": sum(c["samples"] for c in names.values()),
                "by_name": dict(sorted(names.items())),
            }
        data = {
            "format": FORMAT,
            "torch": torch.__version__.split("+")[0],
            "suites": suites,
            "skipped_in_generation": {s: dict(c.most_common()) for s, c in sorted(self.skipped.items())},
            "skipped_variants": self.catalog.skipped_variants,
        }
        os.makedirs(self.root, exist_ok=True)
        with open(os.path.join(self.root, "summary.json"), "w") as f:
            json.dump(data, f, indent=1)
            f.write("\n")
        for suite, counts in suites.items():
            print(f"{suite}: {counts['samples']} samples, {counts['files']} files")
        for suite, reasons in self.skipped.items():
            for reason, n in reasons.most_common():
                print(f"skipped {suite}: {n} x {reason} (first: {self.skip_examples[f'{suite}: {reason}']})")
