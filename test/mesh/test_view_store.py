# SPDX-License-Identifier: Apache-2.0
"""More keyframes than the disk may take: the oldest leave for good, the others can still move."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest

from worldsystem_mesh import page_file, view_store
from worldsystem_mesh.page_file import HEADER

VIEW_BYTES = 160 * 120 * view_store.BYTES_PER_PIXEL
RECORD_BYTES = HEADER.size + VIEW_BYTES
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


def fill_disk(monkeypatch) -> None:
    """From now on no file grows."""

    def full(*_args: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)


def test_on_a_full_disk_keyframes_are_fused_and_the_oldest_leave(
    make_mesher, sphere_keyframes, triangle_set, monkeypatch, tmp_path, caplog
):
    small, roomy = make_mesher(store_mb=1, page_dir=str(tmp_path)), make_mesher()
    fill_disk(monkeypatch)
    for mesher in (small, roomy):
        for keyframe in sphere_keyframes(20):
            mesher.integrate(keyframe)
        mesher.extract(0)
    stats = small.stats()
    assert (stats["evicted_keyframes"], stats["stored_keyframes"]) == (12, 8)
    assert sorted(small.views.ids) == list(range(12, 20))
    assert all(small.views.get(number).depth.any() for number in list(small.views.ids))
    assert triangle_set(small.mesh()) == triangle_set(roomy.mesh())
    assert caplog.text.count("set page_dir") == 1, "said once, not with each keyframe"


def test_on_a_disk_that_fills_up_those_that_stay_can_be_read_and_moved(
    make_mesher, sphere_keyframes, monkeypatch, tmp_path
):
    """Five places are on disk, eight keyframes in memory."""
    monkeypatch.setattr(page_file, "GROWTH_BYTES", 0)
    mesher = make_mesher(store_mb=1, page_dir=str(tmp_path))
    keyframes = sphere_keyframes(20)
    for keyframe in keyframes[:12]:
        mesher.integrate(keyframe)
    fill_disk(monkeypatch)
    for keyframe in keyframes[12:]:
        mesher.integrate(keyframe)
    mesher.extract(0)
    assert sorted(mesher.views.ids) == list(range(7, 20))
    assert on_disk(mesher) == 5
    for number in list(mesher.views.ids):
        assert mesher.views.get(number).depth.any()
        assert mesher.views.bytes <= 1_000_000 + VIEW_BYTES
    assert mesher.move(elsewhere(keyframes, 0.1)).applied == tuple(range(7, 20))
    mesher.settle(0)
    assert mesher.is_settled
    assert mesher.stats()["stored_keyframes"] == 13, "none leaves while they are read"
