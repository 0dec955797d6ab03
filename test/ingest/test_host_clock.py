# SPDX-License-Identifier: Apache-2.0
"""A clock of this machine that is set while video plays holds up no picture."""

from __future__ import annotations

import threading
import time

import pytest
from ingest_lab import MemorySink, number_in, write_video
from link_lab import http_server, running, send_head, transport_stream

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.source import open_source

HOUR_NS = 3600 * 10**9


def set_clock(monkeypatch: pytest.MonkeyPatch, by_ns: int) -> None:
    """From now on the host's clock shows another time."""
    host_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: host_ns() + by_ns)


def test_a_live_url_goes_on_when_the_clock_is_set_back(monkeypatch):
    def answer(handler, connection: int) -> None:
        send_head(handler)
        whole = transport_stream(150)
        for at in range(0, len(whole), 188 * 4):
            handler.wfile.write(whole[at : at + 188 * 4])
            time.sleep(0.01)

    with http_server(answer) as url, running(url) as link:
        link.wait_frames(10)
        set_clock(monkeypatch, -HOUR_NS)
        link.wait_frames(len(link.sink.frames) + 30, 3.0)
    stamps = [frame.stamp_ns for frame in link.sink.frames]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize("by_ns", [-HOUR_NS, HOUR_NS])
def test_a_file_keeps_its_pace_when_the_clock_is_set(tmp_path, monkeypatch, by_ns):
    came_s: list[float] = []

    def on_frame(frame) -> None:
        came_s.append(time.monotonic())
        if frame.id == 5:
            set_clock(monkeypatch, by_ns)

    path, stop = write_video(tmp_path / "video.mp4", 15), threading.Event()
    sink = MemorySink(on_frame=on_frame)
    patience = threading.Timer(2.5, stop.set)
    patience.start()
    open_source(str(path), IngestConfig(realtime=True)).run(sink, stop)
    patience.cancel()
    assert not stop.is_set()
    assert [number_in(frame.rgb) for frame in sink.frames] == list(range(15))
    began_s = [came - frame / 25 for frame, came in enumerate(came_s)]
    before = min(
        began_s[:6]
    )  # the pace's begin, by the least late of those before the clock was set
    assert min(began_s[6:]) >= before - 0.1 * 14 / 25
