# SPDX-License-Identifier: Apache-2.0
"""What every source keeps to, whatever it is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import bag_lab
import cv2
import pytest
from ingest_lab import (
    MemorySink,
    encode,
    numbered_picture,
    packets_of,
    send,
    wait_until,
    write_video,
)
from websockets.sync.server import serve

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server import ServerSource
from worldsystem_ingest.source import Source, open_source
from worldsystem_ingest.thinning import ThinnedSource

PICTURES = 40
Address = Callable[[Path], contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def video_file(folder: Path) -> Iterator[str]:
    yield str(write_video(folder / "video.mp4", PICTURES))


@contextlib.contextmanager
def broken_file(folder: Path) -> Iterator[str]:
    path = write_video(folder / "video.mkv", 2 * PICTURES)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 300] = bytes(range(100)) * 3
    path.write_bytes(data)
    yield str(path)


@contextlib.contextmanager
def images(folder: Path) -> Iterator[str]:
    for number in range(PICTURES):
        cv2.imwrite(str(folder / f"{number}.png"), numbered_picture(number))
    (folder / "7.png").write_bytes(b"no image")
    yield str(folder)


@contextlib.contextmanager
def bag_of_images(folder: Path) -> Iterator[str]:
    yield str(bag_lab.write_ros2(folder / "run", bag_lab.pictures(PICTURES)))


@contextlib.contextmanager
def bag_of_video(folder: Path) -> Iterator[str]:
    yield f"bag:{bag_lab.write_ros2(folder / 'run', bag_lab.video(PICTURES, b_frames=2))}"


@contextlib.contextmanager
def file_over_http(folder: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    write_video(folder / "video.ts", PICTURES)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/video.ts"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def relay(folder: Path) -> Iterator[str]:
    units = encode(PICTURES)

    def handler(connection) -> None:
        for unit in units:
            connection.send(unit.data)
            time.sleep(0.005)
        connection.close()

    with serve(handler, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def listening_server(folder: Path) -> Iterator[str]:
    yield "server://127.0.0.1:0"


KINDS: list[Address] = [
    video_file,
    broken_file,
    images,
    bag_of_images,
    bag_of_video,
    file_over_http,
    relay,
    listening_server,
]


class Running:
    """A source in a thread of its own, watched from another."""

    def __init__(self, source: Source, sink: MemorySink) -> None:
        self.source, self.sink, self.stop = source, sink, threading.Event()
        self.errors: list[BaseException] = []
        self._looked = 0
        self._threads = [threading.Thread(target=self._run), threading.Thread(target=self._look)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            self.source.run(self.sink, self.stop)
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.stop.set()

    def _look(self) -> None:
        """Ask as the diagnostics do, only more often."""
        try:
            while not self.stop.wait(0.002):
                assert all(isinstance(name, str) for name in self.source.facts())
                assert isinstance(self.source.problem(), str)
                self._looked += 1
        except BaseException as error:
            self.errors.append(error)

    def feed(self) -> None:
        """A server needs a sender."""
        source = self.source.source if isinstance(self.source, ThinnedSource) else self.source
        if isinstance(source, ServerSource):
            url = f"ws://127.0.0.1:{source.wait_port(5.0)}/ws/video"
            asyncio.run(send(url, packets_of(encode(PICTURES)), pause_s=0.003))

    def end(self) -> float:
        """Stop; gives how long that took [s]."""
        began_s = time.monotonic()
        self.stop.set()
        for thread in self._threads:
            thread.join(10.0)
            assert not thread.is_alive()
        assert self.errors == []
        return time.monotonic() - began_s


def opened(url: str, **settings: object) -> Source:
    return open_source(url, IngestConfig(**{"backoff_first_s": 0.05, **settings}))


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_source_keeps_to_the_contract(tmp_path, kind, step):
    sink = MemorySink()
    with kind(tmp_path) as url:
        running = Running(opened(url, frame_step=step), sink)
        running.feed()
        wait_until(lambda: running.stop.is_set() or len(sink.settled) >= PICTURES - 2, 20.0)
        assert running.end() < 2.0
    assert_contract(sink, step)


def assert_contract(sink: MemorySink, step: int) -> None:
    settled = [*sink.ids, *(frame_id for frame_id, _ in sink.drops)]
    assert max(Counter(settled).values()) == 1
    assert sorted(settled) == list(range(min(settled), max(settled) + 1))
    for earlier, later in itertools.pairwise(sink.frames):
        assert later.id > earlier.id
        assert later.stamp_ns > earlier.stamp_ns
    assert len(sink.frames) >= (PICTURES - 12) / step
    units = [unit.id for unit in sink.units]
    assert max(Counter(units).values(), default=1) == 1
    stamps = {unit.id: unit.stamp_ns for unit in sink.units}
    if stamps:  # pictures of files that are pictures have no units
        assert {frame.id for frame in sink.frames} <= stamps.keys()
        assert all(stamps[frame.id] == frame.stamp_ns for frame in sink.frames)
    assert {frame.stream for frame in sink.frames} == {"camera"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_stops_within_two_seconds_while_its_sink_is_slow(tmp_path, kind):
    began = threading.Event()

    def dawdle(frame) -> None:
        began.set()
        time.sleep(0.1)

    sink = MemorySink(on_frame=dawdle)
    with kind(tmp_path) as url:
        running = Running(opened(url), sink)
        running.feed()
        assert began.wait(10.0)
        assert running.end() < 2.0
    settled = Counter([*sink.ids, *(frame_id for frame_id, _ in sink.drops)])
    assert max(settled.values()) == 1


@pytest.mark.parametrize("kind", [video_file, images, bag_of_images, bag_of_video])
def test_a_source_at_its_own_pace_stops_in_the_middle_of_a_wait(tmp_path, kind):
    with kind(tmp_path) as url:
        running = Running(opened(url, realtime=True, fps=0.1), MemorySink())
        wait_until(lambda: len(running.sink.frames) >= 1)
        assert running.end() < 2.0  # and 10 s are from one picture to the next


@pytest.mark.parametrize("kind", KINDS[:-1])  # a server knows nothing before it listens
def test_a_source_says_something_of_itself_before_it_runs(tmp_path, kind):
    with kind(tmp_path) as url:
        source = opened(url)
        assert source.facts()
        assert source.problem() == ""
