# SPDX-License-Identifier: Apache-2.0
"""A small interface package, a bag of it, and a short H.264 stream; finds what lies beside it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from worldsystem_core.frames import EncodedFrame
from worldsystem_core.message_definitions import message_definition, type_hash
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig

sys.path.insert(0, str(Path(__file__).parent))

STAMP_NS = 1_700_000_000_000_000_000
DEFINITIONS = {
    "drone_msgs/msg/Fix": """# A position.
float64[3] position_m   # in the map
uint8 KIND_GPS=1
uint8 kind 1
string<=16 source "a # is no comment here"
""",
    "drone_msgs/msg/Flight": """std_msgs/Header header
Fix[] fixes
drone_msgs/Fix home
string[<=4] notes
""",
    "std_msgs/msg/Header": "builtin_interfaces/Time stamp\nstring frame_id\n",
    "builtin_interfaces/msg/Time": "int32 sec\nuint32 nanosec\n",
}


@dataclass(frozen=True)
class Interfaces:
    """Installed interfaces and a serialiser of them that is not ours."""

    share: Path
    store: Typestore

    def arguments(self, topic: str, type_name: str) -> tuple[str, str, str, str]:
        """What `BagWriter.add_topic` wants."""
        paths = [self.share]
        return topic, type_name, message_definition(type_name, paths), type_hash(type_name, paths)

    def flight(self, number: int, fixes: int = 2) -> bytes:
        """A `Flight` whose frame_id is its number, as CDR."""
        types = self.store.types
        fix = types["drone_msgs/msg/Fix"](np.arange(3.0) + number, 1, "gps")
        time = types["builtin_interfaces/msg/Time"](number, 7)
        header = types["std_msgs/msg/Header"](time, str(number))
        flight = types["drone_msgs/msg/Flight"](header, [fix] * fixes, fix, ["ä", "b"])
        return bytes(self.store.serialize_cdr(flight, "drone_msgs/msg/Flight"))

    def fix(self, number: int) -> bytes:
        """A `Fix` whose x is its number, as CDR."""
        fix = self.store.types["drone_msgs/msg/Fix"](np.full(3, float(number)), 1, "gps")
        return bytes(self.store.serialize_cdr(fix, "drone_msgs/msg/Fix"))


@pytest.fixture(scope="session")
def interfaces(tmp_path_factory: pytest.TempPathFactory) -> Interfaces:
    share = tmp_path_factory.mktemp("install") / "share"
    store = get_typestore(Stores.EMPTY)
    types = {}
    for type_name, text in DEFINITIONS.items():
        types |= get_types_from_msg(text, type_name)
    store.register(types)
    for type_name, text in DEFINITIONS.items():
        package, _, name = type_name.split("/")
        folder = share / package / "msg"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.msg").write_text(text)
        hashes = [{"type_name": type_name, "hash_string": store.hash_rihs01(type_name)}]
        (folder / f"{name}.json").write_text(json.dumps({"type_hashes": hashes}))
    return Interfaces(share, store)


@pytest.fixture
def config() -> StorageConfig:
    return StorageConfig(reserve_mib=1, flush_s=0.1)


def _record_flights(
    folder: Path, interfaces: Interfaces, config: StorageConfig, flights: int, fixes: int
) -> None:
    """A bag of `/flight`, `/fix` and a topic without messages."""
    bag = BagWriter(folder, config)
    bag.add_topic(*interfaces.arguments("/flight", "drone_msgs/msg/Flight"))
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    bag.add_topic(*interfaces.arguments("/silent", "std_msgs/msg/Header"))
    for number in range(max(flights, fixes)):
        stamp_ns = STAMP_NS + number * 1_000_000
        if number < flights:
            bag.write("/flight", interfaces.flight(number), stamp_ns, stamp_ns - 5)
        if number < fixes:
            bag.write("/fix", interfaces.fix(number), stamp_ns + 1, stamp_ns)
    bag.close()


def _encoded_video(
    frames: int, width: int = 64, height: int = 48, first_id: int = 0, gop: int = 10
) -> list[EncodedFrame]:
    """Annex-B access units at 30 fps, SPS and PPS in front of every key frame."""
    stream_bytes = io.BytesIO()
    container = av.open(stream_bytes, "w", format="h264")
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "g": str(gop),
        "x264-params": "repeat-headers=1",
    }
    rng = np.random.default_rng(0)
    units = []
    for number in range(frames):
        picture = rng.integers(0, 255, (height, width, 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = number
        units += [(bytes(packet), packet.is_keyframe) for packet in stream.encode(frame)]
    return [
        EncodedFrame(
            id=first_id + number,
            stamp_ns=STAMP_NS + (first_id + number) * 33_333_333,
            arrival_ns=0,
            data=data,
            is_key=is_key,
        )
        for number, (data, is_key) in enumerate(units)
    ]


@pytest.fixture(scope="session")
def record_flights() -> Callable[..., None]:
    return _record_flights


@pytest.fixture(scope="session")
def encoded_video() -> Callable[..., list[EncodedFrame]]:
    return _encoded_video
