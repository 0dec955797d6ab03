# SPDX-License-Identifier: Apache-2.0
"""The Foxglove server, seen by a client that speaks its protocol."""

import colorsys
import io
import json
import re
import socket
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from websockets.sync.client import connect
from world_for_viewers import delta, ground_block, growing_ground, map_objects

from worldsystem_core.errors import ConfigError, PortInUse
from worldsystem_core.overlay import id_colour
from worldsystem_core.surface import Mesh
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.foxglove_control import Listener
from worldsystem_viewer.foxglove_scene import chunk_update, objects_update
from worldsystem_viewer.foxglove_second_sending import SecondSending
from worldsystem_viewer.foxglove_sink import MESH_TOPIC, OBJECTS_TOPIC, FoxgloveSink

foxglove = pytest.importorskip("foxglove", reason="foxglove-sdk is not installed")
SCHEMA = "string data"
CDR = b"\x00\x01\x00\x00\x06\x00\x00\x00hello\x00"


@pytest.fixture
def sink():
    running = FoxgloveSink(ViewerConfig(foxglove_port=0))
    running.start()
    running.advertise("/chatter", "std_msgs/msg/String", SCHEMA)
    yield running
    running.stop()


@pytest.fixture
def client(sink):
    with connect(
        f"ws://127.0.0.1:{sink.port}",
        subprotocols=["foxglove.sdk.v1"],
        max_size=None,
        proxy=None,
        close_timeout=0.2,
    ) as socket:
        yield socket


def channels_of(client, wanted: set[str]) -> dict[str, dict]:
    """Channels by topic, once all `wanted` were advertised."""
    found: dict[str, dict] = {}
    while not wanted <= found.keys():
        message = client.recv(5)
        if isinstance(message, str) and (told := json.loads(message))["op"] == "advertise":
            found |= {channel["topic"]: channel for channel in told["channels"]}
    return found


def subscribe(client, channel: dict) -> None:
    subscription = {"id": 1, "channelId": channel["id"]}
    client.send(json.dumps({"op": "subscribe", "subscriptions": [subscription]}))


def next_data(client) -> tuple[int, bytes]:
    """Log time and payload of the next message data."""
    while True:
        message = client.recv(5)
        if isinstance(message, bytes) and message[0] == 1:
            return int.from_bytes(message[5:13], "little"), message[13:]


def wait_wanted(sink, topic: str) -> None:
    deadline = time.monotonic() + 5
    while not sink.wanted(topic):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_ros_message_arrives_as_the_same_bytes(sink, client):
    channel = channels_of(client, {"/chatter", MESH_TOPIC})["/chatter"]
    assert (channel["encoding"], channel["schemaEncoding"]) == ("cdr", "ros2msg")
    assert (channel["schemaName"], channel["schema"]) == ("std_msgs/msg/String", SCHEMA)
    subscribe(client, channel)
    wait_wanted(sink, "/chatter")
    sink.publish("/chatter", CDR, 1_700_000_000_123_456_789)
    assert next_data(client) == (1_700_000_000_123_456_789, CDR)


