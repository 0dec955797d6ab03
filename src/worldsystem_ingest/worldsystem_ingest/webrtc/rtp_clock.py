# SPDX-License-Identifier: Apache-2.0
"""From RTP timestamps to times since the epoch (RFC 3550, section 6.4.1)."""

from __future__ import annotations

from worldsystem_ingest.sender.clock import ClockEstimator

_RATE_HZ = 90_000
_NTP_EPOCH_S = -2_208_988_800  # 1900-01-01, seen from 1970
_WRAP = 1 << 32
_NS = 10**9


class RtpClock:
    """Capture times [ns since the epoch] of a stream whose timestamps count 90 kHz and wrap.

    A sender report tells them in the sender's own clock, which is also that of the telemetry
    beside the video. Until the first one, and where reports hold no plausible time, the first
    picture counts as taken when it arrived, and the timestamps tell how time went on since.
    """

    def __init__(self) -> None:
        self._newest_ticks: int | None = None
        self._base: tuple[int, int] = (0, 0)
        self.reported = False

    def report(self, ntp: int, timestamp: int, arrival_ns: int) -> bool:
        """Take one sender report; True when it is the first one, so that times jump to its clock.

        `ntp` is the report's 64-bit NTP time, `timestamp` the RTP timestamp of the same instant.
        """
        sender_ns = ntp_to_ns(ntp)
        if not ClockEstimator.plausible(sender_ns, arrival_ns):
            return False
        self._base = (self._unwrapped(timestamp), sender_ns)
        first, self.reported = not self.reported, True
        return first

    def sender_ns(self, timestamp: int, arrival_ns: int) -> int:
        """When the picture with `timestamp` was taken."""
        began = self._newest_ticks is None
        ticks = self._unwrapped(timestamp)
        self._newest_ticks = max(ticks, self._newest_ticks or ticks)
        if began and not self.reported:
            self._base = (ticks, arrival_ns)
        base_ticks, base_ns = self._base
        return base_ns + (ticks - base_ticks) * _NS // _RATE_HZ

    def _unwrapped(self, timestamp: int) -> int:
        near = self._newest_ticks
        if near is None:
            near = self._base[0] if self.reported else timestamp
        return near + (timestamp - near + _WRAP // 2) % _WRAP - _WRAP // 2


def ntp_to_ns(ntp: int) -> int:
    """Nanoseconds since 1970 of a 64-bit NTP time; era 0, which ends in 2036, or era 1."""
    seconds = ntp >> 32
    if seconds < 1 << 31:  # the era of the highest bit: RFC 4330, section 3
        seconds += _WRAP
    return (seconds + _NTP_EPOCH_S) * _NS + ((ntp & 0xFFFFFFFF) * _NS >> 32)
