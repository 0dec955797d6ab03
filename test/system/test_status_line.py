# SPDX-License-Identifier: Apache-2.0
"""The status line is for whoever reads it, and nobody has to."""

from __future__ import annotations

import io
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem.graph import Choice
from worldsystem.status_line import StatusLine


class Gone(io.TextIOBase):
    """Standard output whose reader has ended, as that of `| head -1`."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_that_goes_away_ends_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", Gone())
    line = StatusLine()
    line.heading(Choice(out=tmp_path))
    line.note("the mesher ended")
    line.end()
