# SPDX-License-Identifier: Apache-2.0
"""The surface as blocks with versions: what every client's copy should look like."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int, Int32

from worldsystem_core.surface import BlockIndex
from worldsystem_mesh.cells import NO_CELLS, SurfaceCells, joined
from worldsystem_mesh.extraction import Extracted
from worldsystem_mesh.segments import SegmentStore, on_its_own

FIRST_CAPACITY = 1 << 16
NOWHERE = -1
LEAST_LIVE_SHARE = 0.5
TIDIED_AT_ONCE = 2
TIDY_AMONG = 64
INDEX_BYTES = 48


class SurfaceStore:
    """Newest surface code of every block; a block's version is the sequence number of its last
    change, also when it lost its surface. Blocks have the volume's numbers.

    No step takes time for the whole map: an update adds one segment of code, and while most of what
    is kept is stale, segments that are mostly stale are copied together, a few at a time.
    """

    def __init__(self, budget_bytes: int, page_dir: str = "") -> None:
        self.sequence = 0
        self.block_count = 0
        self.vertex_total = 0
        self.face_total = 0
        self._segments = SegmentStore(budget_bytes, page_dir)
        self._live: dict[int, int] = {}
        self._size: dict[int, int] = {}
        self._kept = 0
        self._members: dict[int, Int32[np.ndarray, "n"]] = {}
        self._turns: deque[int] = deque()
        self._index = np.zeros((FIRST_CAPACITY, 3), np.int32)
        self._columns: dict[str, np.ndarray] = {
            name: np.zeros(FIRST_CAPACITY, dtype) for name, dtype in COLUMNS.items()
        }
        self._columns["segment"][:] = NOWHERE
        self._highest = 0

    @property
    def bytes(self) -> int:
        """Memory of the code and of the places of all blocks."""
        return self._segments.bytes + self._highest * INDEX_BYTES

    @property
    def disk_bytes(self) -> int:
        return self._segments.disk_bytes

    def update(self, surfaces: Iterable[Extracted]) -> tuple[SurfaceCells, tuple[BlockIndex, ...]]:
        """Take in new surfaces; return the code of those that differ and the indices of those gone.

        The sequence number grows by one when there are any.
        """
        version = self.sequence + 1
        changed: list[SurfaceCells] = []
        gone: list[BlockIndex] = []
        for surface in surfaces:
            self._reach(int(surface.blocks.max(initial=0)) + 1)
            drawn = surface.cells.face_counts > 0
            had = self._columns["segment"][surface.blocks] != NOWHERE
            same = self._columns["fingerprint"][surface.blocks] == surface.fingerprint
            gone += self._drop(surface, had & ~drawn, version)
            changed += self._replace(surface, drawn & ~(had & same), version)
        if changed or gone:
            self.sequence = version
        self._tidy()
        return joined(changed), tuple(gone)

    def has_surface(self, ids: Int[np.ndarray, "b"]) -> Bool[np.ndarray, "b"]:
        """Whether each block has one; of any numbers."""
        found = np.zeros(len(ids), bool)
        known = ids < len(self._index)
        found[known] = self._columns["segment"][ids[known]] != NOWHERE
        return found

    def all_ids(self) -> Int32[np.ndarray, "b"]:
        """Blocks that have a surface."""
        return self.ids_newer_than(0)

    def ids_newer_than(self, sequence: int) -> Int32[np.ndarray, "b"]:
        """Blocks that have a surface and changed after `sequence`."""
        return self._found(sequence, lost=False)

    def removed_newer_than(self, sequence: int) -> Int32[np.ndarray, "b"]:
        """Blocks that lost their surface after `sequence`."""
        return self._found(sequence, lost=True)

    def index(self, ids: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b 3"]:
        """Block indices."""
        return np.asarray(self._index[ids])

    def version(self, ids: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b"]:
        return np.asarray(self._columns["version"][ids])

    def vertex_count(self, ids: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b"]:
        return np.asarray(self._columns["vertices"][ids])

    def face_count(self, ids: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b"]:
        return np.asarray(self._columns["faces"][ids])

    def cells(self, ids: Int[np.ndarray, "b"]) -> SurfaceCells:
        """Code of blocks that have a surface, in the order asked for."""
        ids = np.asarray(ids, np.int64)
        segments = self._columns["segment"][ids]
        order = np.argsort(segments, kind="stable")
        parts = []
        for segment in np.unique(segments).tolist():
            rows = self._columns["row"][ids[order[segments[order] == segment]]]
            parts.append(self._segments.get(segment).taken(rows))
        back = np.empty(len(ids), np.int64)
        back[order] = np.arange(len(ids))
        together = joined(parts)
        if len(parts) > 1 or not (back == np.arange(len(ids))).all():
            together = together.taken(back)
        return replace(together, version=self.version(ids))

    def cells_of(self, ids: Int[np.ndarray, "b"]) -> SurfaceCells:
        """As `cells`, for any blocks; those without a surface have no cells."""
        self._reach(int(ids.max(initial=-1)) + 1)
        held = self._columns["segment"][ids] != NOWHERE
        found = self.cells(ids[held]) if held.any() else NO_CELLS
        counts = {}
        for name, start in (("vertex", found.vertex_start), ("cell", found.cell_start)):
            counts[name] = np.zeros(len(ids) + 1, np.int32)
            counts[name][1:][held] = np.diff(start)
        return replace(
            found,
            index=self.index(ids),
            version=self.version(ids),
            vertex_start=np.cumsum(counts["vertex"], dtype=np.int32),
            cell_start=np.cumsum(counts["cell"], dtype=np.int32),
            face_counts=np.where(held, self._columns["faces"][ids], 0).astype(np.int32),
        )

    def renew(self) -> Int32[np.ndarray, "b"]:
        """Give all blocks a new version, as when the length of a voxel changed; return them."""
        ids = self.all_ids()
        self.sequence += 1
        self._columns["version"][ids] = self.sequence
        return ids

    def close(self) -> None:
        """Give up the page file."""
        self._segments.close()

    def _found(self, sequence: int, *, lost: bool) -> Int32[np.ndarray, "b"]:
        newer = self._columns["version"][: self._highest] > sequence
        nowhere = self._columns["segment"][: self._highest] == NOWHERE
        return np.nonzero(newer & (nowhere == lost))[0].astype(np.int32)

    def _reach(self, capacity: int) -> None:
        """Have room for blocks of numbers below `capacity`."""
        self._highest = max(self._highest, capacity)
        held = len(self._index)
        if capacity <= held:
            return
        room = max(2 * held, capacity)
        self._index = np.concatenate([self._index, np.zeros((room - held, 3), np.int32)])
        for name, column in self._columns.items():
            empty = np.full(room - held, NOWHERE if name == "segment" else 0, column.dtype)
            self._columns[name] = np.concatenate([column, empty])

    def _replace(
        self, surface: Extracted, chosen: Bool[np.ndarray, "b"], version: int
    ) -> list[SurfaceCells]:
        rows = np.nonzero(chosen)[0]
        if not len(rows):
            return []
        blocks = surface.blocks[rows]
        self._forget(blocks)
        cells = surface.cells if len(rows) == len(chosen) else surface.cells.taken(rows)
        cells = replace(cells, version=np.full(len(rows), version, np.int32))
        self._columns["fingerprint"][blocks] = surface.fingerprint[rows]
        self._columns["version"][blocks] = version
        self._index[blocks] = cells.index
        self._place(blocks, cells)
        self._count(blocks, 1)
        return [cells]

    def _drop(
        self, surface: Extracted, chosen: Bool[np.ndarray, "b"], version: int
    ) -> list[BlockIndex]:
        blocks = surface.blocks[chosen]
        if not len(blocks):
            return []
        self._forget(blocks)
        self._columns["segment"][blocks] = NOWHERE
        self._columns["version"][blocks] = version
        return [(x, y, z) for x, y, z in self._index[blocks].tolist()]

    def _place(self, blocks: Int[np.ndarray, "n"], cells: SurfaceCells) -> None:
        """Keep the code as a segment and remember where each block is in it."""
        own = cells if self._segments.is_large(cells) else on_its_own(cells)
        segment = self._segments.add(own, self._highest * INDEX_BYTES)
        self._columns["segment"][blocks] = segment
        self._columns["row"][blocks] = np.arange(len(blocks))
        self._columns["vertices"][blocks] = np.diff(cells.vertex_start)
        self._columns["faces"][blocks] = cells.face_counts
        self._live[segment] = self._size[segment] = len(cells.edges)
        self._kept += len(cells.edges)
        self._members[segment] = blocks.astype(np.int32)
        self._turns.append(segment)

    def _forget(self, blocks: Int[np.ndarray, "n"]) -> None:
        """The newest code of these blocks becomes stale."""
        held = blocks[self._columns["segment"][blocks] != NOWHERE]
        self._count(held, -1)
        segments, owner = np.unique(self._columns["segment"][held], return_inverse=True)
        stale = np.bincount(owner, self._columns["vertices"][held], minlength=len(segments))
        for segment, count in zip(segments.tolist(), stale.tolist(), strict=True):
            self._live[segment] -= int(count)
            if self._live[segment] <= 0:
                self._discard(segment)

    def _count(self, blocks: Int[np.ndarray, "n"], sign: int) -> None:
        self.block_count += sign * len(blocks)
        self.vertex_total += sign * int(self._columns["vertices"][blocks].sum())
        self.face_total += sign * int(self._columns["faces"][blocks].sum())

    def _discard(self, segment: int) -> None:
        self._segments.drop(segment)
        self._kept -= self._size.pop(segment)
        del self._live[segment], self._members[segment]

    def _tidy(self) -> None:
        """Copy together what is live of some segments, on disk or not, that are mostly stale.

        Segments that nothing is live in any more go without this, so it waits until it must.
        """
        if self._kept * LEAST_LIVE_SHARE <= self.vertex_total:
            return
        stale: list[int] = []
        for _ in range(min(TIDY_AMONG, len(self._turns))):
            segment = self._turns.popleft()
            if segment not in self._live:
                continue
            self._turns.append(segment)
            if self._live[segment] < LEAST_LIVE_SHARE * self._size[segment]:
                stale.append(segment)
            if len(stale) == TIDIED_AT_ONCE:
                break
        if stale:
            self._copy_together(stale)

    def _copy_together(self, segments: list[int]) -> None:
        members = [self._members[segment] for segment in segments]
        blocks = np.concatenate(
            [
                ids[self._columns["segment"][ids] == segment]
                for ids, segment in zip(members, segments, strict=True)
            ]
        )
        cells = self.cells(blocks)
        for segment in segments:
            self._discard(segment)
        self._place(blocks, cells)


COLUMNS: dict[str, type] = {
    "version": np.int32,
    "segment": np.int32,
    "row": np.int32,
    "vertices": np.int32,
    "faces": np.int32,
    "fingerprint": np.int64,
}
