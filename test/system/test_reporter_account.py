# SPDX-License-Identifier: Apache-2.0
"""What the report expects of a stage is what came, though the reporter lost some of it."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest
from plain_keyframe import plain_keyframe

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem import node as reporter_module  # noqa: E402
from worldsystem import run_folder  # noqa: E402
from worldsystem.catalogue.prune import to_prune  # noqa: E402
from worldsystem.catalogue.runs import read_runs  # noqa: E402
from worldsystem.node import ReporterNode  # noqa: E402
from worldsystem_core.ledger import LedgerState, StageReport  # noqa: E402
from worldsystem_core.ros import topics  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402

COUNT = 3 * topics.KEYFRAME.waiting


def test_keyframes_that_a_slow_reporter_lost_are_expected_of_the_mesher_too(context, tmp_path):
    folder = rclpy.parameter.Parameter("folder", value=str(tmp_path / "run"))
    thread = NodeThread(ReporterNode(context=context, parameter_overrides=[folder]))
    thread.start()
    stage = rclpy.create_node("slam3r", context=context)
    keyframes = ReferencePublisher(stage, topics.KEYFRAME, outside=False)
    reporter = thread.node
    try:
        with reporter.turn:  # it is at something else meanwhile
            for number in range(COUNT):
                keyframes.publish(plain_keyframe(number, 10**18 + number))
        assert thread.wait_idle(20.0)
        took_all = LedgerState("mesher", COUNT, COUNT, {})
        reporter.observer.stage(
            StageReport(stamp_ns=1, ledger=took_all, violations=0, latency_counts=())
        )
        run = reporter.observer.record(tmp_path, source="x", backend="geometric")
        assert run.expected["mesher"] == COUNT
        assert (run.keyframe_count, run.unexplained_frames) == (COUNT, 0)
    finally:
        keyframes.destroy()
        thread.stop()
        reporter.close()
        stage.destroy_node()


def test_a_named_truth_that_cannot_be_read_is_told_in_the_report(context, tmp_path):
    place = tmp_path / "no_data_set"
    place.mkdir()
    given = {"folder": str(tmp_path / "run"), "truth": str(place)}
    parameters = [rclpy.parameter.Parameter(name, value=value) for name, value in given.items()]
    reporter = ReporterNode(context=context, parameter_overrides=parameters)
    try:
        reporter.input_ended()
        notes = json.loads((tmp_path / "run" / "summary.json").read_text())["notes"]
        assert any("no_data_set" in note and "cannot be read" in note for note in notes)
    finally:
        reporter.close()


class OneSecond(datetime):
    """A clock at which all begin in the same second."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)


def test_reporters_of_two_drones_that_begin_in_one_second_have_folders_of_their_own(
    context, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "datetime", OneSecond)
    reporters = [ReporterNode(context=context, namespace=f"drone{n}") for n in (1, 2)]
    try:
        names = [reporter.folder.name for reporter in reporters]
        assert names == ["20260102_030405", "20260102_030405_2"]
        assert all(reporter.folder.is_dir() for reporter in reporters)
    finally:
        for reporter in reporters:
            reporter.close()


def test_a_run_that_goes_on_without_recording_is_told_and_not_pruned(context, tmp_path):
    """As where its recorder waits for room on a full disk."""
    for name in ("older", "newer"):
        (tmp_path / name / "bag").mkdir(parents=True)
    os.utime(tmp_path / "older", (1e9, 1e9))
    folder = rclpy.parameter.Parameter("folder", value=str(tmp_path / "older"))
    reporter = ReporterNode(context=context, parameter_overrides=[folder])
    try:
        runs = read_runs(tmp_path)
        assert [run.name for run in runs if run.going_on] == ["older"]
        assert not to_prune(runs, older_than_days=1.0)
    finally:
        reporter.close()
    assert [run.name for run in to_prune(read_runs(tmp_path), older_than_days=1.0)] == ["older"]


def test_what_is_lost_between_processes_is_no_fault_to_a_reporter_of_its_own(
    context, tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr(reporter_module, "run_node", made.append)
    reporter_module.main()
    folder = rclpy.parameter.Parameter("folder", value=str(tmp_path / "run"))
    reporter = made[0](context=context, parameter_overrides=[folder])
    try:
        for stage, count in (("ingest", 10), ("slam3r", 8)):
            account = LedgerState(stage, count, count, {})
            reporter.observer.stage(
                StageReport(stamp_ns=1, ledger=account, violations=0, latency_counts=())
            )
        run = reporter.observer.record(tmp_path, source="x", backend="geometric")
        assert run.unexplained_frames == 0
        assert run.ledgers[1].dropped == {"not_delivered": 2}
    finally:
        reporter.close()


def test_a_run_whose_folder_is_made_after_its_reporter_is_told_as_going_on(context, tmp_path):
    """As with `ros2 launch … out:=runs/roof`, where the recorder makes it."""
    folder = rclpy.parameter.Parameter("folder", value=str(tmp_path / "roof"))
    reporter = ReporterNode(context=context, parameter_overrides=[folder])
    try:
        (tmp_path / "roof" / "bag").mkdir(parents=True)
        reporter._tick()
        assert [run.going_on for run in read_runs(tmp_path)] == [True]
    finally:
        reporter.close()
    reporter._tick()
    assert [run.going_on for run in read_runs(tmp_path)] == [False]
