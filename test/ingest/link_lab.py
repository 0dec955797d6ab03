# SPDX-License-Identifier: Apache-2.0
"""Peers of live links: GStreamer's RTSP server, the ffmpeg program, HTTP, and a running source."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest
from ingest_lab import HEIGHT, WIDTH, AccessUnit, MemorySink, encode, numbered_picture, wait_until

from worldsystem_core.errors import WorldSystemError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.url.live_url import LiveUrl

RTSP_SERVER = Path(__file__).parent / "peers" / "rtsp_server.py"
SYSTEM_PYTHON = "/usr/bin/python3"
_BINDINGS = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, "
    "GstRtspServer; Gst.init(None); assert Gst.ElementFactory.find('rtph264pay')"
)
_LENGTH = struct.Struct("<I")


@cache
def rtsp_server_missing() -> str:
    """Why GStreamer's RTSP server cannot be run here; empty when it can."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    done = subprocess.run([SYSTEM_PYTHON, "-c", _BINDINGS], capture_output=True)
    install = "sudo python3 tools/setup.py --with-test-peers"
    return f"GStreamer's RTSP server is not installed; run `{install}`" if done.returncode else ""


def need_rtsp_server() -> None:
    if reason := rtsp_server_missing():
        pytest.skip(reason)


def need_program(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(
            f"'{name}' is not installed; run `sudo python3 tools/setup.py --with-test-peers`"
        )


def wait_until_bound(port: int, kind: int = socket.SOCK_STREAM) -> None:
    """Return once a process listens on the port, by the kernel's tables."""
    names = ("tcp", "tcp6") if kind == socket.SOCK_STREAM else ("udp", "udp6")
    tables = [table for name in names if (table := Path("/proc/net") / name).exists()]

    def is_bound() -> bool:
        lines = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
        listening = "0A" if kind == socket.SOCK_STREAM else "07"
        return any(int(row[1][-4:], 16) == port and row[3] == listening for row in lines)

    wait_until(is_bound)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        return int(holder.getsockname()[1])


@dataclass
class Peer:
    """A child process; `stop` and `go_on` freeze and thaw it."""

    process: subprocess.Popen

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5.0)


@contextlib.contextmanager
def rtsp_server(what: str, port: int, file: Path, *options: str) -> Iterator[Peer]:
    """GStreamer's server on `port`, which serves or records `file`; ready when this returns."""
    command = [SYSTEM_PYTHON, str(RTSP_SERVER), what, str(port), str(file), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline().strip() == "ready"
        yield Peer(process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(5.0)


@contextlib.contextmanager
def ffmpeg(*arguments: str) -> Iterator[Peer]:
    """The ffmpeg program beside us."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Peer(process)
    finally:
        process.kill()
        process.wait(5.0)


def write_units(path: Path, units: list[AccessUnit]) -> Path:
    path.write_bytes(b"".join(_LENGTH.pack(len(u.data)) + u.data for u in units))
    return path


def read_units(path: Path) -> list[bytes]:
    """The whole access units in a file that may still be written."""
    content, units, at = path.read_bytes() if path.exists() else b"", [], 0
    while at + 4 <= len(content):
        (size,) = _LENGTH.unpack_from(content, at)
        if at + 4 + size > len(content):
            break
        units.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return units


@cache
def numbered_units(count: int, gop: int = 10) -> tuple[AccessUnit, ...]:
    return tuple(encode(count, gop=gop))


def encode_h265(count: int, pictures: Callable = numbered_picture) -> list[AccessUnit]:
    """Annex-B access units; key frames carry their parameter sets."""
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    params = "keyint=10:min-keyint=10:bframes=0:repeat-headers=1:log-level=none:crf=8"
    context.options = {"preset": "ultrafast", "x265-params": params}
    packets = []
    for number in range(count):
        picture = av.VideoFrame.from_ndarray(pictures(number), format="rgb24")
        picture.pts = number
        packets += context.encode(picture)
    packets += context.encode(None)
    return [AccessUnit(bytes(p), p.is_keyframe, p.pts) for p in packets]


@cache
def transport_stream(count: int = 40, format: str = "mpegts") -> bytes:
    """Numbered pictures at 30 Hz in a container."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for at, unit in enumerate(numbered_units(count)):
            packet = av.Packet(unit.data)
            packet.pts = packet.dts = at * 3000
            packet.time_base = Fraction(1, 90000)
            packet.stream = stream
            packet.is_keyframe = unit.is_key
            container.mux(packet)
    return buffer.getvalue()


@contextlib.contextmanager
def http_server(
    answer: Callable[[BaseHTTPRequestHandler, int], None], port: int = 0
) -> Iterator[str]:
    """Serves `answer(handler, connection number)` to each GET; gives the URL."""
    connections: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connections.append(len(connections))
            self.close_connection = True
            with contextlib.suppress(OSError):
                answer(self, connections[-1])

        def log_message(self, *args: object) -> None:
            pass

    ThreadingHTTPServer.allow_reuse_address = True
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/live.ts"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send_head(handler: BaseHTTPRequestHandler, code: int = 200, **headers: object) -> None:
    """The head of an answer; `Content_Length` stands for Content-Length."""
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


@dataclass
class RunningLink:
    """A source in a thread, its sink, and how it ended."""

    source: LiveUrl
    sink: MemorySink
    stop: threading.Event
    results: list[object] = field(default_factory=list)

    def wait_frames(self, count: int, timeout_s: float = 10.0) -> None:
        wait_until(lambda: len(self.sink.frames) >= count, timeout_s)


@contextlib.contextmanager
def running(url: str, **settings: object) -> Iterator[RunningLink]:
    """Run the link `url` in a thread, and join it at the end."""
    config = IngestConfig(**{"backoff_first_s": 0.05, **settings})
    link = RunningLink(LiveUrl(url, config), MemorySink(), threading.Event())

    def run() -> None:
        try:
            link.results.append(link.source.run(link.sink, link.stop))
        except WorldSystemError as error:
            link.results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield link
    finally:
        link.stop.set()
        thread.join(2.0)
        assert not thread.is_alive(), "a link must end within 2 s of stop"
