# SPDX-License-Identifier: Apache-2.0
"""Who waits for the turn gets it, however soon the one who has it wants it again."""

from __future__ import annotations

import threading
import time

from worldsystem_core.turn import Turn

PATIENCE_S = 10.0


def until(condition) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_one_that_waits_comes_before_the_one_that_had_it_comes_again():
    turn, order = Turn(), []

    def wait() -> None:
        with turn:
            order.append("waited")

    with turn:
        other = threading.Thread(target=wait)
        other.start()
        until(lambda: turn.waiting == 1)
    with turn:  # at once: a lock of the standard library is nearly always taken again here
        order.append("again")
    other.join(PATIENCE_S)
    assert order == ["waited", "again"]


def test_those_that_wait_come_in_the_order_in_which_they_came():
    turn, order, threads = Turn(), [], []

    def wait(number: int) -> None:
        with turn:
            order.append(number)

    with turn:
        for number in range(5):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            until(lambda number=number: turn.waiting == number + 1)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order == [0, 1, 2, 3, 4]


def test_a_thread_may_take_it_within_itself_and_keeps_it_until_the_last_end():
    turn, inside = Turn(), threading.Event()
    with turn:
        with turn, turn:
            other = threading.Thread(target=lambda: turn.__enter__() and inside.set())
            other.start()
            until(lambda: turn.waiting == 1)
        assert not inside.wait(0.05)
    assert inside.wait(PATIENCE_S)
    other.join(PATIENCE_S)


def test_never_two_have_it_at_once():
    turn, inside, worst, counts = Turn(), [], [0], [0] * 4

    def work(number: int) -> None:
        for _ in range(500):
            with turn:
                inside.append(number)
                worst[0] = max(worst[0], len(inside))
                counts[number] += 1
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert worst[0] == 1
    assert counts == [500] * 4


def test_an_error_gives_it_back():
    turn = Turn()
    try:
        with turn:
            raise KeyError
    except KeyError:
        pass
    done = threading.Thread(target=lambda: turn.__enter__())
    done.start()
    done.join(PATIENCE_S)
    assert not done.is_alive()


def test_one_that_is_interrupted_while_it_waits_lets_the_others_go_on(monkeypatch):
    turn, order = Turn(), []

    class Interrupted:
        def acquire(self, *_):
            if self.taken:
                raise KeyboardInterrupt
            self.taken = True

        taken = False

    def wait() -> None:
        with turn:
            order.append("other")

    with turn:
        made = threading.Thread(target=lambda: interrupted())

        def interrupted() -> None:
            monkeypatch.setattr("worldsystem_core.turn.threading.Lock", Interrupted)
            try:
                with turn:
                    order.append("never")
            except KeyboardInterrupt:
                order.append("interrupted")
            monkeypatch.undo()

        made.start()
        made.join(PATIENCE_S)
        other = threading.Thread(target=wait)
        other.start()
        until(lambda: turn.waiting == 1)
    other.join(PATIENCE_S)
    assert order == ["interrupted", "other"]
