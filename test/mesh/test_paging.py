# SPDX-License-Identifier: Apache-2.0
"""Memory that is short: what goes to disk comes back the same, also after a kill."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldsystem_core.geometry.se3 import look_at
from worldsystem_mesh import block_pool, page_file, segments
from worldsystem_mesh.page_file import HEADER, RESIDENT_BYTES, PageFile, PagingFailed

SIZE = 1000
SMALL = 3_400_000
"""Bytes for one view's blocks and the index."""


def body(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SIZE).astype(np.uint8)


@pytest.fixture
def pages(tmp_path):
    made = PageFile(tmp_path / "a.pages", SIZE)
    yield made
    made.close(delete=False)


def test_what_is_written_is_read_back_and_the_newest_counts(pages):
    for key in range(50):
        pages.write(key, body(key))
    for key in range(0, 50, 2):
        pages.write(key, body(1000 + key))
    pages.forget(1)
    assert len(pages) == 49
    assert 1 not in pages
    for key in (0, 2, 48):
        np.testing.assert_array_equal(pages.read(key), body(1000 + key))
    np.testing.assert_array_equal(pages.read(3), body(3))


def test_places_of_old_records_are_used_again(pages):
    for turn in range(100):
        pages.write(7, body(turn))
    assert pages.size_bytes <= 2 * (SIZE + HEADER.size + 8)


def test_a_file_left_behind_is_found_with_its_newest_records(tmp_path):
    path = tmp_path / "left.pages"
    first = PageFile(path, SIZE)
    for key in range(20):
        first.write(key, body(key))
    first.write(3, body(333))
    first.forget(4)
    again = PageFile.open_existing(path, SIZE)
    assert sorted(again.keys) == [key for key in range(20) if key != 4]
    np.testing.assert_array_equal(again.read(3), body(333))
    again.write(21, body(21))
    np.testing.assert_array_equal(again.read(19), body(19))


def test_a_record_forgotten_after_a_kill_between_two_headers_stays_forgotten(pages, monkeypatch):
    """Killed when the newer one was whole and the older one's place not free yet."""
    pages.write(7, body(1))
    monkeypatch.setattr(pages, "_release", lambda _place: None)
    pages.write(7, body(2))
    again = PageFile.open_existing(pages.path, SIZE)
    np.testing.assert_array_equal(again.read(7), body(2))
    again.forget(7)
    again.close(delete=False)
    assert list(PageFile.open_existing(pages.path, SIZE).keys) == []


def test_a_damaged_record_is_an_error_and_no_record_after_a_restart(tmp_path, pages):
    pages.write(1, body(1))
    pages.write(2, body(2))
    at = HEADER.size + 100
    pages._map[at : at + 1] = bytes([pages._map[at] ^ 1])
    with pytest.raises(PagingFailed, match="damaged"):
        pages.read(1)
    again = PageFile.open_existing(pages.path, SIZE)
    assert sorted(again.keys) == [2]


def test_a_full_disk_is_an_error_that_says_so(pages, monkeypatch):
    def full(*_args: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(PagingFailed, match="page_dir"):
        pages.write(1, body(1))
    monkeypatch.undo()
    pages.write(1, body(1))
    np.testing.assert_array_equal(pages.read(1), body(1))


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PagingFailed, match="file"):
        PageFile.temporary(tmp_path / "file" / "below", "blocks", SIZE)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_what_was_moved_to_disk_does_not_count_as_memory_of_the_process(tmp_path):
    record = 1 << 20
    pages = PageFile(tmp_path / "large.pages", record)
    payload = np.arange(record, dtype=np.uint64).astype(np.uint8)
    most = 0
    for key in range(40):
        pages.write(key, payload + np.uint8(key))
        most = max(most, resident_bytes(pages.path))
    assert pages.size_bytes > 40 * record
    for key in range(40):
        assert np.array_equal(pages.read(key), payload + np.uint8(key))
        most = max(most, resident_bytes(pages.path))
    pages.close(delete=True)
    assert 0 < most <= RESIDENT_BYTES + 2 * record


