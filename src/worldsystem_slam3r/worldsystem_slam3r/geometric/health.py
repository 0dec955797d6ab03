# SPDX-License-Identifier: Apache-2.0
"""The health of the geometric back-end: the worst of what it sees, follows, fits and is given.

Each part is a score in [0, 1] with the words that belong to it (docs/health.md lists both); the
parts that vary from frame to frame are averaged over about the last second.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

import cv2
import numpy as np
from jaxtyping import UInt8

from worldsystem_slam3r.health import GOOD, Health

DARK_SPREAD = 4.0
"""Standard deviation of the grey values below which a picture shows nothing."""
FEW_CORNERS, MANY_CORNERS = 25, 100
FEW_INLIERS, MANY_INLIERS = 15, 50
GOOD_ERROR_WIDTHS, BAD_ERROR_WIDTHS = 0.0012, 0.0035
"""Median reprojection error over the picture's width of a sound and of a broken map."""
INTERVALS = 90
MISSING_ALLOWED = 0.1
STILL_S = 3.0
"""Time without a start after which the camera's lack of motion is said."""
STILL_WIDTHS = 0.004
LOST = "tracking is lost: move back to what was seen before"
NO_START = "no start yet: move the camera sideways, slowly"
MEMORY = 0.8
"""Share of the last average that the next one keeps."""


class Motion(Enum):
    """What the pictures before the start show of the camera's motion."""

    UNKNOWN = ""
    STILL = "the camera does not move: move it sideways by a tenth of the distance to what it sees"
    TURNING = "the camera only turns: move it sideways as well"


class HealthMonitor:
    """Collects what the parts of the back-end notice."""

    def __init__(self) -> None:
        self._stamps_ns: deque[int] = deque(maxlen=INTERVALS + 1)
        self._sight = self._corners = self._follow = self._fit = 1.0
        self._started = False
        self._waiting_since_ns: int | None = None
        self._motion = Motion.UNKNOWN
        self.lens_problem = ""

    def picture(self, stamp_ns: int, grey: UInt8[np.ndarray, "h w"]) -> None:
        """A picture came in."""
        self._stamps_ns.append(stamp_ns)
        spread = float(cv2.meanStdDev(grey)[1].ravel()[0])
        self._sight = _average(self._sight, _ramp(spread, DARK_SPREAD, 3.0 * DARK_SPREAD))

    def corners(self, count: int) -> None:
        """So many points were found or are still followed in the picture."""
        self._corners = _average(self._corners, _ramp(count, FEW_CORNERS, MANY_CORNERS))

    def waiting(self, stamp_ns: int, moved_widths: float, beyond_turn_widths: float) -> None:
        """There is no start yet: median flow since a reference, and what no turn explains of it;
        NaN where nothing could be followed."""
        self._started = False
        if self._waiting_since_ns is None:
            self._waiting_since_ns = stamp_ns
        self._motion = Motion.UNKNOWN
        if moved_widths < STILL_WIDTHS:
            self._motion = Motion.STILL
        elif beyond_turn_widths < 0.1 * moved_widths:
            self._motion = Motion.TURNING

    def followed(self, inliers: int, share: float) -> None:
        """A picture was located by so many known points, a `share` of those followed."""
        self._started, self._waiting_since_ns = True, None
        known = min(_ramp(inliers, FEW_INLIERS, MANY_INLIERS), _ramp(share, 0.3, 0.7))
        self._follow = _average(self._follow, max(known, 0.1))

    def lost(self) -> None:
        """A picture could not be located."""
        self._started, self._waiting_since_ns = True, None
        self._follow = 0.0

    def fitted(self, error_widths: float) -> None:
        """The newest keyframes fit the map to this median error, over the picture's width."""
        score = 1.0 - _ramp(error_widths, GOOD_ERROR_WIDTHS, BAD_ERROR_WIDTHS)
        self._fit = _average(self._fit, score)

    @property
    def missing_share(self) -> float:
        """Share of the last frames that did not come, judged by the commonest interval."""
        intervals = np.diff(np.array(self._stamps_ns, np.float64))
        intervals = intervals[intervals > 0]
        if len(intervals) < 20:
            return 0.0
        usual = float(np.percentile(intervals, 40))
        due = float(np.round(intervals / usual).clip(1, 30).sum())
        return 1.0 - len(intervals) / due

    @property
    def health(self) -> Health:
        """The worst part, and its words when it is bad; a loss, and a start that does not come,
        tell their likely cause as well.

        The parts are in the order in which one causes the next.
        """
        parts = self._parts()
        score, problem = min(parts, key=lambda part: part[0])
        causes = [words for each, words in parts if each < GOOD and words != problem]
        if problem in (LOST, NO_START) and causes:
            problem = f"{problem} ({causes[0]})"
        return Health(score, problem if score < GOOD else "")

    def _parts(self) -> list[tuple[float, str]]:
        missing = self.missing_share
        gaps = f"{100 * missing:.0f} % of the frames are missing: check the link, or the load"
        parts = [
            (self._sight, "the picture shows nothing: is the lens covered, or the scene dark?"),
            (self._corners, "hardly any texture in view: point the camera at something patterned"),
            (1.0 - max(0.0, missing - MISSING_ALLOWED) * 2.0, gaps),
            (self._fit, "the map does not fit the pictures: is the focal length right?"),
            (0.5 if self.lens_problem else 1.0, self.lens_problem),
        ]
        if self._started:
            words = "few points are followed: move more slowly" if self._follow > 0 else LOST
            parts.append((self._follow, words))
        else:
            parts.append(self._before_start())
        return [(float(np.clip(score, 0.0, 1.0)), words) for score, words in parts]

    def _before_start(self) -> tuple[float, str]:
        """Without a map nothing can be trusted; at first that is no fault."""
        if self._waiting_since_ns is None or not self._stamps_ns:
            return GOOD, ""
        waited_s = (self._stamps_ns[-1] - self._waiting_since_ns) * 1e-9
        if waited_s < STILL_S:
            return GOOD, ""
        return 0.0, self._motion.value or NO_START


def _average(before: float, now: float) -> float:
    return MEMORY * before + (1.0 - MEMORY) * now


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high`, straight between."""
    return float(np.clip((value - low) / (high - low), 0.0, 1.0))
