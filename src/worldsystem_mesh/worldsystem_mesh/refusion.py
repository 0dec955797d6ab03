# SPDX-License-Identifier: Apache-2.0
"""Moving what is already built: blocks that moved keyframes are in are made anew, a few at a time.

A block is emptied and gets all its views again, in the order in which they first came. So the
volume becomes, bit for bit, what fusing at the final poses would have made it, whatever was rounded
or had reached its limit before; and a block that fifty moved keyframes see is made once, not taken
apart and put together fifty times.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int32, Int64

from worldsystem_mesh.archived_view import grown
from worldsystem_mesh.device_view import DeviceView
from worldsystem_mesh.view import StoredView
from worldsystem_mesh.view_store import ViewStore
from worldsystem_mesh.volume import BlockVolume
from worldsystem_mesh.waiting_blocks import WaitingBlocks, by_chunk

MOST_ON_CUDA = 256
"""Views uploaded at once; on a CPU all that are in memory anyway are ready."""

PAIRS_AT_ONCE = 16384
LEAST_BLOCKS = 8
TURN_OF_COUNTS = 4.0
FIRST_GUESS_PAIRS_PER_S = 20_000.0
BORN_NEVER = np.iinfo(np.int32).max


class Refusion:
    """Queue of moved views and of the blocks that wait to be made anew, nearest first."""

    def __init__(self, volume: BlockVolume, views: ViewStore) -> None:
        self._volume = volume
        self._views = views
        self._planned: OrderedDict[int, StoredView | None] = OrderedDict()
        self._at_the_end: dict[int, StoredView] = {}
        self._seen_in_chunk: defaultdict[int, dict[int, Int64[np.ndarray, "n"]]] = defaultdict(dict)
        self._born = np.full(max(volume.block_count, 1), BORN_NEVER, np.int32)
        self._births_changed = False
        self._chunks_of_view: dict[int, list[int]] = {}
        self._unentered: dict[int, None] = {}
        self._waiting = WaitingBlocks(volume)
        self._left_by: dict[int, Int32[np.ndarray, "n"]] = {}
        self._left_before_move: dict[int, Int32[np.ndarray, "n"]] = {}
        self._row = np.zeros(0, np.int32)
        self._on_device: OrderedDict[int, tuple[StoredView, DeviceView]] = OrderedDict()
        self._pairs_per_s = FIRST_GUESS_PAIRS_PER_S
        self._pairs_per_block = 8.0
        self._ahead_s = 0.0  # by how much longer views were placed than blocks made meanwhile
        self._turn_s = 0.0
        self._is_planning = True
        self.pairs_done = 0
        self.on_placed: Callable[[Int32[np.ndarray, "b"], int], None] = lambda _band, _order: None
        """Called with the blocks near the surface that a view sees from where it went, and with the
        view's order."""

        views.on_unloaded = self._unload
        views.on_evicted = self._lose

    @property
    def is_idle(self) -> bool:
        return not self._planned and self._waiting.is_empty

    @property
    def waiting_views(self) -> int:
        return len(self._planned)

    @property
    def waiting_blocks(self) -> int:
        return self._waiting.count

    def note_added(self, view: StoredView, *, is_fused: bool) -> None:
        """A view was stored; what lies near it will be made anew first. One that is not fused yet
        waits with its blocks."""
        self._waiting.near = view.world_from_cam[:3, 3] / self._volume.voxel / 8.0
        self._unentered[view.id] = None
        self._bear(view.band, view.order)
        if not is_fused:
            self._waiting.add(view.blocks)

    def move(self, view: StoredView) -> None:
        """`view`, an outline with its new pose or scale, takes the place of the stored one. What it
        stands in for so far goes then; what it will stand in for meanwhile stays."""
        self._at_the_end.pop(view.id, None)
        self._planned[view.id] = view
        left = self._left_by.pop(view.id, None)
        if left is not None:
            before = self._left_before_move.get(view.id, left[:0])
            self._left_before_move[view.id] = np.union1d(before, left)

    def move_at_the_end(self, view: StoredView) -> None:
        """As `move`, but only when `finish` is called: it moved too little to count before."""
        self._at_the_end[view.id] = view

    def stay(self, id: int) -> None:
        """The view of this id, which is not about to move, lies where it belongs after all."""
        self._at_the_end.pop(id, None)

    def remove(self, id: int, heir: int | None = None) -> bool:
        """The stored view of this id is to leave the volume; whether its share stays.

        Where the view of `heir` stands in for it and it was where it belongs, its blocks stay as
        they are until that view is told to move or to go.
        """
        self._at_the_end.pop(id, None)
        if heir is None or id in self._planned or heir not in self._views:
            self._planned[id] = None
            return False
        view = self._views.pop(id)
        assert view is not None  # the mesher asks only for stored ones
        self._leave(view)
        left = [self._left_by.pop(id, view.blocks[:0]), self._left_by.get(heir, view.blocks[:0])]
        blocks = np.unique(np.concatenate([view.blocks, *left]))
        self._left_by[heir] = blocks[self._volume.pool.holds(blocks)]
        return True

    def best_heir(self, gone: StoredView, others: list[StoredView]) -> int | None:
        """Who of the others stands in best: the nearest, one that is about to move only where there
        is no other."""
        eye = gone.world_from_cam[:3, 3]

        def strangeness(other: StoredView) -> tuple[bool, float]:
            moves = self.planned(other.id) is not None
            return moves, float(np.linalg.norm(other.world_from_cam[:3, 3] - eye))

        return min(others, key=strangeness).id if others else None

    def planned(self, id: int) -> StoredView | None:
        """Where a view is to go, when it is not there yet."""
        return self._planned.get(id)

    def destination(self, id: int) -> StoredView | None:
        """The same, also of one that moved too little to count before `finish`."""
        return self._planned.get(id) or self._at_the_end.get(id)

    def rescale(self, ratio: float) -> None:
        """The root has another unit, of which `ratio` make one of before; the stored views and the
        volume are in it already."""
        for number, view in self._planned.items():
            self._planned[number] = None if view is None else grown(view, ratio)
        for number, view in self._at_the_end.items():
            self._at_the_end[number] = grown(view, ratio)
        self._on_device.clear()  # lengths in voxels are rounded otherwise now

    def forget(self, id: int) -> None:
        """The view of this id is about to be replaced: its blocks are made anew without it."""
        self._planned.pop(id, None)
        self._at_the_end.pop(id, None)
        view = self._views.pop(id)
        if view is not None:
            self._leave(view)
            self._waiting.add(view.blocks)
            self._wait_for(self._left_before_move, id)
            self._wait_for(self._left_by, id)

    def is_due(self, blocks: Int32[np.ndarray, "b"]) -> Bool[np.ndarray, "b"]:
        """Whether each block waits, and is in the band of a view: it may get a surface."""
        due = self._waiting.has(blocks)
        known = blocks < len(self._born)
        due[known] &= self._born[blocks[known]] != BORN_NEVER
        return np.asarray(due & known)

    def let_go(self, blocks: Int32[np.ndarray, "b"]) -> None:
        """These blocks have lost their voxels: what waits of them does so no longer."""
        self._waiting.let_go(blocks)

    def work(self, budget_s: float, *, plan_first: bool = False) -> None:
        """Go on for about `budget_s`: views are placed and blocks made in turns that take equally
        long, or all views first. Where every keyframe moves again before all are placed, blocks
        would else never be made."""
        now = time.perf_counter()
        end = now + budget_s
        while not self.is_idle and now < end:
            began = now
            plans = bool(self._planned) and (plan_first or self._is_turn_to_plan())
            if plans:
                self._plan_one()
            else:
                self._go_on_making(end - now)
            now = time.perf_counter()
            if plans:
                self._ahead_s += now - began
            elif self._planned:
                self._ahead_s += began - now

    def _is_turn_to_plan(self) -> bool:
        """Turns are several times as long as counting births, which each change of turn costs."""
        if self._ahead_s > self._turn_s:
            self._is_planning = False
        elif self._ahead_s < -self._turn_s:
            self._is_planning = True
        return self._is_planning or self._waiting.is_empty

    def _go_on_making(self, left_s: float) -> None:
        if self._unentered:
            self._enter(self._views.held(self._unentered.popitem()[0]))
            return
        if self._births_changed:
            began = time.perf_counter()
            self._count_births()
            self._turn_s = TURN_OF_COUNTS * (time.perf_counter() - began)
        self._make_some(min(int(left_s * self._pairs_per_s), PAIRS_AT_ONCE))

    def finish(self) -> None:
        """Work until nothing waits. One that stands in for older views and moved too little to
        count stays: what these gave would go."""
        for number in list(self._at_the_end):
            view = self._at_the_end.pop(number)
            if number not in self._left_by:
                self._planned.setdefault(number, view)
        while not self.is_idle:
            self.work(1.0, plan_first=True)

    def _plan_one(self) -> None:
        """Find the new blocks of one moved view; its old and new blocks wait from now on."""
        number, outline = self._planned.popitem(last=False)
        self._births_changed = True
        if outline is None:
            self.forget(number)
            return
        held = self._views.get(number)
        if held is None:
            return
        self._leave(held)
        self._waiting.add(held.blocks)
        self._wait_for(self._left_before_move, number)
        self._views.update(outline)
        whole = self._views.get(number)
        assert whole is not None  # it was just updated
        touched = self._touched(whole, held.band)
        self._views.update(touched)
        self._bear(touched.band, touched.order)
        self.on_placed(touched.band, touched.order)
        self._on_device.pop(number, None)
        self._enter(touched)
        self._waiting.add(touched.blocks)

    def _touched(self, view: StoredView, before: Int32[np.ndarray, "b"]) -> StoredView:
        """`view` with the blocks that it belongs into. Those it had in its band `before`, and which
        were forgotten since, stay so."""
        forgotten = before[~self._volume.pool.holds(before)]
        touched = self._volume.touch(view)
        if len(forgotten):
            self._volume.release(np.intersect1d(touched.blocks, forgotten, assume_unique=True))
        return touched

    def _wait_for(self, left_by: dict[int, Int32[np.ndarray, "n"]], id: int) -> None:
        """What older views gave for which this one stood in is where this one was."""
        left = left_by.pop(id, None)
        if left is not None:
            self._waiting.add(left)

    def _count_births(self) -> None:
        """A view sees through a block only if another before it had put a surface near it: known
        once all views are where they go."""
        self._births_changed = False
        self._born = np.full(self._volume.block_count, BORN_NEVER, np.int32)
        for view in reversed(self._views.outlines()):
            self._born[view.band] = view.order

    def _bear(self, band: Int32[np.ndarray, "b"], order: int) -> None:
        if not len(band):
            return
        reach = int(band.max()) + 1
        if reach > len(self._born):
            more = np.full(max(reach, 2 * len(self._born)) - len(self._born), BORN_NEVER, np.int32)
            self._born = np.concatenate([self._born, more])
        self._born[band] = np.minimum(self._born[band], order)

    def _enter(self, view: StoredView) -> None:
        """Note in each chunk which of its blocks the view belongs into: twice a block's number, and
        one more where the view sees through it. Done only once something moves: often nothing
        does."""
        packed = np.concatenate(
            [2 * view.band.astype(np.int64), 2 * view.free.astype(np.int64) + 1]
        )
        chunks = []
        for chunk, part in by_chunk(packed, self._volume.coords(packed >> 1)):
            self._seen_in_chunk[chunk][view.id] = part
            chunks.append(chunk)
        self._chunks_of_view[view.id] = chunks

    def _leave(self, view: StoredView) -> None:
        self._unentered.pop(view.id, None)
        for chunk in self._chunks_of_view.pop(view.id, ()):
            seen = self._seen_in_chunk[chunk]
            seen.pop(view.id, None)
            if not seen:
                del self._seen_in_chunk[chunk]

    def _make_some(self, most_pairs: int) -> None:
        """Make the next waiting blocks anew, as many as the pairs of block and view allow."""
        wanted = max(int(most_pairs / self._pairs_per_block), LEAST_BLOCKS)
        wanted = min(wanted, max(self._volume.slot_limit // 2, 1))
        chunks: list[int] = []
        parts: list[Int32[np.ndarray, "n"]] = []
        for chunk in self._waiting.next_chunks():
            chunks.append(chunk)
            parts.append(self._waiting.take(chunk, wanted))
            wanted -= len(parts[-1])
            if wanted <= 0:
                break
        started = time.perf_counter()
        blocks = np.concatenate(parts)
        pairs = self._make(blocks, *self._pairs(chunks, blocks))
        speed = pairs / max(time.perf_counter() - started, 1e-6)
        self._pairs_per_s += 0.4 * (speed - self._pairs_per_s)
        self._pairs_per_block += 0.2 * (max(pairs / len(blocks), 1.0) - self._pairs_per_block)
        self.pairs_done += pairs

    def _pairs(
        self, chunks: list[int], blocks: Int32[np.ndarray, "b"]
    ) -> tuple[list[int], Int32[np.ndarray, "b+1"], Int32[np.ndarray, "p"]]:
        """Views that belong into the blocks, in order, and per block which of them do."""
        seen = [part for chunk in chunks for part in self._seen_in_chunk.get(chunk, {}).items()]
        order_of = {number: self._views.held(number).order for number, _ in seen}
        numbers = sorted(order_of, key=order_of.__getitem__)
        if not numbers:
            return [], np.zeros(len(blocks) + 1, np.int32), np.zeros(0, np.int32)
        place = {number: i for i, number in enumerate(numbers)}
        packed = np.concatenate([part for _, part in seen])
        lengths = [len(part) for _, part in seen]
        view = np.repeat(np.array([place[number] for number, _ in seen], np.int32), lengths)
        orders = np.array([order_of[number] for number in numbers], np.int32)
        row = self._rows(packed >> 1, blocks)
        is_band = (packed & 1) == 0
        kept = (row >= 0) & (is_band | (self._born[packed >> 1] < orders[view]))
        used, turn = np.unique(view[kept], return_inverse=True)
        row = row[kept]
        sorting = np.lexsort((turn, row))
        start = np.zeros(len(blocks) + 1, np.int32)
        np.cumsum(np.bincount(row, minlength=len(blocks)), out=start[1:])
        return [numbers[i] for i in used.tolist()], start, turn[sorting].astype(np.int32)

    def _rows(
        self, wanted: Int64[np.ndarray, "n"], blocks: Int32[np.ndarray, "b"]
    ) -> Int32[np.ndarray, "n"]:
        """Where in `blocks` each of the wanted ones is, or -1."""
        if len(self._row) < self._volume.block_count:
            self._row = np.full(2 * self._volume.block_count, -1, np.int32)
        self._row[blocks] = np.arange(len(blocks), dtype=np.int32)
        found = self._row[wanted]
        self._row[blocks] = -1
        return np.asarray(found)

    def _make(
        self,
        blocks: Int32[np.ndarray, "b"],
        numbers: list[int],
        start: Int32[np.ndarray, "b+1"],
        view_of_pair: Int32[np.ndarray, "p"],
    ) -> int:
        """Make the blocks anew from the views that saw them; return the pairs of both."""
        self._volume.make_resident(blocks)
        views = [self._device_view(number) for number in numbers]
        self._volume.rebuild(blocks, views, start, view_of_pair)
        return len(view_of_pair)

    def _lose(self, view: StoredView) -> None:
        """Cancel what is planned for a view that left the store for good. What it gave to the
        surface stays until its blocks are made anew for another reason."""
        self._planned.pop(view.id, None)
        self._at_the_end.pop(view.id, None)
        self._left_before_move.pop(view.id, None)
        self._left_by.pop(view.id, None)
        self._leave(view)

    def _unload(self, id: int) -> None:
        self._on_device.pop(id, None)

    def _device_view(self, id: int) -> DeviceView:
        held = self._on_device.get(id)
        if held is None:
            view = self._views.get(id)
            assert view is not None  # it is in the index of chunks
            on_device = self._volume.on_device(view)
            assert on_device is not None  # it has blocks, so its camera is within the lattice
            held = (view, on_device)
            self._on_device[id] = held
            if self._volume.is_on_cuda and len(self._on_device) > MOST_ON_CUDA:
                self._on_device.popitem(last=False)
        return held[1]
