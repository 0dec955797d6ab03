# SPDX-License-Identifier: Apache-2.0
"""Many pages follow one surface: each at its own pace, all to the same blocks, few encodings."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
from world_for_viewers import delta, ground_block

from worldsystem_core.surface import BlockIndex, MeshAssembly, MeshBlock
from worldsystem_viewer.mesh_message import apply_update
from worldsystem_viewer.page_mesh import RawFeed, SurfaceRounds
from worldsystem_viewer.protocol import MeshUpdate, decode
from worldsystem_viewer.world import Cursor, World


class Page:
    """A page on a fast line that asks when it is told to."""

    def __init__(self, world: World, rounds: SurfaceRounds, change: int = 0) -> None:
        self.feed = RawFeed(world, Cursor(mesh_change=change), rounds)
        self.surface = MeshAssembly()
        self.got: list[bytes] = []

    def ask(self, pages: int = 1) -> int:
        """How many messages it took."""
        messages = asyncio.run(self.feed.next(pages))
        for data in messages:
            update = decode(data)
            assert isinstance(update, MeshUpdate)
            apply_update(self.surface, update)
        self.got += messages
        return len(messages)


class Scene:
    """A world whose truth is known."""

    def __init__(self) -> None:
        self.world = World()
        self.rounds = SurfaceRounds(self.world)
        self.truth: dict[BlockIndex, MeshBlock] = {}
        self.sequence = 0

    def page(self) -> Page:
        return Page(self.world, self.rounds)

    def change(self, *columns: int, removed: tuple[BlockIndex, ...] = ()) -> None:
        self.sequence += 1
        blocks = [_block(column, self.sequence) for column in columns]
        for index in removed:
            self.truth.pop(index, None)
        self.truth |= {block.index: block for block in blocks}
        self.world.apply(delta(blocks, self.sequence, removed=removed))

    def is_shown_by(self, page: Page) -> bool:
        held = page.surface.blocks
        return held.keys() == self.truth.keys() and all(
            np.array_equal(getattr(held[index], part), getattr(block, part))
            for index, block in self.truth.items()
            for part in ("vertices", "colours", "faces")
        )


def _block(column: int, sequence: int) -> MeshBlock:
    """A block in a colour that tells when it changed."""
    block = ground_block(column, 0, sequence)
    return replace(block, colours=np.full_like(block.colours, sequence))


def test_pages_in_step_are_sent_the_very_same_bytes():
    scene = Scene()
    scene.change(0, 1)
    pages = [scene.page() for _ in range(3)]
    for page in pages:
        page.ask()
    for _ in range(4):
        scene.change(1, 2)
        assert [page.ask() for page in pages] == [1, 1, 1]
    for first, *others in zip(*(page.got[1:] for page in pages), strict=True):
        assert all(other is first for other in others)
    assert all(scene.is_shown_by(page) for page in pages)


def test_a_change_between_the_asking_of_two_pages_waits_for_the_next_round():
    scene = Scene()
    scene.change(0)
    one, two = scene.page(), scene.page()
    for page in (one, two):
        page.ask()
    scene.change(1)
    assert one.ask(pages=1000) == 1  # twenty seconds to the next round
    scene.change(2)
    assert two.ask(pages=1000) == 1
    assert two.got[-1] is one.got[-1]
    assert one.ask(pages=1000) == two.ask(pages=1000) == 0
    scene.rounds._due_s = 0.0
    assert one.ask() == two.ask() == 1
    assert all(scene.is_shown_by(page) for page in (one, two))


def test_a_page_alone_waits_for_nothing():
    scene = Scene()
    page = scene.page()
    for column in range(5):
        scene.change(column)
        page.ask(pages=1)
        assert scene.is_shown_by(page)


def test_pages_that_missed_different_rounds_share_a_message_and_skip_to_the_newest():
    scene = Scene()
    scene.change(0)
    quick, late, later = scene.page(), scene.page(), scene.page()
    for page in (quick, late, later):
        page.ask()
    for number in range(7):
        scene.change(number % 2)
        quick.ask()
        if number < 4:
            later.ask()
        if number < 5:
            late.ask()
    assert late.ask() == later.ask() == 1
    assert late.got[-1] is later.got[-1]
    assert all(scene.is_shown_by(page) for page in (late, later))


def test_pages_at_any_pace_end_with_the_same_surface():
    rng, scene = np.random.default_rng(7), Scene()
    scene.change(*range(6))
    pages = [scene.page() for _ in range(6)]
    paces = (1.0, 0.7, 0.4, 0.2, 0.1, 0.03)  # of the rounds that a page asks in
    for _ in range(200):
        columns = rng.choice(30, 4, replace=False).tolist()
        gone = tuple((int(column), 0, 0) for column in columns[:1] if rng.random() < 0.5)
        scene.change(*columns[1:], removed=tuple(i for i in gone if i in scene.truth))
        for page, pace in zip(pages, paces, strict=True):
            if rng.random() < pace:
                page.ask()
    pages.append(Page(scene.world, scene.rounds))
    for page in pages:
        while page.ask():
            continue
        assert scene.is_shown_by(page)


def test_removals_that_are_too_many_to_be_remembered_still_reach_every_page():
    scene = Scene()
    scene.change(*range(4))
    in_step, once, coming = (scene.page() for _ in range(3))
    once.ask()
    in_step.ask()
    scene.change(3)
    in_step.ask()
    elsewhere = tuple((column, 9, 9) for column in range(65_536))
    scene.change(removed=((0, 0, 0), (1, 0, 0), *elsewhere))
    scene.change(1)
    for page in (in_step, once, coming):
        while page.ask():
            continue
        assert page.surface.blocks.keys() == {(1, 0, 0), (2, 0, 0), (3, 0, 0)}
        assert scene.is_shown_by(page)


def test_who_keeps_up_is_told_a_removal_once_however_many_are_forgotten(monkeypatch):
    monkeypatch.setattr("worldsystem_viewer.world._MAX_TOMBSTONES", 4)
    scene = Scene()
    scene.change(*range(20))
    page = scene.page()
    page.ask()
    for column in range(19):
        scene.change(removed=((column, 0, 0),))
        page.ask()
        update = decode(page.got[-1])
        assert isinstance(update, MeshUpdate)
        assert update.removed.tolist() == [[column, 0, 0]]
    assert scene.is_shown_by(page)


def test_several_pages_are_sent_nothing_while_their_thread_is_busier_than_allowed(monkeypatch):
    scene, busy_s = Scene(), [0.0]
    monkeypatch.setattr("worldsystem_viewer.page_mesh.time.thread_time", lambda: busy_s[0])
    scene.change(0)
    first = scene.rounds.step(0, now_s=10.0, pages=2)
    busy_s[0] += 0.1
    scene.change(1)
    assert scene.rounds.step(0, now_s=11.0, pages=2) == first  # 10 % of a processor since then
    assert scene.rounds.step(0, now_s=12.0, pages=2)[1] == scene.world.change > first[1]  # 5 %
    busy_s[0] += 9.0
    scene.change(2)
    assert scene.rounds.step(0, now_s=13.9, pages=2)[1] == first[1] + 1
    assert scene.rounds.step(0, now_s=14.1, pages=2)[1] == scene.world.change  # not for ever
    busy_s[0] += 9.0
    scene.change(3)
    assert scene.rounds.step(0, now_s=14.2, pages=1)[1] == scene.world.change  # one alone waits not
