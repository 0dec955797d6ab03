# SPDX-License-Identifier: Apache-2.0
"""What a source delivers to the loop without ROS, and what of it is let go."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from worldsystem import pipeline
from worldsystem.graph import Choice
from worldsystem.observer import Observer
from worldsystem_core.frames import Frame
from worldsystem_core.latency import LatencyHistogram
from worldsystem_core.ledger import StageLedger, StageReport
from worldsystem_core.telemetry import GpsFix
from worldsystem_ingest.sink import Summary
from worldsystem_slam3r.config import Slam3rConfig

FIX = GpsFix(stamp_ns=1, latitude_deg=47.0, longitude_deg=8.0, altitude_m=400.0)


def a_picture(number, stream="camera", size=(120, 160)):
    rgb = np.full((*size, 3), 100, np.uint8)
    return Frame(id=number, stamp_ns=number * 10**8, rgb=rgb, stream=stream)


class Delivers:
    live = True

    def __init__(self, *frames):
        self.frames = frames

    def run(self, sink, stop):
        for frame in self.frames:
            sink.frame(frame)
        sink.dropped(99, "lost_on_link", "tail")
        return Summary(len(self.frames))


def accounts_of(source, folder, monkeypatch):
    monkeypatch.setattr(pipeline, "open_source", lambda *_: source)
    pipeline.run_pipeline(Choice(source="server:", out=folder))
    told = json.loads((folder / "summary.json").read_text())["ledger"]
    return {account["stage"]: account for account in told}


def test_without_ros_the_first_stream_alone_is_worked_through(tmp_path, monkeypatch):
    both = [a_picture(at, stream) for at in range(3) for stream in ("camera", "tail")]
    accounts = accounts_of(Delivers(*both), tmp_path / "run", monkeypatch)
    assert accounts["ingest"]["used"] == accounts["slam3r"]["used"] == 3
    assert accounts["ingest"]["dropped"] == {"other_stream": 4}


def test_without_ros_a_picture_that_is_too_small_costs_itself_alone(tmp_path, monkeypatch):
    frames = (a_picture(0), a_picture(1, size=(24, 24)), a_picture(2))
    accounts = accounts_of(Delivers(*frames), tmp_path / "run", monkeypatch)
    assert accounts["slam3r"]["used"] == 2
    assert accounts["slam3r"]["dropped"] == {"too_small": 1}


def test_without_ros_a_measurement_waits_for_no_picture_to_be_worked_through():
    entered, release = threading.Event(), threading.Event()
    observed = []

    def feed(frame):
        entered.set()
        assert release.wait(20.0)

    stages = {name: StageLedger(name) for name in ("ingest", "slam3r")}
    slow = SimpleNamespace(
        config=Slam3rConfig(), ledgers=stages, feed=feed, observe=observed.append
    )
    sink = pipeline._PipelineSink(slow, "camera")
    working = threading.Thread(target=sink.frame, args=(a_picture(0),), daemon=True)
    telling = threading.Thread(target=sink.measured, args=(FIX, "camera"), daemon=True)
    working.start()
    assert entered.wait(10.0)
    telling.start()
    telling.join(5.0)
    waited = telling.is_alive()
    release.set()
    working.join(10.0)
    assert not waited
    sink.measured(FIX, "tail")
    sink.observe_waiting()
    assert observed == [FIX]


@pytest.mark.parametrize("sent", [None, 3])
def test_pictures_of_further_streams_are_none_that_should_have_been_tracked(tmp_path, sent):
    ledger = StageLedger("ingest")
    for number in range(3):
        ledger.take(number)
        ledger.use(number)
        ledger.drop_untaken("other_stream")
    observer = Observer()
    counts = tuple(LatencyHistogram().counts())
    observer.stage(
        StageReport(stamp_ns=1, ledger=ledger.state(), violations=0, latency_counts=counts)
    )
    run = observer.record(tmp_path, source="server:", backend="geometric", frames_sent=sent)
    assert run.frame_count == 3
    assert run.unexplained_frames == 0
    assert run.adds_up(run.ledgers[0])
