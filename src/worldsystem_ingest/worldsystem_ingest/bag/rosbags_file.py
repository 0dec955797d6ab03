# SPDX-License-Identifier: Apache-2.0
"""One rosbag1 or SQLite file, read by its index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import apsw
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag1 import ReaderError as Reader1Error
from rosbags.rosbag2 import Reader as Reader2
from rosbags.rosbag2 import ReaderError as Reader2Error

from worldsystem_ingest.bag.messages import DAMAGE, BagBroken, Channel, Recorded, full_type_name

_UNREADABLE = (Reader1Error, Reader2Error, apsw.Error, *DAMAGE)


class IndexedFile:
    """The messages of a `.bag` or `.db3`, in the order of their log times."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoding = "ros1" if path.suffix == ".bag" else "cdr"
        self.counts: dict[str, int] = {}
        try:
            with self._reader() as reader:
                counts: Counter[str] = Counter()
                for connection in reader.connections:
                    counts[connection.topic] += connection.msgcount
                self.counts = dict(counts)
                self.channels = [self._channel(found) for found in reader.connections]
                self.start_ns, self.end_ns = int(reader.start_time), int(reader.end_time)
        except _UNREADABLE as error:
            raise BagBroken(f"{path.name} cannot be read: {_reason(error)}") from error

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """Those of `topics`; raises `BagBroken` where the file is damaged."""
        try:
            with self._reader() as reader:
                wanted = [found for found in reader.connections if found.topic in topics]
                channels = {found.id: self._channel(found) for found in wanted}
                if wanted:
                    for connection, log_ns, data in reader.messages(connections=wanted):
                        yield Recorded(channels[connection.id], int(log_ns), bytes(data))
        except _UNREADABLE as error:
            raise BagBroken(f"{self._path.name} is damaged: {_reason(error)}") from error

    def _reader(self) -> Any:
        return Reader1(self._path) if self._encoding == "ros1" else Reader2(self._path)

    def _channel(self, connection: Any) -> Channel:
        definition = connection.msgdef
        known = definition.format != MessageDefinitionFormat.NONE
        return Channel(
            topic=connection.topic,
            type_name=full_type_name(connection.msgtype),
            encoding=self._encoding,
            definition=definition.data if known else "",
            is_idl=definition.format == MessageDefinitionFormat.IDL,
        )


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
