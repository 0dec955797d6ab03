# SPDX-License-Identifier: Apache-2.0
"""The files of a bag that is being recorded: one after the other, and their `metadata.yaml`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from worldsystem_core.whole_file import sync_folder
from worldsystem_storage.bag_file import BagFile
from worldsystem_storage.bag_metadata import (
    METADATA_FILE,
    BagFileSummary,
    Topic,
    write_metadata,
)
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.disk_sync import DiskSync
from worldsystem_storage.errors import DiskFull, StorageError
from worldsystem_storage.recover import Repair
from worldsystem_storage.space import MIB, Reserve

log = logging.getLogger(__name__)


def holds_bag(folder: Path) -> bool:
    """Whether a bag lies there, whole or not."""
    return (folder / METADATA_FILE).exists() or any(folder.glob("*.mcap"))


def free_folder(folder: Path) -> Path:
    """`folder`, or the first of `folder_2`, `folder_3`, … that holds no bag."""
    free, number = folder, 1
    while holds_bag(free):
        number += 1
        free = folder.with_name(f"{folder.name}_{number}")
    return free


class BagFolder:
    """`<folder>_0.mcap`, `_1.mcap`, …; for one thread, but `size_bytes` and `grown_bytes`.

    Raises `StorageError` when the folder cannot be written, already holds a bag, or lies on a disk
    whose reserve is reached (`DiskFull`). Methods raise `OSError` when the disk says no.
    """

    def __init__(self, folder: Path, config: StorageConfig) -> None:
        self.folder = folder
        self.reserve = Reserve(folder, config.reserve_mib)
        self._config = config
        self._summaries: list[BagFileSummary] = []
        self._broken: list[BagFile] = []
        self._finished_bytes = 0
        self._opened = 0
        try:
            self.reserve.check()
            self.folder.mkdir(parents=True, exist_ok=True)
            if holds_bag(self.folder):
                raise StorageError(f"{self.folder} already holds a bag; choose another folder")
            self.file = self._begin({})
        except OSError as error:
            raise StorageError(
                f"cannot record into {self.folder}: {os.strerror(error.errno or 0)}; "
                "choose a folder that can be written (`folder`)"
            ) from error
        self._sync = DiskSync() if config.sync else None

    @property
    def size_bytes(self) -> int:
        """What has been written so far, without the chunk that is being filled."""
        return self._finished_bytes + self.file.size_bytes

    def grown_bytes(self) -> int:
        """What a look at the disk says of the same."""
        try:
            return self._finished_bytes + self.file.path.stat().st_size
        except OSError:
            return self._finished_bytes

    def unconfirmed_s(self) -> float:
        """How long the oldest flush has been waiting for the disk's word."""
        return self._sync.behind_s() if self._sync else 0.0

    def flush(self) -> None:
        """Hand what was written to the system, and have the disk confirm it soon."""
        self._check_sync()
        self.file.flush()
        if self._sync:
            self._sync.request(self.file.fileno())

    def _check_sync(self) -> None:
        """What the disk did not confirm cannot be counted on."""
        if self._sync:
            self._sync.check()

    def file_is_gone(self) -> bool:
        """Whether somebody removed or replaced the file while it is being written."""
        written = os.fstat(self.file.fileno())
        try:
            named = self.file.path.stat()
        except FileNotFoundError:
            return True
        return (named.st_dev, named.st_ino) != (written.st_dev, written.st_ino)

    def file_is_full(self) -> bool:
        """Whether size or time say that the bag goes on in another file."""
        old = time.monotonic() >= self._split_at and bool(self.file.summary.counts)
        return old or self.file.size_bytes >= self._config.split_mib * MIB

    def split(self, topics: Mapping[str, Topic]) -> None:
        """Finish the file and go on in the next one."""
        self.finish(topics)
        self.go_on(topics)

    def finish(self, topics: Mapping[str, Topic]) -> None:
        """Give the file its end and `metadata.yaml` its counts."""
        self._check_sync()
        self.file.close(list(topics.values()))
        self._finished_bytes += self.file.path.stat().st_size
        self.save_metadata(topics)

    def go_on(self, topics: Mapping[str, Topic]) -> None:
        """Open the next file; the one before was finished, given up or is gone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self._begin(topics)

    def forget_file(self, topics: Mapping[str, Topic]) -> dict[str, int]:
        """Let go of a file that is gone; the messages lost with it, by topic.

        One that was only moved gets its end where it is now, and nothing is lost.
        """
        if os.fstat(self.file.fileno()).st_nlink:
            self.file.close(list(topics.values()))  # fails where its whole disk is away
            self._summaries.pop()
            return {}
        gone = self._summaries.pop()
        self.file.abandon()
        return dict(gone.counts_by_name)

    def give_up(self) -> None:
        """Let go of the file, of which a write failed; it is `broken` until `mend` has been."""
        self.file.abandon()
        if not self._summaries or self._summaries[-1] is not self.file.summary:
            return  # it was forgotten, and no other could be begun
        self._broken.append(self.file)
        self._finished_bytes += self.file.size_bytes

    @property
    def broken(self) -> tuple[BagFile, ...]:
        """The files that were given up and not mended yet, in order."""
        return tuple(self._broken)

    def mend(self, broken: BagFile, topics: Mapping[str, Topic]) -> None:
        """Give a file that was given up its end after all; it is left out when it is gone.

        Raises `DiskFull`, without having written, when its copy would use up the reserve.
        """
        if broken.path.exists():
            self._check_room_beside(broken)
            at = self._summaries.index(broken.summary)
            broken.summary = self._summaries[at] = Repair(broken.path).summary
            broken.has_its_end = True
            self.save_metadata(topics)
        else:  # where its whole disk is away this fails, and it stays listed
            left = [each for each in self._summaries if each is not broken.summary]
            write_metadata(self.folder, list(topics.values()), left)
            self._summaries = left
        self._broken.remove(broken)

    def _check_room_beside(self, broken: BagFile) -> None:
        size = broken.path.stat().st_size
        if not broken.has_its_end and not self.reserve.has_room_again(size):
            raise DiskFull(
                f"there is no room for a copy of its {size // MIB} MiB; make room, and it is "
                "mended at the recording's end, or by `worldsystem bag recover` after that"
            )

    def save_metadata(self, topics: Mapping[str, Topic]) -> None:
        """Write `metadata.yaml` of what there is now."""
        write_metadata(self.folder, list(topics.values()), self._summaries)

    def close(self) -> None:
        """Wait for the disk to confirm the rest, within limits."""
        if self._sync:
            self._sync.close()

    def _begin(self, topics: Mapping[str, Topic]) -> BagFile:
        """The next file, listed in `metadata.yaml`; nothing is left of it when that fails."""
        file = self._next_file()
        try:
            self.save_metadata(topics)
        except BaseException:
            self._summaries.pop()
            file.discard()
            raise
        return file

    def _next_file(self) -> BagFile:
        path = self.folder / f"{self.folder.resolve().name}_{self._opened}.mcap"
        self._opened += 1  # also when it fails: what is left of it may be in the way
        config = self._config
        note = {"flush_s": str(config.flush_s)}
        file = BagFile(path, config.compression, config.chunk_kib * 1024, note)
        sync_folder(self.folder)
        self._summaries.append(file.summary)
        self._split_at = time.monotonic() + (config.split_s or float("inf"))
        return file
