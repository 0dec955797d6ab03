# SPDX-License-Identifier: Apache-2.0
"""A stage that asks another one gets its answer, whenever that one is there."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.task import Future  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from worldsystem_core.config import Config  # noqa: E402
from worldsystem_core.ros import patient_call  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_core.ros.patient_call import PatientCall  # noqa: E402
from worldsystem_core.ros.stage_node import StageNode  # noqa: E402

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class NoSettings(Config):
    """Nothing to set."""


class Asker(StageNode):
    """Asks once and keeps the answers."""

    def __init__(self, context):
        super().__init__("asker", NoSettings, context=context)
        self.answers, self.fails_on = [], ""
        self.call = PatientCall(self, Trigger, "say", self._on_answer)

    def _on_answer(self, answer):
        self.answers.append(answer.message)
        if answer.message == self.fails_on:
            raise ValueError(f"what is {answer.message}?")


class Sayer(StageNode):
    """Says `words`, after as long as it is told."""

    def __init__(self, context, words, takes_s=0.0):
        super().__init__(f"sayer_{words}", NoSettings, context=context)
        self.words, self.takes_s, self.asked = words, takes_s, 0
        self.create_service(Trigger, "say", self._say)

    def _say(self, request, response):
        self.asked += 1
        time.sleep(self.takes_s)
        response.message = self.words
        return response


@pytest.fixture
def started():
    threads = []

    def start(node):
        threads.append(NodeThread(node))
        threads[-1].start()
        return node

    yield start
    for thread in reversed(threads):
        thread.stop()
        thread.node.close()


def wait_until(what):
    deadline = time.monotonic() + TIMEOUT_S
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert what()


def test_one_who_asks_before_anybody_is_there_is_answered_once(context, started):
    asker = started(Asker(context))
    asker.call.ask(Trigger.Request())
    time.sleep(0.5)
    sayer = started(Sayer(context, "late"))
    wait_until(lambda: asker.answers)
    time.sleep(2 * patient_call.LOOK_S)
    assert asker.answers == ["late"]
    assert sayer.asked == 1


def test_one_whose_answer_never_comes_asks_again(context, started, monkeypatch):
    monkeypatch.setattr(patient_call, "PATIENCE_S", 0.5)
    asker = started(Asker(context))
    sayer = started(Sayer(context, "slow", takes_s=1.5))
    asker.call.ask(Trigger.Request())
    wait_until(lambda: sayer.asked > 1)
    sayer.takes_s = 0.0
    wait_until(lambda: asker.answers)
    time.sleep(2.0)
    assert asker.answers == ["slow"], "an answer that was given up is not taken beside the other"


def test_an_answer_that_cannot_be_worked_on_costs_itself_alone(context, started):
    asker, sayer = Asker(context), started(Sayer(context, "odd"))
    asker.fails_on = "odd"
    started(asker)
    asker.call.ask(Trigger.Request())
    wait_until(lambda: asker.faults.total == 1)
    sayer.words = "plain"
    asker.call.ask(Trigger.Request())
    wait_until(lambda: asker.answers == ["odd", "plain"])
    assert "what is odd?" in asker.faults.last


def test_a_call_that_fails_is_made_again(context, started, monkeypatch):
    monkeypatch.setattr(patient_call, "PATIENCE_S", 0.1)
    asker = Asker(context)
    call_async, failed = asker.call._client.call_async, []

    def fail_once(request):
        if failed:
            return call_async(request)
        failed.append(Future(executor=asker.executor))
        failed[0].set_exception(RuntimeError("the answer could not be read"))
        return failed[0]

    monkeypatch.setattr(asker.call._client, "call_async", fail_once)
    started(asker)
    started(Sayer(context, "well"))
    asker.call.ask(Trigger.Request())
    wait_until(lambda: asker.answers == ["well"])
    assert asker.faults.total == 0
