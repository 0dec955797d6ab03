# SPDX-License-Identifier: Apache-2.0
"""How one page gets the surface: raw, or in the block code and within a budget."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from typing import Any, Protocol

import numpy as np

from worldsystem_core.mesh_stream.link import PARCELS_AT_ONCE, MeshLink, Parcel
from worldsystem_core.surface import MeshBlock
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.mesh_message import MeshChange
from worldsystem_viewer.protocol import MeshCode, Message, encode
from worldsystem_viewer.world import Cursor, World

_MESSAGE_VERTICES = 60_000
_CACHED_MESSAGES = 16
_ROUNDS = (1, 4, 16)
_PERIOD_PER_PAGE_S = 0.02  # many pages share what mapping leaves of the processor
_FASTEST_MBPS = 1e6  # a page may name a number that no float holds
_SHARE = 0.08  # of a processor that several pages may take from those who map
_LONGEST_S = 2.0  # that they wait for that
_LOOPBACK = ("127.0.0.1", "::1")


class MeshFeed(Protocol):
    """What a page is sent of the surface, message by message."""

    async def next(self, pages: int) -> list[bytes]:
        """What is to be sent now, while so many pages are served."""
        ...


class SurfaceRounds:
    """Common steps in which pages on fast lines follow the surface, so that each is encoded once.

    A round ends at one change for all, and the next begins `period_s(pages)` later, for several
    pages only once the thread that serves them has rested: so many pages of a surface that changes
    fast, or a slow processor, make rounds longer, and the pipeline no slower. A page that missed
    rounds is sent the newest of the last 1, 4 or 16, some of which it may have already;
    one that missed more gets messages of its own and then is in step again.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._ends: deque[int] = deque([0], maxlen=_ROUNDS[-1] + 1)
        self._due_s = 0.0
        self._began_s = self._busy_s = 0.0
        self._parts: OrderedDict[tuple[int, int], _Part] = OrderedDict()

    def step(self, change: int, now_s: float, pages: int) -> tuple[int, int]:
        """From where to where a page is to be taken that has everything up to `change`."""
        if now_s >= self._due_s and (pages <= 1 or self._has_rested(now_s)):
            self._due_s = now_s + period_s(pages)
            self._began_s, self._busy_s = now_s, time.thread_time()
            if self._world.change > self._ends[-1]:
                self._ends.append(self._world.change)
        until = self._ends[-1]
        for rounds in _ROUNDS:
            if rounds < len(self._ends) and self._ends[-1 - rounds] <= change:
                return self._ends[-1 - rounds], until
        return change, until

    def _has_rested(self, now_s: float) -> bool:
        since_s, busy_s = now_s - self._began_s, time.thread_time() - self._busy_s
        return busy_s <= _SHARE * since_s or since_s >= _LONGEST_S

    def message(self, since: int, until: int) -> tuple[int, bytes]:
        """The oldest changes between, as bytes, and how far they reach."""
        if (since, until) not in self._parts:
            for change in self._world.newer_meshes(since, _MESSAGE_VERTICES, until):
                self._parts[change.since, until] = _Part(change)
            while len(self._parts) > _CACHED_MESSAGES and next(iter(self._parts)) != (since, until):
                self._parts.popitem(last=False)
        return self._parts[since, until].message()


class _Part:
    """A part of the changes of a round, encoded when the first page is sent it."""

    def __init__(self, change: MeshChange) -> None:
        self._change: MeshChange | None = change
        self._reached = change.change
        self._data = b""

    def message(self) -> tuple[int, bytes]:
        if self._change is not None:
            self._data, self._change = encode(self._change.to_message()), None
        return self._reached, self._data


