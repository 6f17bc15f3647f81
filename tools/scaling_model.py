"""How long a step of data-parallel training takes on many machines, by a model on paper.

    python tools/scaling_model.py                                      # the table, for the times of docs/benchmarks.md
    python tools/scaling_model.py --figure docs/images/scaling.png     # and the figure of docs/distributed.md
    mpirun -n 1 target/release/examples/scaling --batch-size 64 | python tools/scaling_model.py --measured -

A case is the time of a step on one machine and the bytes of its gradients; `--measured` reads both from the table that
`examples/scaling` prints. The assumptions are listed in docs/distributed.md.
"""

import argparse
import math
import sys

# name: (milliseconds of a step on one machine of two threads, docs/benchmarks.md; MB of gradients, half of AdamW's states)
CASES = {
    "MLP": (0.72, 0.94),
    "LeNet-5": (1.33, 0.245),
    "VGG-11": (250.0, 36.92),
    "ResNet-18": (978.0, 44.70),
    "GPT": (28.4, 3.27),
}
NETWORKS = {"1 Gbit/s": (50e-6, 0.117e9), "10 Gbit/s": (20e-6, 1.17e9), "100 Gbit/s": (2e-6, 11.7e9)}
MACHINES = [2, 4, 8, 16, 32, 64, 128, 256]
FORWARD = 1 / 3  # of a step; the rest is the backward pass


def sum_seconds(size, machines, latency, bandwidth, algorithm):
    """The time of an all-reduce of so many bytes."""
    if machines == 1:
        return 0.0
    if algorithm == "ring":
        return 2 * (machines - 1) * (latency + size / machines / bandwidth)
    return 2 * math.ceil(math.log2(machines)) * (latency + size / bandwidth)


def bucket_sizes(total, first, bucket):
    """The bytes of the buckets in the order in which the backward pass fills them."""
    sizes = [min(first, total)]
    while sum(sizes) < total:
        sizes.append(min(bucket, total - sum(sizes)))
    return sizes


def step_seconds(compute, total, machines, network, o):
    """The time of a step whose computation takes `compute` seconds on each of the machines."""
    latency, bandwidth = network
    begin, free, filled = compute * FORWARD, 0.0, 0
    for size in bucket_sizes(total, min(o.first_bucket, o.bucket), o.bucket):
        filled += size
        ready = begin + (compute - begin) * filled / total
        start = max(ready, free)
        work = sum_seconds(size, machines, latency, bandwidth, o.algorithm)
        # While the backward pass runs, a sum advances only for a part of the time.
        hidden = max(compute - start, 0.0) * o.progress
        if work <= hidden:
            free = start + (work / o.progress if work else 0.0)
        else:
            free = max(start, compute) + work - hidden
    return max(compute, free)


def efficiencies(case, machines, network, o):
    """Of a fixed batch for each machine, and of a fixed batch for all: 1 is perfect."""
    compute, total = case[0] / 1e3, case[1] * 1e6
    weak = compute / step_seconds(compute, total, machines, network, o)
    strong = compute / machines / step_seconds(compute / machines, total, machines, network, o)
    return weak, strong


def last_above(half, values):
    """The largest number of machines up to which all values are at least this."""
    best = 1
    for machines, value in values:
        if value < half:
            break
        best = machines
    return best


def read_table(file):
    """The cases of the table that `examples/scaling` prints."""
    cases = {}
    for line in file:
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if len(cells) == 9 and cells[1].replace(".", "").isdigit():
            cases[cells[0]] = (float(cells[1]), float(cells[8].split(",")[0]) / 2)
    return cases


def print_tables(cases, o):
    for net, network in NETWORKS.items():
        print(f"\n{net}, latency {network[0] * 1e6:.0f} us, {o.algorithm}, buckets of {o.bucket >> 10} kB: ms of a step\n")
        print("| model | 1 | " + " | ".join(map(str, MACHINES)) + " | half, batch for each machine | half, batch for all |")
        print("|---" * (len(MACHINES) + 4) + "|")
        for name, case in cases.items():
            steps = [1e3 * step_seconds(case[0] / 1e3, case[1] * 1e6, n, network, o) for n in MACHINES]
            both = [efficiencies(case, n, network, o) for n in MACHINES]
            stops = [last_above(0.5, zip(MACHINES, column)) for column in zip(*both)]
            row = [f"{case[0]:.4g}"] + [f"{s:.4g}" for s in steps] + [str(s) for s in stops]
            print(f"| {name} | " + " | ".join(row) + " |")


def draw(cases, o):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(NETWORKS), figsize=(12, 6.4), sharex=True, sharey=True)
    kinds = ["same batch for each machine", "same batch for all together"]
    for column, (net, network) in enumerate(NETWORKS.items()):
        for row, kind in enumerate(kinds):
            ax = axes[row][column]
            for name, case in cases.items():
                values = [(n, efficiencies(case, n, network, o)[row]) for n in [1] + MACHINES]
                (line,) = ax.plot(*zip(*values), label=name)
                stop = last_above(0.5, values[1:])
                ax.plot(stop, dict(values)[stop], "o", color=line.get_color())
            ax.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
            ax.set_xscale("log", base=2)
            ax.set_xticks([1] + MACHINES, [str(n) for n in [1] + MACHINES])
            ax.set_ylim(0, 1.05)
            ax.grid(alpha=0.3)
            if row == 0:
                ax.set_title(f"{net}, {network[0] * 1e6:.0f} µs")
            else:
                ax.set_xlabel("machines")
            if column == 0:
                ax.set_ylabel(f"efficiency,\n{kind}")
    axes[0][2].legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(o.figure, dpi=100)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--measured", metavar="FILE", help="a table of examples/scaling, - for the standard input")
    p.add_argument("--algorithm", choices=["ring", "tree"], default="ring")
    p.add_argument("--bucket", type=int, default=4 << 20, help="bytes of a bucket (default 4 MB)")
    p.add_argument("--first-bucket", type=int, default=512 << 10, help="bytes of the first one (default 512 kB)")
    p.add_argument("--progress", type=float, default=0.7, help="the part of the backward pass in which sums advance (default 0.7)")
    p.add_argument("--figure", metavar="PNG", help="draw the efficiencies (needs matplotlib)")
    o = p.parse_args()
    cases = CASES
    if o.measured:
        cases = read_table(sys.stdin if o.measured == "-" else open(o.measured))
        if not cases:
            p.error(f"{o.measured} has no table of examples/scaling")
    print_tables(cases, o)
    if o.figure:
        draw(cases, o)


if __name__ == "__main__":
    main()
