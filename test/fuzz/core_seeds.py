# SPDX-License-Identifier: Apache-2.0
"""A sphere in every form of the block code, splats, and the requests of a Prometheus."""

from __future__ import annotations

import gzip
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "mesh"))

from block_lab import VOXEL, blocks_of, sphere

from worldsystem_core.mesh_code.code import encode
from worldsystem_core.splats.files import write_spz
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.packed import deflate, pack


def mesh_code() -> dict[str, bytes]:
    """One block, and a sphere over eight blocks at each level."""
    blocks = blocks_of(sphere(3.0), 1)
    found = {f"sphere_level_{level}": encode(blocks, VOXEL, level) for level in range(3)}
    found["one_block"] = encode(blocks[:1], VOXEL)
    found["no_block"] = encode([], VOXEL)
    packed = {name: b"\x00" + code for name, code in found.items()}
    plain = {
        f"{name}_plain": b"\xff" + code[:16] + zlib.decompress(code[16:])
        for name, code in found.items()
    }
    return packed | plain


def splats() -> dict[str, bytes]:
    """A few splats in each form."""
    rng = np.random.default_rng(3)
    some = Gaussians(
        rng.normal(size=(5, 3)).astype(np.float32),
        rng.uniform(0.01, 0.1, (5, 3)).astype(np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (5, 1)),
        rng.uniform(size=(5, 3)).astype(np.float32),
        rng.uniform(size=5).astype(np.float32),
    )
    with tempfile.TemporaryDirectory() as folder:
        spz = write_spz(some, Path(folder) / "some.spz").read_bytes()
        none = write_spz(some[np.arange(0)], Path(folder) / "none.spz").read_bytes()
    begin = len(some).to_bytes(2, "big")
    planes = deflate(pack(some))
    packed = {"planes": planes, "spz": spz, "spz_empty": none}
    plain = {"planes": zlib.decompress(planes), "spz": gzip.decompress(spz)}
    return {name: b"\x00" + begin + data for name, data in packed.items()} | {
        f"{name}_plain": b"\xff" + begin + data for name, data in plain.items()
    }


def status() -> dict[str, bytes]:
    """What is asked of it, with a token in each place, and a few things that are not."""
    lines = {
        "health": "GET /health HTTP/1.1",
        "metrics_query": "GET /metrics?token=friend HTTP/1.1",
        "other": "GET /index.html HTTP/1.0",
        "post": "POST /metrics HTTP/1.1",
        "http_09": "GET /health",
        "no_address": "GET //[?token=x HTTP/1.1",
    }
    heads = "\r\nHost: 127.0.0.1:8007\r\nAuthorization: Bearer abc\r\nConnection: close\r\n\r\n"
    return {name: (line + heads).encode() for name, line in lines.items()}


SEEDS = {"mesh_code": mesh_code, "splats": splats, "status": status}
