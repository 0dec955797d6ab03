# SPDX-License-Identifier: Apache-2.0
"""A stage that is heard no more is told of to those who begin to listen only then."""

from __future__ import annotations

import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem.node import ReporterNode, Sign  # noqa: E402
from worldsystem.watch.commands import _LISTEN_S, told  # noqa: E402
from worldsystem.watch.node import take_diagnostics  # noqa: E402
from worldsystem.watch.state import SILENT_AFTER_S, SystemState  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402


def made(context, tmp_path, **given_to_it) -> ReporterNode:
    given = {"folder": str(tmp_path / "run"), "backend": "auto", "report": False}
    overrides = [rclpy.parameter.Parameter(name, value=value) for name, value in given.items()]
    return ReporterNode(context=context, parameter_overrides=overrides, **given_to_it)


@pytest.fixture
def reporter(context, tmp_path):
    node = made(context, tmp_path)
    yield node
    node.close()


def status(reporter) -> int:
    """The exit code of `worldsystem status` for one who has heard the reporter alone."""
    state = SystemState()
    take_diagnostics(state, reporter._diagnostics())
    return told(state, as_json=False)


def test_a_stage_that_gave_up_before_anybody_listened_is_named(reporter, capsys):
    now_s = time.monotonic()
    reporter.signs["ingest"] = Sign(now_s, "running", {})
    assert status(reporter) == 0
    reporter.signs["slam3r"] = Sign(now_s - 60.0, "ended by ValueError: no", {})
    reporter.signs["viewer"] = Sign(now_s - SILENT_AFTER_S - 1.0, "running", {})
    assert status(reporter) == 1
    told_last = capsys.readouterr().out.splitlines()[-1]
    assert told_last == (
        "reporter: slam3r has not been heard for 60 s (ended by ValueError: no); "
        "viewer has not been heard for 5 s"
    )


def test_a_reporter_that_was_stopped_itself_takes_nobodys_silence_for_a_sign(reporter):
    for stage in ("ingest", "slam3r", "reporter"):
        reporter.signs[stage] = Sign(time.monotonic() - 60.0, "running", {})
    assert not reporter.problem()


def test_the_last_one_that_lives_hears_itself(context, tmp_path):
    thread = NodeThread(made(context, tmp_path))
    thread.start()
    thread.node.signs["slam3r"] = Sign(time.monotonic() - 60.0, "running", {})
    deadline = time.monotonic() + 20.0
    while not thread.node.problem():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    thread.stop()
    thread.node.close()


def test_a_stage_that_is_begun_anew_is_named_at_once(reporter):
    reporter.signs["mesher"] = Sign(time.monotonic(), "running", {})
    reporter.supervised = {"state.mesher": "restarting"}
    assert reporter.problem() == "mesher ended and is begun anew"
    reporter.supervised = {"state.mesher": "running"}
    assert not reporter.problem()


@pytest.mark.parametrize("heard", [True, False])
def test_the_report_names_the_back_end_that_ran(reporter, monkeypatch, heard):
    written = []
    monkeypatch.setattr("worldsystem.outputs.write_outputs", lambda run, **_: written.append(run))
    if heard:
        reporter.signs["slam3r"] = Sign(0.0, "running", {"backend": "geometric"})
    reporter.input_ended()
    assert written[0].backend == ("geometric" if heard else "auto")


def test_status_listens_for_longer_than_a_node_may_be_silent():
    assert _LISTEN_S > SILENT_AFTER_S


def test_of_several_systems_on_one_graph_each_hears_its_own_stages(context, tmp_path):
    spaces = ("", "drone1", "drone2")
    reporters = [made(context, tmp_path, namespace=space) for space in spaces]
    try:
        arrays = [reporter._diagnostics() for reporter in reporters]
        for space, array in zip(spaces, arrays, strict=True):
            array.status[0].level, array.status[0].message = b"\x01", f"of '{space}'"
        for space, reporter in zip(spaces, reporters, strict=True):
            state = SystemState()
            for array in arrays:
                reporter._on_diagnostics(array)
                take_diagnostics(state, array, reporter.get_namespace())
            assert [node.problem for node in state.nodes()] == [f"of '{space}'"]
            signs = {name: sign.message for name, sign in reporter.signs.items()}
            assert signs == {"reporter": f"of '{space}'"}
    finally:
        for reporter in reporters:
            reporter.close()
