# SPDX-License-Identifier: Apache-2.0
"""A keyframe told again is known, one that was moved or took another's number is not."""

from __future__ import annotations

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
)
from worldsystem_core.told_keyframes import ToldKeyframes


def keyframe(id: int, frame_id: int, x: float = 0.0) -> Keyframe:
    pose = np.eye(4)
    pose[0, 3] = x
    return Keyframe(
        id=id,
        frame_id=frame_id,
        stamp_ns=0,
        world_from_cam=pose,
        camera=Camera(width=2, height=2, fx=1.0, fy=1.0, cx=0.5, cy=0.5),
        pointmap=np.zeros((2, 2, 3), np.float32),
        confidence=np.ones((2, 2), np.float32),
        rgb=np.zeros((2, 2, 3), np.uint8),
    )


def test_what_is_told_again_where_it_lay_is_no_news():
    told = ToldKeyframes()
    assert not told.lies_there(keyframe(1, 10))
    told.note(NewKeyframe(keyframe(1, 10)))
    assert told.lies_there(keyframe(1, 10, x=1e-9))
    assert told.knows(keyframe(1, 10, x=2.0))
    assert not told.lies_there(keyframe(1, 10, x=2.0))


def test_a_number_given_again_to_another_frame_is_another_keyframe():
    told = ToldKeyframes()
    told.note(NewKeyframe(keyframe(1, 10)))
    assert not told.knows(keyframe(1, 11))


def test_moves_and_withdrawals_are_followed():
    told = ToldKeyframes()
    told.note(NewKeyframe(keyframe(1, 10)))
    told.note(MovedKeyframes({1: keyframe(1, 10, x=3.0).world_from_cam, 2: np.eye(4)}))
    assert told.lies_there(keyframe(1, 10, x=3.0))
    assert not told.knows(keyframe(2, 20))
    told.note(RemovedKeyframes((1, 2)))
    assert not told.knows(keyframe(1, 10, x=3.0))


def test_the_nearest_is_told_of_those_beside_the_ones_asked_for():
    told = ToldKeyframes()
    assert told.nearest([1]) == {}
    for number, x in ((1, 0.0), (2, 1.0), (3, 5.0), (4, 5.5)):
        told.note(NewKeyframe(keyframe(number, number, x=x)))
    assert told.nearest([1, 3]) == {1: 2, 3: 4}
    assert told.nearest([3, 4, 9]) == {3: 2, 4: 2}
    assert told.nearest([1, 2, 3, 4]) == {}
    assert told.nearest([1, 3], among={2}) == {1: 2, 3: 2}
    assert told.nearest([1, 3], among={1, 3, 9}) == {}
    assert told.ids == (1, 2, 3, 4)
