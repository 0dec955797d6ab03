# SPDX-License-Identifier: Apache-2.0
"""Messages as a bag holds them, and what they say once decoded by the bag's own definitions."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import zstandard
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)

from worldsystem_core.errors import WorldSystemError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_IDL_RULER = "=" * 80 + "\n"
_NS = 10**9

# what old bags without definitions may hold beside the standard messages
_FURTHER_DEFINITIONS = {
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    ),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n"
        "uint8 flags\nbool is_bigendian\nuint8[] data\n"
    ),
}


# fields that reading relies on; a type of the same name may be another, or its definition damaged
_FIELDS = {
    "sensor_msgs/msg/Image": ("header", "height", "width", "encoding", "step", "data"),
    "sensor_msgs/msg/CompressedImage": ("header", "format", "data"),
    "foxglove_msgs/msg/CompressedVideo": ("timestamp", "format", "data"),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": ("header", "encoding", "data"),
    "sensor_msgs/msg/CameraInfo": ("header", "width", "height", "distortion_model"),
    "sensor_msgs/msg/Imu": (
        "header",
        "orientation",
        "orientation_covariance",
        "angular_velocity",
        "angular_velocity_covariance",
        "linear_acceleration",
        "linear_acceleration_covariance",
    ),
    "sensor_msgs/msg/NavSatFix": (
        "header",
        "status",
        "latitude",
        "longitude",
        "altitude",
        "position_covariance",
        "position_covariance_type",
    ),
    "sensor_msgs/msg/FluidPressure": ("header", "fluid_pressure"),
    "sensor_msgs/msg/BatteryState": (
        "header",
        "voltage",
        "current",
        "percentage",
        "power_supply_status",
    ),
    "nav_msgs/msg/Odometry": ("header", "pose"),
}


class BagBroken(WorldSystemError):
    """A bag cannot be read beyond this point; the text says why."""


# what libraries raise when the bytes are not what they expect
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,  # readers of messages are compiled from their definition
    TypeError,
    ValueError,
    struct.error,
    zstandard.ZstdError,
)


@dataclass(frozen=True)
class Channel:
    """A topic in one file: its type as `pkg/msg/Type`, and how its messages are written.

    `encoding` is `cdr`, `ros1`, or what else an MCAP may hold; `definition` is the text of the
    message definition, IDL when `is_idl`, and empty when the file has none.
    """

    topic: str
    type_name: str
    encoding: str = "cdr"
    definition: str = ""
    is_idl: bool = False


@dataclass(frozen=True)
class Recorded:
    """One message as it lies in the bag, and when it was recorded [ns since the epoch]."""

    channel: Channel
    log_ns: int
    data: bytes


@runtime_checkable
class BagFile(Protocol):
    """One file of a bag."""

    channels: list[Channel]
    counts: dict[str, int]
    start_ns: int
    end_ns: int

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """Those of `topics` as recorded; raises `BagBroken` where the file breaks off."""


def full_type_name(name: str) -> str:
    """`pkg/msg/Type` for `pkg/Type`; other names are left as they are."""
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name


class MessageDecoder:
    """Decodes messages by the definitions that come with them."""

    def __init__(self) -> None:
        self._stores: dict[Channel, Any] = {}

    def decode(self, message: Recorded) -> Any:  # the type is made from the bag's definition
        """The message's fields as attributes; raises `BagBroken` when its bytes do not fit."""
        channel, data = message.channel, message.data
        try:
            if data.startswith(_ZSTD_MAGIC):  # rosbag2's compression mode "message"
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            store = self._store(channel)
            if channel.encoding == "ros1":
                decoded = store.deserialize_ros1(data, channel.type_name)
            else:
                decoded = store.deserialize_cdr(data, channel.type_name)
        except (SerdeError, TypesysError, *DAMAGE) as error:
            raise BagBroken(
                f"a message of {channel.topic} ({channel.type_name}) cannot be decoded: {error}"
            ) from error
        missing = [n for n in _FIELDS.get(channel.type_name, ()) if not hasattr(decoded, n)]
        if missing:
            raise BagBroken(
                f"messages of {channel.topic} ({channel.type_name}) lack {', '.join(missing)}"
            )
        return decoded

    def _store(self, channel: Channel) -> Any:
        if channel not in self._stores:
            self._stores[channel] = _store_of(channel)
        return self._stores[channel]


def stamp_ns_of(message: Any, log_ns: int, *, zero_is_a_time: bool = False) -> int:
    """When the message says that it was measured; `log_ns` when it does not say.

    A stamp of zero says nothing, but where stamps count from a recording's start.
    """
    header = getattr(message, "header", None)
    stamp = header.stamp if header is not None else getattr(message, "timestamp", None)
    stamp_ns = int(stamp.sec) * _NS + int(stamp.nanosec) if stamp is not None else 0
    return stamp_ns if stamp_ns > 0 or (zero_is_a_time and stamp is not None) else log_ns


def _store_of(channel: Channel) -> Any:
    if not channel.definition:
        store = get_typestore(Stores.ROS1_NOETIC if channel.encoding == "ros1" else Stores.LATEST)
        for name, text in _FURTHER_DEFINITIONS.items():
            store.register(get_types_from_msg(text, name))
        return store
    store = get_typestore(Stores.EMPTY)
    if not channel.is_idl:
        store.register(get_types_from_msg(channel.definition, channel.type_name))
        return store
    types = {}
    for part in channel.definition.split(_IDL_RULER):
        head, _, body = part.partition("\n")
        types.update(get_types_from_idl(body if head.startswith("IDL: ") else part))
    store.register(types)
    return store
