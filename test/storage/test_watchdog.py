# SPDX-License-Identifier: Apache-2.0
"""A recording that stands still is noticed, one that has nothing to do is left alone."""

from __future__ import annotations

import re

import pytest

from worldsystem_storage.bag_writer import BagState, TopicCount
from worldsystem_storage.selection import Selection
from worldsystem_storage.watchdog import GrowthWatchdog


def state(offered: int, grown: int, **more) -> BagState:
    return BagState({"/a": TopicCount(offered, 0)}, 5_000_000, grown_bytes=grown, **more)


def test_a_bag_that_does_not_grow_while_messages_come_is_told_once(caplog):
    dog = GrowthWatchdog(limit_s=5.0)
    told = [dog.look(state(10 * n, grown=100), float(n)) for n in range(1, 9)]
    assert told[:6] == [""] * 6
    assert re.search(r"60 messages came in the last 6 s.*does not grow; 5 MB wait", told[6])
    assert len(caplog.records) == 1
    assert dog.look(state(90, grown=200), 9.0) == ""
    assert "grows again" in caplog.text


def test_a_bag_that_gets_nothing_or_grows_is_well():
    dog = GrowthWatchdog(limit_s=5.0)
    assert not any(dog.look(state(10, grown=100), float(n)) for n in range(30))
    assert not any(dog.look(state(10 * n, grown=n), 30.0 + n) for n in range(30))


def test_a_disk_that_confirms_nothing_is_told_too():
    assert GrowthWatchdog(limit_s=5.0).look(state(1, grown=1, stalled_s=6.0), 1.0)


def test_a_stop_says_its_own_reason():
    dog = GrowthWatchdog(limit_s=1.0)
    dog.look(state(1, grown=1), 0.0)
    assert dog.look(state(2, grown=1, stopped="disk full"), 3.0) == "disk full"


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("/slam/pose", {"/slam/pose"}),
        ("/slam", {"/slam/pose", "/slam/path", "/slam"}),
        ("/slam/pose /mesh", {"/slam/pose", "/mesh/delta"}),
        ("pa?th$", {"/slam/path"}),
        ("^/s.*/p /mesh/", {"/slam/pose", "/slam/path", "/mesh/delta"}),
        ("", set()),
    ],
)
def test_topics_are_chosen_by_name_by_folder_or_by_expression(words, chosen):
    topics = {"/slam", "/slam/pose", "/slam/path", "/slammed", "/mesh/delta"}
    assert {topic for topic in topics if topic in Selection(words)} == chosen
    assert bool(Selection(words)) == bool(words)
