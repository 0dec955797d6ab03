# SPDX-License-Identifier: Apache-2.0
"""A map that is begun anew: nothing of the old one stays, and the voxel is that of the new one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import MeshAssembly
from worldsystem_mesh import view_store
from worldsystem_mesh.page_file import HEADER

RECORD_BYTES = HEADER.size + 160 * 120 * view_store.BYTES_PER_PIXEL
"""One keyframe of the fixtures on disk."""


def shown(client: MeshAssembly) -> dict[tuple, tuple[bytes, bytes]]:
    """Vertices and faces that a client has, block by block."""
    return {
        index: (block.vertices.tobytes(), block.faces.tobytes())
        for index, block in client.blocks.items()
    }


def surface_of(mesher) -> dict[tuple, tuple[bytes, bytes]]:
    client = MeshAssembly()
    client.apply(mesher.all_blocks(0, 0))
    return shown(client)


@pytest.mark.parametrize("are_gone", [False, True])
def test_after_all_keyframes_were_removed_the_next_one_begins_a_surface_of_its_own_scale(
    make_mesher, sphere_keyframes, are_gone
):
    """As after a reset of a map that had become metric, before or after the old surface went."""
    mesher, fresh = (make_mesher(voxel=0.0, min_weight=0.5) for _ in range(2))
    client, late = MeshAssembly(), MeshAssembly()
    keyframes = sphere_keyframes(8)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
        assert client.apply(mesher.extract(keyframe.id))
    assert late.apply(mesher.all_blocks(0, 0))
    metric = {k.id: k.world_from_cam.copy() for k in keyframes}
    for pose in metric.values():
        pose[:3, 3] *= 20.0
    mesher.move(metric, dict.fromkeys(metric, 20.0), ScaleState.METRIC)
    assert client.apply(mesher.extract(8))
    mesher.remove(metric)
    if are_gone:
        assert client.apply(mesher.settle(9))
        assert not client.blocks
    first = replace(keyframes[2], id=50)
    for each in (mesher, fresh):
        each.integrate(first)
    assert client.apply(mesher.extract(10))
    assert late.apply(mesher.all_blocks(late.sequence, 10))
    fresh.extract(10)
    median = np.nanmedian(first.pointmap[..., 2])
    assert mesher.scale is ScaleState.SCENE
    assert mesher.stats()["voxel"] == fresh.stats()["voxel"]
    assert mesher.stats()["voxel"] == pytest.approx(median / 80, rel=1e-3)  # of every third pixel
    assert mesher.stats()["waiting_keyframes"] == mesher.stats()["waiting_blocks"] == 0
    assert len(surface_of(fresh)) > 10
    assert surface_of(mesher) == shown(client) == shown(late) == surface_of(fresh)


def test_a_map_begun_anew_while_the_old_one_comes_back_has_its_own_voxel(
    make_mesher, sphere_keyframes, tmp_path
):
    """Also in the archive, where nothing of the old one stays."""
    keyframes = sphere_keyframes(6)
    settings = {"voxel": 0.0, "min_weight": 0.5}
    died = make_mesher(archive_dir=str(tmp_path / "surface"), **settings)
    for keyframe in keyframes:
        died.integrate(keyframe)
    died.remove([0], {0: 1})
    back = make_mesher(archive_dir=str(tmp_path / "surface"), restore=True, **settings)
    back.restore()
    assert back.is_restoring
    back.remove(range(1, 6))
    larger = np.float32(3.0) * keyframes[2].pointmap
    first, fresh = replace(keyframes[2], id=50, pointmap=larger), make_mesher(**settings)
    for each in (back, fresh):
        each.integrate(first)
        each.settle(0)
    assert back.stats()["voxel"] == fresh.stats()["voxel"] > 2.0 * died.stats()["voxel"]
    assert len(surface_of(fresh)) > 10
    assert surface_of(back) == surface_of(fresh)
    (kept,) = back._archive.kept()
    assert (kept.view.id, kept.voxel) == (50, fresh.stats()["voxel"])


def test_the_voxel_of_a_mesher_before_holds_until_all_keyframes_were_removed(
    make_mesher, sphere_keyframes
):
    """A mesher that follows a killed one goes on in its blocks, but a map begun anew is another."""
    mesher, fresh = make_mesher(voxel=0.0, begun_voxel=0.07), make_mesher(voxel=0.0)
    keyframes = sphere_keyframes(4)
    mesher.integrate(keyframes[0])
    mesher.extract(0)
    assert mesher.stats()["voxel"] == pytest.approx(0.07)
    mesher.remove([keyframes[0].id])
    for each in (mesher, fresh):
        each.integrate(replace(keyframes[1], id=50))
    assert mesher.stats()["voxel"] == fresh.stats()["voxel"] != pytest.approx(0.07)


def test_nothing_stays_of_keyframes_that_had_left_the_store(
    make_mesher, sphere_keyframes, monkeypatch, tmp_path
):
    monkeypatch.setattr(view_store, "MOST_DISK_BYTES", 3 * RECORD_BYTES)
    mesher = make_mesher(store_mb=1, page_dir=str(tmp_path), min_weight=0.5)
    fresh = make_mesher(min_weight=0.5)
    keyframes = sphere_keyframes(16)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
        mesher.extract(0)
    evicted = mesher.stats()["evicted_keyframes"]
    assert len(mesher.remove(range(16)).unreachable) == evicted > 0
    for each in (mesher, fresh):
        each.integrate(replace(keyframes[9], id=50))
        each.extract(1)
    assert mesher.stats()["keyframes"] == 1
    assert surface_of(mesher) == surface_of(fresh)


def test_a_map_begun_anew_by_an_earlier_clock_has_the_times_of_that_clock(
    make_mesher, sphere_keyframes
):
    """As after a reset because stamps had jumped ahead."""
    mesher = make_mesher(min_weight=0.5)
    first, second = sphere_keyframes(2)
    ahead, behind = replace(first, stamp_ns=90 * 10**9), replace(second, stamp_ns=5 * 10**9)
    mesher.integrate(ahead)
    assert mesher.extract(0).capture_ns == ahead.stamp_ns
    mesher.remove([ahead.id])
    mesher.integrate(behind)
    assert mesher.extract(0).capture_ns == behind.stamp_ns
