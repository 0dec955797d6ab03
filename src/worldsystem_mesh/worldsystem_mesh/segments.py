# SPDX-License-Identifier: Apache-2.0
"""Surface code in memory and on disk: what one update made lies together in a segment."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import fields, replace

import numpy as np
from jaxtyping import UInt8

from worldsystem_core.pages import in_own_pages
from worldsystem_mesh.cells import NO_CELLS, SurfaceCells
from worldsystem_mesh.page_file import PageFile, PagingFailed

log = logging.getLogger(__name__)

RECORD_BYTES = 1 << 16
"""A segment goes to disk in pieces of this size."""

CACHED_SEGMENTS = 8

LARGE_BYTES = 1 << 16
MOST_LARGE = 1 << 14
"""A quarter of the mappings that Linux gives a process."""


class SegmentStore:
    """Segments by number, the oldest on disk when they are more than `budget_bytes` together."""

    def __init__(self, budget_bytes: int, page_dir: str) -> None:
        self.bytes = 0
        self._budget_bytes = budget_bytes
        self._page_dir = page_dir
        self._held: OrderedDict[int, SurfaceCells] = OrderedDict()
        self._on_disk: dict[int, int] = {}
        self._cache: OrderedDict[int, SurfaceCells] = OrderedDict()
        self._pages: PageFile | None = None
        self._next = 0
        self._is_stuck = False

    @property
    def disk_bytes(self) -> int:
        return self._pages.size_bytes if self._pages else 0

    def add(self, cells: SurfaceCells, other_bytes: int = 0) -> int:
        """Keep a segment; return its number. Others use `other_bytes` of the budget."""
        number, self._next = self._next, self._next + 1
        if self.is_large(cells):
            cells = beside_the_heap(cells)
        self._held[number] = cells
        self.bytes += cells.bytes
        while self.bytes + other_bytes > self._budget_bytes and len(self._held) > 1:
            if not self._page_out():
                break
        return number

    def is_large(self, cells: SurfaceCells) -> bool:
        """Whether `add` keeps a copy; else it keeps what it is given."""
        return cells.bytes >= max(LARGE_BYTES, self._budget_bytes // MOST_LARGE)

    def get(self, number: int) -> SurfaceCells:
        """The segment, read back when it is on disk."""
        if number in self._held:
            return self._held[number]
        if number not in self._cache:
            self._cache[number] = self._read(number)
            if len(self._cache) > CACHED_SEGMENTS:
                self._cache.popitem(last=False)
        return self._cache[number]

    def drop(self, number: int) -> None:
        """Nothing in the segment is needed any more."""
        cells = self._held.pop(number, None)
        if cells is not None:
            self.bytes -= cells.bytes
        self._cache.pop(number, None)
        size = self._on_disk.pop(number, None)
        if size is not None:
            assert self._pages is not None  # the segment was written
            for piece in range(_pieces(size)):
                self._pages.forget(_key(number, piece))

    def close(self) -> None:
        """Delete the page file."""
        if self._pages is not None:
            self._pages.close(delete=True)
            self._pages = None

    def _page_out(self) -> bool:
        """Move the oldest to disk; False where there is no room: it stays, beyond the budget."""
        number, cells = next(iter(self._held.items()))
        packed = pack(cells)
        try:
            if self._pages is None:
                self._pages = PageFile.temporary(self._page_dir, "surface", RECORD_BYTES)
            for piece in range(_pieces(len(packed))):
                body = np.zeros(RECORD_BYTES, np.uint8)
                part = packed[piece * RECORD_BYTES : (piece + 1) * RECORD_BYTES]
                body[: len(part)] = part
                self._pages.write(_key(number, piece), body)
        except PagingFailed as error:
            if not self._is_stuck:
                log.warning("the surface takes more memory than its budget: %s", error)
            self._is_stuck = True
            return False
        self._is_stuck = False
        self._on_disk[number] = len(packed)
        del self._held[number]
        self.bytes -= cells.bytes
        return True

    def _read(self, number: int) -> SurfaceCells:
        size = self._on_disk[number]
        assert self._pages is not None  # the segment was written
        parts = [self._pages.read(_key(number, piece)) for piece in range(_pieces(size))]
        return unpack(np.concatenate(parts)[:size])


def beside_the_heap(cells: SurfaceCells) -> SurfaceCells:
    """A copy in pages of its own: what stays long leaves holes in the heap when it goes."""
    names = [field.name for field in fields(cells)]
    copies = in_own_pages(*(np.ascontiguousarray(getattr(cells, name)) for name in names))
    return SurfaceCells(**dict(zip(names, copies, strict=True)))


def on_its_own(cells: SurfaceCells) -> SurfaceCells:
    """The code with copies of columns that are parts of others, which would stay as long."""
    columns = {field.name: getattr(cells, field.name) for field in fields(cells)}
    copies = {name: array.copy() for name, array in columns.items() if array.base is not None}
    return replace(cells, **copies) if copies else cells


def _pieces(size: int) -> int:
    return -(-size // RECORD_BYTES)


def _key(number: int, piece: int) -> int:
    return (number << 16) | piece


def pack(cells: SurfaceCells) -> UInt8[np.ndarray, "n"]:
    """All columns in one array of bytes, the number of blocks, vertices and cells before them."""
    sizes = np.array([len(cells), len(cells.edges), len(cells.cells)], np.int64)
    columns = [np.ascontiguousarray(getattr(cells, field.name)) for field in fields(cells)]
    return np.concatenate([array.reshape(-1).view(np.uint8) for array in (sizes, *columns)])


def unpack(packed: UInt8[np.ndarray, "n"]) -> SurfaceCells:
    """The inverse of `pack`."""
    blocks, vertices, cells = (int(n) for n in packed[:24].view(np.int64))
    lengths = {"vertex_start": blocks + 1, "cell_start": blocks + 1}
    lengths |= dict.fromkeys(("edges", "shares", "colours"), vertices)
    lengths |= dict.fromkeys(("cells", "cases"), cells)
    at, columns = 24, {}
    for field in fields(SurfaceCells):
        like = getattr(NO_CELLS, field.name)
        shape = (lengths.get(field.name, blocks), *like.shape[1:])
        end = at + int(np.prod(shape)) * like.itemsize
        columns[field.name] = packed[at:end].copy().view(like.dtype).reshape(shape)
        at = end
    return SurfaceCells(**columns)
