# SPDX-License-Identifier: Apache-2.0
"""A world of splats that was written while it grew is there again, as far as it was written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from splat_scenes import CAMERA, rounds, wall_seen_from

from worldsystem_core.reconstruction import NewKeyframe, ScaleState, Successor
from worldsystem_core.splats import world_archive
from worldsystem_core.splats.world import SplatWorld
from worldsystem_core.splats.world_archive import ArchiveFailed, WorldArchive
from worldsystem_core.told_keyframes import ToldKeyframes

PIXELS = CAMERA.width * CAMERA.height


def walls(count):
    return [wall_seen_from([20.0 * i, 0, 0], i) for i in range(count)]


@pytest.fixture
def archive(tmp_path):
    return WorldArchive(tmp_path, restore=False)


def saved(archive, world, told=None, scale=ScaleState.SCENE):
    """After as many calls as it takes."""
    for turn in range(len(world.chunks) + 1):
        archive.save(world, told or ToldKeyframes(), scale, float(turn))


def back_from(tmp_path):
    world, told = SplatWorld(), ToldKeyframes()
    scale = WorldArchive(tmp_path, restore=True).restore(world, told)
    return world, told, scale


def assert_same_splats(world, other):
    assert list(world.chunks) == list(other.chunks)
    ours, theirs = world.gaussians(), other.gaussians()
    for name in ("means", "scales", "rotations", "rgb", "opacities"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-6)


def test_it_is_the_same_world_and_shows_the_same_already(archive, tmp_path):
    world, told = SplatWorld(), ToldKeyframes()
    for keyframe in walls(6):
        world.add(keyframe)
        told.note(NewKeyframe(keyframe))
    turned = walls(1)[0].world_from_cam.copy()
    turned[:3, 3] += [0, 0, 2.5]
    world.move({0: turned}, {0: 1.5})
    saved(archive, world, told, ScaleState.METRIC)
    back, known, scale = back_from(tmp_path)
    assert_same_splats(back, world)
    assert scale is ScaleState.METRIC
    assert all(known.lies_there(keyframe) for keyframe in walls(6))
    assert back.voxel == world.voxel
    assert list(back.changed) == list(world.chunks)  # nobody was told of them
    assert back.add(wall_seen_from([20.0, 0.02, 0], 9)) < 0.1 * PIXELS
    assert back.add(wall_seen_from([300, 0, 0], 10)) == PIXELS


def test_what_hangs_on_another_keyframe_still_goes_along_with_it(archive, tmp_path):
    older, heir = walls(2)
    world = SplatWorld()
    for keyframe in (older, heir):
        world.add(keyframe)
    world.hang_on({0: Successor(1, heir.world_from_cam)})
    saved(archive, world)
    back, _, _ = back_from(tmp_path)
    there = heir.world_from_cam.copy()
    there[:3, 3] += [1.0, 2.0, 3.0]
    for each in (world, back):
        each.move({1: there}, {1: 2.0})
    assert_same_splats(back, world)
    back.remove([1])
    assert not back.chunks


def test_chunks_that_were_joined_or_went_leave_no_file(archive, tmp_path):
    world = SplatWorld()
    rounds(world, 0, 7)
    saved(archive, world)
    rounds(world, 7, 12)
    saved(archive, world)
    files = {path.stem for path in tmp_path.glob("chunk_*.npz")}
    assert files == {f"chunk_{number}" for number in world.chunks}
    assert_same_splats(back_from(tmp_path)[0], world)


def test_a_turn_writes_few_chunks_and_those_that_changed(archive, tmp_path):
    world = SplatWorld()
    for keyframe in walls(2 * world_archive.CHUNKS_AT_ONCE):
        world.add(keyframe)
    archive.save(world, ToldKeyframes(), ScaleState.SCENE, 0.0)
    first = sorted(tmp_path.glob("chunk_*.npz"))
    assert len(first) == world_archive.CHUNKS_AT_ONCE
    written = {path: path.stat().st_mtime_ns for path in first}
    saved(archive, world)
    assert len(list(tmp_path.glob("chunk_*.npz"))) == 2 * world_archive.CHUNKS_AT_ONCE
    assert {path: path.stat().st_mtime_ns for path in first} == written
    saved(archive, world)
    assert {path: path.stat().st_mtime_ns for path in first} == written


@pytest.mark.parametrize("harm", ["missing", "cut", "changed"])
def test_a_keyframe_whose_splats_are_not_whole_counts_as_not_told(archive, tmp_path, harm, caplog):
    world, told = SplatWorld(), ToldKeyframes()
    for keyframe in walls(3):
        world.add(keyframe)
        told.note(NewKeyframe(keyframe))
    saved(archive, world, told)
    path = tmp_path / "chunk_1.npz"
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        at = len(content) // 3
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    back, known, _ = back_from(tmp_path)
    assert list(back.chunks) == [0, 2]
    assert [known.knows(keyframe) for keyframe in walls(3)] == [True, False, True]
    assert back.add(walls(2)[1]) == PIXELS
    assert ("chunk_1" in caplog.text) == (harm != "missing")


def test_without_a_whole_file_of_the_world_there_is_none(archive, tmp_path):
    world = SplatWorld()
    world.add(walls(1)[0])
    saved(archive, world)
    (tmp_path / "world.npz").write_bytes(b"PK nothing")
    back, known, _ = back_from(tmp_path)
    assert not back.chunks
    assert known.ids == ()
    assert back.add(walls(1)[0]) == PIXELS


def test_one_that_is_not_to_go_on_begins_with_nothing(archive, tmp_path):
    world = SplatWorld()
    world.add(walls(1)[0])
    saved(archive, world)
    WorldArchive(tmp_path, restore=False)
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_all_of_it_goes(archive, tmp_path, monkeypatch, caplog):
    world = SplatWorld()
    world.add(walls(1)[0])
    saved(archive, world)
    world.add(walls(2)[1])

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    archive.save(world, ToldKeyframes(), ScaleState.SCENE, 10.0)
    monkeypatch.undo()
    assert "No space left" in caplog.text
    assert not list(tmp_path.iterdir())
    archive.save(world, ToldKeyframes(), ScaleState.SCENE, 20.0)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveFailed, match=r"file.*archive_dir"):
        WorldArchive(tmp_path / "file" / "below", restore=False)


def test_a_chunk_whose_file_is_empty_costs_itself_alone(archive, tmp_path):
    """As a loss of power leaves one."""
    world, told = SplatWorld(), ToldKeyframes()
    for keyframe in walls(4):
        world.add(keyframe)
        told.note(NewKeyframe(keyframe))
    saved(archive, world, told)
    (tmp_path / "chunk_0.npz").write_bytes(b"")
    back, known, _ = back_from(tmp_path)
    assert list(back.chunks) == [number for number in world.chunks if number]
    assert known.ids == tuple(number for number in told.ids if number)


def test_a_disk_that_is_only_read_costs_nothing_but_the_archive(archive, monkeypatch):
    world = SplatWorld()
    world.add(walls(1)[0])
    saved(archive, world)
    world.add(walls(2)[1])

    def refuses(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuses)
    monkeypatch.setattr(Path, "unlink", refuses)
    archive.save(world, ToldKeyframes(), ScaleState.SCENE, 99.0)
