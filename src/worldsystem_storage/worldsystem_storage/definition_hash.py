# SPDX-License-Identifier: Apache-2.0
"""The hash of a message's definition, by which definitions of one name are told apart."""

from __future__ import annotations

from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from worldsystem_core.mcap_reading.records import DAMAGE
from worldsystem_storage.bag_metadata import Topic


def hash_of_definition(topic: Topic) -> str:
    """What the bag tells of the topic's type, else what its definition gives; empty if neither.

    Comments and layout do not count. Only definitions in ROS 2's `.msg` form can be hashed.
    """
    if topic.type_hash or topic.schema_encoding != "ros2msg":
        return topic.type_hash
    try:
        store = get_typestore(Stores.EMPTY)
        store.register(get_types_from_msg(topic.schema_text, topic.type_name))
        return str(store.hash_rihs01(topic.type_name))
    except (TypesysError, *DAMAGE):
        return ""  # readers do without
