# SPDX-License-Identifier: Apache-2.0
"""Bags whose messages rosbag2 packed, each by itself, say the same whatever is done to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
import zstandard
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_tools import cut, merge
from worldsystem_storage.importing.sources import import_path
from worldsystem_storage.recover import recover

KIND = "std_msgs/msg/String"
TEXTS = [f"note {number}" for number in range(5)]
COPIES: dict[str, Callable[[Path, Path], object]] = {
    "cut": cut,
    "merge": lambda path, out: merge([path], out),
    "import": import_path,
}


def cdr(text: str) -> bytes:
    data = text.encode() + b"\0"
    return b"\0\1\0\0" + len(data).to_bytes(4, "little") + data


@pytest.fixture
def packed(tmp_path) -> Path:
    writer = Writer(tmp_path / "packed", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        line = writer.add_connection("/note", KIND, typestore=get_typestore(Stores.ROS2_JAZZY))
        for number, text in enumerate(TEXTS):
            writer.write(line, number, cdr(text))
    return tmp_path / "packed"


def cut_off(bag: Path) -> Path:
    """Its file, that has lost its end."""
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-30])
    return file


def told(bag: Path) -> list[str]:
    with AnyReader([bag]) as reader:
        return [reader.deserialize(raw, c.msgtype).data for c, _, raw in reader.messages()]


def test_the_bag_of_these_tests_is_as_said(packed):
    assert told(packed) == TEXTS
    assert verify(packed) == []


@pytest.mark.parametrize("copy", COPIES)
def test_packed_messages_are_unpacked_in_a_new_bag(packed, tmp_path, copy):
    COPIES[copy](packed, tmp_path / "copy")
    assert told(tmp_path / "copy") == TEXTS
    assert verify(tmp_path / "copy") == []


@pytest.mark.parametrize("described", [True, False])
def test_a_repaired_bag_still_says_that_its_messages_are_packed(packed, described):
    cut_off(packed)
    if not described:
        (packed / "metadata.yaml").unlink()
    assert recover(packed).messages == {"/note": len(TEXTS)}
    assert told(packed) == TEXTS
    assert verify(packed) == []
    assert not recover(packed).repaired


def test_a_repaired_file_says_by_itself_that_its_messages_are_packed(packed):
    file = cut_off(packed)
    recover(file)
    with file.open("rb") as stream:
        notes = {note.name: note.metadata for note in make_reader(stream).iter_metadata()}
    said = yaml.safe_load(notes["rosbag2"]["serialized_metadata"])
    assert (said["compression_format"], said["compression_mode"]) == ("zstd", "message")


def test_a_description_that_hides_that_messages_are_packed_is_found_and_mended(packed):
    metadata = packed / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("_mode: message", "_mode: ''"))
    (problem,) = verify(packed)
    assert "wrong about messages being packed" in problem
    assert recover(packed).repaired
    assert told(packed) == TEXTS
    assert verify(packed) == []


def write_raw(path: Path, encoding: str, messages: list[bytes]) -> Path:
    with path.open("wb") as stream:
        writer = McapWriter(stream)
        writer.start("ros2", "foreign")
        schema = writer.register_schema(KIND, "ros2msg", b"string data\n")
        channel = writer.register_channel("/note", encoding, schema)
        for number, data in enumerate(messages):
            writer.add_message(channel, number, data, number)
        writer.finish()
    return path


def test_a_packed_message_that_cannot_be_unpacked_is_left_out_and_its_topic_named(tmp_path):
    messages = [zstandard.compress(cdr(text)) for text in TEXTS]
    messages[1] = messages[1][:-3]
    messages[3] = messages[3][:4] + bytes(9)
    bag = write_raw(tmp_path / "hit.mcap", "cdr", messages)
    done = cut(bag, tmp_path / "part")
    assert (done.messages, len(done.problems)) == (3, 1)
    assert "/note: messages that cannot be unpacked" in done.problems[0]
    assert told(tmp_path / "part") == TEXTS[::2]


def test_messages_of_another_encoding_keep_their_bytes_however_they_begin(tmp_path):
    data = zstandard.compress(b"")[:4] + b"whatever protobuf makes of it"
    bag = write_raw(tmp_path / "other.mcap", "protobuf", [data])
    cut(bag, tmp_path / "part")
    (file,) = (tmp_path / "part").glob("*.mcap")
    with file.open("rb") as stream:
        assert [message.data for *_, message in make_reader(stream).iter_messages()] == [data]
    assert verify(tmp_path / "part") == []
