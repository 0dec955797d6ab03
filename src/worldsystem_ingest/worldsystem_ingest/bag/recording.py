# SPDX-License-Identifier: Apache-2.0
"""A bag of one or more files, read as one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import yaml

from worldsystem_core.errors import SourceError
from worldsystem_ingest.bag.mcap_file import McapFile
from worldsystem_ingest.bag.messages import BagBroken, BagFile, Channel, Recorded
from worldsystem_ingest.bag.ros1_file import Ros1File
from worldsystem_ingest.bag.rosbags_file import IndexedFile

SUFFIXES = (".mcap", ".bag", ".db3")
_METADATA = "metadata.yaml"
_PACKED = tuple(f"{suffix}.zstd" for suffix in SUFFIXES)


def is_bag(path: Path) -> bool:
    """Whether `path` is a file of a bag, packed or not, or a folder that holds some."""
    inside = path.iterdir() if path.is_dir() else [path]
    return any(file.name.endswith((*SUFFIXES, *_PACKED)) for file in inside)


class Recording:
    """The topics and messages of a bag; raises `SourceError` when nothing in it can be read.

    `broken` says what is missing, as far as that is known: files that its `metadata.yaml` names and
    files that cannot be opened at once, breaks within a file once `messages` came to them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._breaks: list[str] = []
        self._lock = threading.Lock()
        self._files = [file for file in map(self._opened, self._paths()) if file]
        if not self._files:
            raise SourceError(f"{path} cannot be played: {self.broken}")
        counts: Counter[str] = Counter()
        for file in self._files:
            counts.update(file.counts)
        self.counts = dict(counts)
        self.channels = {c.topic: c for file in reversed(self._files) for c in file.channels}
        filled = [file for file in self._files if any(file.counts.values())]
        self.start_ns = min((file.start_ns for file in filled), default=0)
        self.end_ns = max((file.end_ns for file in filled), default=0)

    @property
    def broken(self) -> str | None:
        """What is known to be missing, in words."""
        with self._lock:
            return "; ".join(self._breaks) or None

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """Those of `topics` in all files, each up to where it breaks off."""
        for file in self._files:
            try:
                yield from file.messages(topics)
            except BagBroken as error:
                self._note(str(error))

    def first(self, channel: Channel) -> Recorded | None:
        """The first message of a topic, if there is one that can be read."""
        for file in self._files:
            try:
                for message in file.messages([channel.topic]):
                    return message
            except BagBroken:
                continue  # playing will come to the break and note it
        return None

    def _paths(self) -> list[Path]:
        path = self.path
        if not path.exists():
            raise SourceError(f"{path} does not exist; give a bag: a folder, .mcap, .bag or .db3")
        inside = list(path.iterdir()) if path.is_dir() else [path]
        here = {p.name: p for p in inside if p.suffix in SUFFIXES}
        if not here and any(p.name.endswith(_PACKED) for p in inside):
            raise SourceError(
                f"{path} is packed file by file, which cannot be played; "
                "`worldsystem import FOLDER --out BAG` makes a bag of its folder that can"
            )
        if not path.is_dir():
            return [path]
        if not here:
            raise SourceError(f"{path} holds no bag; give the folder of its {', '.join(SUFFIXES)}")
        named = _named_in_metadata(path / _METADATA)
        missing = [name for name in named if name not in here]
        if missing:
            shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            self._note(f"{len(missing)} of {len(named)} files are missing ({shown})")
        order = {name: at for at, name in enumerate(named)}
        return sorted(here.values(), key=lambda p: (order.get(p.name, len(order)), _split(p)))

    def _opened(self, path: Path) -> BagFile | None:
        try:
            if path.suffix == ".mcap":
                return McapFile(path)
            try:
                return IndexedFile(path)
            except BagBroken:
                if path.suffix != ".bag":
                    raise
                return Ros1File(path)
        except (BagBroken, OSError) as error:
            self._note(str(error))
            return None

    def _note(self, text: str) -> None:
        with self._lock:
            if text not in self._breaks:
                self._breaks.append(text)


def _named_in_metadata(path: Path) -> list[str]:
    """The files that a rosbag2 folder says it has; none where it does not say it readably."""
    try:
        content = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]
        return [Path(name).name for name in content["relative_file_paths"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return []


def _split(path: Path) -> tuple[int, str]:
    number = path.stem.rpartition("_")[2]
    return (int(number) if number.isdecimal() else 0, path.name)
