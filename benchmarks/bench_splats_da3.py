# SPDX-License-Identifier: Apache-2.0
"""Depth Anything 3 with random weights: pictures a second and memory, by size of network.

Windows of eight pictures; on a CUDA device in half precision as the back-end runs it.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from harness import QUICK, Benchmark, timed_ms

from worldsystem_slam3r.da3.network import Da3Network
from worldsystem_slam3r.da3.variants import VARIANTS

PICTURES = 8
LONG_SIDES_PX = (504, 168)
RUNS = 5 if QUICK else 20
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def measure(bench: Benchmark, name: str, long_side_px: int) -> None:
    """One network at one size of picture."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    network = Da3Network.random(VARIANTS[name], device=DEVICE, long_side_px=long_side_px)
    rng = np.random.default_rng(0)
    window = [rng.integers(0, 255, (378, 504, 3), np.uint8) for _ in range(PICTURES)]
    for _ in range(3):
        network.see(window)
    rates = [1e3 * PICTURES / ms for ms in timed_ms(lambda: network.see(window), RUNS)]
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    note = f"{where}, windows of {PICTURES} pictures, random weights"
    bench.add(f"da3_{name}_{long_side_px}_fps", rates, "fps", note=note)
    if DEVICE == "cuda":
        peak_gb = torch.cuda.max_memory_allocated() / 1e9
        bench.add(f"da3_{name}_{long_side_px}_gb", peak_gb, "GB", note="peak")


def main() -> None:
    """Measure the networks that are named (all when none is)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(VARIANTS), help="sizes of network")
    bench = Benchmark("splats_da3", id_prefix="splats")
    for name in parser.parse_args().names:
        for side in LONG_SIDES_PX:
            measure(bench, name, side)
    bench.write()


if __name__ == "__main__":
    main()
