# SPDX-License-Identifier: Apache-2.0
"""Bags of other systems become ours with their types and QoS; damaged ones are refused in words."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_tools import cut
from worldsystem_storage.errors import StorageError
from worldsystem_storage.export.formats import export
from worldsystem_storage.importing.sources import import_path
from worldsystem_storage.importing.write import topic_of_type
from worldsystem_storage.mcap_contents import RawMessage
from worldsystem_storage.new_bag import NewBag

SECOND = 10**9
STRING = "std_msgs/msg/String"
FOREVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    FOREVER,
    FOREVER,
    QosLiveliness.AUTOMATIC,
    FOREVER,
    avoid_ros_namespace_conventions=False,
)


def cdr(text: str) -> bytes:
    data = text.encode() + b"\0"
    return b"\0\1\0\0" + len(data).to_bytes(4, "little") + data


def told(bag: Path) -> list[tuple[str, int, str]]:
    with AnyReader([bag]) as reader:
        return [
            (c.topic, stamp, reader.deserialize(raw, c.msgtype).data)
            for c, stamp, raw in reader.messages()
        ]


def write_humble(path: Path, kind: str, messages: list[bytes]) -> Path:
    """As ROS 2 Humble writes it: types by their names alone."""
    with sqlite3.connect(path) as base:
        base.execute(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
            "serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL)"
        )
        base.execute(
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, "
            "timestamp INTEGER NOT NULL, data BLOB NOT NULL)"
        )
        base.execute("INSERT INTO topics VALUES(1, '/a', ?, 'cdr', '')", [kind])
        base.executemany(
            "INSERT INTO messages(topic_id, timestamp, data) VALUES(1, ?, ?)", enumerate(messages)
        )
    base.close()
    return path


def write_iron(folder: Path) -> Path:
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        map_line, other = (
            writer.add_connection(name, STRING, typestore=store, offered_qos_profiles=profiles)
            for name, profiles in (("/map", [LATCHED]), ("/other", []))
        )
        writer.write(map_line, SECOND, cdr("the map"))
        for second in range(1, 6):
            writer.write(other, second * SECOND, cdr(str(second)))
    return folder


def write_ros1(path: Path) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)

    def raw(text: str) -> bytes:
        return bytes(store.serialize_ros1(store.types[STRING](text), STRING))

    with Writer1(path) as writer:
        map_line, other = (
            writer.add_connection(name, STRING, typestore=store, latching=latching)
            for name, latching in (("/map", 1), ("/other", 0))
        )
        writer.write(map_line, SECOND, raw("the map"))
        for second in range(1, 6):
            writer.write(other, second * SECOND, raw(str(second)))
    return path


def test_a_bag_of_before_definitions_were_recorded_is_read_by_those_of_today(tmp_path):
    path = write_humble(tmp_path / "humble.db3", STRING, [cdr("first"), cdr("second")])
    assert import_path(path, tmp_path / "bag").messages == {"/a": 2}
    assert told(tmp_path / "bag") == [("/a", 0, "first"), ("/a", 1, "second")]
    assert verify(tmp_path / "bag") == []


def test_a_type_that_nobody_defines_is_named(tmp_path):
    path = write_humble(tmp_path / "humble.db3", "drone_msgs/msg/Fix", [bytes(12)])
    with pytest.raises(StorageError, match="topic /a is drone_msgs/msg/Fix, whose definition"):
        import_path(path, tmp_path / "bag")


@pytest.mark.parametrize("made", ["ros2", "ros1"])
def test_what_was_latched_in_another_system_is_latched_in_the_imported_bag(tmp_path, made):
    theirs = write_iron(tmp_path / "iron") if made == "ros2" else write_ros1(tmp_path / "old.bag")
    import_path(theirs, tmp_path / "bag")
    cut(tmp_path / "bag", tmp_path / "part", start_s=2.0)
    assert told(tmp_path / "part") == [
        ("/map", 3 * SECOND, "the map"),
        *(("/other", second * SECOND, str(second)) for second in (3, 4, 5)),
    ]


def test_a_bag_of_ros_1_with_a_wrong_bit_is_read_or_refused_in_words(tmp_path):
    whole = write_ros1(tmp_path / "whole.bag").read_bytes()
    at = whole.index(b"the map")
    refused = 0
    for place in range(at - 24, at + 2):
        damaged = bytearray(whole)
        damaged[place] ^= 0x80
        (tmp_path / "hit.bag").write_bytes(damaged)
        try:
            import_path(tmp_path / "hit.bag", tmp_path / f"bag{place}")
        except StorageError:
            refused += 1
    assert refused > 10


def test_a_database_whose_pages_lead_nowhere_is_refused_in_words(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / "iron", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        line = writer.add_connection("/a", STRING, typestore=store)
        writer.write(line, 1, b"\0\1\0\0" + b"\xaa" * 40_000)
    (base,) = (tmp_path / "iron").glob("*.db3")
    content, page, filled = bytearray(base.read_bytes()), 4096, b"\xaa" * 4092
    full = [at for at in range(0, len(content), page) if content[at + 4 : at + page] == filled]
    content[full[0] : full[0] + 4] = b"\x7f\xff\xff\xff"  # the page on which the message goes on
    base.write_bytes(content)
    with pytest.raises(StorageError, match="cannot be read as a bag"):
        import_path(tmp_path / "iron", tmp_path / "bag")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5], ids=["head", "begin", "middle"])
def test_the_export_of_a_bag_with_a_damaged_chunk_says_what_mends_it(tmp_path, share):
    store = get_typestore(Stores.ROS2_JAZZY)
    make, kind = store.types, "nav_msgs/msg/Path"
    header = make["std_msgs/msg/Header"](make["builtin_interfaces/msg/Time"](0, 0), "map")
    topic = topic_of_type(store, "/slam/path", kind)
    turn = make["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    pose = make["geometry_msgs/msg/Pose"](make["geometry_msgs/msg/Point"](1.0, 2.0, 3.0), turn)
    poses = [make["geometry_msgs/msg/PoseStamped"](header, pose)]
    raw = bytes(store.serialize_cdr(make[kind](header, poses), kind))
    bag = NewBag(tmp_path / "bag")
    for number in range(300):
        bag.add(RawMessage(topic, raw, number, number))
    bag.close()
    assert export(tmp_path / "bag", "tum", tmp_path / "whole")
    file = next((tmp_path / "bag").glob("*.mcap"))
    damaged = bytearray(file.read_bytes())
    begin = damaged.index(b"\x04\x22\x4d\x18")  # of lz4's frame
    damaged[begin + int(share * (damaged.index(b"rosbag2") - begin)) + 2] ^= 0x10
    file.write_bytes(damaged)
    with pytest.raises(StorageError, match=r"damaged with `worldsystem bag recover`"):
        export(tmp_path / "bag", "tum", tmp_path / "hit")
