# SPDX-License-Identifier: Apache-2.0
"""How one page gets the surface: raw, or in the block code and within a budget."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from typing import Any, Protocol

import numpy as np

from worldsystem_core.mesh_stream.link import PARCELS_AT_ONCE, MeshLink, Parcel
from worldsystem_core.surface import MeshBlock
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.mesh_message import MeshChange
from worldsystem_viewer.protocol import MeshCode, Message, encode
from worldsystem_viewer.world import Cursor, World

_MESSAGE_VERTICES = 60_000
_CACHED_MESSAGES = 8
_LOOPBACK = ("127.0.0.1", "::1")


class MeshFeed(Protocol):
    """What a page is sent of the surface, message by message."""

    async def next(self) -> list[bytes]:
        """What is to be sent now."""
        ...


class RawFeed:
    """As fast as the page takes it: to a new page what is nearest, then oldest changes first."""

    def __init__(self, world: World, cursor: Cursor, cache: OrderedDict[Any, bytes]) -> None:
        self._world = world
        self._cursor = cursor
        self._cache = cache
        self._first: list[MeshBlock] = []
        self._first_change, self._totals = 0, (0, 0)
        if cursor.mesh_change == 0:
            self._first_change, self._first, self._totals = world.nearest_blocks()

    async def next(self) -> list[bytes]:
        """About 60,000 vertices; pages that keep pace ask for the same, encoded once."""
        if self._first:
            return [await asyncio.to_thread(self._next_of_first)]
        mesh = self._world.newer_mesh(self._cursor, _MESSAGE_VERTICES)
        if mesh is None:
            return []
        key = (mesh.since, mesh.change)
        if key not in self._cache:
            self._cache[key] = encode(mesh.to_message())
            while len(self._cache) > _CACHED_MESSAGES:
                self._cache.popitem(last=False)
        return [self._cache[key]]

    def _next_of_first(self) -> bytes:
        """Until all of it is there, the page has nothing that it could go on from."""
        count, vertices = 0, 0
        while count < len(self._first) and vertices < _MESSAGE_VERTICES:
            vertices += len(self._first[count].vertices)
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

    async def next(self) -> list[bytes]:
        """What is new and coarse, then what is refined; encoded in another thread, so that other
        pages do not wait for it."""
        found: list[bytes] = []
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


def mesh_form(config: ViewerConfig, wish: dict[str, Any], remote: str | None) -> str:
    """`raw` or `code`: what the page asks for, else the setting, else what its line is."""
    for choice in (wish.get("mesh"), config.mesh):
        if choice in ("raw", "code"):
            return str(choice)
    return "raw" if remote in _LOOPBACK else "code"


def mesh_budget_mbps(config: ViewerConfig, wish: dict[str, Any]) -> float:
    """The setting, or less where the page asks for less."""
    asked = wish.get("mbps")
    if not isinstance(asked, int | float) or not math.isfinite(asked) or asked <= 0:
        return config.mesh_mbps
    return min(float(asked), config.mesh_mbps or math.inf)
