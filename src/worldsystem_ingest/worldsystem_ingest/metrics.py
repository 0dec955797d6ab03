# SPDX-License-Identifier: Apache-2.0
"""The server's account in the Prometheus text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, kw_only=True)
class StreamStatus:
    """The account of one stream, or of all together, at one moment."""

    senders: int = 0
    phones: int = 0
    consumer_queues: dict[int, int] = field(default_factory=dict)
    last_picture_age_s: float | None = None
    bandwidth_mbps: float = 0.0
    bandwidth_average_mbps: float | None = None
    low_bandwidth: bool = False
    received_bytes: int = 0
    encoded_frames: int = 0
    decoded_frames: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    relayed_frames: int = 0
    relayed_bytes: int = 0
    relay_lost_frames: int = 0
    relay_lost_gops: int = 0
    decode_queue: int = 0
    late: int = 0
    duplicates: int = 0
    restarts: int = 0
    bad_messages: int = 0
    implausible_times: int = 0
    telemetry_samples: dict[str, int] = field(default_factory=dict)

    @property
    def receiving(self) -> bool:
        """Whether a picture came within the last two seconds."""
        return self.last_picture_age_s is not None and self.last_picture_age_s < 2.0


@dataclass(frozen=True, kw_only=True)
class ServerStatus(StreamStatus):
    """The server's account at one moment: all streams together, and each by its name."""

    uptime_s: float
    streams: dict[str, StreamStatus]

    @classmethod
    def of(cls, streams: dict[str, StreamStatus], uptime_s: float) -> ServerStatus:
        """Sums over `streams`; the age is that of the newest picture."""
        parts = list(streams.values())
        ages_s = [s.last_picture_age_s for s in parts if s.last_picture_age_s is not None]
        averages = [s.bandwidth_average_mbps for s in parts if s.bandwidth_average_mbps is not None]
        sums: dict[str, Any] = {name: sum(getattr(s, name) for s in parts) for name in _SUMMED}
        sums |= {name: _merged(getattr(s, name) for s in parts) for name in _MERGED}
        return cls(
            uptime_s=uptime_s,
            streams=streams,
            last_picture_age_s=min(ages_s, default=None),
            bandwidth_average_mbps=sum(averages) if averages else None,
            low_bandwidth=any(s.low_bandwidth for s in parts),
            **sums,
        )


def _merged(counts: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()  # keyed by a consumer's number or by a name
    for count in counts:
        total.update(count)
    return dict(total)


_SUMMED = [f.name for f in fields(StreamStatus) if f.type in ("int", "float")]
_MERGED = [f.name for f in fields(StreamStatus) if str(f.type).startswith("dict")]


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
            "ingest_frames_dropped", "pictures let go, by reason", labels=["reason", "stream"]
        )
        queues = GaugeMetricFamily(
            "consumer_queue_size", "pictures waiting for a consumer", labels=["consumer", "stream"]
        )
        for name, stream in self._status.streams.items():
            for reason, count in stream.drops.items():
                drops.add_metric([reason, name], count)
            for number, size in stream.consumer_queues.items():
                queues.add_metric([str(number), name], size)
        yield drops
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
