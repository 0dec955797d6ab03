# SPDX-License-Identifier: Apache-2.0
"""rosbag2's `metadata.yaml` (version 9, as written by ROS 2 Jazzy)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from worldsystem_core.whole_file import replace_text
from worldsystem_storage.errors import StorageError

METADATA_FILE = "metadata.yaml"
VERSION = 9
_NEVER_NS = 2**63 - 1
_FOREVER = {"sec": 9223372036, "nsec": 854775807}


@dataclass(frozen=True)
class Topic:
    """One topic of a bag: all that a reader needs without ROS.

    A schema that is no text, as of other systems' bags, has its bytes as surrogates.
    """

    name: str
    type_name: str
    schema_text: str
    type_hash: str
    qos_yaml: str
    schema_encoding: str = "ros2msg"
    message_encoding: str = "cdr"

    def __post_init__(self) -> None:
        self.qos_profiles()

    def qos_profiles(self) -> list[dict[str, object]]:
        """The offered QoS profiles; raises `StorageError` when the YAML is not a list of maps."""
        try:
            profiles = yaml.safe_load(self.qos_yaml) or []
        except yaml.YAMLError as error:
            raise StorageError(f"QoS of topic {self.name} is no YAML: {error}") from error
        if not isinstance(profiles, list) or not all(isinstance(p, dict) for p in profiles):
            raise StorageError(f"QoS of topic {self.name} must be a list of profiles")
        return profiles


@dataclass
class BagFileSummary:
    """What one `.mcap` file of a bag holds.

    A name may stand for several topics, as where publishers offered it with different QoS.
    `packed` says that each message is packed by itself (rosbag2's compression mode "message").
    """

    name: str
    counts: Counter[Topic] = field(default_factory=Counter)
    first_ns: int = _NEVER_NS
    last_ns: int = 0
    packed: bool = False

    @property
    def counts_by_name(self) -> Counter[str]:
        """Messages by the names of their topics."""
        found: Counter[str] = Counter()
        for topic, count in self.counts.items():
            found[topic.name] += count
        return found

    def count(self, topic: Topic, log_time_ns: int) -> None:
        """One more message of `topic`."""
        self.counts[topic] += 1
        self.first_ns = min(self.first_ns, log_time_ns)
        self.last_ns = max(self.last_ns, log_time_ns)

    @property
    def duration_ns(self) -> int:
        return max(0, self.last_ns - self.first_ns)


def qos_yaml(reliability: str, durability: str, depth: int) -> str:
    """One QoS profile as rosbag2 writes it, e.g. `qos_yaml("reliable", "volatile", 10)`."""
    profile = {
        "history": "keep_last",
        "depth": depth,
        "reliability": reliability,
        "durability": durability,
        "deadline": _FOREVER.copy(),
        "lifespan": _FOREVER.copy(),
        "liveliness": "automatic",
        "liveliness_lease_duration": _FOREVER.copy(),
        "avoid_ros_namespace_conventions": False,
    }
    return str(yaml.safe_dump([profile], sort_keys=False))


def are_packed(files: Sequence[BagFileSummary]) -> bool:
    """Whether all messages of a bag are packed, each by itself; not when there are none."""
    filled = [file for file in files if file.counts.total()]
    return bool(filled) and all(file.packed for file in filled)


def information(topics: Sequence[Topic], files: Sequence[BagFileSummary]) -> Mapping[str, Any]:
    """The content of `rosbag2_bagfile_information` (Any: a YAML tree of mixed types).

    A name has an entry for each different topic of that name: of channels whose QoS is that of no
    entry rosbags reads nothing.
    """
    total = sum((file.counts for file in files), Counter[Topic]())
    first_ns = min((file.first_ns for file in files), default=_NEVER_NS)
    last_ns = max((file.last_ns for file in files), default=0)
    packed = are_packed(files)
    return {
        "version": VERSION,
        "storage_identifier": "mcap",
        "duration": {"nanoseconds": max(0, last_ns - first_ns)},
        "starting_time": {"nanoseconds_since_epoch": first_ns},
        "message_count": sum(total.values()),
        "topics_with_message_count": [
            _topic_entry(topic, total[topic]) for topic in dict.fromkeys([*topics, *total])
        ],
        "compression_format": "zstd" if packed else "",
        "compression_mode": "message" if packed else "",
        "relative_file_paths": [file.name for file in files],
        "files": [_file_entry(file) for file in files],
        "custom_data": None,
        "ros_distro": os.environ.get("ROS_DISTRO", "jazzy"),
    }


def write_metadata(folder: Path, topics: Sequence[Topic], files: Sequence[BagFileSummary]) -> None:
    """Write `metadata.yaml` into `folder`, replacing the old one at once."""
    content = {"rosbag2_bagfile_information": information(topics, files)}
    replace_text(folder / METADATA_FILE, yaml.safe_dump(content, sort_keys=False))


def _topic_entry(topic: Topic, count: int) -> dict[str, object]:
    return {
        "topic_metadata": {
            "name": topic.name,
            "type": topic.type_name,
            "serialization_format": topic.message_encoding,
            "offered_qos_profiles": topic.qos_profiles(),
            "type_description_hash": topic.type_hash,
        },
        "message_count": count,
    }


def _file_entry(file: BagFileSummary) -> dict[str, object]:
    return {
        "path": file.name,
        "starting_time": {"nanoseconds_since_epoch": file.first_ns},
        "duration": {"nanoseconds": file.duration_ns},
        "message_count": sum(file.counts.values()),
    }
