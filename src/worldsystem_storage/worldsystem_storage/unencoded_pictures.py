# SPDX-License-Identifier: Apache-2.0
"""Pictures that come without encoded video, as JPEG, so that the recording plays again."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

import cv2

from worldsystem_core.frames import EncodedFrame, Frame

log = logging.getLogger(__name__)

PICTURES = "camera/image/compressed"
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]
_UNDECIDED = 30
_REMEMBERED = 1000  # units whose pictures may still come; far more than wait for a decoder


class JpegPicture(NamedTuple):
    """A picture as JPEG, when it was taken and when it came."""

    jpeg: bytes
    stamp_ns: int
    came_ns: int


class UnencodedPictures:
    """The pictures of one stream of which no encoded unit has come, while they are `wanted()`.

    A picture has the stamp of its unit, which comes before it. Those without one wait as JPEG, as a
    unit may still come or the video go on: then they are let go. After `_UNDECIDED` since the last
    unit they are recorded, and from then on each at once, until a unit comes. What could not be
    kept is counted in `dropped` by reason.

    `encoded` and `crowded_out` may be called from any thread.
    """

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self.dropped: Counter[str] = Counter()
        self._wanted = wanted
        self._lock = threading.Lock()
        self._units: OrderedDict[int, None] = OrderedDict()
        self._since_unit = 0
        self._waiting: list[JpegPicture] = []
        self._crowded_out: deque[int] = deque()

    def encoded(self, unit: EncodedFrame) -> None:
        """A unit came: its picture is in the video."""
        with self._lock:
            self._since_unit = 0
            self._units[unit.stamp_ns] = None
            if len(self._units) > _REMEMBERED:
                self._units.popitem(last=False)
            if self._waiting:
                self.dropped["too_few"] += sum(p.stamp_ns < unit.stamp_ns for p in self._waiting)
                self._waiting = [p for p in self._waiting if p.stamp_ns > unit.stamp_ns]

    def take(self, frame: Frame) -> list[JpegPicture]:
        """What is to be recorded now that `frame` came: nothing, this picture, or all that wait."""
        with self._lock:
            self._settle_crowded_out(frame.stamp_ns)
            if frame.stamp_ns in self._units or not self._wanted():
                return []
        picture = self._encodable(frame)
        with self._lock:
            self._since_unit += 1
            self._waiting += picture
            return self._taken() if self._since_unit >= _UNDECIDED else []

    def rest(self) -> list[JpegPicture]:
        """What still waits when the recording ends."""
        with self._lock:
            self._settle_crowded_out(math.inf)
            return self._taken()

    def crowded_out(self, frame: Frame) -> None:
        """A picture was let go before it could be taken; whether its unit was is known later."""
        if not self._wanted():
            return
        with self._lock:
            self._crowded_out.append(frame.stamp_ns)
            if len(self._crowded_out) > _REMEMBERED:
                self._settle_oldest()

    def _taken(self) -> list[JpegPicture]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _settle_crowded_out(self, before_ns: float) -> None:
        while self._crowded_out and self._crowded_out[0] < before_ns:
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        """Count it unless the video holds it: its unit would have come by now."""
        self.dropped["recorder_busy"] += self._crowded_out.popleft() not in self._units

    def _encodable(self, frame: Frame) -> list[JpegPicture]:
        try:
            return [_as_jpeg(frame)]
        except cv2.error as error:
            if not self.dropped["not_encodable"]:
                log.error("a picture is not recorded: %s; more of it is only counted", error)
            self.dropped["not_encodable"] += 1
            return []


def _as_jpeg(frame: Frame) -> JpegPicture:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR), _QUALITY)
    return JpegPicture(jpeg.tobytes(), frame.stamp_ns, time.time_ns())
