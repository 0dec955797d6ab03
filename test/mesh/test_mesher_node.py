# SPDX-License-Identifier: Apache-2.0
"""The mesher as a node: stream, snapshot, files and figures as other programs get them."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from worldsystem_core.surface import MeshAssembly

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
pytestmark = pytest.mark.ros


@contextmanager
def running(context, **settings):
    """A mesher in a thread of its own, with these settings beside the usual ones."""
    from rclpy.parameter import Parameter

    from worldsystem_core.ros.node_thread import NodeThread
    from worldsystem_mesh.node import MesherNode

    given = {"device": "cpu", "voxel": 0.1, "min_weight": 0.5, "metrics_port": 0}
    given |= {"stream_mbps": 0.5, "method_still": "tsdf", **settings}
    node = MesherNode(
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in given.items()],
    )
    thread = NodeThread(node)
    thread.start()
    yield node
    thread.stop()
    node.close()


@pytest.fixture
def mesher(context):
    with running(context) as node:
        yield node


@pytest.fixture
def outside(context):
    """A node of another program."""
    node = rclpy.create_node("outside", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.spin_some = lambda: executor.spin_once(timeout_sec=0.05)
    yield node
    executor.shutdown()
    node.destroy_node()


def until(outside, done, limit_s: float = 30.0):
    deadline = time.monotonic() + limit_s
    while not (result := done()):
        assert time.monotonic() < deadline
        outside.spin_some()
    return result


def call(outside, kind, name: str, **fields):
    client = outside.create_client(kind, name)
    until(outside, client.service_is_ready)
    future = client.call_async(kind.Request(**fields))
    until(outside, future.done)
    return future.result()


def fuse(context, keyframes) -> None:
    from worldsystem_core.reconstruction import NewKeyframe

    tell(context, [NewKeyframe(keyframe) for keyframe in keyframes])


def tell(context, events) -> None:
    from worldsystem_core.ros import topics
    from worldsystem_core.ros.reference_topic import ReferencePublisher

    node = rclpy.create_node("slam", context=context)
    publisher = ReferencePublisher(node, topics.KEYFRAME, outside=False)
    for event in events:
        publisher.publish(event)
    publisher.destroy()
    node.destroy_node()


def test_a_program_that_comes_late_gets_the_surface_streamed_saved_and_counted(
    context, mesher, outside, sphere_keyframes, tmp_path
):
    from worldsystem_msgs.msg import MeshDelta, MeshStatistics
    from worldsystem_msgs.srv import MeshRequest, SaveMesh

    from worldsystem_core.ros.adapters.surface import mesh_delta

    fuse(context, sphere_keyframes(6))
    until(outside, lambda: mesher._mesher.stats()["keyframes"] == 6 and mesher.idle)
    until(outside, lambda: mesher._mesher.is_settled)
    streamed, statistics, client = [], [], MeshAssembly()
    outside.create_subscription(MeshDelta, "mesh/stream", streamed.append, 50)
    outside.create_subscription(MeshStatistics, "mesh/statistics", statistics.append, 10)
    until(outside, lambda: streamed and streamed[-1].sequence == mesher._mesher.surface.sequence)
    assert [message.part for message in streamed] == list(range(1, len(streamed) + 1))
    for message in streamed:
        client.apply(mesh_delta(message))
    expected = mesher._mesher.mesh()
    assert len(client.mesh().faces) == len(expected.faces)

    snapshot = call(outside, MeshRequest, "mesh/request", encoding=2)
    assert {b.index for b in mesh_delta(snapshot.delta).blocks} == client.blocks.keys()
    assert len(snapshot.delta.code) < 3.5 * len(expected.vertices)
    assert "99" in call(outside, MeshRequest, "mesh/request", encoding=99).problem

    path = tmp_path / "ball.glb"
    answer = call(outside, SaveMesh, "mesh/save", path=str(path), texture=True)
    assert (answer.success, answer.face_count) == (True, len(expected.faces))
    until(outside, path.exists)
    assert len(trimesh.load(path, force="mesh", process=False).faces) == len(expected.faces)
    refused = call(outside, SaveMesh, "mesh/save", path="/nowhere/ball.ply")
    assert not refused.success
    assert "/nowhere" in refused.message

    newest = until(outside, lambda: statistics and statistics[-1])
    assert newest.keyframes == 6
    # block by block: joining them drops triangles whose corners meet on a rim
    blocks = mesh_delta(snapshot.delta).blocks
    assert newest.faces == sum(len(block.faces) for block in blocks)
    np.testing.assert_allclose(newest.voxel, 0.1)
    port = mesher._surface_services.metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as page:
        health = json.loads(page.read())
    assert (health["status"], health["keyframes"], health["method"]) == ("ok", 6, "tsdf")


def test_what_mesh_request_cannot_give_it_says_so(context, mesher, outside, monkeypatch):
    from worldsystem_msgs.srv import MeshRequest

    from worldsystem_mesh.page_file import PagingFailed

    def problem(**fields) -> str:
        return call(outside, MeshRequest, "mesh/request", **fields).problem

    assert problem() == ""
    for encoding in range(3):  # before the first keyframe, too
        assert problem(encoding=encoding, level=3) == "level 3 is not known; known: 0, 1, 2"
    assert "encoding 99 is not known; known: 0 (raw), 1 (draco)" in problem(encoding=99)

    def damaged(newer_than: int, stamp_ns: int):
        raise PagingFailed("record 7 of a page file is damaged")

    monkeypatch.setattr(mesher._mesher, "all_blocks", damaged)
    assert problem() == "record 7 of a page file is damaged"


def test_a_mesher_begun_anew_asks_again_for_what_its_inbox_could_not_hold(
    context, outside, sphere_keyframes, monkeypatch
):
    from std_srvs.srv import Trigger

    from worldsystem_core.reconstruction import NewKeyframe
    from worldsystem_core.ros.node_thread import NodeThread
    from worldsystem_mesh import node as mesher_node
    from worldsystem_mesh.node import MesherNode

    monkeypatch.setattr(mesher_node, "QUIET_S", 0.5)
    asked = []
    outside.create_service(
        Trigger, "slam3r/tell_again", lambda request, response: asked.append(1) or response
    )
    given = {"device": "cpu", "metrics_port": 0, "restore": True}
    parameters = [rclpy.parameter.Parameter(name, value=value) for name, value in given.items()]
    node = MesherNode(context=context, parameter_overrides=parameters)
    thread = NodeThread(node)
    thread.start()
    try:
        until(outside, lambda: len(asked) == 1)
        node._inbox._on_drop(NewKeyframe(sphere_keyframes(1)[0]))
        until(outside, lambda: len(asked) == 2)
        assert node.ledger.state().dropped == {"queue_full": 1}
        (old,) = sphere_keyframes(1)
        fuse(context, [old])
        until(outside, lambda: len(asked) == 3)
        fuse(context, [old])
        until(outside, lambda: node.ledger.state().dropped.get("told_again") == 1)
        wait_s = time.monotonic() + 1.5
        until(outside, lambda: time.monotonic() > wait_s)
        assert len(asked) == 3, "nothing was new the last time"
    finally:
        thread.stop()
        node.close()


def test_keyframes_of_a_loaded_map_that_found_no_room_are_asked_for_once(
    context, mesher, outside, sphere_keyframes, monkeypatch
):
    from std_srvs.srv import Trigger

    from worldsystem_core.reconstruction import NewKeyframe
    from worldsystem_mesh import node as mesher_node

    monkeypatch.setattr(mesher_node, "QUIET_S", 0.5)
    asked = []
    outside.create_service(
        Trigger, "slam3r/tell_again", lambda request, response: asked.append(1) or response
    )
    (keyframe,) = sphere_keyframes(1)
    mesher._inbox._on_drop(NewKeyframe(keyframe))
    mesher._first_pose_ns = keyframe.stamp_ns  # of this session: it may be seen again
    wait_s = time.monotonic() + 1.0
    until(outside, lambda: time.monotonic() > wait_s)
    assert not asked
    mesher._first_pose_ns = keyframe.stamp_ns + 1
    until(outside, lambda: asked)
    wait_s = time.monotonic() + 1.5
    until(outside, lambda: time.monotonic() > wait_s)
    assert len(asked) == 1


def test_a_correction_that_a_full_inbox_let_go_of_is_done(
    context, mesher, outside, sphere_keyframes
):
    from worldsystem_core.reconstruction import MovedKeyframes, NewKeyframe, RemovedKeyframes

    moving, going, other = sphere_keyframes(3)
    fuse(context, [moving, going])
    until(outside, lambda: mesher._mesher.stats()["keyframes"] == 2 and mesher.idle)
    inbox = mesher._inbox
    there = moving.world_from_cam.copy()
    there[:3, 3] += (0.5, 0.0, 0.2)
    nothing = np.full_like(other.pointmap, np.nan)
    others = [replace(other, id=k, frame_id=k, pointmap=nothing) for k in range(10, 63)]
    with mesher.turn:
        fuse(context, others[:1])
        assert inbox.wait_empty(10.0)  # it is given out, and has to wait for its turn
        tell(context, [MovedKeyframes({moving.id: there}), RemovedKeyframes((going.id,))])
        fuse(context, others[1:])
        assert inbox.dropped >= 4
    until(outside, lambda: mesher.idle and mesher._mesher.is_settled)
    np.testing.assert_array_equal(mesher._mesher.views.outline(moving.id).world_from_cam, there)
    assert set(mesher._mesher.views.ids) == {moving.id}
    dropped = mesher.ledger.state().dropped
    assert dropped["queue_full"] + dropped["no_usable_points"] == 53
    assert mesher._told.lies_there(replace(moving, world_from_cam=there))
    tell(context, [NewKeyframe(replace(moving, world_from_cam=there))])
    until(outside, lambda: "told_again" in mesher.ledger.state().dropped)


def test_keyframes_of_before_say_nothing_of_how_late_the_map_is(
    context, mesher, outside, sphere_keyframes
):
    from worldsystem_core.reconstruction import Pose, TrackingState
    from worldsystem_core.ros import topics
    from worldsystem_core.ros.reference_topic import ReferencePublisher

    old, new = sphere_keyframes(2)
    now_ns = old.stamp_ns + 10_000_000_000
    pose = Pose(
        frame_id=1,
        stamp_ns=now_ns,
        world_from_cam=new.world_from_cam,
        confidence=1.0,
        state=TrackingState.TRACKED,
        scale=new.scale,
    )
    node = rclpy.create_node("poses", context=context)
    publisher = ReferencePublisher(node, topics.POSE, outside=False)
    publisher.publish(pose)
    until(outside, lambda: mesher._first_pose_ns == now_ns)
    measured = []
    mesher.measure_latency = measured.append
    for each in (old, replace(new, stamp_ns=now_ns)):
        fuse(context, [each])
        until(outside, lambda: mesher.idle and mesher._mesher.is_settled)
    assert measured == [now_ns]
    publisher.destroy()
    node.destroy_node()


def test_sizes_count_from_where_a_keyframe_was_told_last(
    context, mesher, outside, sphere_keyframes
):
    from worldsystem_core.reconstruction import MovedKeyframes, NewKeyframe

    (keyframe, *_) = sphere_keyframes(2)
    pose, larger = keyframe.world_from_cam, np.float32(1.25) * keyframe.pointmap
    events = [
        NewKeyframe(keyframe),
        MovedKeyframes({keyframe.id: pose}, {keyframe.id: 1.25}),
        NewKeyframe(replace(keyframe, pointmap=larger)),
        MovedKeyframes({keyframe.id: pose}, {keyframe.id: 1.6}),
    ]
    tell(context, events[:1])
    until(outside, lambda: mesher._mesher.stats()["keyframes"] == 1 and mesher.idle)
    median = mesher._mesher.views.outline(keyframe.id).median
    tell(context, events[1:])
    until(outside, lambda: mesher.idle and mesher._mesher.is_settled)
    assert mesher.ledger.state().dropped == {"told_again": 1}
    view = mesher._mesher.views.outline(keyframe.id)
    assert (view.scale, view.median) == pytest.approx((2.0, 2.0 * median))


def test_a_surface_that_cannot_be_used_keeps_no_mesher_from_beginning_anew(
    context, outside, sphere_keyframes, tmp_path, monkeypatch, caplog
):
    from worldsystem_mesh.restoration import Restoration

    archive = str(tmp_path / "surface")
    with running(context, archive_dir=archive) as died:
        fuse(context, sphere_keyframes(2))
        until(outside, lambda: died._mesher.stats()["keyframes"] == 2 and died.idle)

    def fails(*_args):
        raise OverflowError("Numerical result out of range")

    monkeypatch.setattr(Restoration, "__init__", fails)
    with running(context, archive_dir=archive, restore=True) as back:
        assert "cannot be used" in caplog.text
        fuse(context, sphere_keyframes(3))
        until(outside, lambda: back._mesher.stats()["keyframes"] == 3 and back.idle)
        assert [one.view.id for one in back._mesher._archive.kept()] == [0, 1, 2]


def test_a_mesher_that_comes_back_has_the_surface_it_had_and_is_told_where_it_lies(
    context, outside, sphere_keyframes, tmp_path, monkeypatch
):
    """Of six keyframes the first was replaced before it died, the last while it was away, and the
    second was moved meanwhile."""
    from worldsystem_core import returning_keyframes
    from worldsystem_core.reconstruction import MovedKeyframes, RemovedKeyframes, Successor

    monkeypatch.setattr(returning_keyframes, "QUIET_S", 0.5)
    keyframes = sphere_keyframes(6)
    settings = {"archive_dir": str(tmp_path / "surface"), "redraw_voxels": 0.0}
    with running(context, **settings) as died:
        fuse(context, keyframes)
        until(outside, lambda: died._mesher.stats()["keyframes"] == 6 and died.idle)
        heir = Successor(1, keyframes[1].world_from_cam)
        tell(context, [RemovedKeyframes((0,), {0: heir})])
        until(outside, lambda: died._mesher.stats()["keyframes"] == 5 and died.idle)
        until(outside, lambda: died._mesher.is_settled)
        before = died._mesher.mesh()
    with running(context, **settings, restore=True) as back:
        until(outside, lambda: back._mesher.is_settled)
        np.testing.assert_array_equal(back._mesher.mesh().vertices, before.vertices)
        moved = keyframes[2].world_from_cam.copy()
        moved[:3, 3] *= 1.5
        told = [*keyframes[1:2], replace(keyframes[2], world_from_cam=moved), *keyframes[3:5]]
        poses = {k.id: k.world_from_cam for k in told}
        tell(context, [MovedKeyframes(poses, dict.fromkeys(poses, 1.0), keyframes[0].scale)])
        fuse(context, told)
        until(outside, lambda: back._mesher.stats()["keyframes"] == 4 and back.idle)
        until(outside, lambda: back._mesher.is_settled)
        assert back.ledger.state().dropped == {"told_again": 4}
        assert set(back._mesher.views.ids) == {1, 2, 3, 4}
        np.testing.assert_array_equal(back._mesher.views.outline(2).world_from_cam, moved)
        assert not back._told.knows(keyframes[5])
        # the last one's share is still there: seen from the side where no other looked
        facing = back._mesher.mesh().vertices @ keyframes[5].world_from_cam[:3, 3]
        assert facing.max() > 0.95 * (before.vertices @ keyframes[5].world_from_cam[:3, 3]).max()


def test_a_mesher_gives_signs_of_life_while_a_large_map_comes_back_in_one_go(
    context, outside, sphere_keyframes, tmp_path, monkeypatch
):
    from worldsystem_core.reconstruction import MovedKeyframes
    from worldsystem_mesh import node as node_module

    keyframes, archive = sphere_keyframes(5), str(tmp_path / "surface")
    with running(context, archive_dir=archive) as died:
        fuse(context, keyframes)
        until(outside, lambda: died._mesher.stats()["keyframes"] == 5 and died.idle)
    monkeypatch.setattr(node_module, "SIGN_S", 0.0)
    monkeypatch.setattr(node_module, "RESTORING_S", 0.0)  # none comes back by itself
    with running(context, archive_dir=archive, restore=True) as back:
        signs: list[int] = []
        with back.turn:
            monkeypatch.setattr(back, "report", lambda: signs.append(len(back._mesher.views)))
            poses = {k.id: k.world_from_cam for k in keyframes}
            back._on_keyframe(MovedKeyframes(poses, dict.fromkeys(poses, 1.0), keyframes[0].scale))
            monkeypatch.undo()
        assert signs == [1, 2, 3, 4, 5]
