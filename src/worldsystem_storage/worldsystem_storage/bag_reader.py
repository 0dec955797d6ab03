# SPDX-License-Identifier: Apache-2.0
"""The messages of a whole bag as bytes, in the order of their times, without decoding them."""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import zstandard
from mcap.reader import make_reader

from worldsystem_storage.bag_check import file_problems
from worldsystem_storage.mcap_contents import (
    Contents,
    RawMessage,
    bag_files,
    examine,
    messages_in,
)
from worldsystem_storage.message_packing import can_be_packed, looks_packed, unpacked

# of foxglove_msgs, in any encoding, and of ffmpeg_image_transport_msgs
_VIDEO_KINDS = ("CompressedVideo", "FFMPEGPacket")


class BagReader:
    """Reads the bag at `path` as often as asked; raises `StorageError` when there is none.

    `problems` names what cannot be read, by file: a broken file gives everything else it holds.
    """

    def __init__(self, path: Path) -> None:
        self._files: list[_File] = []
        self.problems: list[str] = []
        for file in bag_files(path):
            with file.open("rb") as stream:
                contents = examine(stream)
                problems = file_problems(contents, stream)
                has_index = not problems and _has_index(contents, stream)
            self.problems += [f"{file.name}: {problem}" for problem in problems]
            self._files.append(_File(file, contents, has_index))

    @property
    def first_ns(self) -> int:
        """When the first message was recorded; 0 for a bag without any."""
        times = [file.contents.first_ns for file in self._files if file.contents.messages]
        return min(times, default=0)

    @property
    def is_ordered(self) -> bool:
        """Whether all messages come oldest first."""
        return all(file.has_index or file.contents.is_ordered for file in self._files)

    def messages(self) -> Iterator[RawMessage]:
        """Every message, oldest first; those of a file without index in the order of that file.

        Messages that rosbag2 packed, each by itself, are unpacked; one that cannot be is left out,
        and `problems` names its topic from then on.
        Video whose times go back, as where a converter wrote the stamps of B-frames as times of
        recording, stays in coding order: there each time is raised to the newest one so far.
        """
        coded = {name for file in self._files for name in _coded_out_of_order(file.contents)}
        parts = [_messages_of(file, without=coded) for file in self._files]
        parts += [self._in_coding_order(name) for name in sorted(coded)]
        for message in heapq.merge(*parts, key=lambda message: message.log_time_ns):
            plain = self._plain(message)
            if plain is not None:
                yield plain

    def _plain(self, message: RawMessage) -> RawMessage | None:
        if not looks_packed(message.cdr) or not can_be_packed(message.topic):
            return message
        try:
            return replace(message, cdr=unpacked(message.cdr))
        except zstandard.ZstdError:
            problem = f"{message.topic.name}: messages that cannot be unpacked are left out"
            if problem not in self.problems:
                self.problems.append(problem)
            return None

    def _in_coding_order(self, name: str) -> Iterator[RawMessage]:
        newest_ns = 0
        for file in self._files:
            for message in _in_order_of_file(file):
                if message.topic.name == name:
                    newest_ns = max(newest_ns, message.log_time_ns)
                    yield replace(message, log_time_ns=newest_ns)


@dataclass(frozen=True)
class _File:
    path: Path
    contents: Contents
    has_index: bool


def _has_index(contents: Contents, stream: BinaryIO) -> bool:
    """Whether a sound file can be read by its index; readers trip over what it does not repeat."""
    stream.seek(0)
    summary = make_reader(stream).get_summary()
    if summary is None or not summary.chunk_indexes:
        return False
    used = {channel.schema_id for channel in summary.channels.values()}
    return contents.topics.keys() <= summary.channels.keys() and used <= {0, *summary.schemas}


def _coded_out_of_order(contents: Contents) -> Iterator[str]:
    """The topics of video whose times go back."""
    for channel in contents.going_back & contents.topics.keys():
        topic = contents.topics[channel]
        if re.split(r"[/.]", topic.type_name)[-1] in _VIDEO_KINDS:
            yield topic.name


def _messages_of(file: _File, without: Collection[str]) -> Iterator[RawMessage]:
    """All but those of the topics `without`."""
    for message in _by_index(file) if file.has_index else _in_order_of_file(file):
        if message.topic.name not in without:
            yield message


def _in_order_of_file(file: _File) -> Iterator[RawMessage]:
    with file.path.open("rb") as stream:
        yield from messages_in(stream, file.contents.topics)


def _by_index(file: _File) -> Iterator[RawMessage]:
    with file.path.open("rb") as stream:
        for _, channel, message in make_reader(stream).iter_messages():
            topic = file.contents.topics[channel.id]
            yield RawMessage(topic, message.data, message.log_time, message.publish_time)
