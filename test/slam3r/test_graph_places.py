# SPDX-License-Identifier: Apache-2.0
"""Recognising places in the filmed room: votes, similarities and refusals, with exact truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drifting_backend import CAMERA, film, ring_poses
from filmed_room import bent, render

from worldsystem_core.frames import Frame
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import inverse, look_at, pose_from
from worldsystem_core.reconstruction import Keyframe
from worldsystem_slam3r.graph.features import Features, matches
from worldsystem_slam3r.graph.places import PlaceIndex, votes_by_comparison
from worldsystem_slam3r.graph.relocalise import Relocaliser
from worldsystem_slam3r.graph.verify import Link, Refusal, Station, verify

BARREL = (-0.2, 0.04)


def keyframe(id: int, pose: np.ndarray, unit: float = 1.0) -> Keyframe:
    rgb, depth = render(pose, CAMERA)
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=id,
        world_from_cam=pose,
        camera=CAMERA,
        pointmap=pointmap_from_depth(depth * unit, CAMERA),
        confidence=np.ones(depth.shape, np.float32),
        rgb=rgb,
    )


@pytest.fixture(scope="module")
def stations() -> list[Station]:
    return [Station.of(keyframe(i, pose), i) for i, pose in enumerate(ring_poses(13)[:-1])]


def nudged(pose: np.ndarray) -> np.ndarray:
    return pose @ pose_from(np.eye(3), np.array([0.25, 0.1, -0.2]))


def test_a_place_seen_again_gets_the_most_votes(stations):
    index = PlaceIndex()
    for station in stations:
        index.add(station.id, station.features)
    for i in (0, 4, 9):
        seen = Station.of(keyframe(99, nudged(ring_poses(13)[i])), 99)
        assert index.candidates(seen.features, 1, set())[0].id == i


def test_votes_rank_like_a_comparison_of_every_descriptor(stations):
    index = PlaceIndex()
    for station in stations:
        index.add(station.id, station.features)
    seen = Features.of_keyframe(keyframe(99, nudged(ring_poses(13)[3])))
    twin = votes_by_comparison(seen, [station.features for station in stations])
    votes = index.votes(seen)
    assert votes.argmax() == twin.argmax()
    assert np.corrcoef(votes, twin)[0, 1] > 0.8


def test_a_forgotten_or_excluded_place_is_not_found(stations):
    index = PlaceIndex()
    for station in stations:
        index.add(station.id, station.features)
    asked = stations[4].features
    assert index.candidates(asked, 12, {4})[0].id != 4
    index.remove(4, asked)
    assert 4 not in {found.id for found in index.candidates(asked, 12, set())}
    assert len(index) == 11


def test_plain_pictures_are_neither_added_nor_found():
    index = PlaceIndex()
    index.add(0, Features.none())
    assert len(index) == 0
    assert index.candidates(Features.none(), 3, set()) == []
    grey = np.full((90, 160), 127, np.uint8)
    assert len(Features.of_picture(grey)) == 0
    assert len(matches(Features.none(), Features.of_picture(grey))[0]) == 0


@pytest.mark.parametrize("unit", [1.0, 0.6, 2.5])
def test_two_views_of_a_place_give_their_similarity_with_its_scale(stations, unit):
    pose = ring_poses(13)[2]
    other = Station.of(keyframe(50, nudged(pose), unit), 50)
    link = verify(stations[2], other)
    assert isinstance(link, Link)
    truth = inverse(pose) @ nudged(pose)
    assert link.a_from_b.scale == pytest.approx(1.0 / unit, rel=0.01)
    # depth is exact, corners are good to a third of a pixel: 1 % of the 4 units' distance
    assert np.allclose(link.a_from_b.translation, truth[:3, 3], atol=0.04)
    assert np.allclose(link.a_from_b.rotation, truth[:3, :3], atol=0.01)
    assert link.same > 0.95
    assert link.likeness > 0.8


@pytest.mark.parametrize("unit", [1.0, 0.5])
def test_the_same_view_twice_still_tells_the_scale(stations, unit):
    """From one place any scale gives the same pixels: it has to come from the depths."""
    again = Station.of(keyframe(50, ring_poses(13)[2], unit), 50)
    link = verify(stations[2], again)
    assert isinstance(link, Link)
    assert link.a_from_b.scale == pytest.approx(1.0 / unit, rel=1e-3)
    assert np.abs(link.a_from_b.translation).max() < 1e-3


def test_different_places_are_refused_with_the_reason(stations):
    found = verify(stations[0], stations[6])
    assert isinstance(found, Refusal)
    assert found.reason in ("matches", "inliers", "inlier_share")


def test_a_picture_of_the_place_is_not_the_place(stations):
    """The same picture on a flat board: all corners match, the surface does not."""
    into_a_corner = ring_poses(13)[1]
    shot = keyframe(60, into_a_corner)
    flat = pointmap_from_depth(np.full(shot.confidence.shape, 0.5, np.float32), CAMERA)
    board = Station.of(replace(shot, pointmap=flat), 60)
    aside = into_a_corner @ pose_from(np.eye(3), np.array([1.2, 0.0, 0.6]))
    assert isinstance(verify(Station.of(keyframe(61, aside), 61), board), Refusal)


def test_unknown_depth_gives_no_points_and_no_link(stations):
    blind = keyframe(70, ring_poses(13)[0])
    nothing = Station.of(replace(blind, pointmap=np.full_like(blind.pointmap, np.nan)), 70)
    assert not nothing.features.known.any()
    assert isinstance(verify(stations[0], nothing), Refusal)
    assert nothing.median_depth == 1.0


def test_a_single_picture_is_located_beside_a_keyframe(stations):
    index = PlaceIndex()
    for station in stations:
        index.add(station.id, station.features)
    pose = nudged(ring_poses(13)[5])
    shot = film([pose])
    found = Relocaliser(index).locate(
        shot.frames[0], {station.id: station for station in stations}, CAMERA
    )
    assert found is not None
    world = ring_poses(13)[found.id] @ found.keyframe_from_cam
    assert np.allclose(world[:3, 3], pose[:3, 3], atol=0.05)


@pytest.mark.parametrize("told", [BARREL, (*BARREL, 0.0), (*BARREL, *[0.0] * 62), (0.5,) * 64])
def test_a_picture_is_located_however_many_coefficients_its_camera_is_told_with(stations, told):
    """Those of another lens model count as none: here the picture has none."""
    index = PlaceIndex()
    for station in stations:
        index.add(station.id, station.features)
    pose = nudged(ring_poses(13)[5])
    shot = film([pose]).frames[0]
    rgb = bent(shot.rgb, replace(CAMERA, distortion=BARREL)) if told[:2] == BARREL else shot.rgb
    frame = replace(shot, rgb=rgb, camera=replace(CAMERA, distortion=told))
    kept = {station.id: station for station in stations}
    found = Relocaliser(index).locate(frame, kept, CAMERA)
    assert found is not None
    world = ring_poses(13)[found.id] @ found.keyframe_from_cam
    assert np.allclose(world[:3, 3], pose[:3, 3], atol=0.05)


def test_a_picture_of_nowhere_is_not_located(stations):
    index = PlaceIndex()
    for station in stations:
        index.add(station.id, station.features)
    rng = np.random.default_rng(0)
    shot = film([ring_poses(13)[0]]).frames[0]
    noise = replace(shot, rgb=rng.integers(0, 255, shot.rgb.shape, dtype=np.uint8))
    kept = {station.id: station for station in stations}
    assert Relocaliser(index).locate(noise, kept, CAMERA) is None


def test_a_picture_of_a_turned_phone_is_located_where_nobody_tells_its_camera():
    """A flat wall fits any focal length, at another distance."""
    eye, target = np.array([0.0, 0.0, 2.0]), np.array([0.0, 0.0, 5.0])
    pose = look_at(eye, target, np.array([0.0, -1.0, 0.0]))
    wall, index = Station.of(keyframe(0, pose), 0), PlaceIndex()
    index.add(0, wall.features)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rgb, _ = render(pose @ pose_from(quarter, np.zeros(3)), CAMERA.turned())
    upright = Frame(id=1, stamp_ns=1, rgb=rgb)
    found = Relocaliser(index).locate(upright, {0: wall}, CAMERA)
    assert found is not None
    assert np.linalg.norm(found.keyframe_from_cam[:3, 3]) < 0.1  # of 3 to the wall
