# SPDX-License-Identifier: Apache-2.0
"""Keyframes told again are no news, and a segmenter that was killed goes on with its objects."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from segment_scenes import ROOM_EYE, room

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_core.reconstruction import NewKeyframe  # noqa: E402
from worldsystem_segment.node import SegmenterNode  # noqa: E402
from worldsystem_segment.objects.object_file import NAME  # noqa: E402


@pytest.fixture
def begin(tmp_path):
    """A segmenter that keeps its objects in one folder; it is never closed, as one killed."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=40 + os.getpid() % 20)
    given = [rclpy.parameter.Parameter("map", value=str(tmp_path))]
    yield lambda: SegmenterNode(context=context, parameter_overrides=given)
    rclpy.try_shutdown(context=context)


@pytest.fixture(scope="module")
def keyframes():
    shot = room().caster().shot(0, ROOM_EYE, (0.0, 1.5, 0.3))[0]
    return [replace(shot, id=k, frame_id=10 * k, stamp_ns=k * 500_000_000) for k in range(6)]


def test_keyframes_told_again_are_counted_and_followed_but_not_segmented(begin, keyframes):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    before = node._segmenter.objects(0).objects
    moved = keyframes[0].world_from_cam.copy()
    moved[:3, 3] += 5.0
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(replace(keyframe, world_from_cam=moved)))
    account = node.ledger.state()
    assert (account.used, account.dropped) == (6, {"told_again": 6})
    assert node.ledger.violations == account.in_flight == 0
    after = node._segmenter.objects(0).objects
    assert [each.id for each in after] == [each.id for each in before] != []
    for old, new in zip(before, after, strict=True):
        shift = new.world_from_box[:3, 3] - old.world_from_box[:3, 3]
        np.testing.assert_allclose(shift, 5.0, atol=0.1)


def test_one_that_is_killed_is_followed_by_one_with_the_same_objects(begin, keyframes, tmp_path):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    ids = [each.id for each in node._segmenter.objects(0).objects]
    assert ids
    node._keep_map()
    written_ns = (tmp_path / NAME).stat().st_mtime_ns
    node._keep_map()
    assert (tmp_path / NAME).stat().st_mtime_ns == written_ns, "nothing was new"
    again = begin()
    assert [each.id for each in again._segmenter.objects(0).objects] == ids
