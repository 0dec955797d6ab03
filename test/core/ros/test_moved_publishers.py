# SPDX-License-Identifier: Apache-2.0
"""What is heard, and told, of a topic whose publisher moved into this process or out of it."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from worldsystem_core.ros import topics
from worldsystem_core.ros.reference_topic import (
    ReferencePublisher,
    ReferenceSubscription,
)

pytestmark = pytest.mark.usefixtures("fresh_registry")


@pytest.fixture
def node(context):
    node = Node("tester", context=context)
    yield node
    node.destroy_node()


@pytest.fixture
def spin(node, context):
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def until(condition, timeout_s=10.0):
        deadline = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
        assert condition()

    yield until
    executor.shutdown()


def test_what_another_process_tells_as_this_one_did_before_is_heard(node, spin):
    """The static transforms of a stage that moved to a process of its own are the same bytes."""
    link = TransformStamped(child_frame_id="odom")
    link.header.frame_id = "map"
    told, heard = topics.TF_STATIC.load(serialize_message(TFMessage(transforms=[link]))), []
    before = ReferencePublisher(node, topics.TF_STATIC)
    before.publish(told)
    before.destroy()
    other = node.create_publisher(TFMessage, "/tf_static", topics.TF_STATIC.qos)
    other.publish(told)
    ReferenceSubscription(node, topics.TF_STATIC, heard.append)
    spin(lambda: heard)
    assert heard == [told]


def test_who_is_not_heard_is_no_problem_once_the_publisher_is_in_the_process(node, spin):
    subscription = ReferenceSubscription(node, topics.IMAGE, lambda _: None)
    node.create_publisher(Image, "camera/image_raw", qos_profile_sensor_data)
    spin(lambda: bool(subscription.problem))
    ReferencePublisher(node, topics.IMAGE)
    spin(lambda: subscription._dds is None)
    assert not subscription.problem
