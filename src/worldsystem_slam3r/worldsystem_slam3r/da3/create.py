# SPDX-License-Identifier: Apache-2.0
"""From weights on disk to a running `da3` back-end."""

from __future__ import annotations

import logging

import torch

from worldsystem_core.errors import BackendError
from worldsystem_slam3r.catalogue import free_memory_bytes
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.da3.backend import Da3Backend
from worldsystem_slam3r.da3.network import Da3Network
from worldsystem_slam3r.da3.variants import choose, find_da3
from worldsystem_slam3r.slam3r.create import chosen_device, free_gpu_bytes
from worldsystem_slam3r.weight_files import weights_folder

log = logging.getLogger(__name__)


def create(config: Slam3rConfig) -> Da3Backend:
    """Load the variant that is asked for, or a smaller one where memory does not suffice.

    Either is said in the log, with the licence of the weights. `WeightsMissing` or `BackendError`
    where none can run.
    """
    device = chosen_device(config.device)
    free = free_gpu_bytes() if device == "cuda" else free_memory_bytes()
    folder = weights_folder(config.weights)
    weights, note = choose(config.da3_variant, find_da3(config.weights), free, folder)
    if note:
        log.warning("%s", note)
    torch.set_num_threads(config.threads)  # idle ones spin, and starve all other stages
    log.warning("weights of %s are used under %s", weights.path, weights.variant.licence)
    try:
        network = Da3Network.load(weights, device=device, long_side_px=config.da3_px)
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"the GPU has too little memory for da3 '{weights.variant.name}' ({error}); end other "
            "programs on it, or set slam3r.da3_variant to a smaller one"
        ) from error
    return Da3Backend(network, config)
