# SPDX-License-Identifier: Apache-2.0
"""Health, status and metrics: the deployed names as sums, companions by stream."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from functools import cache

import websockets
from ingest_lab import AccessUnit, RunningServer, encode, packets_of, send, serving, wait_until
from prometheus_client.parser import text_string_to_metric_families
from test_server import fetch

from worldsystem_core import wire
from worldsystem_ingest.rtsp_push.push import PushStatus
from worldsystem_ingest.stream.status import ServerStatus, StreamStatus


@cache
def video() -> list[AccessUnit]:
    return encode(40)


def samples(server: RunningServer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of `/metrics` by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(fetch(server, "/metrics"))
        for sample in family.samples
    }


def test_deployed_names_have_no_labels_and_sum_what_the_streams_have():
    async def traffic(server: RunningServer) -> dict:
        urls = [server.url(f"/ws/h264_stream?stream={name}") for name in ("camera", "left")]
        async with websockets.connect(urls[0]) as one, websockets.connect(urls[1]) as other:
            kept = [p for p in packets_of(video()) if wire.unpack(p).frame_number not in (13, 14)]
            await send(server.url("/ws/video"), kept)
            await send(server.url("/ws/video?stream=left"), packets_of(video()))
            for socket, count in ((one, 38), (other, 40)):
                for _ in range(count):
                    await asyncio.wait_for(socket.recv(), 5)
            server.sink.wait_settled(80)
            return await asyncio.to_thread(samples, server)

    with serving() as server:
        found = asyncio.run(traffic(server))
        status = server.source.status()
    assert found["h264_consumers_connected", ()] == 2
    assert found["h264_frames_relayed_total", ()] == 78
    assert found["h264_bytes_relayed_total", ()] == status.relayed_bytes
    assert found["video_bandwidth_mbps", ()] > 0
    camera, left = (("stream", "camera"),), (("stream", "left"),)
    assert found["ingest_stream_frames_relayed_total", camera] == 38
    assert found["ingest_stream_frames_relayed_total", left] == 40
    for name, reason in (("lost_on_link", 2), ("no_key_frame", 5)):
        key = "ingest_frames_dropped_total", (("reason", name), *camera)
        assert found[key] == reason
    queues = [labels for name, labels in found if name == "consumer_queue_size"]
    assert sorted(dict(labels)["stream"] for labels in queues) == ["camera", "left"]
    assert len({dict(labels)["consumer"] for labels in queues}) == 2


def test_every_picture_of_a_stream_is_used_or_dropped_in_the_metrics():
    packets = packets_of(video())
    at = next(i for i, p in enumerate(packets) if wire.unpack(p).frame_number == 15)
    packets[at] = packets[at][:29] + bytes(range(60))
    with serving() as server:
        asyncio.run(send(server.url("/ws/video"), packets))
        server.sink.wait_settled(40)
        found = samples(server)
    drops = sum(v for (name, _), v in found.items() if name == "ingest_frames_dropped_total")
    used = found["ingest_stream_frames_used_total", (("stream", "camera"),)]
    taken = found["ingest_stream_frames_taken_total", (("stream", "camera"),)]
    assert drops == 5
    assert used + drops == taken == 40


def test_the_quality_of_the_link_is_in_health_metrics_and_diagnostics():
    with serving() as server:
        messages = packets_of(video(), sender_ns=time.time_ns())
        asyncio.run(send(server.url("/ws/video"), messages, pause_s=0.033))

        def known() -> bool:
            link = server.source.status().streams["camera"].link
            return link.jitter_ms is not None

        wait_until(known)
        found = samples(server)
        health = json.loads(fetch(server, "/health"))
        facts = server.source.facts()
    link = health["streams"]["camera"]["link"]
    assert link["bandwidth_mbps"] > 0
    assert link["jitter_ms"] is not None
    assert "error_bound_ns" in link["clock"]
    label = (("stream", "camera"),)
    for name in ("jitter_ms", "loss_ratio", "loss_total_ratio", "clock_drift_ppm"):
        assert (f"ingest_stream_{name}", label) in found
    assert facts["camera.jitter_ms"] > 0


def test_the_push_to_an_rtsp_server_is_shown():
    with serving() as server:
        assert json.loads(fetch(server, "/rtsp/status"))["rtsp_push"] is False
        push = PushStatus(url="rtsp://host:8554/drone", state="sending", frames=7)
        server.source.push_status = lambda: push
        for path in ("/rtsp/status", "/health/rtsp", "/health"):
            shown = json.loads(fetch(server, path))["push"]
            assert (shown["url"], shown["frames"]) == ("rtsp://host:8554/drone", 7)


def test_a_server_says_that_nobody_sends():
    async def stay(server: RunningServer) -> None:
        async with websockets.connect(server.url("/ws/video")):
            wait_until(lambda: server.source.problem() == "")

    with serving() as server:
        assert "nobody sends" in server.source.problem()
        asyncio.run(stay(server))
        wait_until(lambda: "nobody sends" in server.source.problem())


def test_together_counts_are_sums_and_the_newest_picture_counts():
    low = StreamStatus(
        senders=1,
        last_picture_age_s=5.0,
        bandwidth_mbps=1.0,
        bandwidth_average_mbps=1.0,
        low_bandwidth=True,
        drops={"corrupt": 1, "stopped": 2},
        consumer_queues={0: 3},
    )
    good = StreamStatus(senders=1, last_picture_age_s=0.1, bandwidth_mbps=4.0, drops={"corrupt": 2})
    status = ServerStatus.of({"low": low, "good": good, "empty": StreamStatus()}, 1.0)
    assert (status.senders, status.bandwidth_mbps, status.last_picture_age_s) == (2, 5.0, 0.1)
    assert status.receiving
    assert status.low_bandwidth
    assert status.bandwidth_average_mbps == 1.0
    assert status.drops == {"corrupt": 3, "stopped": 2}
    assert status.consumer_queues == {0: 3}
    assert not ServerStatus.of({}, 1.0).receiving


def test_nothing_is_logged_above_info_while_all_is_well(caplog):
    caplog.set_level(logging.WARNING)
    with serving() as server:
        asyncio.run(send(server.url("/ws/video"), packets_of(video())))
        server.sink.wait_settled(40)
        fetch(server, "/metrics")
    assert not caplog.records
