# SPDX-License-Identifier: Apache-2.0
"""The graph around a back-end that drifts, gets lost and begins anew in other units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drifting_backend import CAMERA, DriftingBackend, Film, elsewhere, film, ring_poses
from filmed_room import PERIOD_NS

from worldsystem_core.geometry.sim3 import fit_sim3
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    TrackingState,
)
from worldsystem_core.trajectory import Trajectory
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.graph import loops
from worldsystem_slam3r.scale.metric import MetricScale
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend

COUNT = 16


@pytest.fixture(scope="module")
def ring() -> Film:
    """Once round the room and a little further, over known ground."""
    whole = ring_poses(COUNT + 1)
    return film([*whole[:-1], *whole[:4]])


def part(of: Film, first: int, end: int) -> Film:
    return Film(of.frames[first:end], of.depths[first:end], of.poses[first:end])


def over(backend: DriftingBackend, films: list[Film], **settings: object) -> tuple:
    """All events of a run, and the graph around the back-end."""
    graph = GraphBackend(RenewableBackend(backend, None), Slam3rConfig(**settings))  # type: ignore[arg-type]
    events: list[Event] = []
    for each in films:
        for frame in each.frames:
            events += graph.feed(frame)
    return events + graph.finish(), graph


def path_error(events: list[Event], *films: Film) -> float:
    """Worst distance from the truth after alignment, of all frames that have a pose."""
    shots = [shot for each in films for shot in zip(each.frames, each.poses, strict=True)]
    truth = {frame.stamp_ns: pose for frame, pose in shots}
    trajectory = Trajectory()
    for event in events:
        trajectory.add(event)
    path = trajectory.poses()
    wanted = np.array([truth[stamp][:3, 3] for stamp in path.stamps_ns.tolist()])
    fit = fit_sim3(wanted, path.positions)
    return float(np.linalg.norm(fit.apply(path.positions) - wanted, axis=1).max())


def poses_of(events: list[Event]) -> list[Pose]:
    return [event for event in events if isinstance(event, Pose)]


def test_a_closed_loop_takes_the_drift_out_of_poses_and_points(ring):
    drifting = DriftingBackend([ring], turn_rad=0.008, growth=1.008)
    bare = [event for frame in ring.frames for event in drifting.feed(frame)]
    events, graph = over(DriftingBackend([ring], turn_rad=0.008, growth=1.008), [ring])
    assert graph.counts.loops >= 2
    assert path_error(events, ring) < 0.35 * path_error(bare, ring)
    moved = [event for event in events if isinstance(event, MovedKeyframes)]
    # the last keyframes of the round had grown by a tenth: they shrink again
    assert min(min(event.point_scale.values()) for event in moved) < 0.95


def test_without_drift_the_events_pass_through(ring):
    events, graph = over(DriftingBackend([ring]), [ring])
    keyframes = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    assert len(keyframes) == len(ring.frames)
    assert path_error(events, ring) < 0.02
    assert graph.counts.submaps == 1


def test_every_frame_gets_one_pose_also_through_a_loss(ring):
    lost = set(range(5, 10))
    events, _ = over(DriftingBackend([ring], lost=lost), [ring], submap_after_s=0.2)
    assert sorted(pose.frame_id for pose in poses_of(events)) == list(range(len(ring.frames)))


def assert_located(events: list[Event], lost: set[int], ring: Film) -> None:
    found = [
        pose
        for pose in poses_of(events)
        if pose.frame_id in lost and pose.state is TrackingState.TRACKED
    ]
    assert found
    for pose in found:
        truth = np.linalg.inv(ring.poses[0]) @ ring.poses[pose.frame_id]
        assert np.allclose(pose.world_from_cam[:3, 3], truth[:3, 3], atol=0.05)


def test_a_lost_picture_of_known_ground_is_located_at_once(ring):
    lost = set(range(COUNT, COUNT + 4))
    events, graph = over(DriftingBackend([ring], lost=lost), [ring], submap_after_s=100.0)
    assert graph.counts.relocalised >= 1
    assert_located(events, lost, ring)


def test_a_lost_picture_is_located_by_the_lens_found_out_instead_of_the_one_told(ring):
    told = replace(CAMERA, fx=1.4 * CAMERA.fx, fy=1.4 * CAMERA.fy)
    wrong = replace(ring, frames=[replace(frame, camera=told) for frame in ring.frames])
    lost = set(range(COUNT, COUNT + 4))
    backend = DriftingBackend([ring], lost=lost, lens=CAMERA.resized(128, 72))
    events, _ = over(backend, [wrong], submap_after_s=100.0)
    assert_located(events, lost, ring)


def test_a_new_sub_map_is_merged_in_its_own_unit_when_it_meets_the_old(ring):
    """Lost for half of the round, then anew in a unit 1.7 times as large, until it overlaps."""
    lost = set(range(6, 10))
    events, graph = over(DriftingBackend([ring], lost=lost), [ring], submap_after_s=0.2)
    assert (graph.counts.submaps, graph.counts.merged, graph.counts.guessed) == (2, 1, 0)
    assert path_error(events, ring) < 0.05
    late = [event.keyframe for event in events if isinstance(event, NewKeyframe)][-1]
    depth = ring.depths[late.frame_id]
    assert np.nanmedian(late.pointmap[..., 2] / depth) == pytest.approx(1.0, rel=0.02)


def test_a_sub_map_that_meets_nothing_is_told_at_the_end(ring):
    first = part(ring, 0, 3)
    gap = part(ring, 3, 8)
    other = part(ring, 8, 12)
    backend = DriftingBackend([ring], lost=set(range(3, 8)))
    events, graph = over(backend, [first, gap, other], submap_after_s=0.2)
    assert graph.counts.guessed == 1
    told = {event.keyframe.frame_id for event in events if isinstance(event, NewKeyframe)}
    assert told == {0, 1, 2, 8, 9, 10, 11}
    assert len(poses_of(events)) == 12


def test_a_twin_of_a_place_far_away_closes_no_loop(ring):
    """Odometry knows that the camera has travelled 40 units: the same walls are another room."""
    straight = part(ring, 0, 10)
    twin_room = elsewhere(part(ring, 0, 7), first_id=1000)
    events, graph = over(DriftingBackend([straight, twin_room]), [straight, twin_room])
    assert graph.counts.loops == 0
    assert graph.finder.refused["drift"] > 0
    assert path_error(events, straight, twin_room) < 0.05


def test_held_keyframes_are_bounded(ring):
    lost = set(range(2, 6))
    settings = {"submap_after_s": 0.2, "submap_keyframes": 4}
    events, graph = over(DriftingBackend([ring], lost=lost), [ring], **settings)
    assert graph.counts.guessed == 1
    assert len(poses_of(events)) == len(ring.frames)


def test_a_guessed_sub_map_finds_its_place_when_it_overlaps_later(ring):
    lost = set(range(2, 6))
    settings = {"submap_after_s": 0.2, "submap_keyframes": 4}
    events, graph = over(DriftingBackend([ring], lost=lost), [ring], **settings)
    assert (graph.counts.guessed, graph.counts.merged) == (1, 1)
    assert graph.finder.refused["drift"] == 0
    assert len(set(graph.atlas.graph.parts().values())) == 1
    assert path_error(events, ring) < 0.05
    late = [event.keyframe for event in events if isinstance(event, NewKeyframe)][-1]
    assert graph.atlas.keyframes[late.id].point_scale * np.nanmedian(
        late.pointmap[..., 2] / ring.depths[late.frame_id]
    ) == pytest.approx(1.0, rel=0.02)


def test_keyframes_that_were_held_back_are_looked_at_for_markers_too(ring, monkeypatch):
    seen = []
    monkeypatch.setattr(MetricScale, "keyframe", lambda _, keyframe: seen.append(keyframe.id))
    backend = DriftingBackend([ring], lost=set(range(6, 10)))
    events, graph = over(backend, [ring], submap_after_s=0.2)
    assert graph.counts.merged == 1
    assert seen == [event.keyframe.id for event in events if isinstance(event, NewKeyframe)]


def test_a_back_end_without_restart_is_opened_anew():
    class Plain:
        """Feeds one keyframe number, as a fresh back-end would."""

        def feed(self, frame: object) -> list[Event]:
            return [
                Pose(
                    frame_id=0,
                    stamp_ns=0,
                    world_from_cam=np.eye(4),
                    confidence=1.0,
                    state=TrackingState.TRACKED,
                    keyframe_id=3,
                )
            ]

        def finish(self) -> list[Event]:
            return []

    renewable = RenewableBackend(Plain(), Plain, first_id=10)
    (before,) = renewable.feed(None)  # type: ignore[arg-type]
    renewable.restart()
    (after,) = renewable.feed(None)  # type: ignore[arg-type]
    assert (before.keyframe_id, before.submap) == (13, 0)  # type: ignore[union-attr]
    assert after.submap == 1  # type: ignore[union-attr]


def test_pictures_told_again_under_new_ids_keep_the_map(ring):
    """A back-end that finds a better lens withdraws its keyframes and tells them anew."""
    backend = DriftingBackend([ring])
    graph = GraphBackend(RenewableBackend(backend, None), Slam3rConfig())
    events = [event for frame in ring.frames[:5] for event in graph.feed(frame)]
    first = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    again = [NewKeyframe(replace(keyframe, id=keyframe.id + 50)) for keyframe in first]
    backend.waiting = [RemovedKeyframes(tuple(range(5))), *again]
    backend.skip_ids(55)
    events += [event for frame in ring.frames[5:] for event in graph.feed(frame)]
    events += graph.finish()
    assert set(graph.atlas.keyframes) == set(range(50, 55)) | set(
        range(55, 55 + len(ring.frames) - 5)
    )
    assert len(set(graph.atlas.graph.parts().values())) == 1
    assert path_error(events, ring) < 0.02


def test_the_health_of_the_back_end_shows_through(ring):
    backend = DriftingBackend([ring])
    graph = GraphBackend(RenewableBackend(backend, None), Slam3rConfig())
    assert graph.health is None
    backend.health = "well"  # type: ignore[attr-defined]
    assert graph.health == "well"


def strange(count: int) -> Film:
    """Pictures that look like no place of the room."""
    rng = np.random.default_rng(7)
    seen = film(ring_poses(COUNT + 1)[:count])
    pictures = [rng.integers(0, 255, frame.rgb.shape, dtype=np.uint8) for frame in seen.frames]
    frames = [replace(f, rgb=rgb) for f, rgb in zip(seen.frames, pictures, strict=True)]
    return Film(frames, seen.depths, seen.poses)


def test_a_held_sub_map_may_come_round_to_its_own_beginning(ring):
    """Its keyframes lie nowhere yet, and the way between them has a length all the same."""
    before, gap, held = strange(3), elsewhere(part(ring, 0, 4), 100), elsewhere(ring, 200)
    backend = DriftingBackend([before, gap, held], lost=set(range(100, 104)))
    events, graph = over(backend, [before, gap, held], submap_after_s=0.2, submap_keyframes=40)
    assert graph.counts.submaps == 2
    round_again = [e for e in graph.atlas.graph.edges.values() if e.is_loop and e.b - e.a > 10]
    assert round_again, "nothing told that it came round"
    assert len([e for e in events if isinstance(e, NewKeyframe)]) == 3 + len(ring.frames)


def test_the_overlap_of_the_keyframe_that_is_one_too_many_counts(ring):
    """The place is guessed for want of room when the same keyframe shows the old ground."""
    lost = set(range(3, 7))

    def run(room: int) -> tuple[GraphBackend, int, int]:
        """Up to the first merge: the graph, the keyframes told then, and of which frame."""
        backend = RenewableBackend(DriftingBackend([ring], lost=lost), None)
        config = Slam3rConfig(submap_after_s=0.2, submap_keyframes=room)
        graph = GraphBackend(backend, config)
        for frame in ring.frames:
            events = graph.feed(frame)
            if graph.counts.merged:
                told = [event for event in events if isinstance(event, NewKeyframe)]
                return graph, len(told), frame.id
        raise AssertionError("it never met the old ground")

    _, held, met_at = run(40)
    graph, _, met_again_at = run(held - 1)
    assert graph.counts.guessed == 1
    assert met_again_at == met_at
    assert len(set(graph.atlas.graph.parts().values())) == 1


def test_known_ground_is_located_while_a_sub_map_is_held_back(ring, monkeypatch):
    """Its own keyframes look most like the picture, and lie nowhere yet."""
    monkeypatch.setattr(loops, "is_strong", lambda _: False)
    monkeypatch.setattr(loops, "_agree", lambda *_: False)
    stands = [
        replace(ring.frames[0], id=800 + i, stamp_ns=(800 + i) * PERIOD_NS) for i in range(15)
    ]
    resting = Film(stands, [ring.depths[0]] * 15, [ring.poses[0]] * 15)
    backend = DriftingBackend([ring, resting], lost=set(range(8, 12)))
    settings = {"submap_after_s": 0.2, "submap_keyframes": 40}
    events, graph = over(backend, [part(ring, 0, 12), resting], **settings)
    assert graph.counts.submaps == 2
    located = {p.frame_id for p in poses_of(events) if 0 <= p.keyframe_id < 8}
    assert max(located) >= 812, "late pictures were compared with the held sub-map alone"


class TwoSubmaps:
    """A back-end that begins a sub-map, with a unit of its own, and finds back to the first."""

    def __init__(self, films: list[Film], second: set[int]) -> None:
        self._inner = [DriftingBackend(films), DriftingBackend(films, unit=2.2)]
        self._second = second
        self._next = 0

    def feed(self, frame) -> list[Event]:
        submap = int(frame.id in self._second)
        self._inner[submap].skip_ids(self._next)
        self._next += 1  # each frame is a keyframe
        keyframe, pose = self._inner[submap].feed(frame)
        told = replace(keyframe.keyframe, submap=submap)
        return [NewKeyframe(told), replace(pose, submap=submap)]

    def finish(self) -> list[Event]:
        return []


def again(of: Film, rows: list[int], first_id: int) -> Film:
    """Some of the pictures once more, later."""
    frames = [
        replace(of.frames[row], id=first_id + i, stamp_ns=(first_id + i) * PERIOD_NS)
        for i, row in enumerate(rows)
    ]
    return Film(frames, [of.depths[row] for row in rows], [of.poses[row] for row in rows])


def test_a_placed_keyframe_that_sees_a_held_sub_map_says_where_it_lies(ring):
    """Nothing that the held one shows was seen before; then the first one's camera comes there."""
    films = [part(ring, 0, 4), part(ring, 8, 11), again(ring, [9], 50)]
    backend = RenewableBackend(TwoSubmaps([ring, films[2]], {8, 9, 10}), None)
    graph = GraphBackend(backend, Slam3rConfig())
    events = [event for each in films[:2] for frame in each.frames for event in graph.feed(frame)]
    assert {e.keyframe.frame_id for e in events if isinstance(e, NewKeyframe)} == {0, 1, 2, 3}
    events += (met := graph.feed(films[2].frames[0]))
    told = [event.keyframe.frame_id for event in met if isinstance(event, NewKeyframe)]
    assert told == [50, 8, 9, 10]
    events += graph.finish()
    assert (graph.counts.merged, graph.counts.guessed) == (1, 0)
    assert sorted(pose.frame_id for pose in poses_of(events)) == [0, 1, 2, 3, 8, 9, 10, 50]
    assert path_error(events, *films) < 0.05
    assert graph.atlas.keyframes[5].world.scale == pytest.approx(1 / 2.2, rel=0.02)


