# SPDX-License-Identifier: Apache-2.0
"""A map that does not fit in memory: whether paging changes it, and what it costs."""

from __future__ import annotations

import tempfile

from harness import QUICK, Benchmark
from mesh_memory import STORE_MB, over_budget

from worldsystem_mesh.precompile import precompile

BLOCKS, BUDGET_MB = (40_000, 60) if QUICK else (1_000_000, 1000)


def main() -> None:
    """Run and write `results/mesh_memory.json`."""
    precompile()
    bench = Benchmark("mesh_memory", id_prefix="mesh")
    with tempfile.TemporaryDirectory() as folder:
        result = over_budget(BLOCKS, BUDGET_MB, folder)
    note = f"{result.blocks} blocks touched, budget {BUDGET_MB} MB, {result.disk_mb:.0f} MB on disk"
    bench.add("paged_peak_mb", result.peak_mb, "MB", note=f"by its own account; {note}")
    note = f"what its process grew by, with {STORE_MB} MB of keyframes to fuse again, "
    note += "without pages of files, looked at every 20 ms"
    bench.add("paged_resident_mb", result.resident_mb, "MB", note=note)
    note = f"1: all voxels and the surface are equal; {result.paged_out} out, {result.paged_in} in"
    bench.add("paged_is_equal", float(result.is_equal), "", note=note)
    note = "time of all updates over those of the run with all the memory it wants"
    bench.add("paged_slowdown", result.slowdown, "x", note=note)
    bench.write()


if __name__ == "__main__":
    main()
