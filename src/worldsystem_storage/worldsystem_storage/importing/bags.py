# SPDX-License-Identifier: Apache-2.0
"""Bags of other systems as bags of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import zstandard
from rosbags.convert.converter import migrate_bytes
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, TypesysError, get_typestore
from rosbags.typesys.store import Typestore

from worldsystem_core.mcap_reading.records import DAMAGE
from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.bag_reader import BagReader
from worldsystem_storage.definition_hash import hash_of_definition
from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.dataset import Imported
from worldsystem_storage.importing.write import topic_of_type
from worldsystem_storage.mcap_contents import RawMessage
from worldsystem_storage.new_bag import write_new_bag

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def copy_bag(path: Path, out: Path) -> Imported:
    """Write a bag of ROS 1 or 2, in any of their formats, as a bag of ours.

    Messages of ROS 2 keep their bytes, unpacked where each was packed by itself; those of ROS 1 are
    serialised anew, with the same content. A broken MCAP gives what can be read of it.
    """
    if path.suffix == ".mcap" or (path.is_dir() and any(path.glob("*.mcap"))):
        reader = BagReader(path)
        messages = write_new_bag(out, _unpacked(reader))
        return Imported(messages, "; ".join(reader.problems))
    try:
        with AnyReader([path]) as any_reader:
            return Imported(write_new_bag(out, _copied(any_reader)))
    except (AnyReaderError, TypesysError, *DAMAGE) as error:
        raise StorageError(f"{path} cannot be read as a bag: {error}") from error


def _unpacked(reader: BagReader) -> Iterator[RawMessage]:
    topics: dict[Topic, Topic] = {}
    for message in reader.messages():
        if message.topic not in topics:
            topics[message.topic] = _in_full(message.topic)
        cdr = message.cdr
        if cdr.startswith(_ZSTD_MAGIC):  # rosbag2's compression mode "message"
            cdr = zstandard.ZstdDecompressor().decompressobj().decompress(cdr)
        yield replace(message, topic=topics[message.topic], cdr=cdr)


def _in_full(topic: Topic) -> Topic:
    """`pkg/msg/Type` for `pkg/Type`, and the type's hash where the bag does not tell it."""
    package, slash, kind = topic.type_name.partition("/")
    full = f"{package}/msg/{kind}" if slash and "/" not in kind else topic.type_name
    known = replace(topic, type_name=full)
    return replace(known, type_hash=hash_of_definition(known))


def _copied(reader: AnyReader) -> Iterator[RawMessage]:
    topics: dict[str, Topic] = {}
    store = reader.typestore if reader.is2 else _as_in_ros2(reader.typestore)
    known: dict[str, object] = {}
    for connection, stamp_ns, raw in reader.messages():
        kind = connection.msgtype
        if connection.topic not in topics:
            topics[connection.topic] = topic_of_type(store, connection.topic, kind)
        cdr = raw
        if not reader.is2:
            cdr = migrate_bytes(
                reader.typestore, store, kind, kind, known, raw, src_is2=False, dst_is2=True
            )
        yield RawMessage(topics[connection.topic], bytes(cdr), stamp_ns, stamp_ns)


def _as_in_ros2(of_ros1: Typestore) -> Typestore:
    """The types of a ROS 1 bag as ROS 2 has them, where it does: its headers have no number."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register({n: d for n, d in of_ros1.fielddefs.items() if n not in store.fielddefs})
    return store
