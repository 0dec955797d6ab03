# SPDX-License-Identifier: Apache-2.0
"""One MCAP file: by its index when it is whole, else record by record up to the break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel as McapChannel
from mcap.records import Message, Schema

from worldsystem_core.mcap_reading.records import MAGIC
from worldsystem_core.mcap_reading.scan import CUT_OFF, NO_END, Break, scan
from worldsystem_ingest.bag.messages import DAMAGE, BagBroken, Channel, Recorded, full_type_name
from worldsystem_ingest.bag.pictures import VIDEO_TYPES

_UNREADABLE = (McapError, *DAMAGE)


class McapFile:
    """The messages of one MCAP, in the order of their log times; with video, of the file.

    A file that was cut off has no index, and that of others leads not to all (`is_whole` is False
    for both): it is read once to learn its topics, and its messages come in the order of the file,
    up to the break, also out of the chunk that was being written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.channels: list[Channel] = []
        self.counts: dict[str, int] = {}
        self.start_ns = self.end_ns = 0
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise BagBroken(f"{path.name} is no MCAP file: its first bytes are others")
            self.is_whole = self._read_index(stream)
        if not self.is_whole:
            self._scan()

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """Those of `topics`; raises `BagBroken` at the break."""
        with self._path.open("rb") as stream:
            found = self._indexed(stream, topics) if self.is_whole else self._scanned(stream)
            try:
                for message in found:
                    if message.channel.topic in topics:
                        yield message
            except _UNREADABLE as error:
                reason = str(error) or type(error).__name__
                raise BagBroken(f"{self._path.name} is damaged: {reason}") from error

    def _read_index(self, stream: BinaryIO) -> bool:
        stream.seek(0)
        try:
            summary = make_reader(stream).get_summary()
        except _UNREADABLE:
            return False
        if summary is None or summary.statistics is None or not _leads_to_all(summary):
            return False
        counts: Counter[str] = Counter()
        for number, channel in summary.channels.items():
            known = _channel(channel, summary.schemas.get(channel.schema_id))
            self.channels.append(known)
            counts[known.topic] += summary.statistics.channel_message_counts.get(number, 0)
        self.counts = dict(counts)
        self.start_ns = int(summary.statistics.message_start_time)
        self.end_ns = int(summary.statistics.message_end_time)
        return True

    def _scan(self) -> None:
        """Learn the topics of a file without an index."""
        counts: Counter[str] = Counter()
        channels: dict[Channel, None] = {}
        with self._path.open("rb") as stream:
            try:
                for message in self._scanned(stream):
                    channels[message.channel] = None
                    counts[message.channel.topic] += 1
                    self.start_ns = min(self.start_ns or message.log_ns, message.log_ns)
                    self.end_ns = max(self.end_ns, message.log_ns)
            except (BagBroken, *_UNREADABLE):
                pass  # `messages` breaks off at the same place and says so
        self.channels, self.counts = list(channels), dict(counts)

    def _indexed(self, stream: BinaryIO, topics: Collection[str]) -> Iterator[Recorded]:
        known: dict[int, Channel] = {}
        reader = make_reader(stream, validate_crcs=True)
        found = reader.iter_messages(
            topics=list(topics), log_time_order=not self._in_coding_order(topics)
        )
        for schema, channel, message in found:
            if channel.id not in known:
                known[channel.id] = _channel(channel, schema)
            yield Recorded(known[channel.id], int(message.log_time), bytes(message.data))

    def _in_coding_order(self, topics: Collection[str]) -> bool:
        """Converters write stamps as log times, which with B-frames are not in decoding order."""
        return any(c.type_name in VIDEO_TYPES for c in self.channels if c.topic in topics)

    def _scanned(self, stream: BinaryIO) -> Iterator[Recorded]:
        schemas: dict[int, Any] = {}
        channels: dict[int, Channel] = {}
        for record in scan(stream):
            if isinstance(record, Break):
                raise self._broken(record)
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, McapChannel):
                channels[record.id] = _channel(record, schemas.get(record.schema_id))
            elif isinstance(record, Message) and record.channel_id in channels:
                channel = channels[record.channel_id]
                yield Recorded(channel, int(record.log_time), bytes(record.data))

    def _broken(self, found: Break) -> BagBroken:
        if found.reason in (CUT_OFF, NO_END):
            size = self._path.stat().st_size
            return BagBroken(
                f"{self._path.name} was cut off after {size} bytes: {found.reason}, "
                "and it has no index"
            )
        return BagBroken(f"{self._path.name} is damaged at byte {found.at}: {found.reason}")


def _leads_to_all(summary: Any) -> bool:
    """Whether messages can be read by this index: its readers sort a file without chunks in memory,
    and trip over channels and schemas that are not repeated in it."""
    counts, channels = summary.statistics.channel_message_counts, summary.channels
    used = {channel.schema_id for channel in channels.values()}
    is_repeated = counts.keys() <= channels.keys() and used <= {0, *summary.schemas}
    return is_repeated and bool(summary.chunk_indexes or not summary.statistics.message_count)


def _channel(channel: Any, schema: Any) -> Channel:
    return Channel(
        topic=str(channel.topic),
        type_name=full_type_name(str(schema.name)) if schema else "",
        encoding=str(channel.message_encoding),
        definition=schema.data.decode("utf-8", "replace") if schema else "",
        is_idl=schema is not None and schema.encoding in ("ros2idl", "omgidl"),
    )
