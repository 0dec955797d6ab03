# SPDX-License-Identifier: Apache-2.0
"""A client's line: within its budget, coarse first, and in the end the very same surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from block_lab import VOXEL, blocks_of, bumpy, delta

from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.mesh_stream.catalogue import SurfaceCatalogue
from worldsystem_core.mesh_stream.link import PARCELS_AT_ONCE, MeshLink, Parcel

SLOW_BITS_PER_S = 48_000
TICK_S = 0.1


@pytest.fixture(scope="module")
def surfaces():
    """Four versions of a rough ball, all of its blocks different in each."""
    made = [blocks_of(bumpy(11.0, seed), 2, version=seed + 1) for seed in range(4)]
    common = set.intersection(*({block.index for block in surface} for surface in made))
    return [[block for block in surface if block.index in common] for surface in made]


class Client:
    """Decodes what a link sends, counts its bytes, and keeps the blocks."""

    def __init__(self, catalogue: SurfaceCatalogue, bits_per_s: float, held_to: int = 0) -> None:
        self.catalogue = catalogue
        self.link = MeshLink(bits_per_s, held_to)
        self.blocks = {}
        self.levels = []
        self.bytes = 0
        self.now_s = 0.0
        self.parcel = None

    def tick(self, seconds: float = TICK_S, **hint) -> None:
        self.now_s += seconds
        for _ in range(PARCELS_AT_ONCE):
            self.take(self.link.next(self.catalogue, self.now_s, **hint))

    def take(self, parcel: Parcel | None) -> None:
        if parcel is None:
            return
        self.parcel, code = parcel, parcel.code()
        size = len(code) + 12 * len(parcel.removed) + 40
        size += sum(27 * len(b.vertices) for b in parcel.blocks) if parcel.raw else 0
        self.link.account(parcel, size)
        self.bytes += size
        for index in parcel.removed:
            self.blocks.pop(index, None)
        for block in parcel.blocks if parcel.raw else decode(code) if code else []:
            self.blocks[block.index] = block
            self.levels.append(block.level)

    def settle(self, limit_s: float = 60.0) -> float:
        """Tick until nothing is missing; the seconds that took."""
        begun = self.now_s
        while self.link.missing(self.catalogue):
            self.tick()
            assert self.now_s - begun < limit_s
        return self.now_s - begun


def assert_same_surface(client: Client, blocks) -> None:
    """Bit for bit what decoding the whole surface at once gives."""
    wanted = {b.index: b for b in decode(encode(blocks, VOXEL))}
    assert client.blocks.keys() == wanted.keys()
    for index, block in client.blocks.items():
        assert (block.level, block.version) == (0, wanted[index].version)
        for name in ("vertices", "colours", "faces"):
            np.testing.assert_array_equal(getattr(block, name), getattr(wanted[index], name))


def test_the_client_ends_with_the_same_surface_however_much_changed(surfaces):
    catalogue = SurfaceCatalogue()
    client = Client(catalogue, SLOW_BITS_PER_S)
    for step in range(40):
        catalogue.apply(delta(surfaces[step % 4], step + 1))
        client.tick()
    assert client.link.missing(catalogue) > 0
    whole_s = 8 * len(encode(surfaces[3], VOXEL)) / SLOW_BITS_PER_S
    assert client.settle() < 1.3 * whole_s + 1.0
    assert_same_surface(client, surfaces[3])


def test_the_budget_is_kept_while_everything_changes_all_the_time(surfaces):
    catalogue = SurfaceCatalogue()
    client = Client(catalogue, SLOW_BITS_PER_S)
    sent = []
    for step in range(300):
        catalogue.apply(delta(surfaces[step % 4], step + 1))
        client.tick()
        sent.append(client.bytes)
    for span in (50, 100, 300):
        most = max(np.array(sent)[span - 1 :] - np.array([0, *sent])[: len(sent) - span + 1])
        assert 8 * most <= SLOW_BITS_PER_S * (span * TICK_S + 0.5) * 1.05
    assert 8 * sent[-1] > 0.85 * SLOW_BITS_PER_S * 300 * TICK_S  # and it is not wasted


def test_what_was_never_seen_comes_first_and_coarse(surfaces):
    catalogue = SurfaceCatalogue()
    catalogue.apply(delta(surfaces[0], 1))
    client = Client(catalogue, SLOW_BITS_PER_S)
    client.settle()
    first_fine = client.levels.index(0)
    assert set(client.levels[:first_fine]) == {2}
    assert first_fine == len(surfaces[0])
    assert set(client.levels[first_fine:]) == {0}


def test_in_another_unit_all_of_it_comes_again_and_coarse_first(surfaces):
    catalogue = SurfaceCatalogue()
    catalogue.apply(delta(surfaces[0], 1))
    client = Client(catalogue, SLOW_BITS_PER_S)
    client.settle()
    client.levels.clear()
    catalogue.apply(replace(delta(surfaces[1], 2), block_size=8 * 7 * VOXEL))
    client.settle()
    assert set(client.levels[: client.levels.index(0)]) == {2}
    assert client.levels.index(0) == len(surfaces[1])


def test_a_delta_told_by_message_is_in_the_same_unit_as_one_handed_over(surfaces):
    """Messages hold the size of a block as float32, and one catch-up answer is one."""
    catalogue = SurfaceCatalogue()
    catalogue.apply(delta(surfaces[0], 1))
    client = Client(catalogue, 20 * SLOW_BITS_PER_S)
    client.settle()
    told = float(np.float32(8 * VOXEL))
    assert told != 8 * VOXEL
    for sequence, block_size in ((2, told), (3, 8 * VOXEL)):
        some = delta(surfaces[sequence - 1][:1], sequence)
        catalogue.apply(replace(some, block_size=block_size))
        assert client.link.missing(catalogue) == 1
        client.settle()


def test_near_blocks_come_before_far_ones(surfaces):
    catalogue = SurfaceCatalogue()
    catalogue.apply(delta(surfaces[0], 1))
    client = Client(catalogue, SLOW_BITS_PER_S / 8)
    viewpoint = np.array([2.0, 0.0, 0.0], np.float32)
    while not client.blocks:
        client.tick(viewpoint=viewpoint)
    seen, numbers = client.parcel.numbers, np.arange(len(catalogue))
    unseen = np.setdiff1d(numbers, seen)
    assert len(seen) < len(numbers)
    farthest = catalogue.distances(seen, viewpoint).max()
    assert farthest <= catalogue.distances(unseen, viewpoint).min()


def test_a_small_change_goes_at_once_and_at_full_level(surfaces):
    catalogue = SurfaceCatalogue()
    catalogue.apply(delta(surfaces[0], 1))
    client = Client(catalogue, 1e6)
    client.settle()
    client.levels.clear()
    catalogue.apply(delta(surfaces[1][:3], 2))
    client.tick()
    assert client.levels == [0, 0, 0]


def test_a_line_without_budget_gets_everything_in_one_parcel(surfaces):
    catalogue = SurfaceCatalogue()
    catalogue.apply(delta(surfaces[0], 1))
    client = Client(catalogue, 0)
    client.tick()
    assert client.link.missing(catalogue) == 0
    assert_same_surface(client, surfaces[0])


def test_removed_blocks_are_removed_even_on_a_full_line(surfaces):
    catalogue = SurfaceCatalogue()
    catalogue.apply(delta(surfaces[0], 1))
    client = Client(catalogue, SLOW_BITS_PER_S)
    client.settle()
    gone = tuple(block.index for block in surfaces[0][:20])
    catalogue.apply(delta(surfaces[1][20:], 2, removed=gone))
    client.tick(1.0)
    assert not client.blocks.keys() & set(gone)
    client.settle()
    assert_same_surface(client, surfaces[1][20:])
    catalogue.apply(delta(surfaces[2], 3))
    client.settle()
    assert_same_surface(client, surfaces[2])


def test_a_client_that_comes_back_gets_what_it_missed_and_no_more(surfaces):
    catalogue = SurfaceCatalogue()
    client = Client(catalogue, 20 * SLOW_BITS_PER_S)
    for step in range(20):
        catalogue.apply(delta(surfaces[0][step::20], step + 1))
        client.tick()
    client.settle()
    complete = client.parcel.complete_to
    assert complete == catalogue.change
    gone = tuple(block.index for block in surfaces[0][:5])
    catalogue.apply(delta(surfaces[1][5:12], 21, removed=gone))
    back = Client(catalogue, 20 * SLOW_BITS_PER_S, held_to=complete)
    back.blocks = client.blocks
    back.settle()
    assert_same_surface(back, surfaces[1][5:12] + surfaces[0][12:])
    assert len(back.levels) == 7


def test_complete_to_never_promises_too_much(surfaces):
    """A client that comes back at any moment has all that is older than it says."""
    catalogue = SurfaceCatalogue()
    client = Client(catalogue, SLOW_BITS_PER_S)
    rng = np.random.default_rng(0)
    for step in range(60):
        some = rng.permutation(len(surfaces[0]))[:12]
        catalogue.apply(delta([surfaces[step % 4][i] for i in some], step + 1))
        client.tick()
        if client.parcel is None:
            continue
        newest = {tuple(i): n for n, i in enumerate(catalogue.index.tolist())}
        for index, number in newest.items():
            if catalogue.changed[number] <= client.parcel.complete_to:
                (block,) = catalogue.blocks(np.array([number]))
                assert client.blocks[index].level == 0
                assert client.blocks[index].version == block.version


def test_blocks_without_lattice_form_go_raw(surfaces):
    catalogue = SurfaceCatalogue()
    bare = [replace(block, cells=None) for block in surfaces[0][:6]]
    catalogue.apply(delta(bare + surfaces[0][6:], 1))
    client = Client(catalogue, 20 * SLOW_BITS_PER_S)
    client.settle()
    assert client.blocks.keys() == {block.index for block in surfaces[0]}
    np.testing.assert_array_equal(client.blocks[bare[0].index].vertices, bare[0].vertices)


def test_an_empty_surface_sends_nothing():
    client = Client(SurfaceCatalogue(), 1e6)
    client.tick()
    assert client.bytes == 0


def test_what_removals_take_is_not_counted_as_that_of_vertices(surfaces):
    """After a loop closure thousands go at once: what comes next is not to go by a few."""
    catalogue = SurfaceCatalogue()
    catalogue.apply(delta(surfaces[0], 1))
    links = [MeshLink(1e6), MeshLink(1e6)]
    first = links[0].next(catalogue, 0.0)
    second = links[1].next(catalogue, 0.0)
    links[0].account(first, 2000)
    many = replace(second, removed=tuple((i, 0, 0) for i in range(3000)))
    links[1].account(many, 2000 + 12 * 3000)
    catalogue.apply(delta(surfaces[1], 2))
    later = [link.next(catalogue, 5.0) for link in links]
    assert len(later[0].blocks) == len(later[1].blocks) > 0
