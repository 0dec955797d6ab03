# SPDX-License-Identifier: Apache-2.0
"""Work that can wait waits for urgent work, and never for ever."""

from __future__ import annotations

import threading
import time

from worldsystem_core.handoff import Handoff
from worldsystem_core.priority import behind, give_way, make_urgent, paced, patience_s


def timed(call) -> float:
    began_s = time.monotonic()
    call()
    return time.monotonic() - began_s


def urgent_inbox(*items) -> Handoff[int]:
    inbox: Handoff[int] = Handoff(10)
    make_urgent(inbox)
    for item in items:
        inbox.put(item)
    return inbox


def test_nobody_waits_while_nothing_urgent_does():
    inbox = urgent_inbox()
    assert len(inbox) == 0
    assert timed(lambda: give_way(5.0)) < 1.0


def test_one_goes_on_as_soon_as_the_urgent_inbox_is_empty():
    inbox, went_on = urgent_inbox(1, 2), threading.Event()
    waiting = threading.Thread(target=lambda: (give_way(30.0), went_on.set()))
    waiting.start()
    for number in (1, 2):
        assert not went_on.wait(0.05)
        assert inbox.get(1.0) == number
    assert went_on.wait(10.0)
    waiting.join(10.0)


def test_patience_ends_though_urgent_work_does_not():
    inbox = urgent_inbox(1)
    assert 0.05 <= timed(lambda: give_way(0.05)) < 5.0
    assert len(inbox) == 1


def test_nobody_waits_for_an_inbox_whose_producer_does():
    inbox = urgent_inbox()
    assert inbox.put_waiting(1, 1.0)
    assert timed(lambda: give_way(5.0)) < 1.0
    inbox.put(2)
    assert timed(lambda: give_way(0.05)) >= 0.05


def test_pictures_are_paced_while_their_producer_waits_for_room():
    inbox = urgent_inbox(1)
    assert not inbox.paced
    assert inbox.put_waiting(2, 1.0)
    assert paced()
    inbox.put(3)
    assert not inbox.paced


def test_who_reads_an_urgent_inbox_is_behind_while_something_waits_and_its_producer_does_not():
    inbox = urgent_inbox()
    assert not behind()
    inbox.put(1)
    assert behind()
    inbox.get(1.0)
    assert not behind()
    assert inbox.put_waiting(2, 1.0)
    assert not behind()


def test_an_inbox_that_is_gone_holds_up_nobody():
    urgent_inbox(1)
    assert timed(lambda: give_way(5.0)) < 1.0


def test_the_nicer_wait_longer_and_what_the_map_needs_does_not():
    assert [patience_s(niceness) for niceness in (0, 5, 10, 15)] == [0.0, 0.0, 0.15, 0.3]
