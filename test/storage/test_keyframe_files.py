# SPDX-License-Identifier: Apache-2.0
"""For each keyframe there is a picture and a pose, and both are what is known now."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
)
from worldsystem_storage.keyframe_files import KeyframeFiles


def pose(x: float) -> np.ndarray:
    world_from_cam = np.eye(4)
    world_from_cam[0, 3] = x
    return world_from_cam


def keyframe(number: int) -> Keyframe:
    return Keyframe(
        id=number,
        frame_id=number,
        stamp_ns=number,
        world_from_cam=pose(number),
        camera=Camera(width=32, height=24, fx=30.0, fy=30.0, cx=15.5, cy=11.5),
        pointmap=np.ones((24, 32, 3), np.float32),
        confidence=np.ones((24, 32), np.float32),
        rgb=np.full((24, 32, 3), (200, 40, 90), np.uint8),
    )


@pytest.fixture
def files(tmp_path) -> KeyframeFiles:
    files = KeyframeFiles(tmp_path, quality=95)
    for number in range(3):
        files.take(NewKeyframe(keyframe(number)))
    return files


def test_a_keyframe_is_a_picture_and_its_pose(files, tmp_path):
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *(f"keyframe_{n}.jpg" for n in range(3)),
        *(f"pose_{n}.npy" for n in range(3)),
    ]
    stored = np.load(tmp_path / "pose_2.npy")
    assert stored.dtype == np.float64
    assert np.array_equal(stored, pose(2))
    blue, green, red = cv2.imread(str(tmp_path / "keyframe_2.jpg"))[12, 16]
    assert np.abs(np.array([red, green, blue], int) - (200, 40, 90)).max() < 6


def test_a_pose_that_is_corrected_is_written_anew_and_unknown_ones_are_left(files, tmp_path):
    files.take(MovedKeyframes({1: pose(7.5), 9: pose(1)}))
    assert files.settle() == ""
    assert np.array_equal(np.load(tmp_path / "pose_1.npy"), pose(7.5))
    assert not (tmp_path / "pose_9.npy").exists()


def test_a_pose_is_written_once_however_often_it_moved_meanwhile(files, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(files, "_replace", lambda name, _: written.append(name))
    for x in range(5):
        files.take(MovedKeyframes({0: pose(x), 1: pose(x)}))
    files.settle()
    files.settle()
    assert written == ["pose_0.npy", "pose_1.npy"]


def test_where_a_keyframe_lay_before_it_was_told_anew_or_taken_back_is_not_written(files, tmp_path):
    files.take(MovedKeyframes({0: pose(7.5), 1: pose(7.5)}))
    files.take(RemovedKeyframes((0,)))
    files.take(NewKeyframe(keyframe(1)))
    files.settle()
    assert not (tmp_path / "pose_0.npy").exists()
    assert np.array_equal(np.load(tmp_path / "pose_1.npy"), keyframe(1).world_from_cam)


def test_a_keyframe_that_is_taken_back_leaves_neither_file(files, tmp_path):
    files.take(RemovedKeyframes((0, 9)))
    assert {p.name for p in tmp_path.iterdir()} == {
        "keyframe_1.jpg",
        "keyframe_2.jpg",
        "pose_1.npy",
        "pose_2.npy",
    }


def test_what_cannot_be_written_is_counted_and_told_once(files, tmp_path, caplog):
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()
    for number in range(3, 6):
        files.take(NewKeyframe(keyframe(number)))
    assert files.dropped == {"keyframe_not_written": 3}
    assert len(caplog.records) == 1


def test_a_keyframe_whose_picture_cannot_be_written_leaves_no_pose_alone(files, tmp_path):
    (tmp_path / ".keyframe_3.jpg.new").mkdir()  # in the way of the picture
    assert files.take(NewKeyframe(keyframe(3))) == "keyframe_not_written"
    assert not (tmp_path / "pose_3.npy").exists()
    (tmp_path / ".keyframe_3.jpg.new").rmdir()
    assert files.take(NewKeyframe(keyframe(3))) == ""
    assert (tmp_path / "pose_3.npy").exists()
    assert (tmp_path / "keyframe_3.jpg").exists()


def test_a_write_that_fails_leaves_nothing_beside_what_was_there(files, tmp_path):
    (tmp_path / "pose_1.npy").unlink()
    (tmp_path / "pose_1.npy").mkdir()  # in the way of the new one
    files.take(MovedKeyframes({1: pose(7.5)}))
    files.settle()
    assert not list(tmp_path.glob(".*.new"))


def test_a_pose_that_cannot_be_written_keeps_no_other_from_it(files, tmp_path):
    (tmp_path / ".pose_0.npy.new").mkdir()
    moved = MovedKeyframes({0: pose(5), 1: pose(7.5)})
    files.take(moved)
    assert files.settle() == "keyframe_not_written"
    assert np.array_equal(np.load(tmp_path / "pose_1.npy"), pose(7.5))
    assert files.dropped == {"keyframe_not_written": 1}
