# SPDX-License-Identifier: Apache-2.0
"""What is told of one stream, and of all together, at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from worldsystem_ingest.sender.quality import LinkQuality


@dataclass(eq=False)
class PacketLoss:
    """What one stream's packets came to, over any number of buffers.

    `lost` were given up; `late` came when their turn was over, or once more.
    """

    lost: int = 0
    late: int = 0


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
    link: LinkQuality = field(default_factory=LinkQuality)
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
    packets_lost: int = 0
    packets_late: int = 0
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
