# SPDX-License-Identifier: Apache-2.0
"""The server's account in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worldsystem_ingest.stream.status import ServerStatus, StreamStatus


def exposition(status: ServerStatus) -> bytes:
    """`status` as the text that Prometheus scrapes."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status))
    return generate_latest(registry)


_BY_STREAM: tuple[tuple[str, str, Callable[[StreamStatus], float | None]], ...] = (
    ("ingest_stream_senders_connected", "connected video senders", lambda s: s.senders),
    ("ingest_stream_consumers_connected", "consumers", lambda s: len(s.consumer_queues)),
    ("ingest_stream_frames_taken_total", "access units taken", lambda s: s.encoded_frames),
    ("ingest_stream_frames_used_total", "pictures decoded", lambda s: s.decoded_frames),
    ("ingest_stream_frames_relayed_total", "pictures sent on", lambda s: s.relayed_frames),
    ("ingest_stream_bytes_relayed_total", "bytes sent on", lambda s: s.relayed_bytes),
    ("ingest_stream_bytes_received_total", "video bytes in", lambda s: s.received_bytes),
    ("ingest_stream_decode_queue_size", "before the decoder", lambda s: s.decode_queue),
    ("ingest_stream_bandwidth_mbps", "video that comes in [Mbit/s]", lambda s: s.bandwidth_mbps),
    ("ingest_stream_jitter_ms", "RFC 3550 jitter [ms]", lambda s: s.link.jitter_ms),
    ("ingest_stream_queue_delay_ms", "wait on the path [ms]", lambda s: s.link.queue_delay_ms),
    ("ingest_stream_loss_ratio", "share lost in the last 5 s", lambda s: s.link.loss),
    ("ingest_stream_loss_total_ratio", "share lost of all", lambda s: s.link.loss_total),
    ("ingest_stream_packets_lost_total", "RTP packets given up", lambda s: s.packets_lost),
    ("ingest_stream_packets_late_total", "RTP packets after their turn", lambda s: s.packets_late),
    (
        "ingest_stream_key_frames_asked_total",
        "key frames asked for",
        lambda s: s.link.key_frames_asked,
    ),
    (
        "ingest_stream_clock_offset_seconds",
        "host minus sender [s]",
        lambda s: _seconds(s.link.clock.offset_ns),
    ),
    (
        "ingest_stream_clock_error_bound_seconds",
        "how far stamps may be off [s]",
        lambda s: _seconds(s.link.clock.error_bound_ns),
    ),
    (
        "ingest_stream_clock_drift_ppm",
        "drift of the sender's clock",
        lambda s: s.link.clock.drift_ppm,
    ),
    (
        "ingest_stream_clock_steps_total",
        "jumps of the sender's clock",
        lambda s: s.link.clock.steps,
    ),
    ("ingest_stream_round_trip_ms", "there and back [ms]", lambda s: s.link.clock.round_trip_ms),
)


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else time_ns * 1e-9


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
        yield from self._streams()

    def _streams(self) -> Iterator[Metric]:
        """The same by stream, under names of their own, since dashboards sum the names above."""
        for name, meaning, value_of in _BY_STREAM:
            family = (
                CounterMetricFamily(name.removesuffix("_total"), meaning, labels=["stream"])
                if name.endswith("_total")
                else GaugeMetricFamily(name, meaning, labels=["stream"])
            )
            for stream, status in self._status.streams.items():
                value = value_of(status)
                if value is not None:
                    family.add_metric([stream], float(value))
            yield family

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
