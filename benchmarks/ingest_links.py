# SPDX-License-Identifier: Apache-2.0
"""How soon a link is back after its sender was away, and how soon a silent one is noticed.

The sender is a plain HTTP server of live MPEG-TS with a key frame every third of a second; whoever
connects gets what is live, from the middle of a group on. The peer is a reader that tries again
every 5 s, as MediaMTX does for its sources, with the same PyAV.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from harness import QUICK, Benchmark

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.url.live_url import LiveUrl

RESTARTS = 2 if QUICK else 10
AWAY_S = (2.0, 4.0) if QUICK else (1.0, 9.0)
LINKS = 8
STALLS = 1 if QUICK else 3
_RATE_HZ, _GOP, _SECONDS = 30, 10, 20
_WIDTH, _HEIGHT = 160, 96
_PEER_WAIT_S = 5.0
_PATIENCE_S = 15.0
_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"


def measure(bench: Benchmark) -> None:
    """Restarts of the sender for our links and the peer's, then stalls for ours."""
    sender = Sender(transport_stream())
    with contextlib.ExitStack() as open_links:
        open_links.callback(sender.close)
        sender.listen()
        ours: list[Watched] = [open_links.enter_context(ours_to(sender)) for _ in range(LINKS)]
        peers: list[Watched] = [open_links.enter_context(peer_to(sender)) for _ in range(LINKS)]
        back_s = restarts(sender, ours, peers)
        silent_s = stalls(sender, ours)
    note = f"{RESTARTS} restarts, away {AWAY_S[0]:g} to {AWAY_S[1]:g} s, {LINKS} links"
    for name, seconds in (("url", back_s[0]), ("every_5s", back_s[1])):
        bench.add(f"{name}_reconnect_p50_s", float(np.percentile(seconds, 50)), "s", note=note)
        bench.add(f"{name}_reconnect_p95_s", float(np.percentile(seconds, 95)), "s", note=note)
    bench.add("stall_detect_s", silent_s, "s", note="sender silent, its connection open")


def restarts(
    sender: Sender, ours: list[Watched], peers: list[Watched]
) -> tuple[list[float], list[float]]:
    """From the sender's return to the first decoded picture, for each link and restart [s]."""
    rng = random.Random(5)
    back_s: tuple[list[float], list[float]] = [], []
    wait_for_pictures([*ours, *peers], time.monotonic())
    for _ in range(RESTARTS):
        sender.leave()
        time.sleep(rng.uniform(*AWAY_S))
        listening_s = sender.listen()
        wait_for_pictures([*ours, *peers], listening_s)
        for links, seconds in zip((ours, peers), back_s, strict=True):
            seconds += [link.first_after(listening_s) - listening_s for link in links]
    return back_s


def stalls(sender: Sender, links: list[Watched]) -> list[float]:
    """From the sender's last byte to the moment a link says that it is silent [s]."""
    detected_s: list[float] = []
    for _ in range(STALLS):
        sender.silent = True
        silent_s = time.monotonic()
        waiting = list(links)
        while waiting:
            if time.monotonic() - silent_s > _PATIENCE_S:
                raise RuntimeError(f"{len(waiting)} links did not notice a silent sender")
            noticed = [link for link in waiting if link.source.state.state != "connected"]
            detected_s += [time.monotonic() - silent_s for _ in noticed]
            waiting = [link for link in waiting if link not in noticed]
            time.sleep(0.005)
        sender.silent = False
        wait_for_pictures(links, time.monotonic())
    return detected_s


def wait_for_pictures(links: list[Watched], since_s: float) -> None:
    """Until each link has had a picture after `since_s`."""
    while not all(link.latest_s > since_s for link in links):
        if time.monotonic() - since_s > _PATIENCE_S:
            raise RuntimeError(f"no picture on some link for {_PATIENCE_S:g} s")
        time.sleep(0.005)


