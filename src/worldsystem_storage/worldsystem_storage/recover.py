# SPDX-License-Identifier: Apache-2.0
"""Repair of bags whose recorder was killed: everything that can be read, indexed again."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from worldsystem_core.mcap_reading.scan import CUT_OFF, NO_END
from worldsystem_core.whole_file import sync_folder
from worldsystem_storage.bag_check import file_problems, metadata_is_right
from worldsystem_storage.bag_file import BagFile, lock_for_writing
from worldsystem_storage.bag_metadata import BagFileSummary, Topic, are_packed, write_metadata
from worldsystem_storage.errors import StorageError
from worldsystem_storage.mcap_contents import (
    Contents,
    bag_files,
    examine,
    extras_in,
    messages_in,
)

_HARMLESS = (CUT_OFF, NO_END)


@dataclass(frozen=True)
class RecoveredBag:
    """What a repair found, and what it did not.

    `messages` by topic are now readable by every tool. Lost are `lost_bytes` that had no use,
    `missing` messages between others, and after the newest message, at `last_ns`, those that the
    recorder still held back when it ended: at most `held_back_s` of them, None when the bag does
    not say. `kept` are the originals of files that were damaged, not just cut off. `repaired` is
    False when everything was whole and nothing was touched.
    """

    path: Path
    messages: dict[str, int]
    lost_bytes: int
    missing: int
    last_ns: int
    held_back_s: float | None
    kept: tuple[Path, ...]
    repaired: bool

    def loss(self) -> str:
        """What is lost, in words; empty when nothing can be."""
        found = []
        if self.held_back_s is None:
            found.append("what came after the newest message, if anything did")
        elif self.held_back_s:
            held_back = f"what came in at most {self.held_back_s:g} s after the newest message"
            found.append(f"{held_back} (or longer, if the disk was stalling)")
        if self.missing:
            found.append(f"{self.missing} messages in between")
        if self.lost_bytes:
            found.append(f"{self.lost_bytes} bytes that could not be read")
        return ", ".join(found)


def recover(path: Path) -> RecoveredBag:
    """Make the bag at `path`, a folder or one `.mcap`, readable by every tool again.

    A file without its end is read up to the break, also into the chunk that was being written, and
    replaced at once by one with an index; past damage in the middle it is read on, and the original
    is kept beside it as `<file>.broken`. A folder's `metadata.yaml` is written anew. Whole files
    are left alone. Never raises for what is in a file. Raises `StorageError` when there is no file
    at `path`, when it is still being recorded, or when there is no room beside it (the size of the
    largest broken file is needed).
    """
    path = Path(path)
    files = bag_files(path)
    try:
        repairs = [Repair(file) for file in files]
        mended = path.is_dir() and _mend_metadata(path, repairs)
    except OSError as error:
        raise StorageError(f"cannot repair {path}: {error}; make room beside it") from error
    counts = sum((repair.summary.counts_by_name for repair in repairs), Counter[str]())
    last = repairs[-1]
    return RecoveredBag(
        path,
        dict(counts),
        lost_bytes=sum(repair.contents.lost_bytes for repair in repairs),
        missing=sum(repair.contents.missing for repair in repairs),
        last_ns=max(repair.contents.last_ns for repair in repairs),
        held_back_s=0.0 if last.had_its_end else _held_back_s(last.contents),
        kept=tuple(repair.kept for repair in repairs if repair.kept),
        repaired=mended or any(not repair.whole for repair in repairs),
    )


class Repair:
    """One file, read and, when it is broken, written anew."""

    def __init__(self, path: Path) -> None:
        self.kept: Path | None = None
        with path.open("rb") as stream:
            lock_for_writing(stream)
            self.contents = examine(stream)
            self.whole = not file_problems(self.contents, stream)
            self.had_its_end = all(each.reason != NO_END for each in self.contents.breaks)
            self.summary = self._summary(path.name)
            if not self.whole:
                self._rewrite(path, stream)

    @property
    def topics(self) -> list[Topic]:
        return list(self.contents.topics.values())

    def _summary(self, name: str) -> BagFileSummary:
        found = self.contents
        summary = BagFileSummary(name, packed=found.is_packed)
        for channel, topic in found.topics.items():
            summary.counts[topic] += found.counts[channel]
        if found.messages:
            summary.first_ns, summary.last_ns = found.first_ns, found.last_ns
        return summary

    def _lacks_more_than_its_end(self) -> bool:
        """Whether something between was hit. Where it was an opcode, readers go past its record as
        one of a kind that they need not know, and only the messages' numbers tell."""
        hit = any(each.reason not in _HARMLESS for each in self.contents.breaks)
        return hit or self.contents.missing > 0

    def _rewrite(self, path: Path, stream: BinaryIO) -> None:
        beside = path.with_name(f".{path.name}.recovered")
        beside.unlink(missing_ok=True)
        out = BagFile(beside)
        try:
            for message in messages_in(stream, self.contents.topics):
                out.write(message.topic, message.cdr, message.log_time_ns, message.publish_time_ns)
            for extra in extras_in(stream):
                out.add_extra(extra)
            out.summary.name, out.summary.packed = path.name, self.summary.packed
            out.close(self.topics)
            if self._lacks_more_than_its_end():
                self.kept = _kept_beside(path)
            beside.replace(path)
            sync_folder(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def _mend_metadata(folder: Path, repairs: list[Repair]) -> bool:
    """Write `metadata.yaml` of what is there; False when it was right already."""
    summaries = [repair.summary for repair in repairs]
    total = sum(summary.counts.total() for summary in summaries)
    right = metadata_is_right(folder, total, packed=are_packed(summaries))
    if right and all(repair.whole for repair in repairs):
        return False
    topics = {topic: None for repair in repairs for topic in repair.topics}
    write_metadata(folder, list(topics), summaries)
    return True


def _kept_beside(path: Path) -> Path:
    """The damaged original, under a name of its own."""
    number, kept = 1, path.with_name(f"{path.name}.broken")
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.broken{number}")
    try:
        os.link(path, kept)  # so that a crash in between leaves one of the two under its name
    except OSError:
        shutil.copyfile(path, kept)
    return kept


def _held_back_s(contents: Contents) -> float | None:
    try:
        return float(contents.note["flush_s"])
    except (KeyError, ValueError):
        return None
