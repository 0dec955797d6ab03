# SPDX-License-Identifier: Apache-2.0
"""Pictures of sources that deliver no encoded video, as JPEG, so that the recording plays again."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import cv2

from worldsystem_core.frames import Frame

log = logging.getLogger(__name__)

PICTURES = "camera/image/compressed"
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]
_UNDECIDED = 30


class JpegPicture(NamedTuple):
    """A picture as JPEG, when it was taken and when it came."""

    jpeg: bytes
    stamp_ns: int
    came_ns: int


class UnencodedPictures:
    """The pictures of one stream while they are `wanted()` and no encoded unit of it has come.

    The first pictures wait as JPEG, since a unit may still come: then they are in the video, and
    from then on nothing is made here. What could not be kept is counted in `dropped` by reason.
    """

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self.dropped: Counter[str] = Counter()
        self._wanted = wanted
        self._waiting: list[JpegPicture] = []
        self._is_encoded = self._decided = False

    def encoded(self) -> None:
        """A unit came: the stream's pictures are in its video."""
        self._is_encoded = True
        self._waiting.clear()

    def take(self, frame: Frame) -> list[JpegPicture]:
        """What is to be recorded now that `frame` came: nothing, this picture, or all that wait."""
        if self._is_encoded or not self._wanted():
            return []
        try:
            self._waiting.append(_as_jpeg(frame))
        except cv2.error as error:
            if not self.dropped["not_encodable"]:
                log.error("a picture is not recorded: %s; more of it is only counted", error)
            self.dropped["not_encodable"] += 1
        if not self._decided and len(self._waiting) < _UNDECIDED:
            return []
        self._decided = True
        return self.rest()

    def rest(self) -> list[JpegPicture]:
        """What still waits when the recording ends."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def crowded_out(self, _: Frame) -> None:
        """A picture was let go before it could be taken."""
        if not self._is_encoded and self._wanted():
            self.dropped["recorder_busy"] += 1


def _as_jpeg(frame: Frame) -> JpegPicture:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR), _QUALITY)
    return JpegPicture(jpeg.tobytes(), frame.stamp_ns, time.time_ns())
