# SPDX-License-Identifier: Apache-2.0
"""Records of one size in a memory-mapped file, each with its checksum.

A record is never overwritten: a newer one with the same key goes to a free place, and only then is
the older one's place free. A process that is killed at any moment therefore leaves, for each key,
the newest record that was written whole; `PageFile.open_existing` finds it again, until a new file
is begun in the same folder. A file in use is locked, so that only those of the dead go then.
"""

from __future__ import annotations

import fcntl
import heapq
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from worldsystem_core.errors import WorldSystemError
from worldsystem_mesh.flat_places import FlatPlaces

MAGIC = 0x57534250
HEADER = struct.Struct("<IIqQ")
"""Magic, checksum of all that follows, key, sequence number."""

PREFIX, SUFFIX = "worldsystem-", ".pages"
GROWTH_BYTES = 16 << 20
RESIDENT_BYTES = 8 << 20
"""After so much was written or read the mapping lets go of its pages, which the kernel keeps while
it has room: what was moved out of a budget shall not count as this process's memory."""


class PagingFailed(WorldSystemError):
    """A page file cannot be written or does not hold what it should."""


class PageFile:
    """Keeps payloads of `payload_bytes` under integer keys; `dense`: most up to the highest are in
    use, as of blocks, and there may be millions."""

    def __init__(self, path: Path, payload_bytes: int, *, dense: bool = False) -> None:
        self.path = path
        self._payload_bytes = payload_bytes
        self._stride = HEADER.size + payload_bytes + (-payload_bytes) % 8
        self._place_of_key: MutableMapping[int, int] = FlatPlaces() if dense else {}
        self._free: list[int] = []
        self._places = 0
        self._sequence = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise PagingFailed(f"cannot open the page file {path}: {error}") from error
        with suppress(OSError):  # not every file system can
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._map: mmap.mmap | None = None
        self._touched_bytes = 0
        self.most_bytes: int | None = None
        """Up to here the file grows by more than it needs at once."""

    @staticmethod
    def temporary(
        page_dir: str | Path, what: str, payload_bytes: int, *, dense: bool = False
    ) -> PageFile:
        """A new file of its own name in `page_dir`, which is made where it is missing; files that
        nobody uses any more go.

        Without `page_dir` it is where the system keeps temporary files, and goes with the process.
        """
        folder = Path(page_dir or tempfile.gettempdir())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if page_dir:
                _remove_unused(folder)
            handle, name = tempfile.mkstemp(SUFFIX, f"{PREFIX}{what}-", folder)
        except OSError as error:
            raise PagingFailed(f"cannot write to {folder}: {error}; set page_dir") from error
        os.close(handle)
        pages = PageFile(Path(name), payload_bytes, dense=dense)
        if not page_dir:
            pages.path.unlink()
        return pages

    @staticmethod
    def open_existing(path: Path, payload_bytes: int) -> PageFile:
        """Open a file that another process left, with the newest whole record of every key."""
        pages = PageFile(path, payload_bytes)
        pages._recover()
        return pages

    def __len__(self) -> int:
        return len(self._place_of_key)

    def __contains__(self, key: int) -> bool:
        return key in self._place_of_key

    @property
    def keys(self) -> Iterable[int]:
        return self._place_of_key.keys()

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self._places * self._stride

    @property
    def used_bytes(self) -> int:
        """Of these, what records take; places of those that were forgotten are used again."""
        return len(self._place_of_key) * self._stride

    @property
    def reserved_bytes(self) -> int:
        """Disk that the file takes, also for records to come."""
        return 0 if self._map is None else len(self._map)

    def growth_for(self, count: int) -> int:
        """By how many bytes the file must grow to hold `count` records more."""
        more = count - len(self._free)
        return max((self._places + more) * self._stride - self.reserved_bytes, 0) if more > 0 else 0

    def write(self, key: int, payload: UInt8[np.ndarray, "n"]) -> None:
        """Keep `payload` under `key`; when this returns, the process may die and not lose it."""
        body = np.ascontiguousarray(payload).data
        if len(body) != self._payload_bytes:
            raise ValueError(f"a record of {len(body)} bytes in a file of {self._payload_bytes}")
        self._sequence += 1
        place = heapq.heappop(self._free) if self._free else self._new_place()
        at = place * self._stride
        pages = self._pages()
        checksum = _checksum(key, self._sequence, body)
        pages[at + HEADER.size : at + HEADER.size + len(body)] = body
        HEADER.pack_into(pages, at, MAGIC, checksum, key, self._sequence)
        older = self._place_of_key.get(key)
        self._place_of_key[key] = place
        if older is not None:
            self._release(older)
        self._let_go_of_pages()

    def read(self, key: int) -> UInt8[np.ndarray, "n"]:
        """A copy of the payload under `key`; raises `PagingFailed` when it is damaged."""
        at = self._place_of_key[key] * self._stride
        body = self._pages()[at + HEADER.size : at + HEADER.size + self._payload_bytes]
        magic, checksum, held_key, sequence = HEADER.unpack_from(self._pages(), at)
        if magic != MAGIC or held_key != key or checksum != _checksum(key, sequence, body):
            raise PagingFailed(f"record {key} of {self.path} is damaged; is the disk failing?")
        self._let_go_of_pages()
        return np.frombuffer(body, np.uint8)

    def forget(self, key: int) -> None:
        """The record is not needed any more."""
        place = self._place_of_key.pop(key, None)
        if place is not None:
            self._release(place)

    def close(self, *, delete: bool) -> None:
        """Unmap and close; with `delete` the file goes, too."""
        if self._map is not None:
            self._map.close()
            self._map = None
        os.close(self._file)
        if delete:
            self.path.unlink(missing_ok=True)

    def _release(self, place: int) -> None:
        self._void(place)
        heapq.heappush(self._free, place)

    def _void(self, place: int) -> None:
        """Void the place's header, so that a recovery does not take it for a record."""
        HEADER.pack_into(self._pages(), place * self._stride, 0, 0, 0, 0)

    def _let_go_of_pages(self) -> None:
        """Called for each record that was touched."""
        self._touched_bytes += self._stride
        if self._touched_bytes > RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._pages().madvise(mmap.MADV_DONTNEED)
            self._touched_bytes = 0

    def _new_place(self) -> int:
        place = self._places
        self._places += 1
        end = self._places * self._stride
        if self._map is None or len(self._map) < end:
            self._grow(end)
        return place

    def _grow(self, end: int) -> None:
        """Reserve disk before mapping it: a full disk must be an error, not a SIGBUS."""
        size = end + max(GROWTH_BYTES, end // 4)
        if self.most_bytes is not None:
            size = max(min(size, self.most_bytes), end)
        try:
            try:
                os.posix_fallocate(self._file, 0, size)
            except OSError:  # as much as there is need for
                size = end
                os.posix_fallocate(self._file, 0, size)
        except OSError as error:
            self._places -= 1
            message = f"no room for {size / 1e6:.0f} MB in {self.path}; free some or set page_dir"
            raise PagingFailed(message) from error
        if self._map is not None:
            self._map.close()
        self._map = mmap.mmap(self._file, size)

    def _pages(self) -> mmap.mmap:
        assert self._map is not None  # a record exists only after the file was mapped
        return self._map

    def _recover(self) -> None:
        size = os.fstat(self._file).st_size
        if size < self._stride:
            return
        self._map = mmap.mmap(self._file, size)
        self._places = size // self._stride
        newest: dict[int, int] = {}
        whole_places: list[int] = []
        for place in range(self._places):
            at = place * self._stride
            magic, checksum, key, sequence = HEADER.unpack_from(self._map, at)
            body = self._map[at + HEADER.size : at + HEADER.size + self._payload_bytes]
            whole = magic == MAGIC and checksum == _checksum(key, sequence, body)
            if not whole:
                continue
            whole_places.append(place)
            self._sequence = max(self._sequence, sequence)
            if sequence > newest.get(key, 0):
                newest[key] = sequence
                self._place_of_key[key] = place
        used = set(self._place_of_key.values())
        for place in set(whole_places) - used:  # else it comes back once the newer one is forgotten
            self._void(place)
        self._free = [place for place in range(self._places) if place not in used]


def _remove_unused(folder: Path) -> None:
    """Remove page files that no process has open.

    One that is just being begun may lose its name before it is locked; whoever has it open can use
    it none the less.
    """
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # in use, or another user's
            handle = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def _checksum(key: int, sequence: int, body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(struct.pack("<qQ", key, sequence)))
