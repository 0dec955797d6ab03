# SPDX-License-Identifier: Apache-2.0
"""A keyframe stands in for an older one of the same view; truth is the flight, and the solver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drifting_backend import DriftingBackend, Film, film, ring_poses
from filmed_room import PERIOD_NS
from scipy.spatial.transform import Rotation
from test_graph_backend import over, path_error

from worldsystem_core.frames import Frame
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    Successor,
)
from worldsystem_core.trajectory import Trajectory
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.graph.pose_graph import Edge, PoseGraph
from worldsystem_slam3r.scale.hanging import HangingSamples, Hung, PositionSample
from worldsystem_slam3r.scale.metric import MetricScale
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend
from worldsystem_slam3r.session.succession import Succession

LAP = 16
WINDOW = 9


@pytest.fixture(scope="module")
def laps() -> Film:
    """Four times round the room over the same ground."""
    return film(4 * ring_poses(LAP + 1)[:-1])


@pytest.fixture(scope="module")
def flown(laps) -> tuple:
    """Events of the four rounds with some drift, and the graph at the end."""
    return over(DriftingBackend([laps], turn_rad=0.004, growth=1.004), [laps])


def rounds_of(seen: Film, rounds: int) -> Film:
    """Its first round so many times."""
    rows = [row for _ in range(rounds) for row in range(LAP)]
    frames = [
        replace(seen.frames[row], id=number, stamp_ns=number * PERIOD_NS)
        for number, row in enumerate(rows)
    ]
    return Film(frames, [seen.depths[row] for row in rows], [seen.poses[row] for row in rows])


def successors_of(events: list[Event]) -> dict[int, Successor]:
    removed = [event for event in events if isinstance(event, RemovedKeyframes)]
    return {key: heir for event in removed for key, heir in event.successors.items()}


def test_the_map_of_four_rounds_is_as_large_as_that_of_one(flown):
    _, graph = flown
    assert len(graph.atlas.keyframes) <= LAP + WINDOW + 2
    assert len(graph.atlas.graph.nodes) == len(graph.atlas.keyframes)
    assert len(graph.finder.index) == len(graph.atlas.keyframes)
    assert set(graph.atlas.graph.parts().values()) == {0}


def test_every_picture_keeps_its_place_when_its_keyframe_goes(flown, laps):
    events, _ = flown
    assert path_error(events, laps) < 0.03


def test_a_keyframe_goes_once_its_successor_is_refined_no_more(flown):
    events, graph = flown
    told: list[int] = []
    gone: set[int] = set()
    for event in events:
        if isinstance(event, NewKeyframe):
            told.append(event.keyframe.id)
        elif isinstance(event, RemovedKeyframes):
            assert set(event.successors) == set(event.ids)
            assert not {heir.id for heir in event.successors.values()} & set(event.ids)
            for key, heir in event.successors.items():
                assert key < heir.id < told[-1] - WINDOW
                assert heir.id not in gone
            gone |= set(event.ids)
    assert gone | set(graph.atlas.keyframes) == set(told)
    assert len(gone) >= 2 * LAP


def test_a_successor_is_told_where_it_lies(flown):
    """As whoever follows the events has it: pose and size as they were told last."""
    events, _ = flown
    pose: dict[int, np.ndarray] = {}
    size: dict[int, float] = {}
    for event in events:
        if isinstance(event, NewKeyframe):
            pose[event.keyframe.id], size[event.keyframe.id] = event.keyframe.world_from_cam, 1.0
        elif isinstance(event, MovedKeyframes):
            pose |= event.world_from_cam
            size |= event.point_scale
        elif isinstance(event, RemovedKeyframes):
            for heir in event.successors.values():
                np.testing.assert_allclose(heir.world_from_cam, pose[heir.id], atol=1e-12)
                assert heir.point_scale == pytest.approx(size[heir.id])


def test_no_successor_goes_in_the_same_moment(laps):
    """Nobody asks for four rounds, and then all that is due goes at once."""
    _, graph = over(DriftingBackend([laps]), [laps], replace_views=False)
    parts = (graph.atlas, graph.finder, graph.maps, graph.metric)
    succession = Succession(*parts, after=WINDOW)
    for kept in sorted(graph.atlas.keyframes.values(), key=lambda kept: kept.id):
        succession.note(kept)
    (removed,) = succession.take_due()
    heirs = {heir.id for heir in removed.successors.values()}
    assert len(removed.ids) >= 2 * LAP
    assert heirs <= graph.atlas.keyframes.keys()
    assert not heirs & set(removed.ids)


def test_another_view_from_the_same_place_takes_nothing_away(flown, laps):
    """A successor looks where its predecessor looked, from where that stood."""
    events, _ = flown
    for key, heir in successors_of(events).items():
        apart = np.linalg.inv(laps.poses[key]) @ laps.poses[heir.id]
        assert np.linalg.norm(apart[:3, 3]) < 1e-6
        assert Rotation.from_matrix(apart[:3, :3]).magnitude() < 1e-6


def test_views_of_which_each_knows_other_patches_grow_no_map_either(laps):
    """What one knows of its surface the next knows in part only; newer ones together know it."""
    sizes = {}
    for rounds in (6, 9):
        flight = rounds_of(laps, rounds)
        events, graph = over(DriftingBackend([flight], known=0.3), [flight])
        sizes[rounds] = len(graph.atlas.keyframes)
        assert path_error(events, flight) < 0.03
    assert sizes[9] <= 1.1 * sizes[6]
    assert sizes[9] <= 5 * LAP


def test_a_view_that_knows_little_takes_none_that_knows_all(laps):
    """The first two rounds know all of their depth, the others a tenth."""

    class Dimming(DriftingBackend):
        def _confidence(self, seed: int, shape: tuple[int, int]) -> np.ndarray:
            self.known = 1.0 if seed < 2 * LAP else 0.1
            return super()._confidence(seed, shape)

    _, graph = over(Dimming([laps]), [laps])
    whole = [key for key in graph.atlas.keyframes if key < 2 * LAP]
    assert len(whole) >= LAP


class Strips(DriftingBackend):
    """Of each round's pictures it knows upright strips: from and to, as shares of the width."""

    def __init__(self, films: list[Film], strips: list[list[tuple[float, float]]]) -> None:
        self._strips = strips
        super().__init__(films)

    def _confidence(self, seed: int, shape: tuple[int, int]) -> np.ndarray:
        at = (np.arange(shape[1]) + 0.5) / shape[1]
        strips = self._strips[seed // LAP]
        known = np.any([(first <= at) & (at < end) for first, end in strips], axis=0)
        return np.broadcast_to(known, shape).astype(np.float32)


def test_what_a_keyframe_saw_that_is_gone_covers_nothing_any_more(laps):
    """The second round sees the left and is withdrawn; the others see the right."""
    backend = Strips([laps], [[(0.0, 1.0)], [(0.0, 0.6)], [(0.4, 1.0)], [(0.4, 1.0)]])
    graph = GraphBackend(RenewableBackend(backend, None), Slam3rConfig())
    for frame in laps.frames[: 2 * LAP + WINDOW + 1]:
        graph.feed(frame)
    backend.waiting = [RemovedKeyframes(tuple(range(LAP, 2 * LAP)))]
    for frame in laps.frames[2 * LAP + WINDOW + 1 :]:
        graph.feed(frame)
    graph.finish()
    assert set(range(LAP)) <= graph.atlas.keyframes.keys()


def test_three_views_that_all_see_one_corner_take_nothing(laps):
    """Each knows as much as the first round, but of that only the same quarter."""
    corner = (0.225, 0.3)
    others = [[corner, (0.3, 0.5)], [corner, (0.5, 0.7)], [corner, (0.7, 0.9)]]
    flight = rounds_of(laps, 5)
    backend = Strips([flight], [[(0.0, 0.3)], *others, [(0.9, 1.0)]])
    _, graph = over(backend, [flight])
    assert set(range(4 * LAP)) <= graph.atlas.keyframes.keys()


def test_a_place_that_looks_another_way_now_keeps_its_keyframes(laps):
    """Of the picture's left half the later rounds say that it is half as far again."""

    class Moved(DriftingBackend):
        def _of(self, frame: Frame) -> list[Event]:
            depth, truth = self._truth[frame.id]
            if frame.id >= 2 * LAP:
                half = np.where(np.arange(depth.shape[1]) < depth.shape[1] // 2, 1.5, 1.0)
                self._truth[frame.id] = (depth * half).astype(np.float32), truth
            return super()._of(frame)

    events, graph = over(Moved([laps]), [laps])
    assert not [k for k, heir in successors_of(events).items() if k < 2 * LAP <= heir.id]
    assert len(graph.atlas.keyframes) >= 2 * LAP


def test_every_keyframe_stays_where_that_is_asked_for(laps):
    events, graph = over(DriftingBackend([laps]), [laps], replace_views=False)
    assert len(graph.atlas.keyframes) == 4 * LAP
    assert not successors_of(events)


def last_round_error(told: Trajectory, flight: Film) -> float:
    """Worst place of the newest round against the truth from the first frame, unaligned."""
    path = told.poses().positions
    start = np.linalg.inv(flight.poses[0])
    truth = np.array([(start @ pose)[:3, 3] for pose in flight.poses[len(path) - LAP : len(path)]])
    return float(np.linalg.norm(path[-LAP:] - truth, axis=1).max())


def test_ten_rounds_lie_where_the_first_did(laps):
    """0.016 after three and 0.019 after ten; 0.08 and 0.42 where the oldest may go too."""
    flight = rounds_of(laps, 10)
    backend = DriftingBackend([flight], turn_rad=0.004, growth=1.004)
    graph = GraphBackend(RenewableBackend(backend, None), Slam3rConfig(synchronous=True))
    told, errors = Trajectory(), []
    for number, frame in enumerate(flight.frames, 1):
        for event in graph.feed(frame):
            told.add(event)
        if number % LAP == 0:
            errors.append(last_round_error(told, flight))
    assert 0 in graph.atlas.keyframes
    assert errors[9] <= 1.3 * errors[2]


def random_places(count: int) -> dict[int, Sim3]:
    rng = np.random.default_rng(4)
    return {
        key: Sim3(
            float(np.exp(rng.normal(0, 0.1))),
            Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix(),
            rng.normal(0, 1, 3),
        )
        for key in range(count)
    }


def edge(places: dict[int, Sim3], a: int, b: int, *, is_loop: bool = False) -> Edge:
    return Edge(a, b, places[a].inverse() @ places[b], 0.01, 0.02, 0.01, is_loop=is_loop)


def graph_of(places: dict[int, Sim3], *measured: tuple[int, int]) -> PoseGraph:
    graph = PoseGraph()
    for key, place in places.items():
        graph.add_node(key, place)
    for a, b in measured:
        graph.add_edge(edge(places, a, b))
    return graph


def test_what_was_measured_to_a_node_holds_for_the_one_that_stands_in_for_it():
    """Three nodes hang on 3 alone, in both directions; 3 goes, and they still find their place."""
    places = random_places(5)
    graph = graph_of(places, (0, 3), (3, 1), (3, 2))
    graph.add_edge(edge(places, 3, 4, is_loop=True))
    graph.contract(edge(places, 3, 4))
    graph.remove_node(3)
    assert set(graph.parts().values()) == {0}
    for key in (1, 2, 4):
        graph.nodes[key] = graph.nodes[key] @ Sim3(
            1.1, Rotation.from_rotvec([0.02, 0.03, 0.0]).as_matrix(), np.array([0.1, 0.0, 0.1])
        )
    graph.optimise()
    for key in (0, 1, 2, 4):
        np.testing.assert_allclose(graph.nodes[key].translation, places[key].translation, atol=1e-4)
        assert graph.nodes[key].scale == pytest.approx(places[key].scale, rel=1e-4)


def test_a_measurement_that_was_given_on_counts_once():
    """Nodes 0 and 2 hung on 1, which goes: each hangs on 3 now, and on nothing else for that."""
    places = random_places(4)
    graph = graph_of(places, (0, 1), (1, 2))
    graph.add_edge(edge(places, 1, 3, is_loop=True))
    graph.contract(edge(places, 1, 3))
    graph.remove_node(1)
    assert {tuple(sorted(key)) for key in graph.edges} == {(0, 3), (2, 3)}
    assert set(graph.parts().values()) == {0}


def test_the_oldest_of_each_part_is_known():
    graph = graph_of(random_places(6), (1, 4), (4, 2), (5, 3))
    assert graph.oldest() == {0, 1, 3}


def test_a_measurement_of_its_own_is_worth_more_than_an_inherited_one():
    places = random_places(3)
    graph = graph_of(places, (0, 1), (0, 2), (1, 2))
    own = graph.edges[0, 2]
    graph.contract(edge(places, 1, 2))
    assert graph.edges[0, 2] is own


def test_what_was_measured_along_the_way_goes_along_with_the_successor():
    places = random_places(2)
    samples = HangingSamples(places.get)
    where = PositionSample(5, np.zeros(3), np.eye(3))
    samples.hung = [Hung(where, 0, np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.0, 0.0]))]
    (before,) = samples.placed(PositionSample)
    samples.hang_on(0, 1)
    (after,) = samples.placed(PositionSample)
    assert after[0].keyframe_id == 1
    np.testing.assert_allclose(after[1].apply(after[0].place), before[1].apply(before[0].place))
    turned = [world.scale * world.rotation @ hung.velocity for hung, world in (before, after)]
    np.testing.assert_allclose(*turned)


def test_a_successors_anchor_is_what_all_the_fixes_that_hang_on_it_say():
    """The twin is made of the fixes themselves, once they hang on it."""
    places, rng = random_places(2), np.random.default_rng(5)
    metric = MetricScale(places.get)
    metric._gps.hung = [
        Hung(
            PositionSample(at, places[key].translation + rng.normal(0, 1, 3), 4.0 * np.eye(3)),
            key,
            rng.normal(0, 0.1, 3),
            np.zeros(3),
        )
        for at, key in enumerate([0, 0, 1, 0, 1])
    ]
    graph = graph_of(places)
    graph.anchors = metric.anchors()
    assert graph.anchors.keys() == {0, 1}
    metric.hang_on(0, 1)
    graph.contract(edge(places, 0, 1))
    twin = metric.anchors()
    assert graph.anchors.keys() == twin.keys() == {1}
    np.testing.assert_allclose(graph.anchors[1].position, twin[1].position)
    np.testing.assert_allclose(graph.anchors[1].covariance, twin[1].covariance, atol=1e-12)