def resident_bytes(path: Path) -> int:
    """What of a mapped file counts as this process's memory."""
    found, total_kb = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            found = words[-1] == str(path)
        elif found and words[0] == "Rss:":
            total_kb += int(words[1])
    return 1024 * total_kb


@pytest.mark.parametrize("records", [15, 90, 333])
def test_a_killed_process_loses_nothing_that_it_had_written(tmp_path, records):
    path = tmp_path / "killed.pages"
    script = Path(__file__).with_name("page_writer.py")
    command = [sys.executable, str(script), str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(records)]
    os.kill(writer.pid, signal.SIGKILL)
    lines += writer.stdout.read().splitlines()
    writer.wait(timeout=10)
    told: dict[int, tuple[int, int]] = {}
    for line in lines:
        words = line.split()
        if len(words) == 3:
            told[int(words[0])] = (int(words[1]), int(words[2]))
    assert len(told) > 10
    found = PageFile.open_existing(path, 3000)
    for key, (turn, checksum) in told.items():
        held = zlib.crc32(found.read(key))
        # the record of the next turn may have been whole, too, before its line was printed
        newer = np.random.default_rng([key, turn + 1]).integers(0, 256, 3000).astype(np.uint8)
        assert held in (checksum, zlib.crc32(newer))


def far_apart(keyframes, count: int, step: float):
    """The same view from places `step` apart along x."""
    for i in range(count):
        keyframe = keyframes[i % len(keyframes)]
        pose = keyframe.world_from_cam.copy()
        pose[0, 3] += step * (i // len(keyframes))
        yield replace(keyframe, id=i, world_from_cam=pose)


def run(mesher, keyframes) -> None:
    for keyframe in far_apart(keyframes, 16, 4.0):
        mesher.integrate(keyframe)
        mesher.extract(0)
    for keyframe in far_apart(keyframes, 4, 4.0):  # back at the start
        mesher.integrate(replace(keyframe, id=100 + keyframe.id))
        mesher.extract(0)


def voxels_of(mesher, count: int | None = None) -> dict[tuple, bytes]:
    """Voxels of all blocks, or of the first `count`, by index."""
    found = {}
    volume = mesher.volume
    end = volume.block_count if count is None else count
    for start in range(0, end, 100):
        blocks = np.arange(start, min(start + 100, end), dtype=np.int32)
        assert volume.make_resident(blocks) == 0
        slots = volume.pool.slot[blocks]
        held = [volume.pool.rows(name, slots) for name in ("paint", "sdf", "rim")]
        for b, index in enumerate(volume.coords(blocks).tolist()):
            found[tuple(index)] = b"".join(values[b].tobytes() for values in held)
    return found


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(block_pool, "EVICT_AT_ONCE", 16)
    monkeypatch.setattr(block_pool, "MOVED_AT_ONCE", 7)
    monkeypatch.setattr(block_pool, "GIVEN_BACK_AT_ONCE", 3)


def test_a_volume_that_pages_equals_one_that_does_not(
    make_mesher, plane_keyframes, triangle_set, small_steps, tmp_path
):
    keyframes = plane_keyframes(4)
    small = make_mesher(min_weight=0.5, memory_mb=8, page_dir=str(tmp_path))
    roomy = make_mesher(min_weight=0.5)
    small.integrate(keyframes[0])
    roomy.integrate(keyframes[0])
    budget = SMALL
    small.volume.pool._budget_bytes = budget
    for mesher in (small, roomy):
        run(mesher, keyframes)
        mesher.settle(0)
    stats = small.stats()
    assert stats["paged_out_blocks"] > 200
    assert stats["paged_in_blocks"] > 100
    assert stats["refused_blocks"] == 0
    assert small.volume.bytes <= budget + 8 * block_pool.SLOT_BYTES
    assert roomy.stats()["paged_out_blocks"] == 0
    assert triangle_set(small.mesh()) == triangle_set(roomy.mesh())
    assert voxels_of(small) == voxels_of(roomy)


def test_slots_that_the_budget_has_no_room_for_any_more_go_back_to_the_system(
    make_mesher, plane_keyframes, small_steps, tmp_path
):
    keyframes = plane_keyframes(4)
    shrinking = make_mesher(min_weight=0.5, page_dir=str(tmp_path))
    roomy = make_mesher(min_weight=0.5)
    highest = []
    for at, keyframe in enumerate(far_apart(keyframes, 16, 4.0)):
        for mesher in (shrinking, roomy):
            mesher.integrate(keyframe)
            mesher.extract(0)
        if at in (8, 12):  # less than it has
            held = shrinking.volume.bytes - 100 * block_pool.SLOT_BYTES
            shrinking.volume.pool._budget_bytes = held
        pool = shrinking.volume.pool
        highest.append(pool._high_water)
        for name in block_pool.PER_SLOT:
            assert not pool.rows(name, np.arange(pool._high_water, pool._slots)).any()
    assert highest[8] > highest[9]
    assert highest[12] > highest[13]
    assert highest[-1] < shrinking.volume.slot_limit + block_pool.GIVEN_BACK_AT_ONCE
    assert voxels_of(shrinking) == voxels_of(roomy)


def test_a_full_disk_costs_what_is_new_and_goes_on_once_there_is_room(
    make_mesher, plane_keyframes, small_steps, tmp_path, monkeypatch, caplog
):
    mesher, keyframes = make_mesher(min_weight=0.5, page_dir=str(tmp_path)), plane_keyframes(12)
    mesher.integrate(keyframes[0])
    mesher.volume.pool._budget_bytes = 2_000_000  # 120 blocks beside the index

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "posix_fallocate", full)
        for keyframe in keyframes[1:6]:
            mesher.integrate(keyframe)
            mesher.extract(keyframe.id)
    stats = mesher.stats()
    assert stats["refused_blocks"] > 0
    assert stats["paged_out_blocks"] == 0
    assert caplog.text.count("are left out") == 1, "it is said once"
    for keyframe in keyframes[6:]:
        mesher.integrate(keyframe)
        mesher.extract(keyframe.id)
    assert mesher.stats()["paged_out_blocks"] > 0


