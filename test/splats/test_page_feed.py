# SPDX-License-Identifier: Apache-2.0
"""A page on a thin line: no hole while chunks are joined, and nothing of a map that was reset."""

from __future__ import annotations

import asyncio

import numpy as np
from splat_scenes import rounds, wall_seen_from

from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.splats.world import SplatWorld
from worldsystem_viewer.protocol import decode
from worldsystem_viewer.splats.page_feed import PageCursor, SplatPages
from worldsystem_viewer.splats.stream import SplatStream

STEP_S = 0.05


class ThinLine:
    """A world of splats and a page of it that is sent little at a time."""

    def __init__(self, world: SplatWorld, mbps: float) -> None:
        self.world = world
        self.now_s = 0.0
        self.shown: dict[int, int] = {}  # splats by chunk
        self._pages = SplatPages(lambda _request: None, mbps)
        self._stream = SplatStream(world, mbps=0, renew_s=5.0)
        self._cursor = PageCursor()

    def tell(self) -> None:
        """The server gets what changed in the world."""
        for delta in self._stream.take(self.now_s, 1, ScaleState.SCENE, everything=True):
            self._pages.shelf.apply(delta)

    def see_walls(self, numbers: range) -> None:
        """The server gets a wall from each of these keyframes, 20 apart: none hides another."""
        for number in numbers:
            self.world.add(wall_seen_from([20.0 * number, 0, 0], number))
        self.tell()

    def step(self) -> int:
        """The page gets what its line has room for; it shows so many splats then."""
        self.now_s += STEP_S
        for data in asyncio.run(self._pages.next(self._cursor, self.now_s, deflated=True)):
            update = decode(data)
            for gone in update.removed.tolist():
                self.shown.pop(gone, None)
            for chunk, count in zip(update.chunk.tolist(), update.count.tolist(), strict=True):
                if count >= 0:
                    self.shown[chunk] = count
        return sum(self.shown.values())

    @property
    def is_current(self) -> bool:
        return self.shown == {key: len(chunk) for key, chunk in self.world.chunks.items()}

    def catch_up(self) -> None:
        for _ in range(2000):
            self.step()
            if self.is_current:
                return
        raise AssertionError(f"{len(self.shown)} chunks are shown of {len(self.world.chunks)}")


def test_a_page_on_a_thin_line_shows_no_hole_while_chunks_are_joined():
    line = ThinLine(SplatWorld(voxel=1e-4), mbps=0.01)
    rounds(line.world, 0, 5)
    line.tell()
    line.catch_up()
    fewest = sum(line.shown.values())
    rounds(line.world, 5, 6)
    assert line.shown.keys() - line.world.chunks.keys(), "some went into others"
    line.tell()
    steps = 0
    while not line.is_current:
        assert line.step() >= fewest
        steps += 1
        assert steps < 2000
    assert steps > 5, "the line was thin"


def test_a_page_on_a_thin_line_shows_nothing_of_a_map_that_was_reset():
    line = ThinLine(SplatWorld(), mbps=0.01)
    line.see_walls(range(4))
    line.catch_up()
    line.world.remove(list(range(4)))
    line.tell()
    line.see_walls(range(4, 8))
    line.step()
    assert not line.shown.keys() & set(range(4))
    line.catch_up()


def test_a_page_is_told_of_a_chunk_that_went_though_nothing_else_comes():
    line = ThinLine(SplatWorld(), mbps=0.01)
    line.see_walls(range(2))
    line.catch_up()
    line.world.remove([0])
    line.tell()
    assert line.step() == len(line.world.chunks[1])
    assert np.array_equal(list(line.shown), [1])
