# SPDX-License-Identifier: Apache-2.0
"""From weights on disk to a running `slam3r` back-end."""

from __future__ import annotations

import logging
from dataclasses import fields

import torch

from worldsystem_core.config import config_from
from worldsystem_core.errors import BackendError
from worldsystem_core.usable_gpu import gpu_problem
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.model.loading import load_networks
from worldsystem_slam3r.slam3r.backend import Slam3rBackend
from worldsystem_slam3r.slam3r.whole_video import WholeVideoBackend
from worldsystem_slam3r.weight_files import WeightFiles

log = logging.getLogger(__name__)

_PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def create(files: WeightFiles, config: Slam3rConfig) -> Slam3rBackend | WholeVideoBackend:
    """Load the weights and make the back-end; says under which licence they are used.

    `BackendError` where the GPU asked for is not there, or has too little memory.
    """
    config = suited(config, files.settings)
    device, dtype = chosen_device(config.device), torch.float32
    if config.precision != "auto":
        dtype = _PRECISIONS[config.precision]
    elif device == "cuda":
        dtype = torch.bfloat16
    torch.set_num_threads(config.threads)  # idle ones spin, and starve all other stages
    log.warning("weights of %s are used under %s", files.i2p.parent, files.licence)
    try:
        networks = load_networks(
            files.i2p,
            files.l2w,
            device=device,
            dtype=dtype,
            graphs=config.cuda_graphs,
            compiled=config.compiled,
        )
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"the GPU has too little memory for the weights of {files.i2p.parent} ({error}); "
            "end other programs on it, or set slam3r.device=cpu"
        ) from error
    picture_px = config.picture_px or files.picture_px
    kind = WholeVideoBackend if config.whole_video else Slam3rBackend
    return kind(networks, config, picture_px=picture_px, device=device)


def suited(config: Slam3rConfig, settings: dict[str, float]) -> Slam3rConfig:
    """The config with the weights' own settings wherever it holds a default.

    An unknown name is a `ConfigError`.
    """
    given = {item.name: getattr(config, item.name) for item in fields(config)}
    default = Slam3rConfig()
    left = {n: v for n, v in given.items() if v != getattr(default, n)}
    return config_from(Slam3rConfig, settings | left)


def chosen_device(wanted: str) -> str:
    """`auto` is the GPU where torch can use one; a GPU asked for in vain is a `BackendError`."""
    problem = gpu_problem() if wanted != "cpu" else ""
    if wanted == "cuda" and problem:
        raise BackendError(
            f"slam3r.device=cuda, but {problem}; set slam3r.device=cpu, or install a "
            "driver and a torch built for it"
        )
    return "cpu" if wanted == "cpu" or problem else "cuda"


def free_gpu_bytes() -> int | None:
    """Memory that is free on the GPU [bytes]; None without one."""
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.mem_get_info()[0])
