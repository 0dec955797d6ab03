# SPDX-License-Identifier: Apache-2.0
"""`slam3r/reset`: the map begins anew while frames go on coming, and nobody keeps the old one."""

from __future__ import annotations

import time
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from drifting_backend import DriftingBackend, Film, film, ring_poses
from test_cloud import a_keyframe

from worldsystem_core.errors import BackendError
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    Successor,
    TrackingState,
)
from worldsystem_slam3r import backend as backends
from worldsystem_slam3r.backend import OpenedBackend, begin_anew
from worldsystem_slam3r.cloud import BoundedCloud
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")


class Stubborn:
    """A back-end without a `restart`, as those of the networks are."""

    def __init__(self, of: Film) -> None:
        self._inner = DriftingBackend([of])

    def feed(self, frame) -> list[Event]:
        return self._inner.feed(frame)

    def finish(self) -> list[Event]:
        return self._inner.finish()


@pytest.fixture(scope="module")
def ring() -> Film:
    return film(ring_poses(17)[:10])


def keyframes(events: list[Event]):
    return [event.keyframe for event in events if isinstance(event, NewKeyframe)]


def opened(kind, of: Film, config: Slam3rConfig, monkeypatch) -> OpenedBackend:
    make = partial(DriftingBackend, [of]) if kind is DriftingBackend else partial(kind, of)
    monkeypatch.setitem(backends._MAKERS, "geometric", lambda _: make())
    if not config.graph:
        return OpenedBackend(make(), "geometric")
    return OpenedBackend(GraphBackend(RenewableBackend(make(), None), config), "geometric")


@pytest.mark.parametrize("kind", [DriftingBackend, Stubborn])
@pytest.mark.parametrize("graph", [True, False])
def test_the_new_map_begins_at_the_origin_and_its_ids_go_on(kind, graph, ring, monkeypatch):
    config = Slam3rConfig(graph=graph)
    running, told = opened(kind, ring, config, monkeypatch), []
    for part in (ring.frames[:4], ring.frames[4:7], ring.frames[7:]):
        if told:
            running = begin_anew(running, config, next_id=told[-1][-1].id + 1)
        told.append(keyframes([e for frame in part for e in running.backend.feed(frame)]))
    ids = [keyframe.id for part in told for keyframe in part]
    assert ids == list(range(10))
    for part in told:
        assert np.allclose(part[0].world_from_cam, np.eye(4), atol=1e-9)
    if graph:
        assert len(running.backend.atlas.keyframes) == 3


@pytest.mark.parametrize("graph", [True, False])
def test_the_old_back_end_is_let_go_before_another_is_opened(graph, ring, monkeypatch):
    """Both together may be more than fits on the GPU."""
    old, there = Stubborn(ring), []
    seen = weakref.ref(old)

    def make(_):
        there.append(seen())
        return Stubborn(ring)

    monkeypatch.setitem(backends._MAKERS, "geometric", make)
    backend, config = RenewableBackend(old, None), Slam3rConfig(graph=graph)
    del old
    running = OpenedBackend(GraphBackend(backend, config) if graph else backend, "geometric")
    running.backend.feed(ring.frames[0])
    begin_anew(running, config, next_id=1)
    assert there == [None]


@pytest.mark.parametrize("graph", [True, False])
def test_where_no_other_can_be_opened_the_next_picture_tries_again(graph, ring, monkeypatch):
    tries = iter([BackendError("too little memory"), BackendError("still"), Stubborn(ring)])

    def make(_):
        made = next(tries)
        if isinstance(made, BackendError):
            raise made
        return made

    monkeypatch.setitem(backends._MAKERS, "geometric", make)
    backend, config = RenewableBackend(Stubborn(ring), None), Slam3rConfig(graph=graph)
    running = OpenedBackend(GraphBackend(backend, config) if graph else backend, "geometric")
    for frame in ring.frames[:3]:
        running.backend.feed(frame)
    with pytest.raises(BackendError, match="too little memory"):
        begin_anew(running, config, next_id=3)
    with pytest.raises(BackendError, match="still"):
        running.backend.feed(ring.frames[3])
    told = [event for frame in ring.frames[4:8] for event in backend.feed(frame)]
    assert [keyframe.id for keyframe in keyframes(told)] == [3, 4, 5, 6]
    assert {keyframe.submap for keyframe in keyframes(told)} == {1}


