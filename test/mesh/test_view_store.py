# SPDX-License-Identifier: Apache-2.0
"""More keyframes than the disk may take: the oldest leave for good, the others can still move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldsystem_mesh import view_store
from worldsystem_mesh.page_file import HEADER

RECORD_BYTES = HEADER.size + 160 * 120 * view_store.BYTES_PER_PIXEL
"""One keyframe of the fixtures on disk."""


@pytest.fixture
def three_on_disk(monkeypatch):
    monkeypatch.setattr(view_store, "MOST_DISK_BYTES", 3 * RECORD_BYTES)


@pytest.fixture
def mesher(make_mesher, sphere_keyframes, three_on_disk, tmp_path):
    """After 16 keyframes, of which eight are in memory and three on disk."""
    made = make_mesher(store_mb=1, page_dir=str(tmp_path))
    for keyframe in sphere_keyframes(16):
        made.integrate(keyframe)
        made.extract(0)
    return made


def elsewhere(keyframes, x: float) -> dict[int, np.ndarray]:
    poses = {}
    for keyframe in keyframes:
        pose = keyframe.world_from_cam.copy()
        pose[:3, 3] += (x, 0.0, 0.2)
        poses[keyframe.id] = pose
    return poses


def on_disk(mesher) -> int:
    return sum(len(pages) for pages in mesher.views._files.values())


def test_beyond_the_limit_only_the_oldest_keyframes_leave(mesher):
    stats = mesher.stats()
    assert on_disk(mesher) == 3
    assert (stats["evicted_keyframes"], stats["stored_keyframes"]) == (5, 11)
    assert stats["keyframes"] == 16  # what the oldest gave is in the surface still
    assert sorted(mesher.views.ids) == list(range(5, 16))


def test_those_that_stay_can_be_moved(mesher, sphere_keyframes):
    done = mesher.move(elsewhere(sphere_keyframes(16), 0.1))
    assert done.unreachable == tuple(range(5))
    assert done.applied == tuple(range(5, 16))
    assert mesher.settle(0) is not None
    assert mesher.is_settled
    assert mesher.stats()["stored_keyframes"] == 11, "none leaves while they are read"


def test_a_keyframe_that_leaves_before_it_is_moved_is_moved_no_more(mesher, sphere_keyframes):
    keyframes = sphere_keyframes(24)[16:19]
    mesher.move(elsewhere(sphere_keyframes(16), 0.1))
    for turn, keyframe in enumerate(keyframes):
        mesher.integrate(keyframe)
        mesher._fusion._made.refusion._plan_one()
        assert mesher.stats()["evicted_keyframes"] > 5 + turn
    waiting = mesher.stats()["waiting_keyframes"]
    assert 0 < waiting < 11
    assert set(mesher._fusion._made.refusion._planned) <= set(mesher.views.ids)
    mesher.settle(0)
    assert mesher.is_settled


def test_successors_of_evicted_keyframes_are_taken_out_like_others(mesher, sphere_keyframes):
    mesher.remove([6], {6: 5})  # what 6 gave stays until 5 moves, but 5 is the next to leave
    assert 5 in mesher._fusion._made.refusion._left_by
    (keyframe, *_) = sphere_keyframes(16)
    for number in (100, 101):
        mesher.integrate(replace(keyframe, id=number))
    assert 5 not in mesher.views
    assert 5 not in mesher._fusion._made.refusion._left_by
    assert mesher.remove([5, 7], {7: 5}).applied == (7,)
    mesher.settle(0)
    assert mesher.is_settled
