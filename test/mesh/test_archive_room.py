# SPDX-License-Identifier: Apache-2.0
"""The archive keeps to the disk that it was given, and uses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldsystem_core.reconstruction import ScaleState
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.view import view_from_keyframe
from worldsystem_mesh.view_archive import ViewArchive
from worldsystem_mesh.view_store import BYTES_PER_PIXEL


@pytest.fixture
def archive_of(tmp_path):
    """An archive of so many bytes in a folder of its own, closed at the end."""
    made = []

    def make(capacity_bytes: int, *, restore: bool = False) -> ViewArchive:
        made.append(ViewArchive(tmp_path / "surface", capacity_bytes, restore=restore))
        return made[-1]

    yield make
    for each in made:
        each.close()


def on_disk(folder) -> int:
    """Bytes, in whole blocks of the file system."""
    return sum(512 * path.stat().st_blocks for path in folder.iterdir())


def put(archive: ViewArchive, keyframe, number: int) -> None:
    view = view_from_keyframe(keyframe, MeshConfig(), number)
    archive.put(replace(view, id=number), keyframe, 0.05, ScaleState.SCENE)


@pytest.mark.parametrize("keyframes_room", [8.5, 30, 90])
@pytest.mark.parametrize("cut", [1, 4])
def test_its_files_take_what_it_was_given_and_hold_nearly_as_much(
    archive_of, plane_keyframes, tmp_path, keyframes_room, cut
):
    (whole,) = plane_keyframes(1)
    keyframe = replace(
        whole,
        pointmap=whole.pointmap[::cut].copy(),
        confidence=whole.confidence[::cut].copy(),
        rgb=whole.rgb[::cut].copy(),
    )
    size = keyframe.confidence.size * BYTES_PER_PIXEL
    capacity = int(keyframes_room * size) + 2 * 4096
    archive = archive_of(capacity)
    for number in range(1, 120):
        put(archive, keyframe, number)
        if number % 2 == 0:
            archive.leave(number - 1, number, np.array([number], np.int32))
        assert on_disk(tmp_path / "surface") <= capacity + 2 * 4096
    held = archive.kept()
    assert len(held) * size > 0.7 * capacity
    assert any(one.heir is None for one in held)


def test_the_oldest_replaced_one_of_the_same_size_makes_room(archive_of, plane_keyframes):
    keyframe = plane_keyframes(1)[0]
    archive = archive_of(1_000_000)
    for number in range(1, 30):
        put(archive, keyframe, number)
        archive.leave(number, 1000, np.array([number], np.int32))
    newest = [one.view.id for one in archive.kept()]
    assert newest == list(range(30 - len(newest), 30))
    assert len(newest) == 8
    assert archive.bytes <= 1_000_000


def test_one_that_came_back_with_more_than_it_may_hold_uses_the_places_that_it_has(
    archive_of, plane_keyframes, tmp_path
):
    keyframe = plane_keyframes(1)[0]
    first = archive_of(3_000_000)
    for number in range(1, 20):
        put(first, keyframe, number)
    before = on_disk(tmp_path / "surface")
    back = archive_of(1_000_000, restore=True)
    assert len(back.kept()) == 19
    back.drop(1)
    put(back, keyframe, 50)
    assert [one.view.id for one in back.kept()] == [*range(2, 20), 50]
    assert on_disk(tmp_path / "surface") <= before
