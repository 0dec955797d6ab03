# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernels into Warp's cache, so that the first keyframe does not wait for it."""

from __future__ import annotations

import time

import warp as wp

from worldsystem_mesh import kernels_surface, kernels_volume
from worldsystem_mesh.launcher import start_warp


def precompile() -> float:
    """Compile (or load from the cache) every kernel for every device; return the seconds taken."""
    start = time.perf_counter()
    start_warp()
    for module in (kernels_volume, kernels_surface):
        wp.load_module(module)
    return time.perf_counter() - start


def main() -> None:
    print(f"mesh kernels ready after {precompile():.1f} s")


if __name__ == "__main__":
    main()