def test_a_disk_that_fills_up_keeps_no_block_that_it_has(
    make_mesher, plane_keyframes, small_steps, tmp_path, monkeypatch
):
    monkeypatch.setattr(page_file, "GROWTH_BYTES", 0)
    keyframes = plane_keyframes(4)
    small = make_mesher(min_weight=0.5, memory_mb=8, page_dir=str(tmp_path))
    roomy = make_mesher(min_weight=0.5)
    small.integrate(keyframes[0])
    roomy.integrate(keyframes[0])
    small.volume.pool._budget_bytes = SMALL
    for mesher in (small, roomy):
        run(mesher, keyframes)
    known = small.volume.block_count

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "posix_fallocate", full)
        for mesher in (small, roomy):
            for turn in range(6):
                pose = keyframes[0].world_from_cam.copy()
                pose[1, 3] += 100.0 + 10.0 * turn  # far from all that was seen
                mesher.integrate(replace(keyframes[0], id=900 + turn, world_from_cam=pose))
                mesher.extract(0)
            for keyframe in far_apart(keyframes, 16, 4.0):
                mesher.integrate(replace(keyframe, id=200 + keyframe.id))
                mesher.extract(0)
        assert small.stats()["refused_blocks"] > 0
        mine, theirs = voxels_of(small, known), voxels_of(roomy)
    assert mine == {index: theirs[index] for index in mine}
    assert len(small.mesh().vertices) < len(roomy.mesh().vertices), "what was new is left out"


