# SPDX-License-Identifier: Apache-2.0
"""What noise reached once, and where nothing is, takes no memory for ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from depth_keyframe import depth_keyframe

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import Keyframe
from worldsystem_mesh import forgetting
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.kernels_volume import PAGED_OUT
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.methods.fused import fused_samples

CAMERA = Camera.from_horizontal_fov(96, 96, 1.0)
AFTER = 10


def wall(id: int, *, noise_m: float = 0.0) -> Keyframe:
    """A wall 2 m ahead; with noise a patch of it seems nearer."""
    depth = np.full((96, 96), 2.0)
    if noise_m:
        depth[30:60, 30:60] -= noise_m
    return depth_keyframe(id, depth, CAMERA)


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


def at(x: float = 0.0, z: float = 0.0) -> np.ndarray:
    """The pose of a camera there [m] that looks at a wall as the others do."""
    pose = np.eye(4)
    pose[[0, 2], 3] = x, z
    return pose


def surface_of(mesher: Mesher) -> dict[tuple, tuple[bytes, bytes]]:
    """Vertices and faces of every block, whatever its number."""
    blocks = mesher.all_blocks(0, 0).blocks
    return {block.index: (block.vertices.tobytes(), block.faces.tobytes()) for block in blocks}


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


def test_a_look_at_a_forgotten_block_gives_it_no_voxels_back(flown):
    """As quality methods look at the blocks around a region."""
    mesher = flown([wall(0), wall(1, noise_m=1.0), *(wall(k) for k in range(2, 40))])
    volume, before = mesher.volume, held(mesher)
    assert mesher.stats()["forgotten_blocks"] > 5
    blocks = np.arange(volume.block_count)
    seen = fused_samples(volume, volume.coords(blocks))
    assert held(mesher) == before
    own = seen.distances[:, :8, :8, :8].reshape(len(blocks), -1)
    assert not np.isfinite(own[~volume.pool.holds(blocks)]).any()
    assert np.isfinite(own[volume.pool.holds(blocks)]).any()


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


def test_what_is_forgotten_waits_no_longer_and_what_is_due_is_not_forgotten(flown, monkeypatch):
    """Keyframes are corrected, and their blocks made anew only at the end of a long flight."""
    settings = {"redraw_voxels": 0.0, "refusion_share": 0.05}
    seen = [wall(0), wall(1, noise_m=1.0), *(wall(k) for k in range(2, 6))]
    later = [replace(wall(k), world_from_cam=at(z=-50.0)) for k in range(6, 46)]
    mesher = flown(seen, **settings)
    refusion = mesher._fusion._made.refusion
    with monkeypatch.context() as patched:
        patched.setattr(refusion, "_make_some", lambda _most_pairs: None)
        mesher.move(dict.fromkeys(range(6), at(x=3.0)))
        while refusion._planned or refusion._births_changed:
            refusion.work(0.005)
        for keyframe in later:
            mesher.integrate(keyframe)
            mesher.extract(keyframe.id)
    parts = [part for parts in refusion._waiting._of_chunk.values() for part in parts]
    waiting = np.concatenate(parts)
    assert mesher.stats()["forgotten_blocks"] > 5
    assert mesher.stats()["waiting_blocks"] == len(waiting) > 50
    assert mesher.volume.pool.holds(waiting).all()
    there = [replace(keyframe, world_from_cam=at(x=3.0)) for keyframe in seen]
    fresh = flown([*there, *later], **settings)
    for each in (mesher, fresh):
        each.settle(100)
    assert surface_of(mesher) == surface_of(fresh)
    assert (mesher.mesh().vertices[:, 0] > 1.5).sum() > 1000


def test_a_correction_brings_a_surface_to_where_a_block_was_forgotten(flown):
    """Keyframes that had seen through it measure a wall there."""
    seen = [wall(0, noise_m=1.0), *(wall(k) for k in range(1, 6))]
    later = [replace(wall(k), world_from_cam=at(z=-50.0)) for k in range(6, 40)]
    mesher, kept = flown([*seen, *later]), flown([*seen, *later], forget_keyframes=0)
    assert mesher.stats()["forgotten_blocks"] > 5
    for each in (mesher, kept):
        each.move(dict.fromkeys(range(1, 6), at(z=-1.0)))
        each.settle(0)
    vertices = mesher.mesh().vertices
    assert np.isclose(vertices[:, 2], 1.0, atol=0.02).sum() > 1000
    np.testing.assert_array_equal(vertices, kept.mesh().vertices)


def test_blocks_of_corrected_keyframes_are_as_old_as_these(flown):
    mesher = flown([wall(k) for k in range(3)])
    mesher.move(dict.fromkeys(range(3), at(x=3.0)))
    mesher.settle(0)
    in_band = mesher._fusion._made.forgetting._in_band
    for k in range(3):
        view = mesher.views.outline(k)
        assert (in_band[view.band] >= view.order).all()


def test_what_was_forgotten_is_not_handed_on_to_those_that_stand_in(flown):
    mesher = flown([wall(0), wall(1, noise_m=1.0), *(wall(k) for k in range(2, 40))])
    assert not mesher.volume.pool.holds(mesher.views.outline(1).band).all()
    mesher.remove([1], {1: 2})
    left = mesher._fusion._made.refusion._left_by[2]
    assert len(left)
    assert mesher.volume.pool.holds(left).all()


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


def test_what_was_not_drawn_yet_is_not_forgotten(flown):
    """Who fuses a recording draws it once, at the end."""
    seen = [wall(k) for k in range(3)]
    away = [replace(wall(k), world_from_cam=at(z=-50.0)) for k in range(3, 63)]
    found = []
    for settings in ({}, {"forget_keyframes": 0}):
        mesher = flown([], **settings)
        for keyframe in (*seen, *away):
            mesher.integrate(keyframe)
        mesher.settle(100)
        vertices = mesher.mesh().vertices
        found.append(vertices[vertices[:, 2] > 0])
    assert len(found[1]) > 100
    np.testing.assert_array_equal(*found)


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


def test_drawing_gives_a_forgotten_block_no_voxels_back_while_others_are_on_disk(flown, tmp_path):
    away = at(z=-50.0)
    here = [wall(0), wall(1, noise_m=1.0), wall(2)]
    there = [replace(wall(k), world_from_cam=away) for k in range(3, 40)]
    mesher = flown([*here, *there], voxel=0.012, memory_mb=8, page_dir=str(tmp_path))
    volume, before = mesher.volume, held(mesher)
    assert volume.pool.is_paging
    every = np.arange(volume.block_count, dtype=np.int32)
    assert before < len(every)
    drawn = list(mesher._extractor.surfaces(volume, every))
    assert held(mesher) == before
    counts = np.concatenate([part.cells.face_counts for part in drawn])
    assert not counts[~volume.pool.holds(every)].any()
    assert counts.any()


def test_few_blocks_are_looked_at_with_each_view(flown, monkeypatch):
    monkeypatch.setattr(forgetting, "LOOKED_AT", 16)
    monkeypatch.setattr(forgetting, "FORGOTTEN_AT_ONCE", 2)
    noisy = [wall(0), wall(1, noise_m=1.0), *(wall(k) for k in range(2, 40))]
    mesher = flown(noisy)
    assert 0 < mesher.stats()["forgotten_blocks"] <= 2 * (40 - AFTER)
