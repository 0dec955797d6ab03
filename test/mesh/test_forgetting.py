# SPDX-License-Identifier: Apache-2.0
"""What noise reached once, and where nothing is, takes no memory for ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.reconstruction import Keyframe
from worldsystem_mesh import forgetting
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.kernels_volume import PAGED_OUT
from worldsystem_mesh.mesher import Mesher

CAMERA = Camera.from_horizontal_fov(96, 96, 1.0)
AFTER = 10


def wall(id: int, *, noise_m: float = 0.0) -> Keyframe:
    """A wall 2 m ahead; with noise a patch of it seems nearer."""
    depth = np.full((96, 96), 2.0)
    if noise_m:
        depth[30:60, 30:60] -= noise_m
    grey = np.full((96, 96, 3), 128, np.uint8)
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=id,
        world_from_cam=np.eye(4),
        camera=CAMERA,
        pointmap=pointmap_from_depth(depth, CAMERA),
        confidence=np.ones((96, 96), np.float32),
        rgb=grey,
    )


@pytest.fixture
def flown():
    """A function that makes a mesher of keyframes, each extracted; all are closed at the end."""
    made = []

    def fly(keyframes, **settings) -> Mesher:
        config = MeshConfig(
            **{"voxel": 0.04, "device": "cpu", "forget_keyframes": AFTER, **settings}
        )
        mesher = Mesher(config)
        made.append(mesher)
        for keyframe in keyframes:
            mesher.integrate(keyframe)
            mesher.extract(keyframe.id)
        return mesher

    yield fly
    for mesher in made:
        mesher.close()


def held(mesher: Mesher) -> int:
    return int(mesher.volume.pool.holds(np.arange(mesher.volume.block_count)).sum())


def test_blocks_that_noise_reached_are_let_go_and_the_surface_stays(flown):
    noisy = [wall(0), wall(1, noise_m=1.0), *(wall(k) for k in range(2, 40))]
    with_noise, clean = flown(noisy), flown([wall(k) for k in range(40)])
    kept = flown(noisy, forget_keyframes=0)
    assert kept.stats()["forgotten_blocks"] == 0
    forgotten = with_noise.stats()["forgotten_blocks"]
    assert held(kept) - held(with_noise) == forgotten > 5
    assert held(with_noise) <= held(clean)
    assert with_noise.stats()["memory_bytes"] < kept.stats()["memory_bytes"]
    mesh, whole = with_noise.mesh(), kept.mesh()
    np.testing.assert_array_equal(mesh.vertices, whole.vertices)
    np.testing.assert_array_equal(mesh.faces, whole.faces)


def test_what_is_measured_where_a_block_was_let_go_gets_a_surface(flown):
    mesher = flown([wall(0), wall(1, noise_m=1.0), *(wall(k) for k in range(2, 40))])
    before = mesher.stats()["vertices"]
    for k in range(40, 60):
        mesher.integrate(wall(k, noise_m=1.0))
        mesher.extract(k)
    near = mesher.mesh().vertices
    assert mesher.stats()["vertices"] > before
    assert np.isclose(near[:, 2], 1.0, atol=0.02).sum() > 50


def test_a_correction_does_not_bring_back_what_was_forgotten(flown):
    noisy = [wall(0), wall(1, noise_m=1.0), *(wall(k) for k in range(2, 40))]
    mesher, kept = flown(noisy), flown(noisy, forget_keyframes=0)
    forgotten = mesher.stats()["forgotten_blocks"]
    aside = np.eye(4)
    aside[0, 3] = 0.02
    for each in (mesher, kept):
        each.move(dict.fromkeys(range(40), aside))
        each.settle(0)
    assert held(kept) - held(mesher) == forgotten
    np.testing.assert_array_equal(mesher.mesh().vertices, kept.mesh().vertices)


def test_blocks_beside_a_surface_stay_however_old(flown):
    """Cells of the surface's blocks read their samples."""
    seen = [wall(k) for k in range(3)]
    there = flown(seen)
    pose = np.eye(4)
    pose[2, 3] = -50.0
    away = [replace(wall(k), world_from_cam=pose) for k in range(3, 60)]
    mesher = flown([*seen, *away])
    whole = there.mesh()
    found = mesher.mesh()
    here = found.vertices[found.vertices[:, 2] > 0]
    assert len(here) == len(whole.vertices) > 100
    assert mesher.stats()["forgotten_blocks"] < held(there) / 2


def test_blocks_on_disk_are_let_go_there(flown, tmp_path):
    away = np.eye(4)
    away[2, 3] = -50.0
    here = [wall(0), wall(1, noise_m=1.0), wall(2)]
    there = [replace(wall(k), world_from_cam=away) for k in range(3, 40)]
    settings = {"voxel": 0.012, "memory_mb": 8, "page_dir": str(tmp_path)}
    mesher = flown([*here, *there], **settings)
    assert mesher.stats()["refused_blocks"] == 0
    assert mesher.stats()["forgotten_blocks"] > 10
    pool = mesher.volume.pool
    assert len(pool._pages) == int((pool.slot[: mesher.volume.block_count] == PAGED_OUT).sum()) > 0


def test_few_blocks_are_looked_at_with_each_view(flown, monkeypatch):
    monkeypatch.setattr(forgetting, "LOOKED_AT", 16)
    monkeypatch.setattr(forgetting, "FORGOTTEN_AT_ONCE", 2)
    noisy = [wall(0), wall(1, noise_m=1.0), *(wall(k) for k in range(2, 40))]
    mesher = flown(noisy)
    assert 0 < mesher.stats()["forgotten_blocks"] <= 2 * (40 - AFTER)
