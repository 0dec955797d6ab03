# SPDX-License-Identifier: Apache-2.0
"""When the pictures of a file were taken, counted from its start, though its times begin again."""

from __future__ import annotations

import av

_GLITCH_S = 1.0
_MOST_REORDERED = 16  # pictures: the most that H.264 and H.265 allow


class StreamTime:
    """Ticks of a stream's time base since its start; packets must come in their coding order.

    Where the times begin again, as in transport streams put together with `cat` and in recordings
    across a restart of the recorder, they go on one picture after the last. Coding times tell:
    those of display also go back where there are B pictures.
    """

    def __init__(self, stream: av.VideoStream, rate_hz: float) -> None:
        ticks_per_s = float(1 / stream.time_base)
        self._start = stream.start_time or 0
        self._picture = round(ticks_per_s / rate_hz)
        self._glitch = max(_GLITCH_S * ticks_per_s, _MOST_REORDERED * ticks_per_s / rate_hz)
        self._shift = 0
        self._last_coded: int | None = None

    def since_start(self, packet: av.Packet) -> int:
        """For a packet that has a presentation time."""
        coded = packet.dts
        if coded is not None:
            back = 0 if self._last_coded is None else self._last_coded - coded
            if back > self._glitch:
                self._shift += back + self._picture
            self._last_coded = coded
        return int(packet.pts - self._start + self._shift)
