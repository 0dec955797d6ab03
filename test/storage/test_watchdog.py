# SPDX-License-Identifier: Apache-2.0
"""A recording that stands still is noticed, one that has nothing to do is left alone."""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace

import pytest

from worldsystem_storage import bag_writer
from worldsystem_storage.bag_writer import BagState, BagWriter, TopicCount
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.message_queue import MessageQueue
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


def test_a_bag_that_is_flushed_seldom_is_well_until_the_flush_is_late():
    dog = GrowthWatchdog(limit_s=1.0, flush_s=4.0)
    assert not any(dog.look(state(10 * n, grown=100), float(n)) for n in range(1, 7))
    assert "came in the last 6 s" in dog.look(state(70, grown=100), 7.0)


def test_messages_that_wait_for_the_next_flush_are_no_stall_of_the_disk(tmp_path, monkeypatch):
    clock, waiting = SimpleNamespace(now_s=0.0), threading.Event()
    take = MessageQueue.take

    def take_noted(queue: MessageQueue, timeout_s: float) -> list:
        waiting.set()
        return take(queue, timeout_s)

    monkeypatch.setattr(bag_writer, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr(MessageQueue, "take", take_noted)
    bag = BagWriter(tmp_path / "run", StorageConfig(reserve_mib=1, flush_s=60.0, sync=False))
    bag.add_topic("/a", "p/msg/A", "uint8[] data\n", "")
    bag.write("/a", bytes(8), 1, 1)
    assert waiting.wait(10.0)
    stalled_s = []
    for clock.now_s in (1.0, 47.0, 53.0):  # it flushes after 48 s
        stalled_s.append(bag.state().stalled_s)
    assert bag.close()["/a"].written == 1
    assert stalled_s == pytest.approx([0.0, 0.0, 5.0])


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
