# SPDX-License-Identifier: Apache-2.0
"""What one MCAP file holds, whole or broken, read from its first byte to its last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mcap.records import Attachment, Channel, Message, Metadata, Schema, Statistics

from worldsystem_core.mcap_reading.records import summary_is_right
from worldsystem_core.mcap_reading.scan import Break, scan
from worldsystem_storage.bag_file import RECORDER_NOTE
from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.errors import StorageError
from worldsystem_storage.message_packing import can_be_packed, looks_packed


@dataclass(frozen=True)
class RawMessage:
    """One message: its topic and type, its CDR bytes, and when it was recorded and published."""

    topic: Topic
    cdr: bytes
    log_time_ns: int
    publish_time_ns: int


@dataclass
class Contents:
    """A file's topics by channel, how much there is of each, and what could not be read.

    `note` is what the recorder left for this case, `promised` what a sound summary says that there
    is. `unknown` counts messages whose topic the file does not tell, `packed` those that look as if
    each was packed by itself. `going_back` are the channels whose times do not grow in the order of
    the file, `is_ordered` whether all times do.
    """

    topics: dict[int, Topic] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    packed: Counter[int] = field(default_factory=Counter)
    newest_number: dict[int, int] = field(default_factory=dict)
    promised: dict[int, int] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0
    newest_ns: dict[int, int] = field(default_factory=dict)
    going_back: set[int] = field(default_factory=set)
    is_ordered: bool = True
    breaks: list[Break] = field(default_factory=list)
    note: dict[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        return sum(self.counts[channel] for channel in self.topics)

    @property
    def unknown(self) -> int:
        return self.counts.total() - self.messages

    @property
    def is_packed(self) -> bool:
        """Whether each message is packed by itself; not when there are none."""
        channels = [channel for channel, topic in self.topics.items() if can_be_packed(topic)]
        return 0 < sum(self.packed[channel] for channel in channels) == self.messages

    @property
    def lost_bytes(self) -> int:
        unknown = sum(size for channel, size in self.sizes.items() if channel not in self.topics)
        return unknown + sum(each.size for each in self.breaks)

    @property
    def missing(self) -> int:
        """Messages that were in the file: by its statistics, or else the numbers we give them."""
        there = self.promised
        if not there and self.note:
            there = {channel: number + 1 for channel, number in self.newest_number.items()}
        return sum(max(0, count - self.counts[channel]) for channel, count in there.items())


def examine(stream: BinaryIO) -> Contents:
    """Read all of `stream`; never raises for what is in it."""
    found, schemas = Contents(), dict[int, Schema]()
    for record in scan(stream):
        if isinstance(record, Message):
            _count(found, record)
        elif isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            _take_channel(found, record, schemas.get(record.schema_id))
        elif isinstance(record, Metadata) and record.name == RECORDER_NOTE:
            found.note = dict(record.metadata)
        elif isinstance(record, Statistics) and summary_is_right(stream):
            found.promised = dict(record.channel_message_counts)
        elif isinstance(record, Break):
            found.breaks.append(record)
    return found


def messages_in(stream: BinaryIO, topics: Mapping[int, Topic]) -> Iterator[RawMessage]:
    """Every message of a known topic, in the order of the file, past what cannot be read."""
    for record in scan(stream):
        if isinstance(record, Message) and record.channel_id in topics:
            topic = topics[record.channel_id]
            yield RawMessage(topic, record.data, record.log_time, record.publish_time)


def extras_in(stream: BinaryIO) -> Iterator[Attachment | Metadata]:
    """Attachments and metadata records, in the order of the file."""
    for record in scan(stream):
        if isinstance(record, Attachment | Metadata):
            yield record


def bag_files(path: Path) -> list[Path]:
    """The `.mcap` files of a bag in order; raises `StorageError` when there is none."""
    path = Path(path)
    files = sorted(path.glob("*.mcap"), key=_split_number) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise StorageError(f"no bag at {path}; give a .mcap file or the folder that holds it")
    if files[0].suffix != ".mcap":
        raise StorageError(
            f"{path} is no .mcap file; `worldsystem import` makes one of other bags and data sets"
        )
    return files


def topic_of(channel: Channel, schema: Schema | None) -> Topic:
    """The topic of a channel; QoS that cannot be read is left out."""
    described = {
        "name": channel.topic,
        "type_name": schema.name if schema else "",
        "schema_text": _text_of(schema) if schema else "",
        "type_hash": channel.metadata.get("topic_type_hash", ""),
        "schema_encoding": schema.encoding if schema else "",
        "message_encoding": channel.message_encoding,
    }
    try:
        return Topic(**described, qos_yaml=channel.metadata.get("offered_qos_profiles", ""))
    except StorageError:
        return Topic(**described, qos_yaml="")


def _text_of(schema: Schema) -> str:
    """A definition that is text and damaged stays text, which readers insist on."""
    is_text = schema.encoding in ("ros2msg", "ros2idl", "omgidl")
    return str(schema.data, "utf-8", "replace" if is_text else "surrogateescape")


def _take_channel(found: Contents, channel: Channel, schema: Schema | None) -> None:
    """The first that tells its type: the definition of an earlier one may be in a damaged chunk."""
    known = found.topics.get(channel.id)
    if known is None or (not known.type_name and schema):
        found.topics[channel.id] = topic_of(channel, schema)


def _count(found: Contents, message: Message) -> None:
    channel = message.channel_id
    is_first = not found.counts  # whose time may be zero
    found.first_ns = message.log_time if is_first else min(found.first_ns, message.log_time)
    found.counts[channel] += 1
    found.sizes[channel] += len(message.data)
    found.packed[channel] += looks_packed(message.data)
    found.newest_number[channel] = max(found.newest_number.get(channel, 0), message.sequence)
    _count_time(found, channel, int(message.log_time))


def _count_time(found: Contents, channel: int, log_ns: int) -> None:
    newest_ns = found.newest_ns.get(channel, 0)
    if log_ns < newest_ns:
        found.going_back.add(channel)
    found.newest_ns[channel] = max(newest_ns, log_ns)
    found.is_ordered &= log_ns >= found.last_ns
    found.last_ns = max(found.last_ns, log_ns)


def _split_number(path: Path) -> tuple[int, str]:
    number = path.stem.rpartition("_")[2]
    return (int(number) if number.isdigit() else 0, path.name)
