# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernels into Warp's cache, so that the first keyframe does not wait for it."""

from __future__ import annotations

import time

import warp as wp

from worldsystem_mesh import (
    kernels_changes,
    kernels_copying,
    kernels_drawing,
    kernels_emission,
    kernels_fusion,
    kernels_rays,
    kernels_sampling,
    kernels_surface,
    kernels_view,
    kernels_volume,
)
from worldsystem_mesh.launcher import cuda_devices, start_warp

MODULES = (
    kernels_view,
    kernels_volume,
    kernels_rays,
    kernels_fusion,
    kernels_changes,
    kernels_sampling,
    kernels_surface,
    kernels_emission,
    kernels_drawing,
    kernels_copying,
)


def precompile() -> float:
    """Compile (or load from the cache) every kernel for every device that can run it;
    return the seconds taken."""
    start = time.perf_counter()
    start_warp()
    devices = ["cpu", *cuda_devices()]
    for module in MODULES:
        wp.load_module(module, device=devices)
    return time.perf_counter() - start


def main() -> None:
    print(f"mesh kernels ready after {precompile():.1f} s")


if __name__ == "__main__":
    main()
