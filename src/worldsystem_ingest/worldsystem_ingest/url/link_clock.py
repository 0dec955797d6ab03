# SPDX-License-Identifier: Apache-2.0
"""When the pictures of a URL were taken, in host time."""

from __future__ import annotations

import struct
from fractions import Fraction

import av

from worldsystem_ingest.sender.clock import ClockEstimator

_REFERENCE_TIME = struct.Struct("=q")  # AVProducerReferenceTime.wallclock [us since 1970]
_MAX_DELAY_NS = 10 * 10**9
_MAX_AHEAD_NS = 50_000_000
_JUMP_NS = 10**9
# These carry no stamps; FFmpeg invents 25 pictures a second.
_WITHOUT_STAMPS = frozenset({"h264", "hevc", "mjpeg", "mpjpeg", "jpeg_pipe", "m4v", "obu"})


class LinkClock:
    """Stamps packets of one connection with the time their picture was taken [ns].

    RTSP sender reports tell the sender's wall clock: it is believed while it is at most 10 s
    behind the arrival, so that the path's delay counts. Otherwise the presentation times are
    mapped by the arrivals that were fastest; a jump in them (a sender that loops) begins anew.
    """

    def __init__(self, window_s: float, format_name: str) -> None:
        self._has_stamps = format_name not in _WITHOUT_STAMPS
        self._clock = ClockEstimator(window_s, epoch=False)
        self._last: tuple[int, int] | None = None
        self.jumps = 0
        self.source = "arrival"

    def stamp_ns(self, packet: av.Packet, arrival_ns: int) -> int:
        """When the picture in `packet` was taken; never later than `arrival_ns`."""
        wall_ns = wall_clock_ns(packet)
        if wall_ns is not None and -_MAX_AHEAD_NS <= arrival_ns - wall_ns <= _MAX_DELAY_NS:
            self.source = "sender's wall clock"
            return min(wall_ns, arrival_ns)
        if not self._has_stamps or packet.pts is None:
            self.source = "arrival"
            return arrival_ns
        self.source = "presentation time"
        self._watch_for_jumps(packet, arrival_ns)
        return self._clock.host_ns(_ns(packet.pts, packet.time_base), arrival_ns)

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
