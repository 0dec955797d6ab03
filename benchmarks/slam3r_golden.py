# SPDX-License-Identifier: Apache-2.0
"""How far our networks are from the published ones' numbers on the stored cases."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from worldsystem_slam3r.model.loading import load_networks
from worldsystem_slam3r.model.networks import Networks
from worldsystem_slam3r.model.preprocess import normalised
from worldsystem_slam3r.model.sizes import NetworkSizes

I2P_CASES = ("A224", "B64", "C48x64", "D64x48", "E2v")
L2W_CASES = ("A224", "B64")
Arrays = dict[str, np.ndarray]


def golden_folder() -> Path | None:
    """The folder of stored numbers, or None where it is not."""
    default = Path(__file__).parents[2] / "shared" / "golden"
    folder = Path(os.environ.get("WORLDSYSTEM_GOLDEN", default)) / "slam3r"
    return folder if folder.is_dir() else None


def tiny_networks(folder: Path, dtype: torch.dtype = torch.float32) -> Networks:
    """The networks whose weights belong to the stored numbers."""
    config = json.loads((folder / "i2p_tiny_config.json").read_text())["config"]
    states = [load_file(folder / f"{name}_tiny.safetensors") for name in ("i2p", "l2w")]
    sizes = NetworkSizes.from_published_config(config)
    return load_networks(states[0], states[1], sizes=sizes, dtype=dtype)


def largest_error(folder: Path) -> float:
    """Largest difference of any coordinate of any point over all cases."""
    networks = tiny_networks(folder)
    errors = [i2p_error(networks, folder, case) for case in I2P_CASES]
    return max(errors + [l2w_error(networks, folder, case) for case in L2W_CASES])


def i2p_error(networks: Networks, folder: Path, case: str) -> float:
    """Largest error of one image-to-points case."""
    given, expected = case_arrays(folder, "i2p", case)
    pictures, ref = given["img_u8"], int(given["ref_id"])
    grid = (pictures.shape[2] // 16, pictures.shape[3] // 16)
    windows = [
        networks.i2p(networks.encode(normalised(pictures[:, b], "cpu")), ref, grid=grid).points
        for b in range(pictures.shape[1])
    ]
    return difference(torch.stack(windows, dim=1).numpy(), expected)


def l2w_error(networks: Networks, folder: Path, case: str) -> float:
    """Largest error of one local-to-world case."""
    given, expected = case_arrays(folder, "l2w", case)
    tokens = given.get("img_tokens_prenorm")
    if tokens is None:
        tokens = case_arrays(folder, "i2p", case)[1]["enc_tokens_prenorm"]
    points = torch.from_numpy(given["pointmaps_f16"].astype(np.float32))
    refs = given["ref_ids"].tolist()
    sources = [i for i in range(len(points)) if i not in refs]
    ours = torch.empty_like(points)
    for b in range(points.shape[1]):
        inputs = torch.from_numpy(tokens[:, b]), points[:, b]
        ours[refs, b], ours[sources, b], _ = networks.l2w(
            *(part[refs] for part in inputs), *(part[sources] for part in inputs)
        )
    return difference(ours.numpy(), expected)


def case_arrays(folder: Path, network: str, case: str) -> tuple[Arrays, Arrays]:
    """Inputs and outputs of one case."""
    found = []
    for kind in ("inputs", "outputs"):
        with np.load(folder / f"{network}_{kind}.npz") as arrays:
            keys = [key for key in arrays.files if key.startswith(f"{case}/")]
            found.append({key.removeprefix(f"{case}/"): arrays[key] for key in keys})
    return found[0], found[1]


def difference(ours: np.ndarray, expected: Arrays) -> float:
    """Largest difference from whatever point maps a case stores; ours are (views, batch, h, w, 3).

    For portraits the stored maps are transposed.
    """
    worst = 0.0
    for view, points in enumerate(ours):
        whole = expected.get(f"pts3d_view{view}")
        if whole is not None:
            if points.shape[1] > points.shape[2]:
                whole = whole.swapaxes(1, 2)
            worst = max(worst, float(np.abs(points - whole).max()))
        if "pts3d_all_stride4" in expected:
            strided = expected["pts3d_all_stride4"][view]
            worst = max(worst, float(np.abs(points[:, ::4, ::4] - strided).max()))
    return worst
