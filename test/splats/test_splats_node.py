# SPDX-License-Identifier: Apache-2.0
"""The node: keyframes in, chunks out for other programs, a file by service."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from splat_scenes import CAMERA, wall_seen_from

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.keyframe_inbox import ToldAgain
from worldsystem_core.reconstruction import (
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
    Successor,
)
from worldsystem_core.splats.delta import SplatAssembly, SplatDelta, SplatOperation
from worldsystem_core.splats.packed import deflate, pack
from worldsystem_core.splats.world import SplatWorld

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
from worldsystem_viewer.splats import node as node_module  # noqa: E402

pytestmark = pytest.mark.ros

PIXELS = CAMERA.width * CAMERA.height


@pytest.fixture
def node(context):
    from worldsystem_core.ros.node_thread import NodeThread
    from worldsystem_viewer.splats.node import SplatsNode

    node = SplatsNode(context=context)
    thread = NodeThread(node)
    thread.start()
    yield node
    thread.stop()
    node.close()


@pytest.mark.parametrize("paced", [False, True], ids=["live", "of a file"])
def test_keyframes_of_a_loaded_map_that_found_no_room_are_asked_for_again(node, paced, monkeypatch):
    """Nobody flies there again, perhaps; the stamps of a file are all of before."""
    asked: list[object] = []
    monkeypatch.setattr(node_module, "paced", lambda: paced)
    monkeypatch.setattr(node_module, "QUIET_S", 0.05)
    monkeypatch.setattr(node._keyframes_before, "ask", asked.append)
    old = wall_seen_from([0, 0, 0], 0)
    node._on_missed(NewKeyframe(replace(old, stamp_ns=time.time_ns())))
    time.sleep(0.5)
    assert not asked, "what is new is seen again"
    node._on_missed(NewKeyframe(replace(old, stamp_ns=10**18)))
    deadline = time.monotonic() + (0.5 if paced else 10.0)
    while not asked and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(asked) == (0 if paced else 1)


def delta_of_a_wall() -> SplatDelta:
    world = SplatWorld()
    keyframe = wall_seen_from([1, 2, 3], 5)
    world.add(keyframe)
    return SplatDelta(
        stamp_ns=12_345_678_901,
        sequence=7,
        chunk=5,
        operation=SplatOperation.PUT,
        world_from_chunk=Sim3.from_pose(keyframe.world_from_cam, 1.25),
        words=pack(world.chunks[5].gaussians),
        total=PIXELS,
        scale=ScaleState.METRIC,
    )


def test_a_message_holds_the_whole_delta_packed_or_deflated():
    from rclpy.serialization import deserialize_message, serialize_message
    from worldsystem_msgs.msg import SplatDelta as SplatDeltaMessage

    from worldsystem_core.ros.adapters.splats import SplatDeltaAdapter

    delta = delta_of_a_wall()
    (cdr,) = SplatDeltaAdapter().dump(delta)
    message = deserialize_message(cdr, SplatDeltaMessage)
    message.encoding = SplatDeltaMessage.ENCODING_DEFLATED
    message.data = deflate(delta.words)
    for form in (cdr, serialize_message(message)):
        back = SplatDeltaAdapter().load(form)
        assert np.array_equal(back.words, delta.words)
        assert (back.chunk, back.sequence, back.total) == (5, 7, PIXELS)
        assert (back.operation, back.scale, back.stamp_ns) == (
            SplatOperation.PUT,
            ScaleState.METRIC,
            12_345_678_901,
        )
        assert abs(back.world_from_chunk.scale - 1.25) < 1e-12
        assert np.allclose(back.world_from_chunk.pose, delta.world_from_chunk.pose)


def grown(keyframe):
    return replace(keyframe, pointmap=keyframe.pointmap * np.float32(2.0))


def test_sizes_told_after_a_keyframe_was_told_again_count_from_there(node):
    """A wall 3 away, then twice as far, of which the keyframe's points speak from now on."""
    keyframe = wall_seen_from([0, 0, 0], 3)
    pose = keyframe.world_from_cam
    with node.turn:
        node._on_keyframe(NewKeyframe(keyframe))
        node._on_keyframe(MovedKeyframes({3: pose}, {3: 2.0}))
        node._on_keyframe(NewKeyframe(grown(keyframe)))
        assert len(node._world.chunks[3]) == PIXELS
        for factor in (1.0, 1.5):
            node._on_keyframe(MovedKeyframes({3: pose}, {3: factor}))
            far = np.median(node._world.gaussians().means[:, 1])
            assert far == pytest.approx(6.0 * factor, rel=1e-3)
        used = node.ledger.state().used
        node._on_keyframe(MovedKeyframes({3: pose}, {3: 1.0}))
        node._on_keyframe(NewKeyframe(grown(keyframe)))
        assert node.ledger.state().used == used, "nothing is new"


