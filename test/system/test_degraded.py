# SPDX-License-Identifier: Apache-2.0
"""What a run does when one of its stages has ended by an error."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem.app import App
from worldsystem.graph import Choice


class Dead:
    """Stands for the thread of a stage that may have ended."""

    def __init__(self, name, failure):
        self.failure = failure
        self.node = self
        self.notes = []
        self._name = name

    def get_name(self):
        return self._name


@pytest.mark.parametrize(
    ("name", "ends"), [("mesher", False), ("recorder", False), ("slam3r", True)]
)
def test_a_run_goes_on_without_a_stage_that_it_does_not_need(tmp_path, name, ends):
    app = App(Choice(out=tmp_path), status=False)
    reporter = Dead("reporter", None)
    app._threads = [Dead(name, RuntimeError("x")), reporter]
    assert app._cannot_go_on() is ends
    assert app._cannot_go_on() is ends
    assert len(reporter.notes) == (not ends)
