# SPDX-License-Identifier: Apache-2.0
"""The drone app's packets through a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
import urllib.request
from functools import cache

import pytest
import websockets
from ingest_lab import (
    AccessUnit,
    MemorySink,
    encode,
    number_in,
    packets_of,
    send,
    serving,
    wait_until,
)

from worldsystem_core import wire
from worldsystem_core.errors import PortInUse, SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server import ServerSource


@cache
def video() -> list[AccessUnit]:
    return encode(40)


def pictures_of(packets: list[bytes]) -> list[bytes]:
    return [p for p in packets if p[4] in (3, 4)]


def fetch(server, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("start_codes", [True, False])
def test_every_picture_arrives_under_its_number_and_stamp(start_codes):
    sent_ns = time.time_ns() - 5_000_000_000
    with serving() as server:
        packets = packets_of(video(), first=7, sender_ns=sent_ns, start_codes=start_codes)
        asyncio.run(send(server.url("/ws/video"), packets))
        server.sink.wait_settled(40)
    sink = server.sink
    assert sink.ids == list(range(7, 47))
    assert not sink.drops
    assert [number_in(f.rgb) for f in sink.frames] == [u.shows for u in video()]
    assert [u.id for u in sink.units] == sink.ids
    assert [u.stamp_ns for u in sink.units] == [f.stamp_ns for f in sink.frames]
    stamps = [f.stamp_ns for f in sink.frames]
    assert stamps == sorted(set(stamps))
    assert all(u.stamp_ns <= u.arrival_ns for u in sink.units)


def test_encoded_units_are_the_bytes_that_were_sent_with_their_parameter_sets():
    with serving() as server:
        asyncio.run(send(server.url("/ws/video"), packets_of(video())))
        server.sink.wait_settled(40)
    for unit, sent in zip(server.sink.units, video(), strict=True):
        slice_sent = sent.data[max(0, sent.data.rfind(b"\0\0\1")) :]
        assert unit.data.endswith(slice_sent)
        assert unit.is_key == sent.is_key
        assert (unit.data[4] & 31 == 7) == sent.is_key


def test_a_gap_is_counted_and_decoding_goes_on_at_the_next_key_frame():
    with serving() as server:
        packets = packets_of(video())
        kept = [p for p in packets if wire.unpack(p).frame_number not in (13, 14)]
        asyncio.run(send(server.url("/ws/video"), kept))
        server.sink.wait_settled(40)
    sink = server.sink
    assert sink.settled == list(range(40))
    assert dict(sink.drops) == {13: "lost_on_link", 14: "lost_on_link"} | dict.fromkeys(
        range(15, 20), "no_key_frame"
    )
    assert all(number_in(f.rgb) == f.id for f in sink.frames)


def test_a_corrupt_picture_is_dropped_and_the_next_key_frame_recovers():
    packets = packets_of(video())
    at = next(i for i, p in enumerate(packets) if wire.unpack(p).frame_number == 15)
    packets[at] = packets[at][:29] + bytes(range(60))
    with serving() as server:
        asyncio.run(send(server.url("/ws/video"), packets))
        server.sink.wait_settled(40)
    drops = dict(server.sink.drops)
    assert server.sink.settled == list(range(40))
    assert drops[15] == "corrupt"
    assert all(drops[n] == "no_key_frame" for n in range(16, 20))
    assert not drops.keys() & set(range(20, 40))


def test_an_empty_picture_is_corrupt():
    packets = packets_of(video())
    at = next(i for i, p in enumerate(packets) if wire.unpack(p).frame_number == 15)
    packets[at] = packets[at][:21]
    with serving() as server:
        asyncio.run(send(server.url("/ws/video"), packets))
        server.sink.wait_settled(40)
    assert (15, "corrupt") in server.sink.drops
    assert server.sink.settled == list(range(40))


def test_a_sender_that_restarts_goes_on_with_growing_ids():
    with serving() as server:
        now = time.time_ns()
        url = server.url("/ws/video")
        asyncio.run(send(url, packets_of(video()[:20], sender_ns=now - 9_000_000_000)))
        asyncio.run(send(url, packets_of(video()[:20], sender_ns=now)))
        server.sink.wait_settled(40)
        assert server.source.status().restarts == 1
    assert server.sink.ids == list(range(40))
    assert [number_in(f.rgb) for f in server.sink.frames] == [*range(20), *range(20)]


def test_late_and_duplicate_pictures_are_counted_and_not_delivered_twice():
    packets = packets_of(video())
    pictures = pictures_of(packets)
    late = pictures[25]
    packets.remove(late)
    at = packets.index(pictures[27])
    packets[at:at] = [late, pictures[26], pictures[20]]
    with serving() as server:
        asyncio.run(send(server.url("/ws/video"), packets))
        server.sink.wait_settled(40)
        status = server.source.status()
    assert (status.late, status.duplicates, status.restarts) == (1, 2, 0)
    assert server.sink.settled == list(range(40))


def test_pictures_before_any_parameter_sets_are_named():
    packets = pictures_of(packets_of(video()[:10])) + packets_of(video()[10:20], first=10)
    with serving() as server:
        asyncio.run(send(server.url("/ws/video"), packets))
        server.sink.wait_settled(20)
    assert server.sink.drops[0] == (0, "no_parameter_sets")
    assert server.sink.ids == list(range(10, 20))


def test_implausible_sender_times_fall_back_to_arrival_and_are_counted():
    with serving() as server:
        before = time.time_ns()
        asyncio.run(send(server.url("/ws/video"), packets_of(video()[:10], sender_ns=5)))
        server.sink.wait_settled(10)
        assert server.source.status().implausible_times == 10
    assert all(u.stamp_ns >= before for u in server.sink.units)


def test_a_slow_decoder_loses_whole_gops_and_never_the_encoded_units():
    gate = threading.Event()
    sink = MemorySink(on_frame=lambda frame: gate.wait(5.0) and None)
    with serving(sink, decode_queue_frames=12) as server:
        asyncio.run(send(server.url("/ws/video"), packets_of(video())))
        wait_until(lambda: len(sink.units) == 40)
        gate.set()
        sink.wait_settled(40)
    assert sink.settled == list(range(40))
    assert len(sink.units) == 40
    assert {reason for _, reason in sink.drops} == {"decoder_busy"}
    assert all(number_in(f.rgb) == f.id for f in sink.frames)
    first_after = next(i for i in sink.ids if i > min(n for n, _ in sink.drops))
    assert first_after % 10 == 0


def test_video_config_gives_the_camera_and_frames_carry_it():
    config = {"type": "video_config", "width": 320, "height": 192, "fps": 30, "fx": 300.0}
    with serving() as server:
        asyncio.run(send(server.url("/ws/video"), [json.dumps(config), *packets_of(video()[:5])]))
        server.sink.wait_settled(5)
    camera, stream = server.sink.cameras[0]
    assert (camera.fx, camera.fy, camera.cx, stream) == (300.0, 300.0, 159.5, "camera")
    assert server.sink.frames[0].camera == camera.resized(160, 96)


def test_phone_telemetry_arrives_and_bad_messages_are_answered():
    now = time.time_ns()
    good = [
        {
            "type": "imu",
            "timestamp_ns": now,
            "acceleration": [0, 0, 9.81],
            "angular_velocity": [0.1, 0, 0],
        },
        {
            "type": "gps",
            "timestamp_ns": now,
            "latitude": 46.0,
            "longitude": 11.0,
            "altitude": 200,
        },
    ]
    bad = ["", "[1]", "{", '{"type": 3}', '{"type": "imu"}', '{"type": "gps", "latitude": 95}']
    bad += ['{"type":"imu","acceleration":[1,2],"angular_velocity":[0,0,0]}']
    bad += ['{"type":"imu","acceleration":[1,2,NaN],"angular_velocity":[0,0,0]}', "[" * 50_000]
    with serving() as server:
        messages = [json.dumps(m) for m in good] + bad
        messages += [b"\0\1", *messages[:2]]
        answers = asyncio.run(send(server.url("/ws/phone"), messages, answers_wait_s=1.0))
        wait_until(lambda: len(server.sink.fixes) == 2)
        assert server.source.status().bad_messages == len(bad) + 1
    assert len(answers) == len(bad) + 1
    assert all(json.loads(answer)["type"] == "error" for answer in answers)
    assert server.sink.samples[0].acceleration == (0.0, 0.0, 9.81)
    assert server.sink.fixes[0].latitude_deg == 46.0


def test_hostile_messages_do_not_stop_the_server():
    hostile = [
        b"",
        b"\0",
        b"\0" * 12,
        b"\0\0\0\0\x09" + b"\0" * 40,
        b"\0\0\0\0\x03" + b"\0" * 10,
        struct.pack(">IBQQ", 0, 4, 2**64 - 1, 2**64 - 1) + b"\0\0\1\x41",
        struct.pack(">IBQQ", 0, 4, 0, 2**63) + bytes(range(250)),
        struct.pack(">IBQ", 0, 1, 0) + b"\0\0\1\x67",
        "{}",
        "null",
        '{"type":"video_config","width":-1,"height":1e99,"fx":"x"}',
        '{"type":"video_config","width":' + "9" * 4000 + ',"height":3,"fx":1}',
    ]
    with serving(max_message_mb=0.1) as server:
        asyncio.run(send(server.url("/ws/video"), hostile))
        asyncio.run(send(server.url("/ws/video"), [b"\0" * 300_000]))
        now = time.time_ns()
        asyncio.run(send(server.url("/ws/video"), packets_of(video(), sender_ns=now)))
        wait_until(lambda: len(server.sink.frames) == 40)
        assert json.loads(fetch(server, "/health"))["status"] == "ok"
    ids = server.sink.settled
    assert len(ids) == len(set(ids))
    assert not server.errors
    assert [number_in(f.rgb) for f in server.sink.frames] == list(range(40))


def test_a_new_sender_replaces_one_that_hangs():
    async def both(url: str) -> None:
        async with websockets.connect(url):
            await send(url, packets_of(video()))

    with serving() as server:
        asyncio.run(both(server.url("/ws/video")))
        server.sink.wait_settled(40)
    assert server.sink.ids == list(range(40))


def test_pages_of_other_sites_are_refused():
    async def connect(url: str, origin: str) -> None:
        async with websockets.connect(url, origin=origin):
            pass

    with serving() as server:
        url = server.url("/ws/h264_stream")
        asyncio.run(connect(url, "http://127.0.0.1:8080"))
        with pytest.raises(websockets.InvalidStatus, match="403"):
            asyncio.run(connect(url, "https://example.org"))
        wait_until(lambda: not server.source.status().consumer_queues)


def test_health_status_and_metrics_answer():
    with serving() as server:
        assert json.loads(fetch(server, "/health/rtsp"))["receiving"] is False
        asyncio.run(send(server.url("/ws/video"), packets_of(video())))
        server.sink.wait_settled(40)
        health = json.loads(fetch(server, "/health"))
        rtsp = json.loads(fetch(server, "/rtsp/status"))
        metrics = fetch(server, "/metrics")
    assert health["receiving"]
    assert health["decoded_frames"] == 40
    assert rtsp["frames"] == 40
    for name in (
        "h264_consumers_connected 0.0",
        "h264_frames_relayed_total 0.0",
        "h264_bytes_relayed_total 0.0",
        "video_bandwidth_mbps ",
        "# TYPE consumer_queue_size gauge",
        "ingest_frames_decoded_total 40.0",
    ):
        assert name in metrics


def test_a_port_in_use_is_an_error_that_names_it():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            ServerSource(IngestConfig(port=port)).run(MemorySink(), threading.Event())


def test_an_address_of_another_machine_is_an_error():
    source = ServerSource(IngestConfig(host="192.0.2.1", port=0))
    with pytest.raises(SourceError, match=r"192\.0\.2\.1"):
        source.run(MemorySink(), threading.Event())


def test_a_sink_that_fails_ends_the_run_with_its_error():
    def fail(frame) -> None:
        raise RuntimeError("the disk is gone")

    with serving(MemorySink(on_frame=fail)) as server:
        with contextlib.suppress(websockets.ConnectionClosed):
            asyncio.run(send(server.url("/ws/video"), packets_of(video())))
        wait_until(lambda: bool(server.errors))
    assert str(server.errors[0]) == "the disk is gone"


def test_what_is_queued_when_the_server_stops_is_settled():
    sink = MemorySink(on_frame=lambda frame: time.sleep(0.3))
    with serving(sink) as server:
        asyncio.run(send(server.url("/ws/video"), packets_of(video()[:20])))
        wait_until(lambda: len(sink.units) == 20)
        server.stop.set()
        wait_until(lambda: len(sink.settled) == 20)
    assert sink.settled == list(range(20))
    assert {reason for _, reason in sink.drops} == {"stopped"}
