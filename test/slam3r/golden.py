# SPDX-License-Identifier: Apache-2.0
"""The published networks' numbers on known inputs, with random weights of a tiny size."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from worldsystem_slam3r.model.loading import load_networks
from worldsystem_slam3r.model.networks import Networks
from worldsystem_slam3r.model.sizes import NetworkSizes

NET_TOLERANCE = 2e-4
"""Absolute and relative: ten times what float32 leaves open between two correct programs."""


def golden_folder() -> Path:
    """The folder of numbers; without it the test is skipped, saying so."""
    default = Path(__file__).parents[3] / "shared" / "golden"
    folder = Path(os.environ.get("WORLDSYSTEM_GOLDEN", default)) / "slam3r"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; set WORLDSYSTEM_GOLDEN to the folder of golden numbers")
    return folder


@cache
def golden_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(golden_folder() / f"{name}.npz") as arrays:
        return dict(arrays)


def tiny_sizes() -> NetworkSizes:
    content = json.loads((golden_folder() / "i2p_tiny_config.json").read_text())
    return NetworkSizes.from_published_config(content["config"])


@cache
def tiny_networks() -> Networks:
    states = [load_file(golden_folder() / f"{net}_tiny.safetensors") for net in ("i2p", "l2w")]
    return load_networks(*states, sizes=tiny_sizes())


def assert_as_golden(given: object, golden: np.ndarray, tolerance: float = NET_TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(given), golden, atol=tolerance, rtol=tolerance)
