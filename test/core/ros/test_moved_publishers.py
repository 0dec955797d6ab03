# SPDX-License-Identifier: Apache-2.0
"""What is heard, and told, of a topic whose publisher moved into this process or out of it."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from geometry_msgs.msg import TransformStamped
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from worldsystem_core.ros import topics
from worldsystem_core.ros.reference_topic import (
    ReferencePublisher,
    ReferenceSubscription,
)


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
