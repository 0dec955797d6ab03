# SPDX-License-Identifier: Apache-2.0
"""Whether a bag is sound: every checksum, every index, every count."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import yaml
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import ChunkIndex

from worldsystem_core.mcap_reading.records import (
    DAMAGE,
    HEAD,
    chunk_head,
    records_in,
    summary_is_right,
    unpacked,
)
from worldsystem_storage.bag_metadata import METADATA_FILE
from worldsystem_storage.mcap_contents import Contents, bag_files, examine

_INDEX_HEAD = struct.Struct("<HI")
_ENTRY = struct.Struct("<QQ")
_MEND = "`worldsystem bag recover` mends it"
_RECOVER = "`worldsystem bag recover` keeps what can be read"


def verify(path: Path) -> list[str]:
    """Everything that is wrong with the bag at `path`, in words; empty when it is sound.

    Reads every chunk and its checksum, compares each index with what it points at, and the counts
    with each file's own statistics and with `metadata.yaml`. Raises `StorageError` only when there
    is no bag.
    """
    problems: list[str] = []
    packed: list[bool] = []
    total = 0
    for file in bag_files(path):
        with file.open("rb") as stream:
            contents = examine(stream)
            found = file_problems(contents, stream)
        problems += [f"{file.name}: {each}; {_RECOVER}" for each in found]
        packed += [contents.is_packed] if contents.messages else []
        total += contents.messages
    return problems + _metadata_problems(Path(path), total, bool(packed) and all(packed))


def file_problems(contents: Contents, stream: BinaryIO) -> list[str]:
    """What is wrong with the file that `contents` were read from."""
    found = [f"at byte {each.at}: {each.reason}" for each in contents.breaks]
    if contents.unknown:
        found.append(f"{contents.unknown} messages of topics that it does not name")
    return found or index_problems(contents, stream)


def index_problems(contents: Contents, stream: BinaryIO) -> list[str]:
    """What is wrong with the summary and the indexes of a file that is whole otherwise."""
    try:
        return list(_index_problems(contents, stream))
    except DAMAGE as error:
        return [f"its index cannot be read ({str(error) or type(error).__name__})"]


def _index_problems(contents: Contents, stream: BinaryIO) -> Iterator[str]:
    if not summary_is_right(stream):
        yield "the checksum of its index is wrong"
        return
    stream.seek(0)
    summary = make_reader(stream).get_summary()
    if summary is None or summary.statistics is None:
        yield "it has no index"
        return
    promised = summary.statistics.message_count
    if promised != contents.counts.total():
        yield f"its index promises {promised} messages, not {contents.counts.total()}"
    for chunk in summary.chunk_indexes:
        if not _points_at_its_messages(chunk, stream):
            yield f"the index of the chunk at byte {chunk.chunk_start_offset} is wrong"


def _points_at_its_messages(chunk: ChunkIndex, stream: BinaryIO) -> bool:
    """Whether each channel's index lists the times and places of just its messages."""
    stream.seek(chunk.chunk_start_offset)
    opcode, size = HEAD.unpack(stream.read(HEAD.size))
    content = stream.read(size)
    head = chunk_head(content, size)
    plain = unpacked(head, content) if head and opcode == Opcode.CHUNK else None
    if plain is None:
        return False
    there: dict[int, list[tuple[int, int]]] = {}
    for at, kind, record in records_in(plain):
        if kind == Opcode.MESSAGE:
            channel, _, log_ns = struct.unpack_from("<HIQ", record)
            there.setdefault(channel, []).append((log_ns, at))
    listed = {
        channel: _listed(offset, channel, stream)
        for channel, offset in chunk.message_index_offsets.items()
    }
    return not listed or listed == {channel: sorted(e) for channel, e in there.items()}


def _listed(offset: int, channel: int, stream: BinaryIO) -> list[tuple[int, int]]:
    """A channel's entries in the message index at `offset`, sorted; empty when it is another's."""
    stream.seek(offset)
    opcode, size = HEAD.unpack(stream.read(HEAD.size))
    content = stream.read(size)
    of_channel, table_size = _INDEX_HEAD.unpack_from(content)
    if opcode != Opcode.MESSAGE_INDEX or of_channel != channel:
        return []
    return sorted(_ENTRY.iter_unpack(content[_INDEX_HEAD.size : _INDEX_HEAD.size + table_size]))


def metadata_is_right(folder: Path, total: int, *, packed: bool) -> bool:
    """Whether `metadata.yaml` of a bag's folder is there and promises so many messages, and says
    that each is packed by itself if that is so."""
    return not _metadata_problems(folder, total, packed)


def _metadata_problems(path: Path, total: int, packed: bool) -> list[str]:
    metadata = path / METADATA_FILE
    if not path.is_dir():
        return []
    if not metadata.is_file():
        return [f"{METADATA_FILE} is missing; `worldsystem bag recover` writes it anew"]
    try:
        promised = yaml.safe_load(metadata.read_text())["rosbag2_bagfile_information"]
        count = int(promised["message_count"])
        topics = promised["topics_with_message_count"]
        by_topic = sum(int(topic["message_count"]) for topic in topics)
        names = sorted(Path(name).name for name in promised["relative_file_paths"])
        mode = str(promised.get("compression_mode", "")).lower()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, *DAMAGE) as error:
        return [f"{METADATA_FILE} cannot be read ({error!r}); {_MEND}"]
    if count != total:
        return [f"{METADATA_FILE} promises {count} messages, {total} are there; {_MEND}"]
    if by_topic != total:
        told = f"{METADATA_FILE} promises {by_topic} messages when its topics are added up"
        return [f"{told}, {total} are there; {_MEND}"]
    if names != sorted(file.name for file in bag_files(path)):
        return [f"{METADATA_FILE} names other files than there are ({', '.join(names)}); {_MEND}"]
    if total and packed != (mode == "message"):
        return [f"{METADATA_FILE} is wrong about messages being packed (mode '{mode}'); {_MEND}"]
    return []
