# SPDX-License-Identifier: Apache-2.0
"""The server's account in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """The server's account at one moment."""

    uptime_s: float
    senders: int
    phones: int
    consumer_queues: dict[int, int]
    last_picture_age_s: float | None
    bandwidth_mbps: float
    bandwidth_average_mbps: float | None
    low_bandwidth: bool
    received_bytes: int
    encoded_frames: int
    decoded_frames: int
    drops: dict[str, int] = field(default_factory=dict)
    relayed_frames: int
    relayed_bytes: int
    relay_lost_frames: int
    relay_lost_gops: int
    decode_queue: int
    late: int
    duplicates: int
    restarts: int
    bad_messages: int
    implausible_times: int
    telemetry_samples: dict[str, int] = field(default_factory=dict)

    @property
    def receiving(self) -> bool:
        """Whether a picture came within the last two seconds."""
        return self.last_picture_age_s is not None and self.last_picture_age_s < 2.0


def exposition(status: ServerStatus) -> bytes:
    """`status` as the text that Prometheus scrapes."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status))
    return generate_latest(registry)


class _StatusCollector(Collector):
    def __init__(self, status: ServerStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counters()
        drops = CounterMetricFamily(
            "ingest_frames_dropped", "pictures let go, by reason", labels=["reason"]
        )
        for reason, count in self._status.drops.items():
            drops.add_metric([reason], count)
        yield drops
        queues = GaugeMetricFamily(
            "consumer_queue_size", "pictures waiting for a consumer", labels=["consumer"]
        )
        for number, size in self._status.consumer_queues.items():
            queues.add_metric([str(number)], size)
        yield queues

    def _gauges(self) -> Iterator[Metric]:
        status = self._status
        for name, meaning, value in (
            ("h264_consumers_connected", "consumers of the relay", len(status.consumer_queues)),
            ("video_bandwidth_mbps", "video that comes in [Mbit/s]", status.bandwidth_mbps),
            ("video_bandwidth_low", "1 when under 3 Mbit/s on average", status.low_bandwidth),
            ("ingest_senders_connected", "connected video senders", status.senders),
            ("ingest_decode_queue_size", "access units before the decoder", status.decode_queue),
        ):
            yield GaugeMetricFamily(name, meaning, value=float(value))

    def _counters(self) -> Iterator[Metric]:
        status = self._status
        for name, meaning, value in (
            ("h264_frames_relayed", "pictures sent to consumers", status.relayed_frames),
            ("h264_bytes_relayed", "bytes sent to consumers", status.relayed_bytes),
            ("h264_frames_relay_lost", "pictures consumers lost", status.relay_lost_frames),
            ("h264_gops_relay_lost", "GOPs consumers lost", status.relay_lost_gops),
            ("ingest_bytes_received", "video bytes that came in", status.received_bytes),
            ("ingest_frames_encoded", "access units taken", status.encoded_frames),
            ("ingest_frames_decoded", "pictures decoded", status.decoded_frames),
            ("ingest_late_frames", "pictures after their turn", status.late),
            ("ingest_duplicate_frames", "pictures that came twice", status.duplicates),
            ("ingest_sender_restarts", "times the sender began anew", status.restarts),
            ("ingest_bad_messages", "messages not understood", status.bad_messages),
            ("ingest_implausible_times", "sender times not believed", status.implausible_times),
        ):
            yield CounterMetricFamily(name, meaning, value=float(value))
