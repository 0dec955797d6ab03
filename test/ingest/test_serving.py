# SPDX-License-Identifier: Apache-2.0
"""Relay, health and metrics beside a source that is not the server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import websockets
from ingest_lab import MemorySink, number_in, wait_until, write_video

from worldsystem_core.errors import PortInUse
from worldsystem_core.frames import Frame
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.image_folder import ImageFolder
from worldsystem_ingest.files.video_file import VideoFile
from worldsystem_ingest.server import ServingSource
from worldsystem_ingest.source import Source


@contextmanager
def served(source: Source, sink: MemorySink, config: IngestConfig) -> Iterator[ServingSource]:
    serving, stop = ServingSource(source, config), threading.Event()
    thread = threading.Thread(target=serving.run, args=(sink, stop))
    thread.start()
    try:
        serving.wait_port(5.0)
        yield serving
    finally:
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()


def page(source: ServingSource, path: str) -> str:
    url = f"http://127.0.0.1:{source.wait_port(1.0)}{path}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def test_a_file_is_relayed_as_it_plays_and_delivered_as_without(tmp_path):
    path = write_video(tmp_path / "video.mp4", 40)
    config = IngestConfig(port=0)
    joined, looked = threading.Event(), threading.Event()

    def hold(frame: Frame) -> None:
        (looked if frame.id == 39 else joined).wait(10.0)

    sink = MemorySink(on_frame=hold)

    async def consume(port: int) -> list[bytes]:
        async with websockets.connect(f"ws://127.0.0.1:{port}/ws/h264_stream") as consumer:
            first = await asyncio.wait_for(consumer.recv(), 10)
            joined.set()
            return [first] + [await asyncio.wait_for(consumer.recv(), 10) for _ in range(39)]

    with served(VideoFile(path, config), sink, config) as source:
        received = asyncio.run(consume(source.wait_port(5.0)))
        wait_until(lambda: source.status().decoded_frames == 40)
        status = source.status()
        health = json.loads(page(source, "/health"))
        metrics = page(source, "/metrics")
        facts = source.facts()
        looked.set()
        sink.wait_settled(40)
    assert [number_in(f.rgb) for f in sink.frames] == list(range(40))
    assert received == [u.data for u in sink.units]
    assert (status.decoded_frames, status.relayed_frames) == (40, 40)
    assert health["receiving"]
    assert "h264_frames_relayed_total 40.0" in metrics
    assert facts["consumers"] == 0


def test_nobody_can_send_to_a_source_that_is_not_the_server(tmp_path):
    path = write_video(tmp_path / "video.mp4", 5)
    config, hold = IngestConfig(port=0), threading.Event()
    sink = MemorySink(on_frame=lambda frame: hold.wait(10.0) and None)
    with served(VideoFile(path, config), sink, config) as source:
        for name in ("/ws/video", "/ws/phone", "/camera"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                page(source, name)
        hold.set()


def test_a_port_in_use_is_an_error_before_anything_is_delivered(tmp_path):
    path = write_video(tmp_path / "video.mp4", 5)
    sink = MemorySink()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        config = IngestConfig(port=holder.getsockname()[1])
        with pytest.raises(PortInUse, match="port"):
            ServingSource(VideoFile(path, config), config).run(sink, threading.Event())
    assert not sink.units


def test_what_cannot_be_relayed_is_delivered_all_the_same(tmp_path: Path):
    import cv2
    import numpy as np

    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((16, 16, 3), number, np.uint8))
    config, sink = IngestConfig(port=0, stream="Not/A-Name"), MemorySink()
    with served(ImageFolder(tmp_path, config), sink, config) as source:
        wait_until(lambda: len(sink.frames) == 3)
        assert source.live is False


def test_a_stream_that_cannot_be_served_is_passed_on(tmp_path, caplog):
    path = write_video(tmp_path / "video.mp4", 5)
    sink = MemorySink()
    elsewhere = VideoFile(path, IngestConfig(stream="Not A Name"))
    with served(elsewhere, sink, IngestConfig(port=0)):
        sink.wait_settled(5)
    assert len(sink.units) == 5
    assert "is not served" in caplog.text