def test_a_guessed_sub_map_lies_where_it_began_though_pictures_were_located_since(
    ring, monkeypatch
):
    """It begins where the camera was lost, and goes back over known ground all the way."""
    monkeypatch.setattr(loops, "is_strong", lambda _: False)
    monkeypatch.setattr(loops, "_agree", lambda *_: False)
    noise = [frame.rgb for frame in strange(4).frames]
    blind = [replace(f, rgb=rgb) for f, rgb in zip(ring.frames[8:12], noise, strict=True)]
    back = again(ring, [7, 6, 5, 4, 3, 2, 1, 0], 800)
    films = [part(ring, 0, 8), Film(blind, ring.depths[8:12], ring.poses[8:12]), back]
    backend = DriftingBackend([ring, back], lost={8, 9, 10, 11})
    events, graph = over(backend, films, submap_after_s=0.2, submap_keyframes=40)
    assert (graph.counts.guessed, graph.counts.merged) == (1, 0)
    located = {p.frame_id for p in poses_of(events) if 0 <= p.keyframe_id < 8}
    assert max(located) >= 804, "no late picture was located"
    for kept in list(graph.atlas.keyframes.values())[8:]:
        truth = np.linalg.inv(ring.poses[0]) @ back.poses[kept.frame_id - 800]
        assert np.allclose(kept.world.translation, truth[:3, 3], atol=0.02)
