# SPDX-License-Identifier: Apache-2.0
"""What was told once, before a recording began, is in it."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from recorder_lab import messages, recorder, wait_until
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from worldsystem_msgs.srv import StartRecording, StopRecording

from worldsystem_core.ros import qos, topics
from worldsystem_core.ros.node_thread import finish_all
from worldsystem_core.ros.reference_topic import ReferencePublisher
from worldsystem_storage.node import RecorderNode

pytestmark = pytest.mark.ros


def told_before(node: RecorderNode) -> set[str]:
    with node._latched.held() as kept:
        return {name for name, _ in kept}


def test_a_recording_begun_later_holds_what_was_latched_before(context, tmp_path):
    def static(frame: str, x: float) -> TFMessage:
        placed = TransformStamped(child_frame_id=frame)
        placed.transform.translation.x = x
        return TFMessage(transforms=[placed])

    node, thread = recorder(context, tmp_path, record_at_start=False, topics="/tf_static /note")
    stage, other = Node("stage", context=context), Node("other", context=context)
    frames = ReferencePublisher(stage, topics.TF_STATIC)
    note = other.create_publisher(String, "/note", qos.LATCHED)
    for message in (static("camera", 1.0), static("lidar", 2.0), static("camera", 3.0)):
        frames.publish(message)
    note.publish(String(data="said once"))
    wait_until(lambda: {"/note", "/tf_static"} <= told_before(node))
    for name in ("first", "second"):
        begun = node._on_start(StartRecording.Request(folder=name), StartRecording.Response())
        assert begun.success
        assert node._on_stop(None, StopRecording.Response()).success
        found = messages(tmp_path / name)
        told = [deserialize_message(raw, TFMessage) for raw in found["/tf_static"]]
        assert told == [static("lidar", 2.0), static("camera", 3.0)]
        assert [deserialize_message(raw, String).data for raw in found["/note"]] == ["said once"]
    frames.destroy()
    finish_all([thread], 20.0)
    stage.destroy_node()
    other.destroy_node()
