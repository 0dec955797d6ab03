# SPDX-License-Identifier: Apache-2.0
"""A thread that does the newest of what it is given."""

from __future__ import annotations

import logging
import threading

import pytest

from worldsystem_core.newest_job import NewestJob

WAIT_S = 10.0


@pytest.fixture
def jobs():
    made = NewestJob("jobs")
    yield made
    made.close(WAIT_S)


def test_what_waits_is_replaced_and_what_is_at_work_is_not(jobs):
    begun, go_on, done = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go_on.wait(WAIT_S)
        done.append("first")

    jobs.do(first)
    assert begun.wait(WAIT_S)
    for name in ("second", "third"):
        jobs.do(lambda name=name: done.append(name))
    assert not jobs.settle(0.0)
    go_on.set()
    assert jobs.settle(WAIT_S)
    assert done == ["first", "third"]


def test_the_end_does_what_waits_and_nothing_that_comes_later(jobs):
    go_on, done = threading.Event(), []
    jobs.do(lambda: done.append(go_on.wait(WAIT_S)))
    jobs.do(lambda: done.append("last"))
    assert not jobs.close(0.0), "one is at work"
    go_on.set()
    assert jobs.close(WAIT_S)
    jobs.do(lambda: done.append("too late"))
    assert jobs.settle(WAIT_S)
    assert done[-1] == "last"


def test_a_job_that_fails_is_logged_and_the_next_is_done(jobs, caplog):
    done = []
    with caplog.at_level(logging.ERROR):
        jobs.do(lambda: [][0])
        assert jobs.settle(WAIT_S)
    assert "list index out of range" in caplog.text
    jobs.do(lambda: done.append("next"))
    assert jobs.settle(WAIT_S)
    assert done == ["next"]


def test_one_that_was_given_nothing_has_no_thread_to_end(jobs):
    before = threading.active_count()
    assert jobs.settle(0.0)
    assert jobs.close(0.0)
    assert threading.active_count() == before
