# SPDX-License-Identifier: Apache-2.0
"""A program that asks a running system once ends well, whatever comes in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

import rclpy
from dds_domain import own_domain
from rclpy.client import Client
from std_srvs.srv import Trigger

from worldsystem.cli import main
from worldsystem_core.errors import ServiceError
from worldsystem_core.ros.service_call import call_service

SERVER = """
import rclpy
from std_srvs.srv import Trigger

def go(*_):
    raise InterruptedError

rclpy.init()
node = rclpy.create_node("server")
node.create_service(Trigger, "slow", go)
print("ready", flush=True)
try:
    rclpy.spin(node)
except InterruptedError:
    node.destroy_node()
    rclpy.shutdown()
"""


@pytest.fixture(autouse=True)
def domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(own_domain(__file__)))


def interrupted(*_: object, **__: object) -> bool:
    """What a wait for a service is when somebody presses Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5.0)
    return False


def test_ctrl_c_while_it_waits_is_an_interrupt_and_nothing_else(monkeypatch) -> None:
    monkeypatch.setattr(Client, "wait_for_service", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call_service(Trigger, "nobody", Trigger.Request())
    assert not rclpy.ok()


def test_a_command_that_is_interrupted_says_so_by_its_exit_code_alone(monkeypatch, capsys) -> None:
    monkeypatch.setattr(Client, "wait_for_service", interrupted)
    assert main(["map", "save"]) == 130
    assert capsys.readouterr().err == ""


def test_a_server_that_goes_away_is_not_waited_for() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with pytest.raises(ServiceError, match="slow went away before it answered"):
            call_service(Trigger, "slow", Trigger.Request())
    finally:
        server.kill()
        server.wait(10.0)