def test_what_hangs_on_a_keyframe_told_again_grows_on_from_its_size(node):
    before, heir = wall_seen_from([0, 0, 0], 2), wall_seen_from([20, 0, 0], 3)
    pose = heir.world_from_cam
    with node.turn:
        for keyframe in (before, heir):
            node._on_keyframe(NewKeyframe(keyframe))
        node._on_keyframe(RemovedKeyframes((2,), {2: Successor(3, pose)}))
        node._on_keyframe(MovedKeyframes({3: pose}, {3: 2.0}))
        node._on_keyframe(NewKeyframe(grown(heir)))
        node._on_keyframe(MovedKeyframes({3: pose}, {3: 1.5}))
        sizes = {number: c.world_from_chunk.scale for number, c in node._world.chunks.items()}
    assert sizes == {2: pytest.approx(3.0), 3: pytest.approx(3.0)}


def test_what_hangs_on_a_keyframe_that_added_no_splats_grows_on_from_its_size(node):
    """As one that shows what is shown already."""
    before = wall_seen_from([0, 0, 0], 2)
    nothing = np.full_like(before.pointmap, np.nan)
    heir = replace(before, id=3, frame_id=3, pointmap=nothing)
    pose = heir.world_from_cam
    with node.turn:
        for keyframe in (before, heir):
            node._on_keyframe(NewKeyframe(keyframe))
        assert set(node._world.chunks) == {2}
        node._on_keyframe(RemovedKeyframes((2,), {2: Successor(3, pose)}))
        node._on_keyframe(MovedKeyframes({3: pose}, {3: 2.0}))
        node._on_keyframe(NewKeyframe(grown(heir)))
        node._on_keyframe(MovedKeyframes({3: pose}, {3: 1.5}))
        assert node._world.chunks[2].world_from_chunk.scale == pytest.approx(3.0)


def test_a_keyframe_told_again_for_which_there_was_no_room_is_followed(node):
    keyframe = wall_seen_from([0, 0, 0], 3)
    pose, aside = keyframe.world_from_cam, keyframe.world_from_cam.copy()
    aside[0, 3] += 1.0
    with node.turn:
        node._on_keyframe(NewKeyframe(keyframe))
        node._on_keyframe(MovedKeyframes({3: pose}, {3: 2.0}))
        node._on_keyframe(ToldAgain({3: aside}))
        node._on_keyframe(MovedKeyframes({3: aside}, {3: 1.5}))
        chunk = node._world.chunks[3].world_from_chunk
    assert chunk.scale == pytest.approx(3.0)
    np.testing.assert_allclose(chunk.translation, aside[:3, 3], atol=1e-6)


