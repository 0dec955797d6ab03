# SPDX-License-Identifier: Apache-2.0
"""The surface's code in segments: packed, on disk where memory is short, and never piling up."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from worldsystem_mesh.cells import NO_CELLS, joined
from worldsystem_mesh.segments import SegmentStore, pack, unpack


def test_surface_code_stays_in_memory_where_the_disk_is_full(tmp_path, monkeypatch, caplog):
    store, cells = SegmentStore(1, str(tmp_path)), NO_CELLS

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "posix_fallocate", full)
        numbers = [store.add(cells) for _ in range(4)]
    assert store.disk_bytes == 0
    assert all(store.get(number) is cells for number in numbers)
    assert caplog.text.count("more memory than its budget") == 1
    store.add(cells)
    assert store.disk_bytes > 0
    assert len(store.get(numbers[0])) == 0
    store.close()


def test_packed_surface_code_unpacks_to_itself(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    for keyframe in sphere_keyframes(6):
        mesher.integrate(keyframe)
    mesher.extract(0)
    cells = mesher.surface.cells(mesher.surface.all_ids())
    again = unpack(pack(cells))
    for name in cells.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(cells, name))
    halves = [cells.taken(np.arange(0, 5)), cells.taken(np.arange(5, len(cells)))]
    together = joined(halves)
    for name in cells.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(together, name), getattr(cells, name))


def test_stale_surface_code_does_not_pile_up(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    (keyframe,) = plane_keyframes(1)
    rng = np.random.default_rng(0)
    for turn in range(60):
        noisy = keyframe.pointmap * np.float32(1.0) + rng.normal(0, 0.01, (120, 160, 1)).astype(
            np.float32
        ) * np.array([0, 0, 1], np.float32)
        mesher.integrate(replace(keyframe, id=turn, pointmap=noisy.astype(np.float32)))
        mesher.extract(0)
    live = mesher.surface.cells(mesher.surface.all_ids()).bytes
    assert mesher.surface._segments.bytes < 3 * live


def test_stale_surface_code_does_not_pile_up_on_disk(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    mesher.surface._segments._budget_bytes = 1
    (keyframe,) = plane_keyframes(1)
    rng = np.random.default_rng(0)
    kept: list[int] = []
    for turn in range(60):
        seen = np.zeros((120, 160, 1), bool)
        row, column = rng.integers(0, 90), rng.integers(0, 120)
        seen[row : row + 30, column : column + 40] = True
        noisy = keyframe.pointmap * (1 + rng.normal(0, 0.01, seen.shape)).astype(np.float32)
        part = noisy if turn == 0 else np.where(seen, noisy, np.float32(np.nan))
        mesher.integrate(replace(keyframe, id=turn, pointmap=part))
        mesher.extract(0)
        kept.append(mesher.surface._kept)
    assert mesher.surface.disk_bytes > 0
    assert max(kept) < 3 * mesher.surface.vertex_total


def test_segments_beyond_the_budget_are_dropped_from_disk_when_stale(tmp_path):
    store = SegmentStore(0, str(tmp_path))
    numbers = [store.add(NO_CELLS) for _ in range(5)]
    assert store.disk_bytes > 0
    for number in numbers:
        assert len(store.get(number)) == 0
        store.drop(number)
    assert store.bytes == 0
    store.close()
    assert not list(tmp_path.iterdir())
