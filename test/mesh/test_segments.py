# SPDX-License-Identifier: Apache-2.0
"""The surface's code in segments: packed, on disk where memory is short, and never piling up."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from worldsystem_mesh.cells import NO_CELLS, joined
from worldsystem_mesh.extraction import Extracted
from worldsystem_mesh.segments import SegmentStore, pack, unpack
from worldsystem_mesh.surface_store import SurfaceStore


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


def surface_in_one_segment(mesher, keyframes) -> tuple[SurfaceStore, Extracted]:
    """A store of its own with all that the mesher drew of these, as if told at once."""
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    mesher.extract(0)
    ids = mesher.surface.all_ids()
    drawn = Extracted(ids, mesher.surface.cells(ids), np.arange(1, len(ids) + 1))
    store = SurfaceStore(1 << 30)
    store.update([drawn])
    return store, drawn


def test_what_is_left_of_a_segment_lets_go_of_the_rest(make_mesher, sphere_keyframes):
    store, drawn = surface_in_one_segment(make_mesher(min_weight=0.5), sphere_keyframes(6))
    (segment,) = store._members
    old, gone = store._segments.get(segment), drawn.blocks[5:]
    starts, counts = np.zeros(len(gone) + 1, np.int32), np.zeros(len(gone), np.int32)
    empty = replace(
        NO_CELLS,
        index=store.index(gone),
        version=counts,
        vertex_start=starts,
        cell_start=starts,
        face_counts=counts,
    )
    store.update([Extracted(gone, empty, np.zeros(len(gone), np.int64))])
    (left,) = store._members
    new = store._segments.get(left)
    assert left != segment
    assert len(new) == 5
    assert len(new.edges)
    assert not np.shares_memory(new.edges, old.edges)


def test_the_only_block_that_differs_does_not_keep_what_was_drawn_with_it(
    make_mesher, sphere_keyframes
):
    store, drawn = surface_in_one_segment(make_mesher(min_weight=0.5), sphere_keyframes(6))
    marks = drawn.fingerprint.copy()
    marks[7] = -1
    store.update([replace(drawn, fingerprint=marks)])
    new = store._segments.get(max(store._members))
    assert len(new) == 1
    assert len(new.edges)
    assert not np.shares_memory(new.edges, drawn.cells.edges)


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
