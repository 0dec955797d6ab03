# SPDX-License-Identifier: Apache-2.0
"""The detector beside the video: it sees the newest picture whenever it has finished one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from worldsystem_core.faults import FaultRecord
from worldsystem_core.handoff import Handoff
from worldsystem_segment.learned.detector import Detector, Found, scaled_box

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sighting:
    """What the detector found in the picture of `frame`, in boxes that are fractions of it, for
    which phrases: nothing below its own phrase's least score."""

    frame: int
    phrases: tuple[str, ...]
    found: tuple[Found, ...]


@dataclass(frozen=True, eq=False)
class _Picture:
    frame: int
    rgb: UInt8[np.ndarray, "h w 3"]
    phrases: dict[str, float]


class DetectionThread:
    """Runs a detector on one picture at a time; a picture that waits gives way to a newer one.

    With `synchronous` there is no thread: `offer` returns when the detector has. While a detector
    fails `problem` says why; one that failed too often in a row (`FaultRecord`) is asked no more.
    """

    def __init__(self, detector: Detector, *, synchronous: bool = False) -> None:
        self._detector = detector
        self._pictures: Handoff[_Picture] = Handoff(1)
        self._sightings: Handoff[Sighting] = Handoff(4)
        self.problem = ""
        self.runs = 0
        self._faults = FaultRecord()
        self._gave_up = False
        self._thread = (
            None
            if synchronous
            else threading.Thread(target=self._work, name="detector", daemon=True)
        )
        if self._thread is not None:
            self._thread.start()

    @property
    def skipped(self) -> int:
        """Pictures that gave way to newer ones."""
        return self._pictures.dropped

    def offer(
        self, frame: int, rgb: UInt8[np.ndarray, "h w 3"], phrases: Mapping[str, float]
    ) -> None:
        """Look for the phrases, each with its least score, in this picture as soon as possible."""
        picture = _Picture(frame, rgb, dict(phrases))
        if self._thread is None:
            self._look(picture)
        else:
            self._pictures.put(picture)

    def take(self) -> list[Sighting]:
        """What has been found since the last call."""
        taken = []
        while (sighting := self._sightings.get(timeout_s=0.0)) is not None:
            taken.append(sighting)
        return taken

    def close(self, timeout_s: float = 30.0) -> None:
        """End; waits for the picture at hand."""
        self._pictures.close()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while not (self._pictures.closed and not len(self._pictures)):
            picture = self._pictures.get(timeout_s=0.5)
            if picture is not None:
                self._look(picture)

    def _look(self, picture: _Picture) -> None:
        if self._gave_up:
            return
        try:
            found = self._found(picture)
        except Exception as error:  # the edge of the thread
            self._gave_up = not self._faults.survives(error)
            how = "no more: objects are only followed now" if self._gave_up else "again"
            self.problem = f"the detector failed: {error}; it is asked {how}"
            log.exception("the detector failed; it is asked %s", how)
            return
        self._faults, self.problem = FaultRecord(), ""
        self.runs += 1
        self._sightings.put(Sighting(picture.frame, tuple(picture.phrases), tuple(found)))

    def _found(self, picture: _Picture) -> list[Found]:
        phrases = picture.phrases
        found = self._detector.detect(picture.rgb, tuple(phrases), tuple(phrases.values()))
        sure = [one for one in found if one.score >= phrases[one.label]]
        height, width = picture.rgb.shape[:2]
        return [replace(one, box=scaled_box(one.box, 1 / width, 1 / height)) for one in sure]
