# SPDX-License-Identifier: Apache-2.0
"""How the process of one stage ends: in order at each signal, and with a code that tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from dds_domain import own_domain

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

STAGE = """
from dataclasses import dataclass

from worldsystem_core.config import Config
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode


@dataclass(frozen=True, kw_only=True)
class NoSettings(Config):
    pass


class Writing(StageNode):
    def __init__(self):
        super().__init__("writing", NoSettings)
        self._once = self.create_timer(0.01, self.begin)

    def begin(self):
        self._once.cancel()
        print("begun", flush=True)

    def input_ended(self):
        %s


run_node(Writing)
"""
WRITES = 'print("written", flush=True)'
FAILS = 'raise OSError("the disk is full")'


@pytest.fixture
def begun():
    """A function that starts a stage, and returns its process once that is at work."""
    processes = []

    def begin(at_the_end: str) -> subprocess.Popen:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", STAGE % at_the_end],
                env=os.environ | {"ROS_DOMAIN_ID": str(own_domain(__file__))},
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under `nohup`
            )
        )
        assert processes[-1].stdout.readline() == "begun\n"
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stage_ends_in_order_whatever_asks_it_to(begun, number):
    process = begun(WRITES)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60.0)
    assert output == "written\n"
    assert process.returncode == 0


def test_a_stage_that_fails_as_it_ends_says_so_by_its_exit_code(begun):
    process = begun(FAILS)
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) == 1


def test_a_domain_that_is_none_is_one_line_and_for_a_person_to_change():
    ended = subprocess.run(
        [sys.executable, "-c", STAGE % WRITES],
        env=os.environ | {"ROS_DOMAIN_ID": "one"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60.0,
    )
    assert "ROS_DOMAIN_ID=one is no DDS domain" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2