class RawFeed:
    """As fast as the page takes it: to a new page what is nearest, then oldest changes first."""

    def __init__(self, world: World, cursor: Cursor, rounds: SurfaceRounds) -> None:
        self._cursor = cursor
        self._rounds = rounds
        self._until = cursor.mesh_change
        self._in_step = False  # whoever comes or comes back gets only what it lacks
        self._first: list[MeshBlock] = []
        self._first_change, self._totals = 0, (0, 0)
        if cursor.mesh_change == 0:
            self._first_change, self._first, self._totals = world.nearest_blocks()
            self._until = self._first_change

    async def next(self, pages: int) -> list[bytes]:
        """About 60,000 vertices."""
        if self._first:
            return [await asyncio.to_thread(self._next_of_first)]
        cursor = self._cursor
        if cursor.mesh_change >= self._until:
            since, until = self._rounds.step(cursor.mesh_change, time.monotonic(), pages)
            if cursor.mesh_change >= until:
                return []
            if self._in_step:
                cursor.mesh_change = since
            self._until, self._in_step = until, True
        cursor.mesh_change, data = self._rounds.message(cursor.mesh_change, self._until)
        return [data]

    def _next_of_first(self) -> bytes:
        """Until all of it is there, the page has nothing that it could go on from."""
        count, vertices = 0, 0
        while count < len(self._first) and vertices < _MESSAGE_VERTICES:
            vertices += self._first[count].vertex_count
            count += 1
        taken, self._first = self._first[:count], self._first[count:]
        self._cursor.mesh_change = 0 if self._first else self._first_change
        change = MeshChange(
            since=0,
            change=self._cursor.mesh_change,
            blocks=tuple(taken),
            removed=(),
            totals=self._totals,
        )
        return encode(change.to_message())


class CodeFeed:
    """What the page's budget allows, in the block code."""

    def __init__(self, world: World, mbps: float, held_to: int) -> None:
        self._world = world
        self._link = MeshLink(1e6 * mbps, held_to)
        self._due_s = 0.0

    async def next(self, pages: int) -> list[bytes]:
        """What is new and coarse, then what is refined; encoded in another thread, so that other
        pages do not wait for it."""
        found: list[bytes] = []
        if time.monotonic() < self._due_s:
            return found
        self._due_s = time.monotonic() + period_s(pages)
        while len(found) < PARCELS_AT_ONCE:
            parcel = self._world.next_parcel(self._link, time.monotonic())
            if parcel is None:
                break
            found.append(await asyncio.to_thread(_encoded, parcel))
            self._link.account(parcel, len(found[-1]))
        return found


def _encoded(parcel: Parcel) -> bytes:
    return encode(_message(parcel))


def _message(parcel: Parcel) -> Message:
    if parcel.raw:
        return MeshChange(
            since=0,
            change=parcel.complete_to,
            blocks=tuple(parcel.blocks),
            removed=parcel.removed,
            totals=parcel.totals,
        ).to_message()
    return MeshCode(
        change=parcel.complete_to,
        total_vertices=parcel.totals[0],
        total_faces=parcel.totals[1],
        removed=np.array(parcel.removed, np.int32).reshape(-1, 3),
        code=np.frombuffer(parcel.code(), np.uint8),
    )


def period_s(pages: int) -> float:
    """How often so many pages are sent the surface; one alone is sent it at once."""
    return _PERIOD_PER_PAGE_S * max(0, pages - 1)


def mesh_form(config: ViewerConfig, wish: dict[str, Any], remote: str | None) -> str:
    """`raw` or `code`: what the page asks for, else the setting, else what its line is."""
    for choice in (wish.get("mesh"), config.mesh):
        if choice in ("raw", "code"):
            return str(choice)
    return "raw" if remote in _LOOPBACK else "code"


def mesh_budget_mbps(config: ViewerConfig, wish: dict[str, Any]) -> float:
    """The setting, or less where the page asks for less."""
    asked = wish.get("mbps")
    if not isinstance(asked, int | float) or not 0 < asked < math.inf:
        return config.mesh_mbps
    return float(min(asked, config.mesh_mbps or _FASTEST_MBPS))
