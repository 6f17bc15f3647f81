"""Runs examples/scaling over an emulated network: machines are network namespaces, joined by a bridge, that speak TCP.

    cargo build --release -p tapegrad-examples --features mpi --example scaling
    sudo python tools/scaling_network.py --rates none,10,1 --delays 0,0.1,1

For each rate (Gbit/s of each machine, in each direction, by tc-tbf) and delay (ms that two machines take to exchange messages) it prints the table
of examples/scaling, the round trip and the bandwidth that it has measured, and beside each time that of tools/scaling_model.py.
It needs Linux, root, Open MPI, and the programs ip, tc, ethtool and ping; the kernel needs no netem.

The delay is that of a network card which interrupts once in a while: what arrives waits for a timer. Of two machines that send to
each other and wait for the answer, both then go on once in a period, which is as long as a round trip of ping on average. All machines share the cores of this one, which also does the work of the network: at 10 Gbit/s and more,
copying and the checksums of TCP take a good part of a core.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import scaling_model

BRIDGE = "tapegrad-net"
PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "target/release/examples/scaling"
# Frames are this large, so that packets of one frame each, which the delay needs, cost little.
MTU = 65000


def machine(i):
    return f"machine{i}"


def address(i):
    return f"10.77.0.{i + 1}"


def run(*command, namespace=None, check=True):
    command = [*(("ip", "netns", "exec", namespace) if namespace else ()), *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def setting(namespace, device, name, value):
    run("sh", "-c", f"echo {value} > /sys/class/net/{device}/{name}", namespace=namespace)


class Network:
    """Machines joined by a bridge, in namespaces that end with the program."""

    def __init__(self, machines):
        self.machines = machines

    def __enter__(self):
        self.remove()
        run("ip", "netns", "add", BRIDGE)
        run("ip", "-n", BRIDGE, "link", "add", "br0", "mtu", MTU, "type", "bridge")
        run("ip", "-n", BRIDGE, "link", "set", "br0", "up")
        for i in range(self.machines):
            name, port = machine(i), f"port{i}"
            run("ip", "netns", "add", name)
            run("ip", "-n", BRIDGE, "link", "add", port, "mtu", MTU, "type", "veth",
                "peer", "name", "eth0", "mtu", MTU, "netns", name)
            run("ip", "-n", BRIDGE, "link", "set", port, "master", "br0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "address", "add", f"{address(i)}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            # ip netns exec shows this file as /etc/hosts.
            hosts = pathlib.Path("/etc/netns") / name / "hosts"
            hosts.parent.mkdir(parents=True, exist_ok=True)
            names = "".join(f"{address(j)} {machine(j)}\n" for j in range(self.machines))
            hosts.write_text(f"127.0.0.1 localhost\n{names}")
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        for name in [BRIDGE, *map(machine, range(self.machines))]:
            run("ip", "netns", "delete", name, check=False)
            shutil.rmtree(pathlib.Path("/etc/netns") / name, ignore_errors=True)

    def shape(self, rate, delay):
        """Sets the rate in Gbit/s (None: as fast as it goes) and the delay in ms."""
        for i in range(self.machines):
            for namespace, device in [(machine(i), "eth0"), (BRIDGE, f"port{i}")]:
                run("tc", "-n", namespace, "qdisc", "delete", "dev", device, "root", check=False)
                if rate:
                    # A burst holds the largest packet that TCP makes, and what the rate sends between two ticks of its clock.
                    burst = max(4 * 65536, int(rate * 1e9 / 8 * 50e-6))
                    run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf",
                        "rate", f"{rate}gbit", "burst", burst, "latency", "100ms")
                # A packet waits for the timer only if it is not larger than a frame, and its receiver may merge packets.
                run("ethtool", "-K", device, "tso", "off" if delay else "on", "gro", "on" if delay else "off", namespace=namespace)
            # Not quite the same period for all, or answers would always wait as long as the machines happen to differ.
            setting(machine(i), "eth0", "gro_flush_timeout", int(1e6 * delay * (1 - 0.03 * i)))
            setting(machine(i), "eth0", "napi_defer_hard_irqs", 1_000_000_000 if delay else 0)

    def round_trip(self):
        """The mean time of a packet to the next machine and back, in seconds."""
        text = run("ping", "-q", "-c", 40, "-i", 0.0173, address(1), namespace=machine(0))
        return float(re.search(r"= [\d.]+/([\d.]+)/", text)[1]) / 1e3


def mpirun(machines, arguments, folder):
    """The output of a program on all machines, started as from a hostfile of a cluster."""
    agent = folder / "agent"
    # Stands for ssh: its arguments are the name of the machine and a command. Machines have names of their own, or Open MPI
    # would take them for one, whose processes share memory.
    agent.write_text('#!/bin/sh\nname="$1"; shift\n'
                     'exec ip netns exec "$name" unshare --uts sh -c "hostname $name; $*"\n')
    agent.chmod(0o755)
    hosts = folder / "hosts"
    hosts.write_text("".join(f"{machine(i)} slots=1\n" for i in range(machines)))
    command = ["mpirun", "--allow-run-as-root", "--bind-to", "none", "--mca", "plm_rsh_agent", str(agent),
               "--hostfile", str(hosts), "-n", str(machines), *arguments]
    done = subprocess.run([str(agent), machine(0), *command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def alone(machines, arguments):
    """Milliseconds of a step without a network, by model, while all machines compute: the mean over them."""
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(machines)]
    tables = [scaling_model.read_table(p.communicate()[0].splitlines()) for p in processes]
    return {name: (sum(t[name][0] for t in tables) / machines, tables[0][name][1]) for name in tables[0]}


def report(text, cases, machines, round_trip, o):
    # What the model calls bandwidth, from the time of sums of 32 MB in pieces of 4 MB, which examples/scaling prints.
    taken = float(re.search(r"([\d.]+) in pieces of 4096 kB", text)[1]) / 1e3
    bandwidth = 2 * (machines - 1) / machines * 32 * 2**20 / taken
    print(f"a round trip takes {1e3 * round_trip:.2f} ms, sums send {bandwidth * 8 / 1e9:.2f} Gbit/s\n")
    print("| model | without a network, ms | measured, ms | by the model, ms | off by |\n|---|---|---|---|---|")
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if cells[0] in cases and len(cells) == 9:
            compute, megabytes = cases[cells[0]]
            network = (round_trip, bandwidth)
            paper = 1e3 * scaling_model.step_seconds(compute / 1e3, megabytes * 1e6, machines, network, o)
            measured = float(cells[2])
            print(f"| {cells[0]} | {compute:.2f} | {measured:.2f} | {paper:.2f} | {100 * (paper / measured - 1):+.0f}% |")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--machines", type=int, default=2)
    p.add_argument("--rates", default="none,10,1", help="Gbit/s, or none (default none,10,1)")
    p.add_argument("--delays", default="0,0.1,1", help="ms of an exchange (default 0,0.1,1)")
    p.add_argument("--batch-size", type=int, default=32, help="of all machines together (default 32)")
    p.add_argument("--models", default="mlp,lenet,vgg11,resnet18,gpt")
    p.add_argument("--steps", type=int, default=7)
    p.add_argument("--program", default=str(PROGRAM))
    p.add_argument("--progress", type=float, default=0.7, help="as of scaling_model.py")
    o = p.parse_args()
    o.algorithm, o.bucket, o.first_bucket = "ring", 4 << 20, 512 << 10
    # So that namespaces are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if os.geteuid():
        p.error("namespaces need root")
    options = ["--models", o.models, "--steps", str(o.steps)]
    cases = alone(o.machines, [o.program, *options, "--batch-size", str(o.batch_size // o.machines)])
    with Network(o.machines) as network, tempfile.TemporaryDirectory() as folder:
        for rate in o.rates.split(","):
            for delay in map(float, o.delays.split(",")):
                network.shape(None if rate == "none" else float(rate), delay)
                time.sleep(0.2)
                print(f"\n## {rate} Gbit/s, {delay} ms\n", flush=True)
                text = mpirun(o.machines, [o.program, *options, "--batch-size", str(o.batch_size)], pathlib.Path(folder))
                print(text.strip(), "\n", flush=True)
                report(text, cases, o.machines, network.round_trip(), o)


if __name__ == "__main__":
    main()
