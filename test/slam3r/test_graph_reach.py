# SPDX-License-Identifier: Apache-2.0
"""A single picture is believed where the camera can have got to, and not by little alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drifting_backend import DriftingBackend, Film, elsewhere, film, ring_poses
from filmed_room import PERIOD_NS

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Pose, TrackingState
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.graph.lookup import LOOK_EVERY, STRONG_INLIERS
from worldsystem_slam3r.graph.reach import FORGOTTEN_S
from worldsystem_slam3r.graph.relocalise import Located, Relocaliser
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend

COUNT = 16
METRES = 25.0


@pytest.fixture(scope="module")
def ring() -> Film:
    return film(ring_poses(COUNT + 1)[:COUNT])


def of_frames(seen: Film, rows: list[int], first_id: int) -> Film:
    """Some of the pictures once more, under new ids, one after the other."""
    frames = [
        replace(seen.frames[row], id=first_id + i, stamp_ns=(first_id + i) * PERIOD_NS)
        for i, row in enumerate(rows)
    ]
    return Film(frames, [seen.depths[row] for row in rows], [seen.poses[row] for row in rows])


def graph_over(films: list[Film], lost: set[int]) -> GraphBackend:
    backend = DriftingBackend(films, lost=lost)
    return GraphBackend(RenewableBackend(backend, None), Slam3rConfig(submap_after_s=100.0))


def poses(graph: GraphBackend, of: Film) -> list[Pose]:
    events = [event for frame in of.frames for event in graph.feed(frame)]
    return [event for event in events if isinstance(event, Pose)]


def test_a_picture_right_after_a_tracked_one_is_not_told_in_a_room_that_looks_alike(ring):
    """The room above: ten times as far as what one sees, a fifteenth of a second later."""
    twin = elsewhere(ring, first_id=100)
    lost = {106, 107, 108}
    graph = graph_over([ring, twin], lost)
    told = poses(graph, Film(ring.frames, ring.depths, ring.poses))
    told += poses(graph, Film(twin.frames[:9], twin.depths, twin.poses))
    assert {pose.frame_id for pose in told if pose.state is TrackingState.LOST} == lost
    steps = np.diff([pose.world_from_cam[:3, 3] for pose in told if pose.frame_id >= 100], axis=0)
    assert np.linalg.norm(steps, axis=1).max() < 1.0
    assert graph.finder.refused["unreachable"] == 1


def test_after_a_long_loss_the_first_picture_of_any_known_ground_is_told(ring):
    """Also of ground too far away to be reached within the time of a short one."""
    first_id = COUNT + int(FORGOTTEN_S * 1e9 / PERIOD_NS) + 1
    late = of_frames(ring, [0], first_id)
    graph = graph_over([ring, late], {first_id})
    assert all(pose.state is TrackingState.TRACKED for pose in poses(graph, ring))
    (pose,) = poses(graph, late)
    assert pose.state is TrackingState.TRACKED
    assert np.allclose(pose.world_from_cam, np.eye(4), atol=0.02)


def test_a_lost_camera_that_goes_on_as_it_went_is_found(ring):
    """Half of the way once more, then lost: each picture that is looked up is told."""
    again = of_frames(ring, list(range(COUNT)), COUNT)
    lost = set(range(COUNT + 8, 2 * COUNT))
    graph = graph_over([ring, again], lost)
    told = poses(graph, ring) + poses(graph, again)
    found = [p for p in told if p.frame_id in lost and p.state is TrackingState.TRACKED]
    assert [pose.frame_id for pose in found] == sorted(lost)[::LOOK_EVERY]
    for pose in found:
        truth = np.linalg.inv(ring.poses[0]) @ ring.poses[pose.frame_id - COUNT]
        assert np.allclose(pose.world_from_cam[:3, 3], truth[:3, 3], atol=0.05)


@pytest.mark.parametrize(
    ("second", "agrees"),
    [((0, 0.1), True), ((0, 9.0), False), ((2, 0.0), False)],
    ids=["beside it", "far from it", "looking elsewhere"],
)
def test_what_is_found_by_little_is_told_once_a_second_picture_agrees(
    ring, monkeypatch, second, agrees
):
    first_id = COUNT + int(FORGOTTEN_S * 1e9 / PERIOD_NS) + 1
    late = of_frames(ring, [0] * (LOOK_EVERY + 1), first_id)
    graph = graph_over([ring, late], {frame.id for frame in late.frames})
    poses(graph, ring)
    found = iter([(0, 0.0), second])

    def weak(*_: object) -> Located:
        keyframe, aside = next(found)
        keyframe_from_cam = np.eye(4)
        keyframe_from_cam[0, 3] = aside
        return Located(keyframe, keyframe_from_cam, STRONG_INLIERS - 1, 0.9)

    monkeypatch.setattr(Relocaliser, "locate", weak)
    told = [pose.state is TrackingState.TRACKED for pose in poses(graph, late)]
    assert told == [False] * LOOK_EVERY + [agrees]


def test_the_reach_moves_and_grows_with_the_world_when_that_turns_metric(ring):
    graph = graph_over([ring], set())
    (*_, last) = poses(graph, ring)
    reach, origin_m = graph._lookup._reach, np.array([1000.0, 0.0, 0.0])

    def beside(step: float) -> Pose:
        pose = last.world_from_cam.copy()
        pose[0, 3] += step
        return replace(last, stamp_ns=last.stamp_ns + PERIOD_NS, world_from_cam=pose)

    metric = Sim3(METRES, np.eye(3), origin_m)
    for step, allowed in ((0.5, True), (40.0, False)):
        assert reach.allows(beside(step)) == allowed
    graph.atlas.transform(metric)
    for step, allowed in ((0.5, True), (40.0, False)):
        there = metric.apply_pose(beside(step).world_from_cam)
        assert reach.allows(replace(beside(step), world_from_cam=there)) == allowed
