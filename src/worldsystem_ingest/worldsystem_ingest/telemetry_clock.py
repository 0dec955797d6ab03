# SPDX-License-Identifier: Apache-2.0
"""Host time of measurements, whose clock need not be that of the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.clock import ClockEstimator

_OLDEST_NS = 60 * 10**9
_AHEAD_NS = 10**9


class TelemetryClock:
    """Maps the sender's times of measurements to host time.

    By the video's clock where that puts a measurement within the minute before its arrival; else by
    an estimate from the measurements alone, since phones stamp their sensors by the time since boot
    and may send no video at all.
    """

    def __init__(self, video: ClockEstimator, window_s: float) -> None:
        self._video = video
        self._own = ClockEstimator(window_s)

    @property
    def implausible(self) -> int:
        """Times that were not used."""
        return self._own.implausible

    def stamped(self, samples: Sequence[Telemetry], arrival_ns: int) -> list[Telemetry]:
        """The samples of one message with host time instead of the sender's."""
        newest_ns = max((sample.stamp_ns for sample in samples), default=0)
        if newest_ns:
            own_ns = self._own.host_ns(newest_ns, arrival_ns) - newest_ns
        else:
            self._own.implausible += len(samples)
            own_ns = arrival_ns
        return [
            replace(sample, stamp_ns=self._host_ns(sample.stamp_ns, own_ns, arrival_ns))
            for sample in samples
        ]

    def _host_ns(self, sender_ns: int, own_offset_ns: int, arrival_ns: int) -> int:
        host_ns = self._video.mapped_ns(sender_ns)
        if host_ns is None or not _recent(host_ns, arrival_ns):
            host_ns = sender_ns + own_offset_ns
        if not _recent(host_ns, arrival_ns):
            return arrival_ns
        return min(host_ns, arrival_ns)


def _recent(host_ns: int, arrival_ns: int) -> bool:
    return arrival_ns - _OLDEST_NS <= host_ns <= arrival_ns + _AHEAD_NS