def saved_ids(folder: Path, of: Film) -> list[int]:
    graph = GraphBackend(RenewableBackend(DriftingBackend([of]), None), Slam3rConfig())
    graph.load_map(folder)
    return sorted(graph.atlas.keyframes)


def test_the_saved_map_becomes_the_new_one(ring, monkeypatch, tmp_path):
    config = Slam3rConfig(map=str(tmp_path / "map"), map_every_s=100.0)
    running = opened(DriftingBackend, ring, config, monkeypatch)
    for frame in ring.frames[:4]:
        running.backend.feed(frame)
    running = begin_anew(running, config, next_id=4)
    assert saved_ids(tmp_path / "map", ring) == [0, 1, 2, 3]
    for frame in ring.frames[4:6]:
        running.backend.feed(frame)
    running.backend.finish()
    assert saved_ids(tmp_path / "map", ring) == [4, 5]


def until(done, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.ros
def test_the_service_takes_the_old_map_from_everybody_while_frames_come(context, ring, monkeypatch):
    from rclpy.parameter import Parameter
    from worldsystem_msgs.srv import Reset

    from worldsystem_core.ros import topics
    from worldsystem_core.ros.node_thread import NodeThread
    from worldsystem_core.ros.reference_topic import ReferencePublisher, ReferenceSubscription
    from worldsystem_slam3r import node as node_module
    from worldsystem_slam3r import running as running_module

    back_end = opened(DriftingBackend, ring, Slam3rConfig(), monkeypatch)
    monkeypatch.setattr(running_module, "open_backend", lambda *_: back_end)
    slam3r = node_module.Slam3rNode(
        context=context, parameter_overrides=[Parameter("queue_frames", value=20)]
    )
    thread = NodeThread(slam3r)
    other = rclpy.create_node("other", context=context)
    heard: list[Event] = []
    paths: list = []
    links = [
        ReferenceSubscription(other, topics.KEYFRAME, heard.append),
        ReferenceSubscription(other, topics.POSE, heard.append),
        ReferenceSubscription(other, topics.PATH, paths.append),
    ]
    camera = ReferencePublisher(other, topics.IMAGE, outside=False)
    thread.start()
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(other)
    try:
        for frame in ring.frames[:5]:
            camera.publish(frame)
        until(lambda: spun(executor) and len(keyframes(heard)) == 5)
        client = other.create_client(Reset, "slam3r/reset")
        until(lambda: spun(executor) and client.service_is_ready())
        future = client.call_async(Reset.Request())
        until(lambda: spun(executor) and future.done())
        answer = future.result()
        assert answer.success
        assert answer.message == "begun anew; 5 keyframes of the old map are gone"
        for frame in ring.frames[5:8]:
            camera.publish(frame)
        until(lambda: spun(executor) and len(keyframes(heard)) == 8)
        (gone,) = (event for event in heard if isinstance(event, RemovedKeyframes))
        assert gone.ids == (0, 1, 2, 3, 4)
        assert [k.id for k in keyframes(heard)[5:]] == [5, 6, 7]
        after = heard[heard.index(gone) :]
        poses = [event for event in after if isinstance(event, Pose)]
        assert all(pose.state is TrackingState.TRACKED for pose in poses)
        until(lambda: spun(executor) and paths and len(paths[-1]) == 3)
        assert slam3r.facts()["keyframes"] == 3
        ledger = slam3r.ledger.state()
        assert (ledger.taken, ledger.used) == (8, 8)
    finally:
        for link in (*links, camera):
            link.destroy()
        executor.shutdown()
        thread.stop()
        slam3r.close()
        other.destroy_node()


@pytest.mark.ros
def test_the_new_maps_cloud_is_whole_and_has_no_point_of_the_old(context, ring, monkeypatch):
    from rclpy.parameter import Parameter
    from worldsystem_msgs.srv import Reset

    from worldsystem_slam3r import cloud, node
    from worldsystem_slam3r import running as running_module

    back_end = opened(DriftingBackend, ring, Slam3rConfig(graph=False), monkeypatch)
    monkeypatch.setattr(running_module, "open_backend", lambda *_: back_end)
    monkeypatch.setattr(cloud, "MOVABLE_KEYFRAMES", 2)  # those before them belong to none
    settings = [Parameter("cloud_points", value=2000)]
    slam3r = node.Slam3rNode(context=context, parameter_overrides=settings)
    try:
        slam3r._publish([NewKeyframe(a_keyframe(key, 600)) for key in range(8)])
        assert 0 < len(slam3r._cloud) < 8 * 600, "more than there was room for"
        assert slam3r._on_reset(Reset.Request(), Reset.Response()).success
        assert len(slam3r._cloud) == 0
        new, whole = [a_keyframe(key, 600) for key in (8, 9)], BoundedCloud(2000)
        for keyframe in new:
            whole.add(keyframe)
        slam3r._publish([NewKeyframe(keyframe) for keyframe in new])
        assert len(slam3r._cloud) == 2 * 600
        np.testing.assert_array_equal(slam3r._cloud.points().points, whole.points().points)
    finally:
        slam3r.close()


def spun(executor) -> bool:
    executor.spin_once(timeout_sec=0.02)
    return True


@pytest.mark.ros
def test_a_keyframe_that_came_in_the_last_moment_goes_with_the_old_map(context, ring, monkeypatch):
    """Its depth was worked out while the reset was on its way."""
    from rclpy.parameter import Parameter
    from worldsystem_msgs.srv import Reset

    from worldsystem_slam3r import node
    from worldsystem_slam3r import running as running_module

    back_end = opened(DriftingBackend, ring, Slam3rConfig(), monkeypatch)
    monkeypatch.setattr(running_module, "open_backend", lambda *_: back_end)
    settings = [Parameter("cloud_points", value=2000)]
    slam3r = node.Slam3rNode(context=context, parameter_overrides=settings)
    try:
        told: list[Event] = []
        slam3r._publish([NewKeyframe(a_keyframe(key, 600)) for key in range(3)])
        slam3r._keyframe_out.publish = lambda event, **_: told.append(event)
        late = running_module.Answer(running_module.OF_NO_FRAME, [NewKeyframe(a_keyframe(3, 600))])
        monkeypatch.setattr(slam3r._running, "begin_anew", lambda _: [late])
        assert slam3r._on_reset(Reset.Request(), Reset.Response()).success
        (gone,) = (event for event in told if isinstance(event, RemovedKeyframes))
        assert gone.ids == (0, 1, 2, 3)
        assert told[-1] is gone
        assert len(slam3r._cloud) == 0
    finally:
        slam3r.close()


@pytest.mark.ros
def test_keyframes_told_again_count_once_and_withdrawn_ones_not_at_all(context):
    from worldsystem_slam3r.node import Slam3rNode

    stage = Slam3rNode(context=context)
    try:
        for _ in range(2):
            stage._publish([NewKeyframe(a_keyframe(key, 9)) for key in range(3)])
        assert stage.facts()["keyframes"] == 3
        stage._publish([RemovedKeyframes((2,))])
        assert stage.facts()["keyframes"] == 2
    finally:
        stage.close()


@pytest.mark.ros
def test_each_change_to_a_metric_map_says_that_it_is_one(context):
    from rclpy.serialization import deserialize_message
    from worldsystem_msgs.msg import Keyframe as KeyframeMessage

    from worldsystem_core.ros import topics
    from worldsystem_core.ros.reference_topic import BytesSubscription
    from worldsystem_slam3r.node import Slam3rNode

    stage = Slam3rNode(context=context)
    heard: list[bytes] = []
    link = BytesSubscription(stage, topics.KEYFRAME, heard.append, direct=True)
    metric = [replace(a_keyframe(key, 9), scale=ScaleState.METRIC) for key in (1, 2, 3)]
    heir = Successor(3, metric[2].world_from_cam)
    try:
        stage._publish([NewKeyframe(keyframe) for keyframe in metric])
        stage._publish([MovedKeyframes({1: metric[1].world_from_cam})])
        stage._publish([RemovedKeyframes((1, 2), {2: heir})])
    finally:
        link.destroy()
        stage.close()
    told = [deserialize_message(cdr, KeyframeMessage) for cdr in heard]
    assert [message.event for message in told] == [0, 0, 0, 1, 2, 2]
    assert {(message.header.frame_id, message.scale_state) for message in told} == {("map", 1)}