def test_keyframes_move_also_what_is_on_disk(make_mesher, plane_keyframes, small_steps, tmp_path):
    keyframes = plane_keyframes(4)
    small = make_mesher(min_weight=0.5, memory_mb=8, store_mb=1, page_dir=str(tmp_path))
    roomy = make_mesher(min_weight=0.5)
    small.integrate(keyframes[0])
    small.volume.pool._budget_bytes = SMALL
    for mesher in (small, roomy):
        run(mesher, keyframes)
        poses = {}
        for number in list(mesher.views.ids):
            pose = mesher.views.outline(number).world_from_cam.copy()
            pose[2, 3] += 0.3
            poses[number] = pose
        mesher.move(poses)
        mesher.settle(0)
    assert small.stats()["paged_in_blocks"] > 100
    held = {index: voxels for index, voxels in voxels_of(small).items() if any(voxels)}
    assert held == {index: voxels for index, voxels in voxels_of(roomy).items() if any(voxels)}


def test_surface_code_on_disk_is_what_it_was(make_mesher, plane_keyframes, monkeypatch):
    monkeypatch.setattr(segments, "RECORD_BYTES", 4096)
    small, roomy = make_mesher(min_weight=0.5), make_mesher(min_weight=0.5)
    small.surface._segments._budget_bytes = 300_000
    for mesher in (small, roomy):
        run(mesher, plane_keyframes(4))
    assert small.surface._segments.bytes <= 300_000 + 200_000  # and the newest segment
    assert small.surface.disk_bytes > 100_000
    mine, theirs = small.mesh(), roomy.mesh()
    np.testing.assert_array_equal(mine.vertices, theirs.vertices)
    np.testing.assert_array_equal(mine.colours, theirs.colours)


def test_large_segments_lie_beside_the_heap_and_are_what_they_were(
    make_mesher, plane_keyframes, monkeypatch
):
    mesher = make_mesher(min_weight=0.5)
    run(mesher, plane_keyframes(4))
    cells = mesher.surface.cells(mesher.surface.all_ids())
    store = segments.SegmentStore(1 << 30, "")
    assert cells.bytes >= segments.LARGE_BYTES
    large, small = store.get(store.add(cells)), cells.taken(np.arange(2))
    assert store.get(store.add(small)) is small
    assert np.array_equal(segments.pack(large), segments.pack(cells))
    assert all(owner_of(getattr(large, name)) is not None for name in ("index", "edges", "cases"))
    assert owner_of(large.edges) is owner_of(large.cases)


def owner_of(array: np.ndarray) -> mmap.mmap | None:
    """The pages that the array lies in, if these are its own."""
    held: object = array
    while isinstance(held, np.ndarray):
        held = held.base
    owner = held.obj if isinstance(held, memoryview) else held
    return owner if isinstance(owner, mmap.mmap) else None


def test_looking_back_at_a_place_on_disk_continues_there(make_mesher, plane_keyframes):
    """Free space, too: a block on disk is still seen through."""
    ghost_height = 1.0
    mesher = make_mesher(min_weight=0.5)
    pose = look_at(np.array([0.0, 0.0, 2.0]), np.array([0.3, 0.2, 0.0]), np.array([0.1, 0.2, 1.0]))
    (keyframe,) = plane_keyframes(1)
    near = replace(keyframe, id=1, pointmap=keyframe.pointmap * np.float32(0.5))
    mesher.integrate(near)
    ghost = mesher.volume.pool
    ghost._clock += 1
    blocks = np.arange(mesher.volume.block_count, dtype=np.int32)
    ghost._page_out(blocks)
    assert ghost.is_paging
    for turn in range(2, 6):
        mesher.integrate(replace(keyframe, id=turn, world_from_cam=pose))
    mesher.settle(0)
    assert ghost.paged_in > 0
    assert (mesher.mesh().vertices[:, 2] < 0.5 * ghost_height).all()
