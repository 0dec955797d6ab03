# SPDX-License-Identifier: Apache-2.0
"""Every other kind of URL, sent by the ffmpeg program."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from ingest_lab import number_in, wait_until
from link_lab import (
    ffmpeg,
    free_port,
    http_server,
    need_program,
    running,
    send_head,
    transport_stream,
    wait_until_bound,
)

from worldsystem_ingest.url.srt import PROGRAM

SECONDS = 20


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Numbered pictures for `SECONDS` at 30 Hz, which peers play at their own pace."""
    need_program("ffmpeg")
    path = tmp_path / "clip.ts"
    path.write_bytes(transport_stream(30 * SECONDS))
    return path


def playing(clip: Path, format: str, url: str):
    """The ffmpeg program sending `clip` to `url` in real time, without encoding it again."""
    return ffmpeg("-re", "-i", str(clip), "-c", "copy", "-f", format, url)


def consecutive(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize(
    ("scheme", "format"), [("udp", "mpegts"), ("rtp", "rtp_mpegts"), ("tcp", "mpegts")]
)
def test_a_transport_stream_that_is_sent_to_us_is_received(clip, scheme, format):
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    port = free_port(kind)
    listen = "?listen=1" if scheme == "tcp" else ""
    with running(f"{scheme}://127.0.0.1:{port}{listen}", stall_s=1.0) as link:
        wait_until_bound(port, kind)
        with playing(clip, format, f"{scheme}://127.0.0.1:{port}"):
            link.wait_frames(30)
        assert consecutive([number_in(f.rgb) for f in link.sink.frames[:30]])
        wait_until(lambda: link.source.state.state == "listening")
        wait_until_bound(port, kind)
        before = len(link.sink.frames)
        with playing(clip, format, f"{scheme}://127.0.0.1:{port}"):
            link.wait_frames(before + 30)


def test_a_phone_app_can_send_rtmp_to_us(clip):
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/drone"
    with running(f"{url}?listen=1") as link:
        wait_until_bound(port)
        with playing(clip, "flv", url):
            link.wait_frames(30)
        assert consecutive([number_in(f.rgb) for f in link.sink.frames[:30]])


def test_rtmp_is_fetched_from_a_server(clip):
    port = free_port()
    arguments = ("-re", "-i", str(clip), "-c", "copy", "-f", "flv", "-listen", "1")
    with (
        ffmpeg(*arguments, f"rtmp://127.0.0.1:{port}/live/drone"),
        running(f"rtmp://127.0.0.1:{port}/live/drone") as link,
    ):
        link.wait_frames(30)
    assert consecutive([number_in(f.rgb) for f in link.sink.frames[:30]])


@pytest.mark.parametrize("we_listen", [True, False])
def test_srt_is_received_either_way_round(clip, we_listen):
    need_program(PROGRAM)
    port = free_port(socket.SOCK_DGRAM)
    ours, theirs = ("listener", "caller") if we_listen else ("caller", "listener")
    with running(f"srt://127.0.0.1:{port}?mode={ours}") as link:
        if we_listen:
            wait_until_bound(port, socket.SOCK_DGRAM)
        with playing(clip, "mpegts", f"srt://127.0.0.1:{port}?mode={theirs}"):
            link.wait_frames(30, 15.0)
    numbers = [number_in(f.rgb) for f in link.sink.frames[:30]]
    assert consecutive(numbers)


def test_srt_without_its_program_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with running("srt://127.0.0.1:9") as link:
        wait_until(lambda: bool(link.results))
    assert "apt install srt-tools" in str(link.results[0])


def test_what_srt_is_received_with_ends_though_the_ingest_was_killed(tmp_path):
    program = tmp_path / PROGRAM
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    code = textwrap.dedent("""
        import threading, time
        from worldsystem_ingest.config import IngestConfig
        from worldsystem_ingest.url.link import parse_link
        from worldsystem_ingest.url.srt import SrtInput
        link = parse_link("srt://127.0.0.1:9000?mode=listener")
        running = SrtInput(link, threading.Event(), IngestConfig())
        print(running._process.pid, flush=True)
        time.sleep(60)
    """)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(sys.path),
    }
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE
    ) as ingest:
        assert ingest.stdout
        number = int(ingest.stdout.readline())
        assert is_running(number)
        ingest.kill()
    wait_until(lambda: not is_running(number))


def is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # its new parent may not ask for its end


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_live_hls_is_followed_and_ends_with_its_playlist(clip, tmp_path):
    playlist = tmp_path / "live.m3u8"
    options = ("-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_list_size", "4")
    with ffmpeg("-re", "-t", "4", "-i", str(clip), *options, str(playlist)) as sender:
        wait_until(playlist.exists)
        with file_server(tmp_path) as base, running(f"{base}/live.m3u8") as link:
            link.wait_frames(45, 15.0)
            sender.process.wait(10.0)
            wait_until(lambda: bool(link.results), 15.0)
    assert consecutive([number_in(f.rgb) for f in link.sink.frames])
    assert number_in(link.sink.frames[-1].rgb) >= 115


def test_a_sender_that_loops_its_clip_gets_growing_stamps(tmp_path):
    """The presentation times begin anew with each loop."""

    def answer(handler, connection: int) -> None:
        send_head(handler)
        for _ in range(4):
            for unit in range(0, len(transport_stream(60)), 188 * 20):
                handler.wfile.write(transport_stream(60)[unit : unit + 188 * 20])
                time.sleep(0.02)

    with http_server(answer) as url, running(url) as link:
        link.wait_frames(200, 15.0)
    stamps = [f.stamp_ns for f in link.sink.frames]
    arrivals = {u.id: u.arrival_ns for u in link.sink.units}
    assert stamps == sorted(set(stamps))
    delays_s = [(arrivals[f.id] - f.stamp_ns) * 1e-9 for f in link.sink.frames]
    assert min(delays_s) > -0.01
    assert max(delays_s) < 0.7
