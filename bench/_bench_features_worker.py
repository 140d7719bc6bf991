"""The metarun side of bench/bench_features.py: it answers each line with the seconds of one batch."""

import argparse
import sys
import time

import numpy as np

from metarun import config, hardware
from metarun.backbones import open_backbone


def main() -> None:
    """Answer each line with the seconds of one batch, from numpy arrays to numpy arrays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("batch", type=int)
    parser.add_argument("side", type=int)
    arguments = parser.parse_args()
    hardware.select(config.Accelerator())
    backbone = open_backbone(None, model=arguments.network)
    shape = (arguments.batch, arguments.side, arguments.side, 3)
    pictures = np.random.default_rng(0).standard_normal(shape, np.float32)
    for _ in sys.stdin:
        began = time.perf_counter()
        backbone.extract(pictures)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
