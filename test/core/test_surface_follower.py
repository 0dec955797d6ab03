# SPDX-License-Identifier: Apache-2.0
"""A client that comes late, or misses deltas, ends with the surface that the mesher has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from worldsystem_core.surface import MeshAssembly, MeshBlock, MeshDelta
from worldsystem_core.surface_follower import HELD, REGROWN_NS, RESTART_NS, SurfaceFollower

SILENCE_NS = RESTART_NS + 1


def delta(
    sequence: int, base: int | None = None, stamp_ns: int = 0, places: tuple[int, ...] = (0,)
) -> MeshDelta:
    """Says of a block at each of `places` that it is of version `sequence`."""
    empty = np.zeros((0, 3))
    blocks = tuple(
        MeshBlock(
            index=(place, 0, 0),
            version=sequence,
            vertices=empty.astype(np.float32),
            colours=empty.astype(np.uint8),
            faces=empty.astype(np.int32),
        )
        for place in places
    )
    return MeshDelta(
        stamp_ns=stamp_ns,
        sequence=sequence,
        base_sequence=sequence - 1 if base is None else base,
        block_size=0.1,
        blocks=blocks,
        removed=(),
        total_vertices=0,
        total_faces=0,
        keyframe_count=1,
        capture_ns=0,
    )


def shown(deltas: list[MeshDelta]) -> list[int]:
    return [each.sequence for each in deltas]


def test_one_that_begins_asks_for_all_and_shows_it_though_no_delta_comes():
    follower = SurfaceFollower()
    assert follower.newer_than == 0
    assert shown(follower.catch_up(delta(8, base=0))) == [8]
    assert follower.newer_than is None
    assert shown(follower.take(delta(9))) == [9]


def test_a_first_delta_that_overtakes_the_answer_is_none_of_another_mesher():
    follower, asked_ns = SurfaceFollower(), 10**18
    assert follower.take(delta(9, stamp_ns=asked_ns + 5)) == []
    assert shown(follower.catch_up(delta(8, base=0, stamp_ns=asked_ns))) == [8, 9]
    assert follower.newer_than is None


def test_one_that_was_there_from_the_start_shows_each_delta_at_once():
    follower = SurfaceFollower()
    assert [shown(follower.take(delta(n))) for n in (1, 2, 3)] == [[1], [2], [3]]
    assert follower.newer_than is None


def test_one_that_comes_late_asks_for_all_and_shows_what_is_newer_after_it():
    follower = SurfaceFollower()
    assert follower.take(delta(7)) == follower.take(delta(8)) == follower.take(delta(9)) == []
    assert follower.newer_than == 0
    assert shown(follower.catch_up(delta(8, base=0))) == [8, 9]
    assert follower.newer_than is None
    assert shown(follower.take(delta(10))) == [10]


def test_one_that_missed_some_asks_only_for_those():
    follower = SurfaceFollower()
    follower.take(delta(1))
    assert follower.take(delta(3)) == []
    assert follower.newer_than == 1
    assert shown(follower.catch_up(delta(3, base=1))) == [3]


def test_an_answer_that_overtakes_deltas_is_not_put_over_by_them():
    follower = SurfaceFollower()
    follower.take(delta(5))
    assert shown(follower.catch_up(delta(8, base=0))) == [8]
    assert follower.take(delta(6)) == follower.take(delta(7)) == []
    assert shown(follower.take(delta(9))) == [9]


def test_a_mesher_that_begins_anew_is_followed_whatever_was_missing():
    follower = SurfaceFollower()
    follower.take(delta(40))
    assert shown(follower.take(delta(1, base=0))) == [1]
    assert follower.newer_than is None
    assert follower.catch_up(delta(41, base=0)) == [], "an answer of the mesher before"


def test_what_a_mesher_that_begins_anew_does_not_tell_again_goes():
    follower, assembly = SurfaceFollower(), MeshAssembly()
    steps = [
        delta(40, base=0, stamp_ns=1, places=(1, 2, 3)),
        delta(1, base=0, stamp_ns=SILENCE_NS, places=(1, 9)),
        delta(2, stamp_ns=2 * SILENCE_NS, places=(2,)),
        delta(3, stamp_ns=REGROWN_NS + 2 * SILENCE_NS, places=(9,)),
    ]
    places = []
    for step in steps:
        for each in follower.take(step):
            assembly.apply(each)
        places.append(sorted(index[0] for index in assembly.blocks))
    assert places == [[1, 2, 3], [1, 2, 3, 9], [1, 2, 3, 9], [1, 2, 9]]


def test_blocks_of_another_size_stand_for_other_places_and_replace_all_at_once():
    follower, assembly = SurfaceFollower(), MeshAssembly()
    larger = replace(delta(1, base=0, stamp_ns=SILENCE_NS, places=(1, 9)), block_size=0.2)
    for step in (delta(40, base=0, stamp_ns=1, places=(1, 2, 3)), larger):
        for each in follower.take(step):
            assembly.apply(each)
    assert sorted(index[0] for index in assembly.blocks) == [1, 9]


def test_a_size_that_a_message_told_is_no_other_than_that_told_in_the_process():
    """Messages hold it as float32, as the answer to who begins does."""
    follower, told = SurfaceFollower(), float(np.float32(0.1))
    answer = delta(40, base=0, stamp_ns=1, places=(1, 2, 3))
    assert answer.block_size != told
    follower.catch_up(replace(answer, block_size=told))
    (anew,) = follower.take(delta(1, base=0, stamp_ns=SILENCE_NS, places=(1, 9)))
    assert anew.removed == (), "it is given time to tell again what there was"


def test_a_mesher_that_begins_anew_is_followed_though_its_first_delta_was_missed():
    follower = SurfaceFollower()
    for n in range(1, 41):
        follower.take(delta(n, stamp_ns=n))
    assert follower.take(delta(3, stamp_ns=52)) == []
    assert follower.newer_than == 0, "all of it is asked for"
    assert follower.take(delta(4, stamp_ns=53)) == []
    assert shown(follower.catch_up(delta(3, base=0, stamp_ns=52))) == [3, 4]
    assert shown(follower.take(delta(5, stamp_ns=55))) == [5]
    assert follower.newer_than is None


def test_deltas_of_the_mesher_before_are_not_held_for_the_one_that_begins_anew():
    follower = SurfaceFollower()
    follower.take(delta(7, stamp_ns=7))
    follower.take(delta(9, stamp_ns=9))
    assert follower.take(delta(2, stamp_ns=20)) == []
    assert shown(follower.catch_up(delta(2, base=0, stamp_ns=21))) == [2]


def test_a_delta_that_an_answer_overtook_is_none_of_a_mesher_that_begins_anew():
    follower = SurfaceFollower()
    follower.take(delta(5, stamp_ns=5))
    assert shown(follower.catch_up(delta(8, base=0, stamp_ns=9))) == [8]
    assert follower.take(delta(6, stamp_ns=6)) == follower.take(delta(7, stamp_ns=7)) == []
    assert follower.newer_than is None


def test_a_gap_after_a_silence_may_be_another_mesher_of_which_all_is_asked_for():
    follower, assembly = SurfaceFollower(), MeshAssembly()
    for n in range(1, 11):
        for each in follower.take(delta(n, stamp_ns=n, places=(n,))):
            assembly.apply(each)
    heard_ns = 10 + SILENCE_NS
    assert follower.take(delta(15, stamp_ns=heard_ns, places=(15,))) == []
    assert follower.newer_than == 0
    assert follower.take(delta(16, stamp_ns=heard_ns + 2, places=(16,))) == []
    whole = delta(15, base=0, stamp_ns=heard_ns + 1, places=(3, 4, 15))
    for each in follower.catch_up(whole):
        assert assembly.apply(each)
    assert {index[0]: block.version for index, block in assembly.blocks.items()} == {
        3: 15,
        4: 15,
        15: 15,
        16: 16,
    }
    assert follower.newer_than is None
    assert shown(follower.take(delta(17, stamp_ns=heard_ns + 3))) == [17]


def test_a_gap_without_a_silence_is_none_of_another_mesher():
    follower = SurfaceFollower()
    for n in range(1, 11):
        follower.take(delta(n, stamp_ns=n))
    follower.take(delta(15, stamp_ns=10 + RESTART_NS))
    assert follower.newer_than == 10
    (caught_up,) = follower.catch_up(delta(15, base=10, stamp_ns=11 + RESTART_NS, places=(1,)))
    assert caught_up.removed == ()


def test_a_silence_without_a_gap_is_none_of_another_mesher():
    follower = SurfaceFollower()
    assert shown(follower.take(delta(1, stamp_ns=1))) == [1]
    assert shown(follower.take(delta(2, stamp_ns=2 + SILENCE_NS))) == [2]


def test_what_is_held_after_a_silence_may_be_of_another_mesher():
    follower = SurfaceFollower()
    follower.take(delta(30, base=0, stamp_ns=30))
    follower.take(delta(32, stamp_ns=32))
    assert follower.newer_than == 30
    follower.take(delta(40, stamp_ns=40 + SILENCE_NS))
    assert follower.newer_than == 0
    assert shown(follower.catch_up(delta(40, base=0, stamp_ns=41 + SILENCE_NS))) == [40]


def test_another_mesher_may_answer_though_none_of_its_deltas_was_heard():
    follower = SurfaceFollower()
    follower.take(delta(30, base=0, stamp_ns=30, places=(1, 2)))
    follower.take(delta(32, stamp_ns=32))
    answered_ns = 32 + SILENCE_NS
    assert follower.catch_up(delta(50, base=30, stamp_ns=answered_ns)) == []
    assert follower.newer_than == 0
    (whole,) = follower.catch_up(delta(50, base=0, stamp_ns=answered_ns + SILENCE_NS, places=(2,)))
    assert whole.removed == ((1, 0, 0),)


def test_another_mesher_that_is_not_as_far_answers_with_all_that_it_has():
    follower = SurfaceFollower()
    follower.take(delta(30, base=0, stamp_ns=30))
    follower.take(delta(32, stamp_ns=32))
    assert shown(follower.catch_up(delta(12, base=0, stamp_ns=33 + SILENCE_NS))) == [12]
    assert follower.newer_than is None, "nothing of the mesher before is held"
    assert shown(follower.take(delta(13, stamp_ns=34 + SILENCE_NS))) == [13]


def test_an_answer_of_the_mesher_before_is_none_to_the_one_that_began_anew():
    follower = SurfaceFollower()
    follower.take(delta(40, stamp_ns=40))
    assert follower.take(delta(3, stamp_ns=52)) == []
    assert follower.catch_up(delta(40, base=0, stamp_ns=41)) == []
    assert follower.newer_than == 0
    assert shown(follower.catch_up(delta(3, base=0, stamp_ns=53))) == [3]


def test_who_had_nothing_yet_removes_nothing():
    follower = SurfaceFollower()
    follower.take(delta(7, stamp_ns=7))
    (whole,) = follower.catch_up(delta(7, base=0, stamp_ns=8, places=(1, 2)))
    assert whole.removed == ()


def test_a_mesher_that_never_answers_costs_no_more_than_so_many_deltas():
    follower = SurfaceFollower()
    for n in range(2, 5 * HELD):
        assert follower.take(delta(n)) == []
    assert shown(follower.give_up()) == list(range(4 * HELD, 5 * HELD)), "the newest are kept"


def test_when_nobody_answers_any_more_what_is_held_is_shown_all_the_same():
    follower, assembly = SurfaceFollower(), MeshAssembly()
    for each in follower.take(delta(1)):
        assembly.apply(each)
    assert follower.take(delta(3)) == follower.take(delta(4)) == []
    released = follower.give_up()
    assert shown(released) == [3, 4]
    assert all(assembly.apply(each) for each in released)
    assert assembly.blocks[0, 0, 0].version == 4
    assert follower.newer_than is None
    assert follower.give_up() == []
    assert shown(follower.take(delta(5))) == [5]
