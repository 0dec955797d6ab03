# SPDX-License-Identifier: Apache-2.0
"""What a run does when one of its stages has ended by an error."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem import separate
from worldsystem.app import App
from worldsystem.graph import Choice, stages
from worldsystem.node import Sign
from worldsystem.observer import Observer
from worldsystem.separate import SeparateApp
from worldsystem.supervision import StageWatch
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.ledger import LedgerState, StageReport


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


@pytest.fixture
def apart(tmp_path):
    """A supervisor without processes, and the reporter that hears of them."""
    app = SeparateApp(Choice(out=tmp_path, source="server:"), status=False)
    reporter = Dead("reporter", None)
    reporter.signs = {}
    reporter.observer = Observer(delivered_by_reference=False)
    app._threads = [reporter]
    yield app, reporter
    app._settings.cleanup()


def test_a_source_that_failed_in_its_own_process_fails_the_run(apart):
    app, reporter = apart
    facts = {"ended": "True", "failed": "True"}
    reporter.signs["ingest"] = Sign(0.0, "port 5001 is already in use", facts)
    assert app._source_is_at_its_end()
    with pytest.raises(WorldSystemError, match="port 5001 is already in use"):
        app._raise_failure()


class Flying:
    """Stands for a simulator in the air."""

    ended = False


def test_a_source_that_failed_ends_the_run_while_the_simulator_flies(apart):
    app, reporter = apart
    app._simulator = Flying()
    assert not app._source_is_at_its_end()
    reporter.signs["ingest"] = Sign(0.0, "running", {"ended": "False", "failed": "False"})
    assert not app._source_is_at_its_end()
    reporter.signs["ingest"] = Sign(0.0, "port in use", {"ended": "True", "failed": "True"})
    assert app._source_is_at_its_end()


@pytest.mark.parametrize("failed", [True, False])
def test_no_simulator_takes_off_for_a_source_that_failed(apart, monkeypatch, failed):
    app, reporter = apart
    app.choice = replace(app.choice, source="sim")
    reporter.signs["ingest"] = Sign(0.0, "", {"ended": str(failed), "failed": str(failed)})
    monkeypatch.setattr("worldsystem.separate.stages", lambda choice, *, composed: [])
    monkeypatch.setattr("worldsystem.separate.SimulatorProcess", lambda choice: Flying())
    app._start()
    assert (app._simulator is None) is failed


def test_a_file_that_breaks_off_in_its_own_process_is_told_in_the_report(apart):
    app, reporter = apart
    facts = {"ended": "True", "failed": "False", "broken": "clip.mp4 breaks off at 3 s."}
    reporter.signs["ingest"] = Sign(0.0, "running", facts)
    app._tell_how_the_source_ended()
    app._raise_failure()
    assert reporter.notes == ["clip.mp4 breaks off at 3 s. Everything before it was processed."]


class Living:
    """Stands for the process of a stage that runs."""

    exit_code = None
    killed = False

    def kill(self):
        self.killed = True


def test_a_supervisor_that_was_stopped_for_a_minute_kills_no_stage_when_it_goes_on(apart):
    app, reporter = apart
    stopped_s = time.monotonic() - 60.0
    process, watch = Living(), StageWatch(stopped_s - 100.0, heard_s=stopped_s)
    app._processes, app._watches = {"mesher": process}, {"mesher": watch}
    reporter.signs["mesher"] = Sign(stopped_s, "running", {})
    app._looked_s = stopped_s
    app._supervise()
    assert not process.killed
    assert reporter.supervised["state.mesher"] == "running"


class Lingering(Dead):
    """Stands for a viewer at whose page somebody looks, and for ingest before it."""

    is_stuck = False
    summary = None
    was_hurried = None

    def finish(self, timeout_s):
        if self.get_name() == "viewer":
            os.kill(os.getpid(), signal.SIGINT)
            self.was_hurried = self.hurried.wait(10.0)

    def close(self):
        pass


def test_ctrl_c_while_pages_are_waited_for_ends_the_waiting(tmp_path, monkeypatch):
    app = App(Choice(out=tmp_path), status=False)
    viewer = Lingering("viewer", None)
    app._threads = [Lingering("ingest", None), viewer]
    before = signal.getsignal(signal.SIGINT)
    try:
        app._end()
    finally:
        signal.signal(signal.SIGINT, before)
    assert viewer.was_hurried is True, "Ctrl-C does nothing, or the viewer was not finished"


@pytest.mark.parametrize(
    ("viewers", "stopped", "waits"), [("1", False, True), ("0", False, False), ("1", True, False)]
)
def test_pages_are_waited_for_before_their_process_is_ended(apart, viewers, stopped, waits):
    app, reporter = apart
    app.choice = replace(app.choice, extra={"viewer": {"linger_s": 0.4}})
    reporter.signs["viewer"] = Sign(0.0, "running", {"viewers": viewers})
    if stopped:
        app.stop()
    begun_s = time.monotonic()
    app._linger(Living())
    assert (time.monotonic() - begun_s > 0.3) is waits


class Ended(Living):
    """Stands for one that crashed; nobody may begin it anew."""

    exit_code = -11

    def start(self, spare=None, **further):
        pytest.fail("the file would be played from its beginning")


def test_a_file_whose_reader_dies_has_broken_off_and_ends_the_run(apart, tmp_path):
    app, reporter = apart
    clip = tmp_path / "clip.mp4"
    clip.touch()
    app.choice = replace(app.choice, source=str(clip))
    now_s = time.monotonic()
    app._processes = {"ingest": Ended()}
    app._watches = {"ingest": StageWatch(now_s - 9.0, heard_s=now_s)}
    for _ in range(3):
        app._supervise()
    assert app._source_is_at_its_end()
    app._tell_how_the_source_ended()
    app._raise_failure()
    (note,) = reporter.notes
    assert note.startswith(f"{clip} broke off: ingest ended (signal 11). Everything before it")


@pytest.mark.parametrize(
    ("source", "loop", "once"),
    [("clip.mp4", False, True), ("file:clip.mp4", False, True), ("clip.mp4", True, False),
     ("server:", False, False), ("sim", False, False)],
)  # fmt: skip
def test_only_a_file_that_is_not_played_in_a_loop_has_an_end(
    tmp_path, monkeypatch, source, loop, once
):
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "sim"):
        (tmp_path / name).touch()
    assert Choice(source=source, out=tmp_path, extra={"ingest": {"loop": loop}}).plays_once is once


def test_a_recorder_that_is_begun_anew_records_beside_what_is_there(apart):
    app, reporter = apart
    reporter.observer = Dead("observer", None)
    reporter.observer.began_anew = lambda _: None
    begun: list[str] = []
    process = Dead("recorder", None)
    process.start = lambda _, name: begun.append(name)
    for recorded in ("bag", "bag_2"):  # the second by `recorder/start`
        (app.choice.out / recorded).mkdir(parents=True)
        (app.choice.out / recorded / "part.mcap").write_bytes(b"")
    app._begin_anew("recorder", process, StageWatch(0.0))
    assert begun == ["bag_3"]


def test_the_report_does_not_tell_of_files_that_go_with_their_stages(apart, monkeypatch):
    app, _ = apart
    left = Path(app._archive_of(next(s for s, _ in stages(app.choice) if s.name == "mesher")))
    left.mkdir(parents=True)
    (left / "archive").write_bytes(b"surface")
    assert list(app.choice.out.rglob("archive")) == [left / "archive"]
    seen = []
    monkeypatch.setattr(
        separate, "finish_all", lambda *_: seen.append(list(app.choice.out.rglob("archive")))
    )
    before = signal.getsignal(signal.SIGINT)
    try:
        app._end()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [[]], "the report is made once, when they are gone"


@pytest.mark.parametrize(
    ("named", "recorded", "then"),
    [({}, "bag", "bag_2"), ({"name": "flight"}, "flight", "flight_2"), ({"name": ""}, "x", "")],
)
def test_a_recorder_that_is_begun_anew_goes_on_in_the_folder_that_it_was_given(
    apart, tmp_path, named, recorded, then
):
    app, reporter = apart
    disk = tmp_path / "disk"
    extra = {"recorder": {"folder": str(disk)} | named}
    app.choice = replace(app.choice, extra=extra)
    reporter.observer = Dead("observer", None)
    reporter.observer.began_anew = lambda _: None
    begun: list[str] = []
    process = Dead("recorder", None)
    process.start = lambda _, name: begun.append(name)
    (disk / recorded).mkdir(parents=True)
    (disk / recorded / "part.mcap").write_bytes(b"")
    app._begin_anew("recorder", process, StageWatch(0.0))
    assert begun == [then]


class Ending(Living):
    """Stands for the process of a stage that ends with this exit code once it is told to."""

    def __init__(self, stage, ends_with):
        self.stage, self._ends_with = stage, ends_with

    def end(self):
        self.exit_code = self._ends_with


@pytest.mark.parametrize(("code", "said"), [(1, "exit code 1"), (-9, "signal 9")])
def test_a_stage_that_fails_as_it_ends_fails_the_run_and_is_told_in_the_report(
    apart, monkeypatch, code, said
):
    app, reporter = apart
    codes = {"slam3r": 0, "recorder": code}
    for stage, _ in stages(app.choice):
        if stage.name in codes:
            app._processes[stage.name] = Ending(stage, codes[stage.name])
            app._watches[stage.name] = StageWatch(0.0, heard_s=0.0)
    monkeypatch.setattr(separate, "finish_all", lambda *_: None)
    before = signal.getsignal(signal.SIGINT)
    try:
        app._end()
    finally:
        signal.signal(signal.SIGINT, before)
    assert reporter.notes == [f"recorder failed as it ended ({said}); what it held back is lost."]
    with pytest.raises(WorldSystemError, match="recorder failed as it ended"):
        app._raise_failure()


def test_a_recorder_whose_disk_cannot_be_looked_at_is_tried_again_and_ends_no_run(
    apart, monkeypatch
):
    app, reporter = apart
    reporter.observer = Dead("observer", None)
    reporter.observer.began_anew = lambda _: None

    def fails(folder):
        raise OSError(5, "Input/output error", str(folder))

    monkeypatch.setattr(separate, "free_folder", fails)
    watch = StageWatch(0.0, ended_s=1.0)
    app._begin_anew("recorder", Dead("recorder", None), watch)
    assert (watch.state, watch.restarts) == ("restarting", 0)
    assert watch.ended_s > 1.0, "the next attempt comes later"


def test_pictures_that_a_dead_reader_passed_on_after_its_last_account_are_explained(
    apart, tmp_path
):
    """Of its last second nobody tells but the tracker, which took them."""
    app, reporter = apart
    clip = tmp_path / "clip.mp4"
    clip.touch()
    app.choice = replace(app.choice, source=str(clip))
    for stage, frames in (("ingest", 30), ("slam3r", 42)):
        ledger = LedgerState(stage, frames, frames, {})
        reporter.observer.stage(
            StageReport(stamp_ns=10**9, ledger=ledger, violations=0, latency_counts=())
        )
    now_s = time.monotonic()
    app._processes = {"ingest": Ended()}
    app._watches = {"ingest": StageWatch(now_s - 9.0, heard_s=now_s)}
    app._supervise()
    run = reporter.observer.record(tmp_path, source=str(clip), backend="geometric")
    assert run.unexplained_frames == 0
    assert run.ledgers == tuple(LedgerState(name, 42, 42, {}) for name in ("ingest", "slam3r"))