def test_a_topic_is_wanted_only_while_somebody_subscribes(sink, client):
    channel = channels_of(client, {"/chatter"})["/chatter"]
    assert not sink.wanted("/chatter")
    assert not sink.wanted("/never_advertised")
    subscribe(client, channel)
    wait_wanted(sink, "/chatter")
    client.send(json.dumps({"op": "unsubscribe", "subscriptionIds": [1]}))
    deadline = time.monotonic() + 5
    while sink.wanted("/chatter"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_late_subscriber_gets_what_a_latched_topic_told_last_of_each_part(sink, client):
    sink.advertise(
        "/latched", "std_msgs/msg/String", SCHEMA, part_of=lambda cdr: cdr.split()[0].decode()
    )
    for message in (b"left 1", b"right 1", b"left 2"):
        sink.publish("/latched", message, 1)
    subscribe(client, channels_of(client, {"/latched"})["/latched"])
    assert [next_data(client)[1] for _ in range(2)] == [b"right 1", b"left 2"]
    sink.publish("/latched", b"right 2", 2)
    assert next_data(client) == (2, b"right 2")


def test_what_a_topic_told_that_is_not_latched_is_gone(sink, client):
    sink.publish("/chatter", b"before", 1)
    subscribe(client, channels_of(client, {"/chatter"})["/chatter"])
    wait_wanted(sink, "/chatter")
    sink.publish("/chatter", CDR, 2)
    assert next_data(client) == (2, CDR)


def test_what_is_published_after_the_end_harms_nobody(sink):
    sink.stop()
    sink.publish("/chatter", CDR, 1)
    assert not sink.wanted("/chatter")


class Recorded:
    """A channel with a client that keeps what is logged."""

    def __init__(self) -> None:
        self.logged: list = []

    def has_sinks(self) -> bool:
        return True

    def log(self, message, log_time: int) -> None:
        self.logged.append(message)


def test_a_large_surface_comes_in_bursts_and_then_once_more_chunk_by_chunk():
    sink, channel, told = FoxgloveSink(ViewerConfig()), Recorded(), []
    sink._foxglove, sink._mesh = foxglove, channel
    sink.mesh(delta([ground_block(4 * i, 0) for i in range(70)], 1))
    for _ in range(4):
        sink._log_surface()
        told.append(len(channel.logged))
    assert told == [32, 64, 70, 70]  # the backlog holds 128
    sink._again = SecondSending(after_s=0.0, period_s=0.0)
    sink._surface.mark_all_changed()
    while len(channel.logged) < 140:
        sink._log_surface()
    for _ in range(100):
        sink._log_surface()
    assert len(channel.logged) == 70 + 2 * 70
    chunks = [re.search(rb"(\d+)_0_0", update.encode())[1] for update in channel.logged[70:]]
    assert [int(x) for x in chunks] == 2 * list(range(70))


def test_a_late_subscriber_gets_the_whole_surface(sink, client):
    deltas = growing_ground()
    for step in deltas:
        sink.mesh(step)
    time.sleep(0.1)
    subscribe(client, channels_of(client, {MESH_TOPIC})[MESH_TOPIC])
    models = [glb_in(next_data(client)[1]) for _ in range(9)]
    assert sum(len(model.faces) for model in models) == 144 * 288
    corner = np.min([model.bounds[0] for model in models], axis=0)
    np.testing.assert_allclose(corner[[0, 2]], 0.0, atol=1e-5)  # back in our own axes
    sink.mesh(delta([], 99, removed=tuple((i, 0, k) for i in range(4) for k in range(4))))
    assert b"0_0_0" in next_data(client)[1]
    sink.mesh(delta([ground_block(0, 0)], 100))
    assert len(glb_in(next_data(client)[1]).faces) == 288


def test_a_chunk_that_is_no_mesh_is_taken_away(caplog):
    mesh = Mesh(
        vertices=np.full((3, 3), np.nan, np.float32),
        colours=np.zeros((3, 3), np.uint8),
        faces=np.array([[0, 1, 2]], np.int32),
    )
    update = chunk_update(foxglove.messages, (0, 0, 0), mesh, frame_id="map", stamp_ns=1)
    assert b"glTF" not in update.encode()
    assert b"0_0_0" in update.encode()
    assert "not finite" in caplog.text


def glb_in(payload: bytes) -> trimesh.Trimesh:
    """The model embedded in a SceneUpdate, turned to z up as Foxglove does."""
    at = payload.index(b"glTF")
    size = int.from_bytes(payload[at + 8 : at + 12], "little")
    model = trimesh.load(io.BytesIO(payload[at : at + size]), file_type="glb").to_geometry()
    model.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    return model


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sink = FoxgloveSink(ViewerConfig(foxglove_port=taken.getsockname()[1]))
        with pytest.raises(PortInUse, match="foxglove_port"):
            sink.start()
        sink.stop()


def test_a_host_that_is_none_of_this_machine_is_named():
    sink = FoxgloveSink(ViewerConfig(host="203.0.113.7", foxglove_port=0))
    with pytest.raises(ConfigError, match=r"203\.0\.113\.7:0.*viewer\.host"):
        sink.start()
    sink.stop()


@pytest.mark.parametrize("port", [-1, 65536, 87650])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(ConfigError, match=rf"foxglove_port = {port} is outside \[0, 65535\]"):
        ViewerConfig(foxglove_port=port)


def test_half_of_tls_is_refused_without_the_page_too():
    with pytest.raises(ConfigError, match="tls_certificate"):
        FoxgloveSink(ViewerConfig(web=False, tls_key="key.pem"))


def test_objects_of_a_time_before_1970_are_shown_and_end_nothing(sink, client):
    subscribe(client, channels_of(client, {OBJECTS_TOPIC})[OBJECTS_TOPIC])
    deadline = time.monotonic() + 5
    while not sink._boxes.has_sinks():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for stamp_ns in (-(10**9), 5):
        sink.objects(replace(map_objects(), stamp_ns=stamp_ns))
        log_time, payload = next_data(client)
        while log_time != max(0, stamp_ns):  # told again: the subscription may be noticed late
            log_time, payload = next_data(client)
        assert b"mound" in payload


def test_a_thread_that_failed_is_told_of_and_stop_still_ends_the_server(sink, monkeypatch, caplog):
    def fail() -> None:
        raise ValueError("not of this world")

    monkeypatch.setattr(sink, "_log_objects", fail)
    sink._changed.set()
    sink._thread.join(5)
    assert "not of this world" in caplog.text
    sink.stop()
    deadline = time.monotonic() + 5
    while True:  # its socket is closed a moment later, by a thread of its own
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", sink.port)) != 0:
                break
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_password_in_a_parameter_is_told_to_nobody():
    websocket = SimpleNamespace(Parameter=lambda name, value: (name, value))
    values = {
        "ingest.source": "rtsp://pilot:s3kret@cam/live",
        "bridge.url": "amqp://me:s3kret@host:5672/",
        "viewer.web_port": 8080,
    }
    listening = Listener(
        SimpleNamespace(websocket=websocket),
        SimpleNamespace(parameters=lambda: values),
        may_set=False,
        on_subscribe=lambda topic: None,
    )
    assert dict(listening.on_get_parameters(None, [])) == {
        "ingest.source": "rtsp://pilot:***@cam/live",
        "bridge.url": "amqp://me:***@host:5672/",
        "viewer.web_port": 8080,
    }


def test_an_object_has_one_hue_in_foxglove_in_markers_and_on_the_page():
    kinds = "SceneEntityDeletion SceneUpdate Vector3 Pose Quaternion CubePrimitive Color"
    kinds += " TextPrimitive SceneEntity KeyValuePair"
    messages = SimpleNamespace(
        Timestamp=lambda *parts: parts,
        SceneEntityDeletionType=SimpleNamespace(All=0),
        **dict.fromkeys(kinds.split(), SimpleNamespace),
    )
    things = map_objects().objects
    update = objects_update(messages, map_objects())
    for thing, entity in zip(things, update.entities, strict=True):
        colour = entity.cubes[0].color
        shown = (colour.r, colour.g, colour.b)
        assert shown == pytest.approx([part / 255.0 for part in id_colour(thing.id)])
        hue_deg = 360.0 * colorsys.rgb_to_hsv(*shown)[0]
        assert hue_deg == pytest.approx(thing.id * 67 % 180 * 2, abs=1.0), "web/colour.js"
