# SPDX-License-Identifier: Apache-2.0
"""An error costs the frame at hand; too many end the stage, and never the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
from dds_domain import own_domain

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from rclpy.node import Node  # noqa: E402

from worldsystem_core.config import Config  # noqa: E402
from worldsystem_core.errors import BackendError  # noqa: E402
from worldsystem_core.faults import MOST_FAULTS, WITHIN_S, FaultRecord  # noqa: E402
from worldsystem_core.frames import Frame  # noqa: E402
from worldsystem_core.ros import reference_topic, topics  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402
from worldsystem_core.ros.stage_node import StageNode  # noqa: E402
from worldsystem_core.telemetry import GpsFix  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class NoSettings(Config):
    """Nothing to set."""


class Fragile(StageNode):
    """Uses frames, but breaks on those it was told to break on."""

    def __init__(self, context, bad, error=RuntimeError):
        super().__init__("fragile", NoSettings, context=context)
        self.bad, self.error = bad, error
        self.listen(topics.IMAGE, self._on_frame, self._on_drop, depth=100)

    def _on_frame(self, frame):
        self.ledger.take(frame.id)
        if frame.id in self.bad:
            raise self.error(f"frame {frame.id}")
        self.ledger.use(frame.id)

    def _on_drop(self, frame):
        self.ledger.drop_untaken("queue_full")

    def status(self):
        return self._diagnostics().status[0]


def settled(account):
    return account.used + sum(account.dropped.values())


@pytest.fixture
def run(context, monkeypatch):
    """Start a `Fragile` and send it frames; returns the node's thread once it took them all."""
    monkeypatch.setattr(reference_topic, "_registry", reference_topic.TopicRegistry())
    threads = []

    def start(bad, frames, **keywords):
        thread = NodeThread(Fragile(context, bad, **keywords))
        threads.append(thread)
        publisher = ReferencePublisher(thread.node, topics.IMAGE)
        thread.start()
        for i in range(frames):
            publisher.publish(Frame(id=i, stamp_ns=i, rgb=np.zeros((2, 2, 3), np.uint8)))
        deadline = time.monotonic() + 10.0
        while settled(thread.node.ledger.state()) < frames:
            assert time.monotonic() < deadline, "it did not take them all"
            time.sleep(0.01)
        return thread

    yield start
    for thread in threads:
        thread.stop()
        thread.node.close()


def test_an_error_costs_one_frame_and_is_told(run):
    thread = run({3}, 10)
    state = thread.node.ledger.state()
    assert (state.taken, state.used, state.dropped) == (10, 9, {"failed": 1})
    assert thread.failure is None
    status = thread.node.status()
    assert status.level == DiagnosticStatus.WARN
    assert "RuntimeError: frame 3" in status.message


def test_too_many_errors_end_the_stage_and_every_frame_is_still_accounted_for(run):
    thread = run(set(range(100)), 40)
    state = thread.node.ledger.state()
    assert isinstance(thread.failure, RuntimeError)
    assert state.taken == 40
    assert state.dropped == {"failed": MOST_FAULTS + 1, "stage_failed": 40 - MOST_FAULTS - 1}
    assert state.in_flight == 0
    assert thread.node.status().level == DiagnosticStatus.ERROR


def test_an_error_that_a_person_must_act_on_ends_the_stage_at_once(run):
    thread = run({0}, 1, error=BackendError)
    deadline = time.monotonic() + 5.0
    while thread.failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert isinstance(thread.failure, BackendError)


def test_faults_far_apart_never_end_a_stage():
    now = [0.0]
    record = FaultRecord(lambda: now[0])
    for _ in range(3 * MOST_FAULTS):
        assert record.survives(ValueError("rare"))
        now[0] += WITHIN_S / 2
    assert record.recent
    now[0] += WITHIN_S
    assert not record.recent


class Broken(StageNode):
    """Is handed bytes in the publisher's thread, and can take none."""

    def __init__(self, context):
        super().__init__("broken", NoSettings, context=context)
        self.calls = 0
        self.listen_bytes(topics.GPS, self._on_bytes, direct=True)

    def _on_bytes(self, message):
        self.calls += 1
        raise RuntimeError("the disk's library broke")


def test_a_stage_that_can_take_nothing_in_the_threads_of_others_ends_in_its_own(
    context, monkeypatch
):
    monkeypatch.setattr(reference_topic, "_registry", reference_topic.TopicRegistry())
    other = Node("other", context=context)
    out = ReferencePublisher(other, topics.GPS, outside=False)
    thread = NodeThread(Broken(context))
    thread.start()
    fix = GpsFix(stamp_ns=1, latitude_deg=0.0, longitude_deg=0.0, altitude_m=0.0)
    for _ in range(2 * MOST_FAULTS):
        out.publish(fix)
    deadline = time.monotonic() + 20.0
    while thread.failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert isinstance(thread.failure, RuntimeError), "whoever runs it begins it anew then"
    assert thread.node.calls == MOST_FAULTS + 1
    thread.finish(20.0)
    assert not any(each.is_alive() for each in thread._threads)
    assert thread.node._diagnostics().status[0].level == DiagnosticStatus.ERROR
    out.destroy()
    thread.node.close()
    other.destroy_node()


STAGE = """
from dataclasses import dataclass

from worldsystem_core.config import Config
from worldsystem_core.errors import BackendError
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode


@dataclass(frozen=True, kw_only=True)
class NoSettings(Config):
    pass


class Ending(StageNode):
    def __init__(self):
        super().__init__("ending", NoSettings)
        self.create_timer(0.1, self.fail)

    def fail(self):
        raise BackendError("the weights are gone")


run_node(Ending)
"""


def test_a_process_whose_stage_ended_by_an_error_ends_too():
    """Whoever watches it begins it anew then."""
    done = subprocess.run(
        [sys.executable, "-c", STAGE],
        env=os.environ | {"ROS_DOMAIN_ID": str(own_domain(__file__))},
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    assert done.returncode == 1, done.stderr
    assert "the weights are gone" in done.stdout + done.stderr
