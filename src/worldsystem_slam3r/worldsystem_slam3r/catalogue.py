# SPDX-License-Identifier: Apache-2.0
"""Which back-ends there are, what each needs, and whether it can run on this machine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

from worldsystem_core.errors import BackendError, WeightsMissing
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.weight_files import (
    PUBLISHED_LICENCE,
    WeightFiles,
    find_weights,
    weights_folder,
)

OURS = "Apache-2.0"
SMALL_WEIGHTS_BYTES = 100_000_000
"""Networks up to this size keep up with a video on a processor; larger ones want a GPU."""
_STATE_BYTES = 1_000_000_000
_MEMORY_INFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class BackendState:
    """A back-end as `worldsystem backends` lists it; `why_not` says what keeps it from running.

    `fast` is whether it can be expected to keep up with a live video here.
    """

    name: str
    what: str
    needs: str
    licence: str
    why_not: str = ""
    fast: bool = True

    @property
    def runs(self) -> bool:
        """Whether it can run here."""
        return not self.why_not


def backend_states(config: Slam3rConfig | None = None) -> list[BackendState]:
    """Every back-end, looked at on this machine; torch is imported only where weights are."""
    config = config or Slam3rConfig()
    return [
        BackendState(
            "geometric", "multi-view geometry, no network", "nothing but a processor", OURS
        ),
        _neural(
            "slam3r",
            "SLAM3R's published networks",
            "torch, the weights (3 GB, `make weights`), a GPU for live video",
            config,
        ),
        _neural(
            "slam3r_tiny",
            "the same networks, small ones of your own (training/README.md)",
            "torch, the weights that you trained",
            config,
        ),
        _da3(config),
    ]


def _neural(name: str, what: str, needs: str, config: Slam3rConfig) -> BackendState:
    licence = PUBLISHED_LICENCE if name == "slam3r" else OURS
    if importlib.util.find_spec("torch") is None:
        cure = "torch is not installed; run `make setup`"
        return BackendState(name, what, needs, licence, cure, fast=False)
    try:
        files = find_weights(name, config.weights)
    except (WeightsMissing, BackendError) as error:
        return BackendState(name, what, needs, licence, str(error), fast=False)
    why_not, fast = _obstacle(files, config)
    return BackendState(name, what, needs, files.licence, why_not, fast)


def _da3(config: Slam3rConfig) -> BackendState:
    """Depth Anything 3: the largest variant that is there and fits, with its licence."""
    from worldsystem_slam3r.da3.package import package_problem
    from worldsystem_slam3r.da3.variants import (
        APACHE,
        NON_COMMERCIAL,
        choose,
        da3_missing,
        find_da3,
    )

    needs = "torch, depth-anything-3 without its own requirements, the weights of a variant"
    licence = f"{APACHE} (small, base), {NON_COMMERCIAL} (large, giant, nested)"
    state = BackendState("da3", "Depth Anything 3 in a sliding window", needs, licence, fast=False)
    if problem := package_problem():
        return replace(state, why_not=problem)
    there, folder = find_da3(config.weights), weights_folder(config.weights)
    if not there:  # torch takes its time to import
        return replace(state, why_not=str(da3_missing("base", folder)))
    from worldsystem_slam3r.slam3r.create import chosen_device, free_gpu_bytes

    try:
        on_gpu = chosen_device(config.device) == "cuda"
        free = free_gpu_bytes() if on_gpu else free_memory_bytes()
        weights, _ = choose(config.da3_variant, there, free, folder)
    except (WeightsMissing, BackendError) as error:
        return replace(state, why_not=str(error))
    what = f"{state.what}: {weights.variant.published}"
    return replace(state, what=what, licence=weights.variant.licence, fast=on_gpu)


def _obstacle(files: WeightFiles, config: Slam3rConfig) -> tuple[str, bool]:
    """What keeps networks of these files from running, if anything; else whether they are fast."""
    from worldsystem_slam3r.slam3r.create import chosen_device, free_gpu_bytes

    try:
        device = chosen_device(config.device)
    except BackendError as error:
        return str(error), False
    on_gpu = device == "cuda"
    free = free_gpu_bytes() if on_gpu else free_memory_bytes()
    wanted = files.bytes_on_disk + _STATE_BYTES
    if free is not None and free < wanted:
        where = "the GPU" if on_gpu else "this machine"
        return (
            f"{where} has {free / 1e9:.1f} GB of memory free, {wanted / 1e9:.1f} GB are needed; "
            "end other programs" + (", or set slam3r.device=cpu" if on_gpu else ""),
            False,
        )
    return "", on_gpu or files.bytes_on_disk <= SMALL_WEIGHTS_BYTES


def free_memory_bytes() -> int | None:
    """Memory that can be had [bytes]; None where the system does not tell."""
    if not _MEMORY_INFO.is_file():
        return None
    for line in _MEMORY_INFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None
