"""PyTorch's own test inputs (OpInfo, ModuleInfo, OptimizerInfo) as samples for tests/conformance.rs.

  pip install -r tools/requirements.txt
  python tools/conformance DIR
  TAPEGRAD_CONFORMANCE=DIR cargo test --release --test conformance
  python tools/conformance --verify DIR

Every sample is encoded as JSON plus safetensors, then decoded again and run through PyTorch to get outputs,
gradients and second-order gradients. --verify runs a finished folder again, from the encoded form only.
README.md beside this file describes the format.
"""
import argparse
import os
import sys

import torch

from catalog import SETS
from modules import make_modules
from operations import make_errors, make_ops
from optimizers import make_optimizers, make_schedulers
from output import Output
from verify import verify


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", help="where the samples go, or are; has to be empty or absent before")
    parser.add_argument("--seed", default="0", help="any text; decides the random values (default 0)")
    parser.add_argument("--set", choices=SETS, default="core", help="which operations and modules (default core)")
    parser.add_argument("--only", metavar="REGEX", help="only operations, modules and optimizers whose name matches")
    parser.add_argument("--cap", type=int, default=24, help="samples for an operation and dtype (default 24)")
    parser.add_argument("--verify", action="store_true", help="run a finished folder again instead of making one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.verify:
        failed = verify(options.folder)
        print("FAILED" if failed else "ok", failed)
        return 1 if failed else 0
    if os.path.isdir(options.folder) and os.listdir(options.folder):
        parser.error(f"{options.folder} is not empty: samples of another run would stay among the new ones")
    output = Output(options.folder, SETS[options.set], options.seed, options.cap, options.only)
    make_ops(output)
    make_errors(output)
    make_modules(output)
    if options.set == "core":
        make_optimizers(output)
        make_schedulers(output)
    output.summary()
    return 0


if __name__ == "__main__":
    sys.exit(main())