class Sender:
    """Serves one live transport stream over HTTP; can leave, come back, and fall silent."""

    def __init__(self, pictures: list[bytes]) -> None:
        self._pictures = pictures
        self._clients: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.silent = False
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            self.port = int(holder.getsockname()[1])
        self._thread.start()

    def listen(self) -> float:
        """Open the port; gives the monotonic time at which it was open."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        listener.settimeout(0.0)
        with self._lock:
            self._listener = listener
        return time.monotonic()

    def leave(self) -> None:
        """Close the port and every connection, as a process that dies."""
        with self._lock:
            gone = [*self._clients, *([self._listener] if self._listener else [])]
            self._clients, self._listener = [], None
        for one in gone:
            one.close()

    def close(self) -> None:
        """End for good."""
        self._closed.set()
        self._thread.join(5.0)
        self.leave()

    def _run(self) -> None:
        begin_s = time.monotonic()
        for at in range(10**9):
            if self._closed.wait(max(0.0, begin_s + at / _RATE_HZ - time.monotonic())):
                return
            with self._lock:
                self._accept()
                if not self.silent:
                    self._clients = [c for c in self._clients if self._sent(c, at)]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while self._listener:
                client, _ = self._listener.accept()
                client.settimeout(0.5)
                client.recv(4096)
                client.sendall(_HEAD)
                self._clients.append(client)

    def _sent(self, client: socket.socket, at: int) -> bool:
        try:
            client.sendall(self._pictures[at % len(self._pictures)])
        except OSError:
            client.close()
            return False
        return True


class Watched:
    """When the pictures of one link were decoded."""

    def __init__(self, source: LiveUrl) -> None:
        self.source = source
        self._at_s: list[float] = []

    @property
    def latest_s(self) -> float:
        return self._at_s[-1] if self._at_s else 0.0

    def first_after(self, moment_s: float) -> float:
        """When the first picture after `moment_s` was there."""
        return next(at_s for at_s in self._at_s if at_s > moment_s)

    def frame(self, frame: Frame | None) -> None:
        self._at_s.append(time.monotonic())

    def encoded(self, unit: EncodedFrame) -> None: ...

    def camera(self, camera: Camera, stream: str) -> None: ...

    def measured(self, sample: Telemetry, stream: str) -> None: ...

    def dropped(self, frame_id: int, reason: str, stream: str) -> None: ...


@contextlib.contextmanager
def ours_to(sender: Sender) -> Iterator[Watched]:
    """A `LiveUrl` as it is configured by default."""
    link = Watched(LiveUrl(f"http://127.0.0.1:{sender.port}/live.ts", IngestConfig()))
    with _thread(lambda stop: link.source.run(link, stop)):
        yield link


@contextlib.contextmanager
def peer_to(sender: Sender) -> Iterator[Watched]:
    """A plain PyAV loop that waits 5 s after each failure."""
    url = f"http://127.0.0.1:{sender.port}/live.ts"
    link = Watched(LiveUrl(url, IngestConfig()))  # never run: only its pictures are watched

    def run(stop: threading.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(av.FFmpegError, OSError), av.open(url, timeout=5) as container:
                for picture in container.decode(video=0):
                    link.frame(None)
                    del picture
                    if stop.is_set():
                        return
            stop.wait(_PEER_WAIT_S)

    with _thread(run):
        yield link


@contextlib.contextmanager
def _thread(run: Callable[[threading.Event], object]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10.0)


def transport_stream() -> list[bytes]:
    """Small pictures in MPEG-TS, cut after each picture; the sender loops them."""
    buffer, cuts = io.BytesIO(), [0]
    with av.open(buffer, "w", format="mpegts", options={"flush_packets": "1"}) as container:
        stream = container.add_stream("libx264", rate=_RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "x264-params": f"keyint={_GOP}:min-keyint={_GOP}:scenecut=0",
        }
        rng = np.random.default_rng(1)
        ground = rng.integers(0, 255, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
        for number in range(_RATE_HZ * _SECONDS):
            rolled = np.roll(ground, number, axis=1)
            picture = av.VideoFrame.from_ndarray(rolled, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, _RATE_HZ)
            container.mux(stream.encode(picture))
            cuts.append(buffer.tell())
        container.mux(stream.encode(None))
    whole = buffer.getvalue()
    return [whole[a:b] for a, b in itertools.pairwise(cuts)]


if __name__ == "__main__":
    measure(Benchmark("ingest"))
