# SPDX-License-Identifier: Apache-2.0
"""Pushing to an RTSP server: what arrives there, and what is lost while it is away."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ingest_lab import MemorySink, encode, wait_until
from link_lab import (
    encode_h265,
    free_port,
    need_program,
    need_rtsp_server,
    numbered_units,
    read_units,
    rtsp_server,
)

from worldsystem_core.byte_stream import nal_units
from worldsystem_core.errors import SourceError
from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.rtsp_push.gop_queue import GopQueue
from worldsystem_ingest.rtsp_push.push import LINK_DOWN, LINK_SLOW, PushingSink, RtspPush
from worldsystem_ingest.sink import NO_KEY_FRAME, STOPPED
from worldsystem_ingest.url.backoff import Backoff

H264_SIDE_UNITS = (6, 9)  # supplemental information and delimiters, which a depacketizer may add


def unit(number: int, *, is_key: bool = False, size: int = 100, stream: str = "camera"):
    return EncodedFrame(
        id=number,
        stamp_ns=number,
        arrival_ns=number,
        data=b"x" * size,
        is_key=is_key,
        stream=stream,
    )


def frames_of(units, *, first: int = 0, codec: str = "h264") -> list[EncodedFrame]:
    now_ns = time.time_ns()
    return [
        EncodedFrame(
            id=first + at,
            stamp_ns=now_ns + at * 33_333_333,
            arrival_ns=now_ns,
            data=u.data,
            is_key=u.is_key,
            codec=codec,
        )
        for at, u in enumerate(units)
    ]


@contextlib.contextmanager
def pushing(url: str, **settings: object) -> Iterator[RtspPush]:
    push = RtspPush(url, IngestConfig(**settings), Backoff(0.05, 0.2))
    try:
        yield push
    finally:
        began_s = time.monotonic()
        push.close()
        assert time.monotonic() - began_s < 2.0
        assert push.status().state == "stopped"


def offered_slowly(push: RtspPush, frames: list[EncodedFrame], pause_s: float = 0.01) -> None:
    for frame in frames:
        push.offer(frame)
        time.sleep(pause_s)


def slices(data: bytes) -> list[bytes]:
    """Parameter sets and slices, each once: a receiver puts the announced sets before the first."""
    units = (nal for nal in nal_units(data) if nal[0] & 0x1F not in H264_SIDE_UNITS)
    return list(dict.fromkeys(units))


def test_the_server_gets_every_nal_unit_as_it_was(tmp_path: Path):
    need_rtsp_server()
    big = encode(6, gop=3, crf="1", pictures=noisy_picture)
    assert max(len(u.data) for u in big) > 5000  # must be cut into fragments
    sent = [*numbered_units(30), *big]
    port, got = free_port(), tmp_path / "got"
    with rtsp_server("record", port, got), pushing(f"rtsp://127.0.0.1:{port}/live") as push:
        offered_slowly(push, frames_of(sent[:30]))
        wait_until(lambda: len(read_units(got)) >= 30)
        assert [slices(d) for d in read_units(got)] == [slices(u.data) for u in sent[:30]]
        offered_slowly(push, frames_of(big, first=30), 0.03)
        wait_until(lambda: push.status().frames == 36 and len(read_units(got)) >= 36)
        status = push.status()
    assert [slices(d) for d in read_units(got)][30:] == [slices(u.data) for u in big]
    assert status.connections == 2  # other parameter sets: announced anew
    assert status.bytes == sum(len(u.data) for u in sent)
    assert not status.lost


def noisy_picture(number: int):
    import numpy as np

    return np.random.default_rng(number).integers(0, 255, (96, 160, 3), dtype=np.uint8)


def test_h265_is_pushed_too(tmp_path: Path):
    need_rtsp_server()
    frames = frames_of(encode_h265(10, noisy_picture), codec="h265")
    assert max(len(frame.data) for frame in frames) > 3000  # must be cut into fragments
    port, got = free_port(), tmp_path / "got"
    with (
        rtsp_server("record", port, got, "--codec", "h265"),
        pushing(f"rtsp://127.0.0.1:{port}/live") as push,
    ):
        offered_slowly(push, frames)
        wait_until(lambda: len(read_units(got)) >= len(frames))

    def pictures(data: bytes) -> list[bytes]:
        return [nal for nal in nal_units(data) if nal[0] >> 1 & 0x3F < 32]

    assert [pictures(d) for d in read_units(got)] == [pictures(f.data) for f in frames]


def test_what_was_pushed_is_video_to_ffprobe(tmp_path: Path):
    need_rtsp_server()
    need_program("ffprobe")
    port, got = free_port(), tmp_path / "got"
    with rtsp_server("record", port, got), pushing(f"rtsp://127.0.0.1:{port}/live") as push:
        offered_slowly(push, frames_of(numbered_units(30)))
        wait_until(lambda: len(read_units(got)) >= 30)
    video = tmp_path / "got.h264"
    video.write_bytes(b"".join(read_units(got)))
    asked = "-count_frames -show_entries stream=codec_name,width,height,nb_read_frames -of csv=p=0"
    done = subprocess.run(
        ["ffprobe", "-v", "error", *asked.split(), str(video)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "h264,160,96,30"
    assert not done.stderr


def test_a_server_that_comes_late_gets_video_from_a_key_frame_on(tmp_path: Path):
    need_rtsp_server()
    port, got = free_port(), tmp_path / "got"
    with pushing(f"rtsp://127.0.0.1:{port}/live") as push:
        offered_slowly(push, frames_of(numbered_units(25)))
        wait_until(lambda: "refused" in push.status().last_error)
        with rtsp_server("record", port, got):
            wait_until(lambda: push.status().state == "connected")
            wait_until(lambda: len(read_units(got)) >= 5)
            status = push.status()
    first = read_units(got)[0]
    assert slices(first) == slices(numbered_units(25)[20].data)
    assert status.lost == {LINK_DOWN: 20}
    assert status.frames + sum(status.lost.values()) == 25


def test_a_server_that_is_killed_and_comes_back_gets_video_again(tmp_path: Path):
    need_rtsp_server()
    port, units = free_port(), frames_of(numbered_units(300))
    with pushing(f"rtsp://127.0.0.1:{port}/live") as push:
        feeding = threading.Thread(target=offered_slowly, args=(push, units))
        feeding.start()
        with rtsp_server("record", port, tmp_path / "one"):
            wait_until(lambda: len(read_units(tmp_path / "one")) >= 10)
        with rtsp_server("record", port, tmp_path / "two"):
            wait_until(lambda: len(read_units(tmp_path / "two")) >= 10)
        feeding.join()
        wait_until(lambda: len(push._queue) == 0 or push.status().state != "connected")
    status = push.status()
    assert status.connections == 2
    assert status.frames + sum(status.lost.values()) == 300
    assert slices(read_units(tmp_path / "two")[0])[0][0] & 0x1F == 7


def test_a_server_that_stops_answering_is_noticed(tmp_path: Path):
    need_rtsp_server()
    port = free_port()
    with (
        rtsp_server("record", port, tmp_path / "got") as server,
        pushing(f"rtsp://127.0.0.1:{port}/live", stall_s=1.0) as push,
    ):
        offered_slowly(push, frames_of(numbered_units(10)))
        wait_until(lambda: push.status().state == "connected")
        server.freeze()
        frozen_s = time.monotonic()
        wait_until(lambda: "has not answered" in push.status().last_error)
        assert time.monotonic() - frozen_s < 2.0 + 1.0 + 0.5


@pytest.mark.parametrize(("user", "comes_in"), [("pilot:right", True), ("pilot:wrong", False)])
def test_a_password_is_given_when_asked_for_and_never_shown(tmp_path: Path, user, comes_in):
    need_rtsp_server()
    port = free_port()
    with (
        rtsp_server("record", port, tmp_path / "got", "--user", "pilot:right"),
        pushing(f"rtsp://{user}@127.0.0.1:{port}/live") as push,
    ):
        offered_slowly(push, frames_of(numbered_units(10)))
        wait_until(lambda: push.status().state == "connected" or bool(push.status().last_error))
        status = push.status()
    assert (status.state == "connected") == comes_in
    assert comes_in or "user name and password" in status.last_error
    assert user.split(":")[1] not in repr(status)


def test_a_server_that_accepts_and_says_nothing_holds_up_neither_us_nor_close():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live"
        with pushing(url, stall_s=30.0) as push:
            offered_slowly(push, frames_of(numbered_units(10)), 0.0)
            wait_until(lambda: push.status().state == "connecting")
            assert push.status().last_error == "", "they were taken while it waited for an answer"
    assert push.status().lost == {STOPPED: 10}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "rtsp:///x",
        "rtsp://h:99999/x",
        "rtsp://[x",
        "drone",
        "",
        "rtsp://me:1#2@h",
    ],
)
def test_only_an_rtsp_server_can_be_pushed_to(url):
    with pytest.raises(SourceError, match="rtsp://host"):
        RtspPush(url, IngestConfig())


def test_only_the_stream_that_came_first_is_pushed():
    class Remembering:
        def __init__(self) -> None:
            self.units: list[EncodedFrame] = []

        def offer(self, unit: EncodedFrame) -> None:
            self.units.append(unit)

    push, sink = Remembering(), MemorySink()
    pushing_sink = PushingSink(sink, push)
    units = [unit(0, stream="a"), unit(1, stream="b"), unit(2, stream="a")]
    for one in units:
        pushing_sink.encoded(one)
    assert push.units == [units[0], units[2]]
    assert sink.units == units


def queued(queue: GopQueue) -> list[int]:
    found = []
    while len(queue):
        found.append(queue.get(0.0).id)
    return found


def test_a_queue_begins_at_a_key_frame():
    queue = GopQueue(10, 10_000, LINK_SLOW)
    for number in range(4):
        queue.put(unit(number, is_key=number == 2))
    assert queued(queue) == [2, 3]
    assert queue.lost() == {NO_KEY_FRAME: 2}


def test_a_full_queue_loses_its_oldest_group_whole():
    queue = GopQueue(6, 10_000, LINK_SLOW)
    for number in range(8):
        queue.put(unit(number, is_key=number in (0, 4)))
    assert queued(queue) == [4, 5, 6, 7]
    assert queue.lost() == {LINK_SLOW: 4}


def test_a_group_longer_than_the_queue_loses_its_end():
    queue = GopQueue(3, 10_000, LINK_SLOW)
    for number in range(7):
        queue.put(unit(number, is_key=number in (0, 5)))
    assert queued(queue) == [5, 6]
    assert queue.lost() == {LINK_SLOW: 5}


def test_a_queue_is_bounded_in_bytes_but_takes_one_unit_of_any_size():
    queue = GopQueue(100, 1000, LINK_SLOW)
    for number in range(20):
        queue.put(unit(number, is_key=number % 5 == 0, size=300))
        assert sum(len(u.data) for u in queue._units) <= 1000
    queue.put(unit(20, is_key=True, size=5000))
    assert queued(queue) == [20]
    assert queue.lost() == {LINK_SLOW: 20}


def test_everything_put_into_a_queue_comes_out_or_is_counted():
    queue = GopQueue(7, 2000, LINK_SLOW)
    out = 0
    for number in range(1000):
        queue.put(unit(number, is_key=number % 13 == 0, size=50 + number % 400))
        if number % 3 == 0:
            out += queue.get(0.0) is not None
        if number % 97 == 0:
            queue.skip_to_newest_key_frame(LINK_DOWN)
    queue.close()
    assert out + sum(queue.lost().values()) == 1000
