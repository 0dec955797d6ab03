# SPDX-License-Identifier: Apache-2.0
"""The status line is for whoever reads it, and nobody has to."""

from __future__ import annotations

import io
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem.graph import Choice
from worldsystem.status_line import StatusLine
from worldsystem_ingest.config import IngestConfig
from worldsystem_viewer.config import ViewerConfig


class Gone(io.TextIOBase):
    """Standard output whose reader has ended, as that of `| head -1`."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_the_heading_says_the_ports_that_are_listened_on(tmp_path, capsys):
    StatusLine().heading(Choice(out=tmp_path))
    text, viewer = capsys.readouterr().out, ViewerConfig()
    for port in (viewer.web_port, viewer.foxglove_port, viewer.rerun_web_port, IngestConfig().port):
        assert f"127.0.0.1:{port}" in text
    extra = {"ingest": {"port": 1}, "viewer": {"web_port": 2, "rerun": False}}
    StatusLine().heading(Choice(out=tmp_path, extra=extra))
    text = capsys.readouterr().out
    assert "ws://127.0.0.1:1/" in text
    assert "http://127.0.0.1:2\n" in text
    assert "Rerun" not in text


def test_a_reader_that_goes_away_ends_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", Gone())
    line = StatusLine()
    line.heading(Choice(out=tmp_path))
    line.note("the mesher ended")
    line.end()
