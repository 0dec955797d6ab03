# SPDX-License-Identifier: Apache-2.0
"""When the pictures of a URL were taken, in host time."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import av

from worldsystem_ingest.sender.clock import ClockEstimator

_REFERENCE_TIME = struct.Struct("=q")  # AVProducerReferenceTime.wallclock [us since 1970]
_MAX_DELAY_NS = 10 * 10**9
_MAX_AHEAD_NS = 50_000_000
_JUMP_NS = 10**9
# These carry no stamps; FFmpeg invents 25 pictures a second.
_WITHOUT_STAMPS = frozenset({"h264", "hevc", "mjpeg", "mpjpeg", "jpeg_pipe", "m4v", "obu"})


@dataclass
class WallLag:
    """How far stamps are behind the mapped presentation times, over any number of connections.

    None before the first stamp. It follows the sender's wall clock: at once where that makes stamps
    later, else so slowly that they go on at half speed, and do not stand still until it is met.
    """

    ns: int | None = None

    def follow(self, wall_lag_ns: int, since_ns: int) -> int:
        """The lag when that of the wall clock is `wall_lag_ns`, `since_ns` after the last time."""
        self.ns = wall_lag_ns if self.ns is None else min(wall_lag_ns, self.ns + since_ns // 2)
        return self.ns

    def keep(self) -> int:
        """The lag while no wall clock is told."""
        self.ns = self.ns or 0
        return self.ns

    def forget(self) -> int:
        """The lag, which is none, when the wall clock cannot be right."""
        self.ns = 0
        return self.ns


class LinkClock:
    """Stamps packets of one connection with the time their picture was taken [ns].

    RTSP sender reports tell the sender's wall clock: it is believed while it is at most 10 s
    behind the arrival, so that the path's delay counts. Otherwise the presentation times are
    mapped by the arrivals that were fastest; a jump in them (a sender that loops) begins anew.
    Before the first report stamps keep the `lag` that the connections before have found.
    """

    def __init__(self, window_s: float, format_name: str, lag: WallLag | None = None) -> None:
        self._has_stamps = format_name not in _WITHOUT_STAMPS
        self._clock = ClockEstimator(window_s, epoch=False)
        self._lag = lag or WallLag()
        self._newest_wall_ns = 0
        self._last: tuple[int, int] | None = None
        self.jumps = 0
        self.source = "arrival"

    def stamp_ns(self, packet: av.Packet, arrival_ns: int) -> int:
        """When the picture in `packet` was taken; never later than `arrival_ns`."""
        if not self._has_stamps or packet.pts is None:
            self.source = "arrival"
            return arrival_ns
        self._watch_for_jumps(packet, arrival_ns)
        mapped_ns = self._clock.host_ns(_ns(packet.pts, packet.time_base), arrival_ns)
        return min(arrival_ns, mapped_ns - self._lag_ns(packet, mapped_ns, arrival_ns))

    def _lag_ns(self, packet: av.Packet, mapped_ns: int, arrival_ns: int) -> int:
        wall_ns, self.source = wall_clock_ns(packet), "presentation time"
        if wall_ns is None:
            return self._lag.keep()
        if not -_MAX_AHEAD_NS <= arrival_ns - wall_ns <= _MAX_DELAY_NS:
            return self._lag.forget()
        self.source = "sender's wall clock"
        since_ns = max(0, wall_ns - self._newest_wall_ns) if self._newest_wall_ns else 0
        self._newest_wall_ns = max(wall_ns, self._newest_wall_ns)
        return self._lag.follow(mapped_ns - wall_ns, since_ns)

    def _watch_for_jumps(self, packet: av.Packet, arrival_ns: int) -> None:
        """Decoding times only grow, and faster than the arrivals only after a jam."""
        coded = packet.pts if packet.dts is None else packet.dts
        coded_ns = _ns(coded, packet.time_base)
        if self._last:
            step_ns = coded_ns - self._last[0]
            if step_ns < -_JUMP_NS or step_ns > arrival_ns - self._last[1] + _JUMP_NS:
                self.jumps += 1
                self._clock.reset()
        self._last = (coded_ns, arrival_ns)


def wall_clock_ns(packet: av.Packet) -> int | None:
    """The sender's wall clock at the picture, as its RTCP reports tell; None before the first."""
    if not packet.has_sidedata("prft"):
        return None
    (micros,) = _REFERENCE_TIME.unpack_from(bytes(packet.get_sidedata("prft")))
    return int(micros) * 1000


def _ns(ticks: int, time_base: Fraction) -> int:
    return ticks * time_base.numerator * 10**9 // time_base.denominator
