# SPDX-License-Identifier: Apache-2.0
"""Foxglove's side of the whole viewer: every topic, service and parameter, by others' decoders."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from foxglove_client import FoxgloveClient
from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage
from world_for_viewers import growing_ground, map_objects
from worldsystem_msgs.srv import SetPrompt

from worldsystem_core.ros import topics
from worldsystem_core.ros.node_thread import NodeThread
from worldsystem_core.ros.reference_topic import ReferencePublisher
from worldsystem_viewer.foxglove_sink import LOG_TOPIC, MESH_TOPIC, OBJECTS_TOPIC
from worldsystem_viewer.node import ViewerNode

pytestmark = pytest.mark.ros


@pytest.fixture
def started(context):
    threads = []

    def start(**settings: object) -> ViewerNode:
        given = {"web": False, "foxglove_port": 0} | settings
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        thread = NodeThread(ViewerNode(context=context, parameter_overrides=overrides))
        thread.start()
        threads.append(thread)
        return thread.node

    yield start
    for thread in threads:
        thread.node.input_ended()
        thread.stop()
        thread.node.close()


def told(kind: type) -> Any:
    """A message of `kind` whose names say something."""
    message = kind()
    if hasattr(message, "header"):
        message.header.frame_id = "map"
        message.header.stamp.sec = 12
    if kind is Image:
        message.encoding, message.height, message.width, message.step = "rgb8", 1, 1, 3
        message.data = bytes(3)
    return message


def same(ours: Any, theirs: Any) -> bool:
    """Every field of a ROS message, and of those within it, is what the other decoder read."""
    if hasattr(ours, "get_fields_and_field_types"):
        names = ours.get_fields_and_field_types()
        return all(same(getattr(ours, n), getattr(theirs, n)) for n in names)
    if isinstance(ours, str | bool):
        return ours == theirs
    if isinstance(ours, bytes):
        return ours == (theirs if isinstance(theirs, bytes) else bytes([theirs]))
    if np.isscalar(ours):
        return bool(np.isclose(ours, theirs, equal_nan=True))
    return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))


def test_every_topic_is_decoded_by_a_client_of_others(started, context):
    pytest.importorskip("google.protobuf", reason="protobuf is not installed")
    viewer = started()
    sender = Node("sender", context=context)
    messages = {t.name: told(t.adapter.ros_type) for t in topics.ALL}
    publishers = {
        t.name: sender.create_publisher(t.adapter.ros_type, t.name, t.qos) for t in topics.ALL
    }
    names = {name: viewer.resolve_topic_name(name) for name in messages}
    viewer._foxglove.mesh(growing_ground()[0])
    viewer._foxglove.objects(map_objects())
    with FoxgloveClient(viewer._foxglove.port) as client:
        own = {MESH_TOPIC, OBJECTS_TOPIC, LOG_TOPIC}
        missing = set(messages)  # the viewer, too, tells of itself: what came last may be its own
        deadline = time.monotonic() + 30
        while missing or not own <= client.newest.keys():
            assert time.monotonic() < deadline, missing | (own - client.newest.keys())
            for name in missing:
                publishers[name].publish(messages[name])
            viewer._foxglove._log_handler.handle(_record("the map has grown"))
            client.read_until(lambda c: _passed(0.3, c))
            come = {name for name in missing if names[name] in client.newest}
            missing -= {n for n in come if same(messages[n], client.decoded(names[n]))}
        assert client.decoded(MESH_TOPIC).entities[0].models[0].data[:4] == b"glTF"
        assert client.decoded(LOG_TOPIC).message == "the map has grown"
        viewer._foxglove.objects(map_objects())
        client.read_until(lambda c: c.decoded(OBJECTS_TOPIC).entities)
        boxes = client.decoded(OBJECTS_TOPIC).entities
        assert [entity.texts[0].text for entity in boxes] == ["mound", "crate"]
    sender.destroy_node()


def static_transforms(root: str) -> TFMessage:
    link = TransformStamped(child_frame_id="odom")
    link.header.frame_id = root
    return TFMessage(transforms=[link])


@pytest.mark.parametrize("again", [False, True])
def test_static_transforms_of_before_reach_a_client_that_comes_late(started, context, again):
    sender = Node("sender", context=context)
    publisher = ReferencePublisher(sender, topics.TF_STATIC, outside=False)
    publisher.publish(static_transforms("scene"))
    viewer = started()
    if again:
        publisher.publish(static_transforms("map"))
    with FoxgloveClient(viewer._foxglove.port) as client:
        client.read_until(lambda c: "/tf_static" in c.newest)
        (link,) = client.decoded("/tf_static").transforms
        assert (link.child_frame_id, link.header.frame_id) == ("odom", "map" if again else "scene")
    publisher.destroy()
    sender.destroy_node()


_since: dict[int, float] = {}


def _passed(seconds: float, client: FoxgloveClient) -> bool:
    """True `seconds` after the first call, and then from the start again."""
    begun = _since.setdefault(id(client), time.monotonic())
    if time.monotonic() - begun < seconds:
        return False
    del _since[id(client)]
    return True


def _record(text: str) -> Any:
    import logging

    return logging.LogRecord("worldsystem_viewer", logging.INFO, "file.py", 1, text, (), None)


def test_parameters_are_read_and_viewers_only_look(started):
    viewer = started()
    with FoxgloveClient(viewer._foxglove.port, left_out=("/clock",)) as client:
        client.read_until(lambda c: c.info)
        assert "services" not in client.info["capabilities"]
        client.tell(op="getParameters", parameterNames=[], id="all")
        client.read_until(lambda c: "viewer.mesh_mbps" in c.parameters)
        assert client.parameters["viewer.mesh_mbps"] == 1.0
        wish = {"name": "viewer.mesh_mbps", "value": 9.0, "type": "float64"}
        client.tell(op="setParameters", parameters=[wish], id="set")
        client.parameters.clear()
        client.read_until(lambda c: "viewer.mesh_mbps" in c.parameters)
        assert client.parameters["viewer.mesh_mbps"] == 1.0


def test_with_control_a_service_is_called_and_a_missing_one_named(started, context):
    viewer = started(control=True)
    stage = Node("stage", context=context)

    def understand(request, answer):
        answer.success, answer.understood = True, [request.text]
        return answer

    stage.create_service(SetPrompt, "segment/set_prompt", understand)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(stage)
    name = viewer.resolve_service_name("segment/set_prompt")
    with FoxgloveClient(viewer._foxglove.port) as client:
        client.read_until(lambda c: name in c.services)
        client.call(name, 7, serialize_message(SetPrompt.Request(text="red box.")))
        client.read_until(lambda c: executor.spin_once(0.02) or 7 in c.answers)
        answer = deserialize_message(client.answers[7], SetPrompt.Response)
        assert (answer.success, answer.understood) == (True, ["red box."])
        missing = viewer.resolve_service_name("slam3r/save_map")
        client.call(missing, 8, serialize_message(SetPrompt.Request()))
        client.read_until(lambda c: 8 in c.answers)
        assert "nobody serves" in client.answers[8]
    executor.shutdown()
    stage.destroy_node()
