# SPDX-License-Identifier: Apache-2.0
"""The stage whose reconstruction works in a process of its own: that one may be killed."""

from __future__ import annotations

import os
import signal
import time

import filmed_room
import pytest

from worldsystem_core.reconstruction import Event, NewKeyframe, RemovedKeyframes
from worldsystem_slam3r.maps.next_life import kept_keyframes

CAMERA = filmed_room.camera(480, 270)
POSES = filmed_room.sideways_poses(48, step=0.09)


@pytest.fixture(scope="module")
def film():
    return filmed_room.frames(POSES, CAMERA)


def until(done, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.ros
@pytest.mark.parametrize("saved", [True, False], ids=["in its saved map", "with an empty map"])
def test_a_stage_whose_worker_was_killed_goes_on(context, film, tmp_path, saved):
    import rclpy
    from rclpy.parameter import Parameter

    from worldsystem_core.ros import topics
    from worldsystem_core.ros.node_thread import NodeThread
    from worldsystem_core.ros.reference_topic import ReferencePublisher, ReferenceSubscription
    from worldsystem_slam3r.node import Slam3rNode

    on_to_new_ground = filmed_room.sideways_poses(54, step=0.09, first=-20)[::-1]
    back = filmed_room.frames(on_to_new_ground, CAMERA, first_id=34)
    settings = {"own_process": True, "synchronous": True, "queue_frames": 100}
    if saved:
        settings |= {"map": str(tmp_path / "map"), "map_every_s": 0.01}
    slam3r = Slam3rNode(
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in settings.items()],
    )
    thread, other = NodeThread(slam3r), rclpy.create_node("other", context=context)
    heard: list[Event] = []
    links = [
        ReferenceSubscription(other, topics.KEYFRAME, heard.append),
        ReferenceSubscription(other, topics.POSE, heard.append),
    ]
    pictures = ReferencePublisher(other, topics.IMAGE, outside=False)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(other)
    thread.start()

    def settled() -> bool:
        executor.spin_once(timeout_sec=0.02)
        return thread.node.idle

    try:
        for frame in film[:34]:
            pictures.publish(frame)
        until(settled)
        until(lambda: settled() and (not saved or kept_keyframes(str(tmp_path / "map"))))
        before = {event.keyframe.id for event in heard if isinstance(event, NewKeyframe)}
        assert before
        worker = slam3r.worker_pid
        os.kill(worker, signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{worker}/cwd"))
        kept = kept_keyframes(str(tmp_path / "map"))  # what it saved last, perhaps not all
        heard.clear()
        for frame in back:
            pictures.publish(frame)
        until(settled)
        thread.finish(20.0)
        until(settled)
        told = [event.keyframe.id for event in heard if isinstance(event, NewKeyframe)]
        gone = [event for event in heard if isinstance(event, RemovedKeyframes)]
        again = [key for key in told if key in before]
        assert min(key for key in told if key not in before) == max(before) + 1
        assert {key for event in gone for key in event.ids} == before - kept
        assert bool(again) == bool(kept) == saved
        state = slam3r.ledger.state()
        assert (state.taken, state.in_flight, slam3r.ledger.violations) == (34 + len(back), 0, 0)
        assert state.dropped.keys() == {"failed"}
        assert "ended (exit code -9)" in slam3r.faults.last
    finally:
        for link in (*links, pictures):
            link.destroy()
        executor.shutdown()
        thread.stop()
        slam3r.close()
        other.destroy_node()


@pytest.mark.ros
def test_a_worker_that_is_killed_at_the_end_takes_nothing_of_the_map_with_it(context, film):
    from rclpy.parameter import Parameter

    from worldsystem_slam3r.node import Slam3rNode

    settings = [Parameter("own_process", value=True), Parameter("synchronous", value=True)]
    slam3r = Slam3rNode(context=context, parameter_overrides=settings)
    for frame in film:
        slam3r._on_frame(frame)
    slam3r._take(slam3r._running.settle())
    told = slam3r._trajectory.keyframe_ids
    assert told
    os.kill(slam3r.worker_pid, signal.SIGKILL)
    slam3r.input_ended()
    assert slam3r._trajectory.keyframe_ids == told
    slam3r.close()