def test_a_listener_gets_the_world_and_its_corrections_and_can_have_it_saved(
    context, node, tmp_path
):
    from worldsystem_msgs.srv import SaveMap

    from worldsystem_core.ros import topics
    from worldsystem_core.ros.reference_topic import ReferencePublisher, ReferenceSubscription

    outside = rclpy.create_node("outside", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(outside)
    keyframes = ReferencePublisher(outside, topics.KEYFRAME)
    client = SplatAssembly()
    listening = ReferenceSubscription(outside, topics.SPLATS, client.apply)
    keyframe = wall_seen_from([0, 0, 0], 3)
    moved = keyframe.world_from_cam.copy()
    moved[0, 3] = 2.0

    def wait_until(condition):
        until = time.monotonic() + 10.0
        while not condition() and time.monotonic() < until:
            executor.spin_once(timeout_sec=0.05)
        assert condition()

    keyframes.publish(NewKeyframe(keyframe))
    wait_until(lambda: 3 in client.words)
    assert client.words[3].shape == (PIXELS, 4)
    keyframes.publish(MovedKeyframes({3: moved}))
    wait_until(lambda: client.world_from_chunk[3].translation[0] == 2.0)
    service = outside.create_client(SaveMap, "splats/save")
    assert service.wait_for_service(timeout_sec=5.0)
    answer = service.call_async(SaveMap.Request(path=str(tmp_path / "world.spz")))
    wait_until(answer.done)
    assert answer.result().success, answer.result().message
    assert (tmp_path / "world.spz").stat().st_size > 1000
    assert node.ledger.state().used == 1
    listening.destroy()
    keyframes.destroy()
    executor.shutdown()
    outside.destroy_node()


def test_a_viewer_that_begins_later_and_one_that_missed_much_have_all_splats(context, node):
    """As after the death of its process, and after a step of all keyframes to metres."""
    from rclpy.parameter import Parameter

    from worldsystem_core.ros.node_thread import NodeThread
    from worldsystem_viewer.node import ViewerNode

    with node.turn:
        for number in range(3):
            node._on_keyframe(NewKeyframe(wall_seen_from([20.0 * number, 0, 0], number)))
    given = {"foxglove": False, "rerun": False, "web_port": 0}
    parameters = [Parameter(name, value=value) for name, value in given.items()]
    viewer = NodeThread(ViewerNode(context=context, parameter_overrides=parameters))
    viewer.start()
    shelf = viewer.node._page._splats.shelf

    def wait_for(chunks):
        until = time.monotonic() + 20.0
        while set(shelf.newest()) != chunks and time.monotonic() < until:
            time.sleep(0.05)
        assert set(shelf.newest()) == chunks

    try:
        wait_for({0, 1, 2})
        with node.turn:
            node._world.remove([1])
            node._stream.take(time.monotonic(), 0, ScaleState.SCENE)  # nobody hears of it
        with node.turn:
            node._on_keyframe(NewKeyframe(wall_seen_from([80.0, 0, 0], 7)))
        wait_for({0, 2, 7})
    finally:
        viewer.stop()
        viewer.node.input_ended()
        viewer.node.close()


def test_splats_that_cannot_be_used_keep_no_node_from_beginning_anew(
    context, tmp_path, monkeypatch, caplog
):
    from rclpy.parameter import Parameter

    from worldsystem_viewer.splats.node import SplatsNode

    def begun(**settings):
        given = {"archive_dir": str(tmp_path), **settings}
        parameters = [Parameter(name, value=value) for name, value in given.items()]
        return SplatsNode(context=context, parameter_overrides=parameters)

    died = begun()
    died._on_keyframe(NewKeyframe(wall_seen_from([0, 0, 0], 0)))
    died._on_timer()
    died.close()

    def fails(world, *_args):
        world.changed[77] = None  # half way
        raise OverflowError("Numerical result out of range")

    monkeypatch.setattr(SplatWorld, "begin_again", fails)
    back = begun(restore=True)
    assert "cannot be used" in caplog.text
    assert not list(tmp_path.iterdir())
    back._on_keyframe(NewKeyframe(wall_seen_from([0, 0, 0], 0)))
    assert list(back._world.chunks) == [0]
    back.close()


def test_a_node_that_comes_back_has_its_splats_and_is_told_where_they_lie(
    context, tmp_path, monkeypatch
):
    """Of four walls one was replaced before it died, one while it was away, one moved meanwhile."""
    from rclpy.parameter import Parameter

    from worldsystem_core import returning_keyframes
    from worldsystem_viewer.splats.node import SplatsNode

    monkeypatch.setattr(returning_keyframes, "QUIET_S", 0.2)

    def begun(**settings):
        given = {"archive_dir": str(tmp_path / "splats"), **settings}
        parameters = [Parameter(name, value=value) for name, value in given.items()]
        return SplatsNode(context=context, parameter_overrides=parameters)

    keyframes = [wall_seen_from([20.0 * i, 0, 0], i) for i in range(4)]
    died = begun()
    for keyframe in keyframes:
        died._on_keyframe(NewKeyframe(keyframe))
    heir = Successor(1, keyframes[1].world_from_cam)
    died._on_keyframe(RemovedKeyframes((0,), {0: heir}))
    died._on_timer()
    died.close()
    back = begun(restore=True)
    assert list(back._world.chunks) == [0, 1, 2, 3]
    moved = keyframes[1].world_from_cam.copy()
    moved[:3, 3] += [0, 0, 5.0]
    told = [replace(keyframes[1], world_from_cam=moved), keyframes[3]]
    poses = {keyframe.id: keyframe.world_from_cam for keyframe in told}
    sizes = dict.fromkeys(poses, 1.4)  # since a telling while it was away: of no interest
    back._on_keyframe(MovedKeyframes(poses, sizes, ScaleState.SCENE))
    assert {c.world_from_chunk.scale for c in back._world.chunks.values()} == {1.0}
    for keyframe in told:
        back._on_keyframe(NewKeyframe(keyframe))
    places = {n: c.world_from_chunk.translation[2] for n, c in back._world.chunks.items()}
    assert places == pytest.approx({0: 5.0, 1: 5.0, 2: 0.0, 3: 0.0})
    time.sleep(0.3)
    back._on_timer()
    back._on_keyframe(MovedKeyframes({3: keyframes[3].world_from_cam}, {3: 2.0}))
    assert back._world.chunks[2].world_from_chunk.scale == pytest.approx(2.0), "as its heir has"
    assert set(back._told.ids) == {1, 3}
    assert back._world.chunks.keys() == {0, 1, 2, 3}
    back._on_keyframe(RemovedKeyframes((1, 3)))
    assert not back._world.chunks, "the second and the third went along with their heirs"
    back.close()


def walls_apart(node):
    """More keyframes than are moved at once, each of a wall of its own; where they lie."""
    poses = {}
    for number in range(3 * node_module._MOVED_AT_ONCE // 2):
        keyframe = wall_seen_from([30.0 * number, 0, 0], number)
        node._on_keyframe(NewKeyframe(keyframe))
        poses[number] = keyframe.world_from_cam.copy()
    return poses


def test_a_change_of_unit_leaves_no_chunk_to_be_looked_at_again(node):
    with node.turn:
        poses = walls_apart(node)
        for pose in poses.values():
            pose[:3, 3] *= 5.0
        voxel = node._world.voxel
        sizes = dict.fromkeys(poses, 5.0)
        node._on_keyframe(MovedKeyframes(poses, sizes, ScaleState.METRIC))
        assert node._world.voxel == pytest.approx(5.0 * voxel)
        assert not node._world._recheck, "all lie to each other as before"


def test_a_correction_of_many_keyframes_moves_each_of_them(node):
    with node.turn:
        poses = walls_apart(node)
        for number, pose in poses.items():
            pose[1, 3] += 0.1 * number
        node._on_keyframe(MovedKeyframes(poses))
        for number, pose in poses.items():
            np.testing.assert_allclose(node._world.chunks[number].world_from_chunk.pose, pose)
