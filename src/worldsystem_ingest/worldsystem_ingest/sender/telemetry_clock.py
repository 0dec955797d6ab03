# SPDX-License-Identifier: Apache-2.0
"""Host time of measurements, whose clock need not be that of the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.sender.clock import ClockEstimator

_OLDEST_NS = 60 * 10**9
_SAME_CLOCK_NS = 10**9


class TelemetryClock:
    """Maps the sender's times of measurements to host time.

    By the video's clock where an estimate from the measurements alone agrees with it to a second;
    else by that estimate, since phones stamp their sensors by the time since boot, may send no
    video at all, or be another device than the one that does.
    """

    def __init__(self, video: ClockEstimator, window_s: float) -> None:
        self._video = video
        self._own = ClockEstimator(window_s)

    @property
    def implausible(self) -> int:
        """Times that were not used."""
        return self._own.implausible

    def connected(self) -> None:
        """A new connection begins, perhaps of another device with another clock."""
        self._own.connected()

    def stamped(self, samples: Sequence[Telemetry], arrival_ns: int) -> list[Telemetry]:
        """The samples of one message with host time instead of the sender's."""
        newest_ns = max((sample.stamp_ns for sample in samples), default=0)
        if newest_ns:
            offset_ns = self._offset_ns(newest_ns, arrival_ns)
        else:
            self._own.implausible += len(samples)
            offset_ns = 0
        return [
            replace(sample, stamp_ns=_recent_or_arrival(sample.stamp_ns + offset_ns, arrival_ns))
            for sample in samples
        ]

    def _offset_ns(self, newest_ns: int, arrival_ns: int) -> int:
        """Host time less sender's time, learned from the newest measurement of a message."""
        own_ns = self._own.host_ns(newest_ns, arrival_ns)
        video_ns = self._video.mapped_ns(newest_ns)
        if video_ns is not None and abs(video_ns - own_ns) < _SAME_CLOCK_NS:
            return video_ns - newest_ns
        return own_ns - newest_ns


def _recent_or_arrival(host_ns: int, arrival_ns: int) -> int:
    """`host_ns`, never after the arrival; the arrival itself for what is a minute older."""
    return min(host_ns, arrival_ns) if host_ns >= arrival_ns - _OLDEST_NS else arrival_ns
