# SPDX-License-Identifier: Apache-2.0
"""Push and relay are there for any source, by the settings alone."""

from __future__ import annotations

import json
import threading
import urllib.request

import pytest
from ingest_lab import MemorySink, wait_until, write_video

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.pushed import PushedSource
from worldsystem_ingest.source import open_source

NOBODY = "rtsp://user:secret@127.0.0.1:9/drone"


def test_a_file_is_delivered_whole_though_nobody_takes_the_push(tmp_path):
    video = write_video(tmp_path / "film.mp4", 25)
    source = open_source(str(video), IngestConfig(push_url=NOBODY))
    sink = MemorySink()
    assert source.facts() is not None
    assert source.run(sink, threading.Event()).frames == 25
    assert isinstance(source, PushedSource)
    status = source.push_status()
    assert status.state == "stopped"
    assert status.frames + sum(status.lost.values()) == 25
    assert source.facts()["push.frames"] == 0
    assert "secret" not in json.dumps(source.facts()) + status.last_error


def test_the_health_page_of_a_served_file_tells_how_its_push_is(tmp_path):
    video = write_video(tmp_path / "film.mp4", 100)
    config = IngestConfig(push_url=NOBODY, serve=True, port=0, realtime=True)
    source, stop, sink = open_source(str(video), config), threading.Event(), MemorySink()
    thread = threading.Thread(target=source.run, args=(sink, stop))
    thread.start()
    try:
        port = source.source.wait_port(5.0)
        wait_until(lambda: sink.frames)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/rtsp/status", timeout=5) as answer:
            page = json.load(answer)
        assert "127.0.0.1:9/drone" in json.dumps(page)
        assert "secret" not in json.dumps(page)
    finally:
        stop.set()
        thread.join(10.0)
    assert not thread.is_alive()


def test_what_is_no_rtsp_address_is_refused_before_anything_runs(tmp_path):
    video = write_video(tmp_path / "film.mp4", 2)
    with pytest.raises(SourceError, match="rtsp://host"):
        open_source(str(video), IngestConfig(push_url="http://127.0.0.1/x"))
