# SPDX-License-Identifier: Apache-2.0
"""Bags of numbered pictures, written by another library than ours reads them with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ingest_lab import HEIGHT, WIDTH, encode, numbered_picture
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

START_NS = 1_700_000_000_000_000_000
STEP_NS = 40_000_000
RECORDING_DELAY_NS = 7_000_000
ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)
VIDEO_TYPE = "foxglove_msgs/msg/CompressedVideo"
PACKET_TYPE = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
_DEFINITIONS = {
    VIDEO_TYPE: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    PACKET_TYPE: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\n"
    "uint64 pts\nuint8 flags\nbool is_bigendian\nuint8[] data\n",
}
for _name, _text in _DEFINITIONS.items():
    ROS2.register(get_types_from_msg(_text, _name))

Message = tuple[str, str, int, Any]  # topic, type, stamp, message (bytes: as they are)


def kind(name: str, store: Any = ROS2) -> Any:
    return store.types[name]


def stamp(stamp_ns: int, store: Any = ROS2) -> Any:
    return kind("builtin_interfaces/msg/Time", store)(stamp_ns // 10**9, stamp_ns % 10**9)


def header(stamp_ns: int, store: Any = ROS2) -> Any:
    of = kind("std_msgs/msg/Header", store)
    at = stamp(stamp_ns, store)
    return of(0, at, "camera") if store is ROS1 else of(at, "camera")


def image(pixels: np.ndarray, encoding: str, stamp_ns: int, store: Any = ROS2, pad: int = 0) -> Any:
    """A `sensor_msgs/Image`; each row followed by `pad` bytes of rubbish."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    return kind("sensor_msgs/msg/Image", store)(
        header(stamp_ns, store), height, width, encoding, 0, padded.shape[1], padded.ravel()
    )


def compressed(picture: np.ndarray, stamp_ns: int, suffix: str = ".png") -> Any:
    data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].ravel()
    name = "rgb8; png compressed bgr8" if suffix == ".png" else "jpeg"
    return kind("sensor_msgs/msg/CompressedImage")(header(stamp_ns), name, data)


def stamp_of(number: int) -> int:
    return START_NS + number * STEP_NS


def pictures(count: int, topic: str = "/camera/image_raw", store: Any = ROS2) -> list[Message]:
    """Numbered raw pictures."""
    return [
        (
            topic,
            "sensor_msgs/msg/Image",
            stamp_of(n),
            image(numbered_picture(n), "rgb8", stamp_of(n), store),
        )
        for n in range(count)
    ]


def video(count: int, topic: str = "/camera/video", b_frames: int = 0) -> list[Message]:
    """Numbered pictures as H.264, in coding order, stamped as shown."""
    messages = []
    for unit in encode(count, b_frames=b_frames):
        at_ns, data = stamp_of(unit.shows), np.frombuffer(unit.data, np.uint8)
        packet = kind(VIDEO_TYPE)(stamp(at_ns), "camera", data, "h264")
        messages.append((topic, VIDEO_TYPE, at_ns, packet))
    return messages


def packets(count: int, encoding: str = "h264;yuv420p;bgr8;bgr8") -> list[Message]:
    """The same as packets of ffmpeg_image_transport."""
    messages = []
    for unit in encode(count):
        at_ns, data = stamp_of(unit.shows), np.frombuffer(unit.data, np.uint8)
        packet = kind(PACKET_TYPE)(
            header(at_ns), WIDTH, HEIGHT, encoding, unit.shows, int(unit.is_key), False, data
        )
        messages.append(("/camera/image_raw/ffmpeg", PACKET_TYPE, at_ns, packet))
    return messages


def camera_info(stamp_ns: int, fx: float = 150.0, store: Any = ROS2, **changed: Any) -> Any:
    """A calibrated camera whose rectified pictures have twice the focal length."""
    k = np.array([fx, 0, 80, 0, fx + 1, 48, 0, 0, 1], float)
    p = np.array([2 * fx, 0, 81, 0, 0, 2 * fx, 49, 0, 0, 0, 1, 0], float)
    fields = {"d": np.array([0.1, 0.01, 0.0, 0.0, 0.0]), "model": "plumb_bob"} | changed
    roi = kind("sensor_msgs/msg/RegionOfInterest", store)(0, 0, 0, 0, False)
    return kind("sensor_msgs/msg/CameraInfo", store)(
        header(stamp_ns, store),
        HEIGHT,
        WIDTH,
        fields["model"],
        fields["d"],
        k,
        np.eye(3).ravel(),
        p,
        0,
        0,
        roi,
    )


def write_ros2(
    folder: Path, messages: Iterable[Message], plugin: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    """A rosbag2 folder; messages are recorded some milliseconds after their stamps."""
    with Writer2(folder, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, type_name, at_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=ROS2)
            is_raw = isinstance(message, bytes)
            data = message if is_raw else ROS2.serialize_cdr(message, type_name)
            writer.write(connections[topic], at_ns + RECORDING_DELAY_NS, data)
    return folder


def write_ros1(path: Path, messages: Iterable[Message], packing: str | None = None) -> Path:
    """A rosbag1 file."""
    writer = Writer1(path)
    if packing:
        writer.set_compression(Writer1.CompressionFormat[packing])
    with writer:
        connections = {}
        for topic, type_name, at_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=ROS1)
            data = ROS1.serialize_ros1(message, type_name)
            writer.write(connections[topic], at_ns + RECORDING_DELAY_NS, data)
    return path


def foreign_mcap(path: Path, count: int, **options: Any) -> Path:
    """Numbered pictures by the format's own library, packed and left out as its `options` say."""
    name = "sensor_msgs/msg/Image"
    with path.open("wb") as stream:
        writer = McapWriter(stream, **options)
        writer.start("ros2", "foreign")
        definition = ROS2.generate_msgdef(name, ros_version=2)[0]
        schema = writer.register_schema(name, "ros2msg", definition.encode())
        channel = writer.register_channel("/image", "cdr", schema)
        for _, _, at_ns, message in pictures(count):
            data = bytes(ROS2.serialize_cdr(message, name))
            writer.add_message(channel, log_time=at_ns, publish_time=at_ns, data=data)
        writer.finish()
    return path
