# SPDX-License-Identifier: Apache-2.0
"""RTP packets: whole again at the other end, and stamped so that a receiver knows the time."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from pathlib import Path

import av
import pytest
from ingest_lab import number_in
from link_lab import free_port, numbered_units, wait_until_bound

from worldsystem_core.byte_stream import parameter_sets
from worldsystem_ingest.rtsp_push.rtp import (
    RtpStream,
    h264_payloads,
    h265_payloads,
    session_description,
)
from worldsystem_ingest.url.link_clock import wall_clock_ns

SIZES = [2, 3, 1399, 1400, 1401, 2800, 2801, 100_000]


def nal(header: bytes, size: int) -> bytes:
    return header + bytes((at * 7 + 1) % 251 + 1 for at in range(size - len(header)))


@pytest.mark.parametrize("size", SIZES)
def test_fragments_of_h264_make_the_unit_again(size):
    unit = nal(b"\x65", size)
    parts = list(h264_payloads(unit))
    assert max(len(part) for part in parts) <= 1400
    if len(parts) == 1:
        assert parts == [unit]
        return
    assert {part[0] for part in parts} == {0x60 | 28}
    marks = [part[1] & 0xE0 for part in parts]
    assert marks == [0x80, *[0] * (len(parts) - 2), 0x40]
    header = bytes([parts[0][0] & 0xE0 | parts[0][1] & 0x1F])
    assert header + b"".join(part[2:] for part in parts) == unit


@pytest.mark.parametrize("size", SIZES)
def test_fragments_of_h265_make_the_unit_again(size):
    unit = nal(b"\x26\x01", size)
    parts = list(h265_payloads(unit))
    if len(parts) == 1:
        assert parts == [unit]
        return
    assert {part[0] >> 1 & 0x3F for part in parts} == {49}
    assert [part[2] & 0xC0 for part in parts] == [0x80, *[0] * (len(parts) - 2), 0x40]
    header = bytes([parts[0][0] & 0x81 | (parts[0][2] & 0x3F) << 1, parts[0][1]])
    assert header + b"".join(part[3:] for part in parts) == unit


def test_packets_are_numbered_through_and_the_last_of_a_picture_is_marked():
    stream = RtpStream("h264")
    unit = b"\0\0\0\1" + nal(b"\x67", 20) + b"\0\0\1" + nal(b"\x65", 200_000)
    packets = [p for at in range(500) for p in stream.packets(unit, at * 33_333_333)]
    numbers = [int.from_bytes(p[2:4], "big") for p in packets]
    assert len(packets) > 65_536
    assert all((b - a) % 65_536 == 1 for a, b in itertools.pairwise(numbers))
    per_picture = len(packets) // 500
    assert [at for at, p in enumerate(packets) if p[1] & 0x80] == [
        at * per_picture + per_picture - 1 for at in range(500)
    ]


def test_rtp_time_and_the_reports_follow_the_stamps():
    stream, now_ns = RtpStream("h264"), time.time_ns()
    unit = b"\0\0\0\1" + nal(b"\x65", 100)

    def time_of(packet: bytes) -> int:
        return int.from_bytes(packet[4:8], "big")

    first, later = (stream.packets(unit, now_ns + d)[0] for d in (0, 3_600_000_000_000))
    assert (time_of(later) - time_of(first)) % 2**32 == 3600 * 90_000
    report = stream.report(now_ns)
    seconds, fraction = (int.from_bytes(report[at : at + 4], "big") for at in (8, 12))
    told_ns = (seconds - 2_208_988_800) * 10**9 + fraction * 10**9 // 2**32
    assert abs(told_ns - now_ns) < 2
    assert int.from_bytes(report[16:20], "big") == time_of(first)
    assert int.from_bytes(report[20:24], "big") == 2


def test_ffmpeg_reads_the_pictures_and_the_senders_time_out_of_our_packets(tmp_path: Path):
    """The description in a file, the packets by UDP: FFmpeg's own RTP receiver is the judge."""
    units = numbered_units(60)
    port = even_port()
    sdp = session_description(parameter_sets(units[0].data, "h264"), "h264")
    sdp = sdp.replace("m=video 0", f"m=video {port}").replace("IP4 0.0.0.0", "IP4 127.0.0.1")
    (tmp_path / "ours.sdp").write_text(sdp)
    begin_ns = time.time_ns() - 5 * 10**9
    sending = threading.Thread(target=send_by_udp, args=(units, port, begin_ns))
    sending.start()
    options = {"protocol_whitelist": "file,udp,rtp", "fpsprobesize": "0"}
    shown, clocks = [], []
    with av.open(str(tmp_path / "ours.sdp"), options=options, timeout=(5.0, 2.0)) as container:
        for packet in container.demux(video=0):
            clocks += [wall_clock_ns(packet)]
            shown += [number_in(picture.to_ndarray(format="rgb24")) for picture in packet.decode()]
            if len(shown) >= 40:
                break
    sending.join()
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    first = next(at for at, told_ns in enumerate(clocks) if told_ns is not None)
    steps_ns = [b - a for a, b in itertools.pairwise(clocks[first:])]
    assert all(abs(step_ns - 33_333_333) < 100_000 for step_ns in steps_ns)
    expected_ns = begin_ns + (shown[0] + first) * 33_333_333
    assert abs(clocks[first] - expected_ns) < 100_000


def even_port() -> int:
    """RTP takes an even port; its reports take the next one."""
    return next(port for port in iter(lambda: free_port(socket.SOCK_DGRAM), 0) if port % 2 == 0)


def send_by_udp(units, port: int, begin_ns: int) -> None:
    stream = RtpStream("h264")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        wait_until_bound(port, socket.SOCK_DGRAM)
        for at, unit in enumerate(units):
            stamp_ns = begin_ns + at * 33_333_333
            sender.sendto(stream.report(stamp_ns), ("127.0.0.1", port + 1))
            for packet in stream.packets(unit.data, stamp_ns):
                sender.sendto(packet, ("127.0.0.1", port))
            time.sleep(0.02)
