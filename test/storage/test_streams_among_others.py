# SPDX-License-Identifier: Apache-2.0
"""Topics that were asked for by name and whose stream comes later; recordings that cannot begin."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Imu
from worldsystem_msgs.srv import StartRecording

from worldsystem_core.ros import qos, topics
from worldsystem_core.ros.node_thread import NodeThread, finish_all
from worldsystem_storage import node as node_module
from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_file import is_being_recorded
from worldsystem_storage.errors import StorageError
from worldsystem_storage.node import RecorderNode

pytestmark = pytest.mark.ros


def wait_until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def recorder(context, folder: Path, **values) -> tuple[RecorderNode, NodeThread]:
    values = {"folder": str(folder), "name": "bag", "reserve_mib": 1, **values}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = RecorderNode(context=context, parameter_overrides=overrides)
    thread = NodeThread(node)
    thread.start()
    return node, thread


def test_a_topic_asked_for_by_name_is_recorded_once_when_its_stream_comes_later(context, tmp_path):
    node, thread = recorder(context, tmp_path, topics="/imu ^/drone2/imu")
    drone = Node("drone", context=context)
    imu = drone.create_publisher(Imu, "/drone2/imu/data", qos.TELEMETRY)
    wait_until(lambda: "/drone2/imu/data" in node._foreign)
    drone.create_publisher(topics.VIDEO.adapter.ros_type, "/drone2/camera/video", topics.VIDEO.qos)
    wait_until(lambda: thread.failure or "drone2" in node._namespaces)
    assert thread.failure is None
    wait_until(lambda: imu.get_subscription_count() > 0)
    for number in range(5):
        message = Imu()
        message.header.stamp.sec = number
        imu.publish(message)
    wait_until(lambda: node._bag.state().topics["/drone2/imu/data"].offered >= 5)
    finish_all([thread], 20.0)
    drone.destroy_node()
    with AnyReader([tmp_path / "bag"]) as reader:
        stamps = [
            reader.deserialize(raw, c.msgtype).header.stamp.sec for c, _, raw in reader.messages()
        ]
    assert stamps == list(range(5))


def test_a_recording_that_cannot_begin_lets_go_of_its_bag(context, tmp_path, monkeypatch):
    node, thread = recorder(context, tmp_path, record_at_start=False)

    def refuse(*_: object) -> str:
        raise StorageError("there is no such type")

    with monkeypatch.context() as untyped:
        untyped.setattr(node_module, "type_hash", refuse)
        refused = node._on_start(StartRecording.Request(folder="first"), StartRecording.Response())
    assert (refused.success, refused.message) == (False, "there is no such type")
    (file,) = (tmp_path / "first").glob("*.mcap")
    assert not is_being_recorded(file)
    assert verify(tmp_path / "first") == []
    assert node._on_start(StartRecording.Request(folder="next"), StartRecording.Response()).success
    finish_all([thread], 20.0)


def test_a_further_stream_s_topic_is_left_out_by_its_own_name(context, tmp_path):
    node, thread = recorder(context, tmp_path, exclude="/drone2/imu")
    drone = Node("drone", context=context)
    drone.create_publisher(topics.VIDEO.adapter.ros_type, "/drone2/camera/video", topics.VIDEO.qos)
    wait_until(lambda: thread.failure or "drone2" in node._namespaces)
    names = {node.resolve_topic_name(topic.name) for topic in node._topics}
    finish_all([thread], 20.0)
    drone.destroy_node()
    assert thread.failure is None
    assert {"/imu/data", "/drone2/camera/video"} <= names
    assert "/drone2/imu/data" not in names
