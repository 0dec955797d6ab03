# SPDX-License-Identifier: Apache-2.0
"""The log as JSON: each line can be read alone, and says who worked on what."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from worldsystem_core.frames import Frame
from worldsystem_core.json_log import JsonLines, is_thread_of, working_on

LOG = logging.getLogger("worldsystem_mesh.mesher")


@pytest.fixture
def lines():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    LOG.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    LOG.removeHandler(handler)


def test_a_line_tells_level_time_node_and_message_whatever_the_message_holds(lines):
    is_thread_of("")
    LOG.warning('two "lines"\nand %s', "ümläut\x00")
    (line,) = lines()
    assert line["message"] == 'two "lines"\nand ümläut\x00'
    assert (line["level"], line["node"], line["logger"]) == ("warning", "mesh", LOG.name)
    assert line["stamp"].endswith("+00:00")
    assert "frame" not in line


def test_the_node_is_that_of_the_thread_and_the_frame_that_of_the_work(lines):
    frame = Frame(id=7, stamp_ns=1, rgb=np.zeros((2, 2, 3), np.uint8))

    def work():
        is_thread_of("mesher")
        with working_on(frame):
            LOG.warning("slow")
        with working_on("anything"):
            LOG.warning("idle")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    slow, idle = lines()
    assert (slow["node"], slow["frame"]) == ("mesher", 7)
    assert "frame" not in idle


def test_an_error_stays_on_its_line(lines):
    try:
        raise ValueError("bad")
    except ValueError:
        LOG.exception("failed")
    (line,) = lines()
    assert "ValueError: bad" in line["error"]


@pytest.mark.ros
def test_a_node_logs_nothing_but_json():
    pytest.importorskip("rclpy", reason="ROS is not set up: run this through `make test`")
    script = (
        "import logging, rclpy\n"
        "from worldsystem_core.ros.log_forwarding import forward_logging, logging_arguments\n"
        "rclpy.init(args=logging_arguments([])); forward_logging()\n"
        "logging.getLogger('worldsystem_mesh.x').warning('hear me')\n"
        "logging.getLogger('worldsystem_mesh.x').info('and me')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"WORLDSYSTEM_LOG": "json"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert [line["message"] for line in told] == ["hear me", "and me"]
