# SPDX-License-Identifier: Apache-2.0
"""Checkpoints into networks, strictly: every key and shape must be the published one."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from worldsystem_core.errors import BackendError
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.networks import Networks
from worldsystem_slam3r.model.sizes import METADATA_KEY, PUBLISHED, NetworkSizes

NAMED_IN_ERRORS = 6
"""Keys of a kind that an error lists; the rest are counted."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by key, where they came from, and the sizes if the file says them."""

    state: Mapping[str, Tensor]
    origin: str
    sizes: NetworkSizes | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read `.safetensors`, or a training checkpoint (`.pth`, tensors under `model`), to the CPU.

    A missing, damaged or otherwise filled file is a `BackendError`. Training checkpoints are read
    without running any code they may hold.
    """
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    except pickle.UnpicklingError as error:
        raise BackendError(
            f"{path} holds other things than tensors, which are not loaded ({error}); "
            "save the tensors alone, under the key 'model'"
        ) from error
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, TypeError) as error:
        raise BackendError(
            f"{path} cannot be read as a checkpoint ({error}); it may be damaged or not fully "
            "downloaded: get it again with `make weights`"
        ) from error


def _read_safetensors(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dict
    sizes = metadata.get(METADATA_KEY)
    return Checkpoint(state, str(path), NetworkSizes.from_json(sizes) if sizes else None)


def _read_pickled(path: Path) -> Checkpoint:
    # training checkpoints carry the command line beside the tensors
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BackendError(
            f"{path} holds no tensors under the key 'model'; give a checkpoint of the network"
        )
    return Checkpoint(state, str(path))


def load_strictly(net: nn.Module, checkpoint: Checkpoint) -> None:
    """Fill a network; keys or shapes that differ are a `BackendError` that names them."""
    expected = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in checkpoint.state.items()}
    wrong_shape = [
        f"{key} {given[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in given and given[key] != shape
    ]
    faults = {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys()),
        "wrong shape": wrong_shape,
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_listed(keys)}" for kind, keys in faults.items() if keys)
        raise BackendError(
            f"{checkpoint.origin} does not fit {type(net).__name__}: {listed}. "
            "Use the checkpoint of this network and of these sizes"
        )
    net.load_state_dict(checkpoint.state, strict=True, assign=True)


def _listed(keys: list[str]) -> str:
    rest = len(keys) - NAMED_IN_ERRORS
    return ", ".join(keys[:NAMED_IN_ERRORS]) + (f" and {rest} more" if rest > 0 else "")


def load_networks(
    i2p: Path | Mapping[str, Tensor],
    l2w: Path | Mapping[str, Tensor],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    sizes: NetworkSizes | None = None,
    graphs: bool = False,
    compiled: bool = False,
) -> Networks:
    """Both networks from checkpoint files, or from tensors by key, ready on `device`.

    Sizes come from the argument, else from the file, else they are the published ones. An encoder
    inside a local-to-world checkpoint is left out: tokens are made by the other network. With a
    16-bit `dtype` the large matrices are kept in it. `graphs` and `compiled`: see `Networks`.
    """
    first, second = _checkpoint(i2p, "image-to-points"), _checkpoint(l2w, "local-to-world")
    sizes = sizes or first.sizes or PUBLISHED
    without_encoder = {k: v for k, v in second.state.items() if not k.startswith("enc_blocks.")}
    with torch.device("meta"):
        image_to_points, local_to_world = ImageToPoints(sizes), LocalToWorld(sizes)
    load_strictly(image_to_points, first)
    load_strictly(local_to_world, Checkpoint(without_encoder, second.origin))
    return Networks(
        image_to_points,
        local_to_world,
        device=device,
        dtype=dtype,
        graphs=graphs,
        compiled=compiled,
    )


def _checkpoint(source: Path | Mapping[str, Tensor], name: str) -> Checkpoint:
    if isinstance(source, Path):
        return read_checkpoint(source)
    return Checkpoint(source, f"the given {name} tensors")
