# SPDX-License-Identifier: Apache-2.0
"""Pages on a thin line: the surface comes in the block code, within the budget, and is the same."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "mesh"))

from block_lab import VOXEL, blocks_of, delta, sphere
from page_reader import PageReader
from world_for_viewers import delta as plain_delta
from world_for_viewers import ground_block

from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.reconstruction import ScaleState
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.history import History
from worldsystem_viewer.page_mesh import mesh_budget_mbps, mesh_form
from worldsystem_viewer.page_rewind import Rewind
from worldsystem_viewer.protocol import MeshCode, MeshUpdate
from worldsystem_viewer.protocol import decode as decode_message
from worldsystem_viewer.world import World


@pytest.fixture(scope="module")
def ball():
    return blocks_of(sphere(14.0), 2)


def is_complete(page: PageReader, blocks) -> bool:
    """The page has the very blocks that decoding them all at once gives."""
    wanted = {block.index: block for block in decode(encode(blocks, VOXEL))}
    held = page.assembly.blocks
    return held.keys() == wanted.keys() and all(
        np.array_equal(getattr(held[index], part), getattr(block, part))
        for index, block in wanted.items()
        for part in ("vertices", "colours", "faces")
    )


def test_a_page_that_asks_for_the_code_gets_the_whole_surface(page_server, ball):
    page_server.mesh(delta(ball, 1))
    page = PageReader(page_server.port, mesh="code", mbps=0.4)
    page.read_until(lambda p: is_complete(p, ball))
    assert page.hello.mesh == "code"
    assert MeshUpdate not in page.counts
    page_server.mesh(delta([], 2, removed=tuple(block.index for block in ball[:10])))
    page.read_until(lambda p: is_complete(p, ball[10:]))
    page.close()


def test_a_page_gets_no_more_than_its_budget(page_server, ball):
    page = PageReader(page_server.port, mesh="code", mbps=0.1)
    page.read_one()
    begun = time.monotonic()
    for sequence in range(1, 30):
        page_server.mesh(delta(ball, sequence))
        page.read_until(lambda p, at=begun + 0.1 * sequence: time.monotonic() > at)
    spent_s = time.monotonic() - begun
    assert page.counts[MeshCode] > 3
    assert 8 * page.mesh_bytes < 1e5 * (spent_s + 0.6)
    page.close()


def test_a_page_that_comes_back_is_sent_only_what_it_lacks(page_server, ball):
    page_server.mesh(delta(ball, 1))
    page = PageReader(page_server.port, mesh="code")
    page.read_until(lambda p: is_complete(p, ball))
    session, change = page.hello.session, page.assembly.sequence
    page.close()
    page_server.mesh(delta(ball[:3], 2))
    again = PageReader(page_server.port, session, change, mesh="code")
    again.read_until(lambda p: len(p.assembly.blocks) == 3)
    assert again.hello.resumed
    raw = PageReader(page_server.port, session, change)
    raw.read_until(lambda p: len(p.assembly.blocks) == len(ball))
    assert not raw.hello.resumed  # it has never had the raw surface
    raw.close()
    again.close()


def test_a_surface_that_cannot_be_coded_comes_raw(page_server):
    page_server.mesh(plain_delta([ground_block(i, 0) for i in range(4)], 1))
    page = PageReader(page_server.port, mesh="code")
    page.read_until(lambda p: len(p.assembly.blocks) == 4)
    np.testing.assert_array_equal(
        page.assembly.blocks[(2, 0, 0)].vertices, ground_block(2, 0).vertices
    )
    page.close()


@pytest.mark.parametrize("forgets", [False, True], ids=["all is held", "the beginning is folded"])
def test_the_past_is_shown_in_the_size_that_it_had(ball, forgets):
    """A world that begins anew may do so in blocks of another size."""
    gone = tuple(block.index for block in ball)
    world_then = 40 * sum(block.vertex_count for block in ball) + 250 * len(ball)
    world, history = World(), History(world_then if forgets else 2**30)
    for at_s, told in (
        (1, delta(ball, 1)),
        (5, delta([], 2, removed=gone)),
        (6, replace(delta(ball[:1], 3), block_size=3 * 8 * VOXEL)),
    ):
        told = replace(told, capture_ns=at_s * 10**9)
        history.surface(told)
        world.apply(told)
    rewind = Rewind(world, history, coded=True, mbps=0.0)
    rewind.at_ns = 2 * 10**9
    (data,) = asyncio.run(rewind.surface())
    shown = {block.index: block for block in decode(decode_message(data).code.tobytes())}
    assert shown.keys() == set(gone)
    for block in ball:
        np.testing.assert_allclose(shown[block.index].vertices, block.vertices, atol=VOXEL / 16)


def test_the_line_decides_unless_somebody_does():
    auto = ViewerConfig()
    assert mesh_form(auto, {}, "127.0.0.1") == mesh_form(auto, {"mesh": "odd"}, "::1") == "raw"
    assert mesh_form(auto, {}, "192.168.1.7") == "code"
    assert mesh_form(auto, {"mesh": "raw"}, "192.168.1.7") == "raw"
    assert mesh_form(ViewerConfig(mesh="code"), {}, "127.0.0.1") == "code"


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (0.25, 0.25),
        (50, 1.0),
        (-1, 1.0),
        ("x", 1.0),
        (float("nan"), 1.0),
        (10**400, 1.0),
        (None, 1.0),
    ],
    ids=lambda number: str(number)[:6],
)
def test_a_page_may_ask_for_less_but_not_for_more(asked, granted):
    assert mesh_budget_mbps(ViewerConfig(), {"mbps": asked}) == granted
    if asked == 50:
        assert mesh_budget_mbps(ViewerConfig(mesh_mbps=0.0), {"mbps": asked}) == 50


def test_the_past_of_a_history_begun_anew_shows_no_block_of_the_one_before(ball):
    """A block that went before the map turned metric is in no delta of the metric map."""
    history = History(2**30)
    rewind = Rewind(World(), history, coded=True, mbps=0.0)
    history.surface(replace(delta(ball[:2], 1), capture_ns=10**9))
    rewind.at_ns = 10**9
    assert len(asyncio.run(rewind.surface())) == 1
    history.surface(replace(delta([], 2, removed=(ball[1].index,)), capture_ns=2 * 10**9))
    metric = replace(delta(ball[:1], 3), capture_ns=3 * 10**9, scale=ScaleState.METRIC)
    history.surface(metric)
    rewind.at_ns = 3 * 10**9
    (data,) = asyncio.run(rewind.surface())
    assert decode_message(data).removed.tolist() == [list(ball[1].index)]
