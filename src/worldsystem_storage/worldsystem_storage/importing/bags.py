# SPDX-License-Identifier: Apache-2.0
"""Bags of other systems as bags of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml
from rosbags.convert.converter import migrate_bytes
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, ConnectionExtRosbag1
from rosbags.rosbag2.metadata import dump_qos_v9
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from worldsystem_storage.bag_metadata import Topic, qos_yaml
from worldsystem_storage.bag_reader import BagReader
from worldsystem_storage.definition_hash import hash_of_definition
from worldsystem_storage.errors import StorageError
from worldsystem_storage.foreign_damage import BAG_DAMAGE
from worldsystem_storage.importing.dataset import Imported
from worldsystem_storage.importing.write import topic_of_type
from worldsystem_storage.mcap_contents import RawMessage
from worldsystem_storage.new_bag import write_new_bag


def copy_bag(path: Path, out: Path) -> Imported:
    """Write a bag of ROS 1 or 2, in any of their formats, as a bag of ours.

    Messages of ROS 2 keep their bytes, unpacked where each was packed by itself; those of ROS 1 are
    serialised anew, with the same content. Bags of before ROS 2 Iron hold no definitions of their
    types: those of Jazzy stand in. A broken MCAP gives what can be read of it; any other that is
    broken raises `StorageError`.
    """
    if path.suffix == ".mcap" or (path.is_dir() and any(path.glob("*.mcap"))):
        reader = BagReader(path)
        messages = write_new_bag(out, _in_full(reader))
        return Imported(messages, "; ".join(reader.problems))
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as any_reader:
            return Imported(write_new_bag(out, _copied(any_reader)))
    except BAG_DAMAGE as error:
        raise StorageError(f"{path} cannot be read as a bag: {error}") from error


def _in_full(reader: BagReader) -> Iterator[RawMessage]:
    topics: dict[Topic, Topic] = {}
    for message in reader.messages():
        if message.topic not in topics:
            topics[message.topic] = _named_in_full(message.topic)
        yield replace(message, topic=topics[message.topic])


def _named_in_full(topic: Topic) -> Topic:
    """`pkg/msg/Type` for `pkg/Type`, and the type's hash where the bag does not tell it."""
    package, slash, kind = topic.type_name.partition("/")
    full = f"{package}/msg/{kind}" if slash and "/" not in kind else topic.type_name
    known = replace(topic, type_name=full)
    return replace(known, type_hash=hash_of_definition(known))


def _copied(reader: AnyReader) -> Iterator[RawMessage]:
    topics: dict[int, Topic] = {}
    store = reader.typestore if reader.is2 else _as_in_ros2(reader.typestore)
    known: dict[str, object] = {}
    for connection, stamp_ns, raw in reader.messages():
        kind = connection.msgtype
        if connection.id not in topics:
            topics[connection.id] = _topic_of(connection, store)
        cdr = raw
        if not reader.is2:
            cdr = migrate_bytes(
                reader.typestore, store, kind, kind, known, raw, src_is2=False, dst_is2=True
            )
        yield RawMessage(topics[connection.id], bytes(cdr), stamp_ns, stamp_ns)


def _topic_of(connection: Connection, store: Typestore) -> Topic:
    """The topic with the QoS of its publisher; others of the same name may have offered another."""
    name, kind = connection.topic, connection.msgtype
    if kind not in store.fielddefs:
        raise StorageError(
            f"topic {name} is {kind}, whose definition neither the bag holds nor ROS 2 Jazzy; make "
            "an MCAP of it with `ros2 bag convert` where that package is installed"
        )
    return replace(topic_of_type(store, name, kind), qos_yaml=_offered_qos(connection))


def _offered_qos(connection: Connection) -> str:
    """As YAML. ROS 1 knows one kind: what is latched is told again to whoever comes later."""
    if isinstance(connection.ext, ConnectionExtRosbag1):
        return qos_yaml("reliable", "transient_local", 1) if connection.ext.latching else ""
    profiles = dump_qos_v9(connection.ext.offered_qos_profiles)
    return str(yaml.safe_dump(profiles, sort_keys=False)) if profiles else ""


def _as_in_ros2(of_ros1: Typestore) -> Typestore:
    """The types of a ROS 1 bag as ROS 2 has them, where it does: its headers have no number."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register({n: d for n, d in of_ros1.fielddefs.items() if n not in store.fielddefs})
    return store
