# SPDX-License-Identifier: Apache-2.0
"""Corners followed from a reference picture to the current one (Shi–Tomasi, pyramidal LK).

Corners are matched to the picture of the last keyframe, not to the last picture, so that drift
does not grow within a keyframe; each match starts from a prediction and must survive the way back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from worldsystem_slam3r.geometric.lens import LensChange
from worldsystem_slam3r.geometric.matching import start_from_matches

WINDOW = (21, 21)
FAR, NEAR = (3, 1), (1, 0)
"""Coarsest levels of the pyramid, there and back: where a start may lie anywhere, and where a known
pose tells it."""
CELL_PX = 64
CROWDING = 3.0
MIN_STRENGTH = 1e-4
SAME_EXPOSURE = 0.05
"""Relative difference of the mean grey that optical flow bears."""
NEARLY_ALL = 0.9
"""Share of the points to hold from a near start. Of one that is 20 px off 0.85 hold, some of them
wrongly (a twentieth of all); 12 px off, 0.95 and none."""
MAX_GAIN = 4.0
RETURN_PX = 1.5
"""Largest error of the way back for a match to hold [px]."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """n followed points: their ids and where they are in the current picture [px]."""

    ids: Int64[np.ndarray, "n"]
    px: Float32[np.ndarray, "n 2"]

    def __len__(self) -> int:
        return len(self.ids)

    def chosen(self, mask: Bool[np.ndarray, "n"]) -> Tracks:
        """The tracks that `mask` selects."""
        return Tracks(self.ids[mask], self.px[mask])

    @staticmethod
    def none() -> Tracks:
        """No tracks at all."""
        return Tracks(np.zeros(0, np.int64), np.zeros((0, 2), np.float32))


class FeatureTracker:
    """Follows up to `capacity` corners from the reference picture; ids are never used twice."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._next_id = 0
        self._reference = np.zeros((0, 0), np.uint8)
        self._anchor = Tracks.none()
        self._current = Tracks.none()
        self._picture = np.zeros((0, 0), np.uint8)

    @property
    def current(self) -> Tracks:
        """The tracks in the picture that came last."""
        return self._current

    @property
    def anchor(self) -> Tracks:
        """The same tracks, in the same order, in the reference picture."""
        return self._anchor

    def advance(
        self, grey: UInt8[np.ndarray, "h w"], predictions: list[Float32[np.ndarray, "n 2"]]
    ) -> float:
        """Follow the tracks into `grey`; those lost go. Returns the share that held.

        Starts are tried in turn until one keeps half of the tracks: the given predictions of all
        tracks, where they were in the last picture, and what descriptor matches say.
        """
        self._picture = grey
        if len(self._current) == 0:
            return 0.0
        best_px, best = self._current.px, np.zeros(len(self._current), bool)
        for start, near in self._starts(grey, predictions):
            px, held = follow(self._reference, grey, self._anchor.px, start, near=near)
            if held.sum() > best.sum():
                best_px, best = px, held
            if best.mean() > 0.5:
                break
        self._anchor = self._anchor.chosen(best)
        self._current = Tracks(self._anchor.ids, best_px[best])
        return float(best.mean())

    def _starts(
        self, grey: np.ndarray, predictions: list[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """Where the tracks may be, and whether that is likely to be near."""
        for predicted in predictions:
            yield predicted, True
        yield self._current.px, False
        matched = start_from_matches(self._reference, grey, self._anchor.px)
        if matched is not None:
            yield matched, False

    def keep(self, mask: Bool[np.ndarray, "n"]) -> None:
        """Let go of the tracks that `mask` does not select."""
        self._anchor = self._anchor.chosen(mask)
        self._current = self._current.chosen(mask)

    def rebase(self) -> None:
        """Make the picture that came last the reference, with the tracks it has."""
        self._anchor = self._current
        self._reference = self._picture

    def renew(self, grey: UInt8[np.ndarray, "h w"]) -> None:
        """Make the picture that came last the reference and find corners where there are none."""
        fresh = new_corners(grey, self._current.px, self._capacity)
        ids = np.arange(self._next_id, self._next_id + len(fresh), dtype=np.int64)
        self._next_id += len(fresh)
        self._current = Tracks(
            np.concatenate([self._current.ids, ids]), np.concatenate([self._current.px, fresh])
        )
        self._anchor = self._current
        self._reference = self._picture

    def extend(self, tracks: Tracks) -> None:
        """Add points found in the picture that came last by other means; `renew` must follow."""
        self._current = Tracks(
            np.concatenate([self._current.ids, tracks.ids]),
            np.concatenate([self._current.px, tracks.px]),
        )
        self._anchor = self._current

    def restart(self, grey: UInt8[np.ndarray, "h w"]) -> None:
        """Forget every track and begin anew with `grey` as the reference."""
        self._current = Tracks.none()
        self._picture = grey
        self.renew(grey)

    def move_over(self, change: LensChange) -> None:
        """Bring the tracks and the pictures over to a new lens; tracks that leave them go."""
        anchor, current = (
            change.px(t.px.astype(np.float64)) for t in (self._anchor, self._current)
        )
        inside = change.inside(anchor) & change.inside(current)
        self._anchor = Tracks(self._anchor.ids, anchor.astype(np.float32)).chosen(inside)
        self._current = Tracks(self._current.ids, current.astype(np.float32)).chosen(inside)
        self._reference = change.picture(self._reference)
        self._picture = change.picture(self._picture)

    def adopt(self, grey: UInt8[np.ndarray, "h w"], tracks: Tracks) -> None:
        """Take over known tracks found in `grey` by other means; `grey` becomes the reference."""
        self._current = tracks
        self._picture = grey
        self.renew(grey)


def follow(
    source: UInt8[np.ndarray, "h w"],
    target: UInt8[np.ndarray, "h w"],
    source_px: Float32[np.ndarray, "n 2"],
    start_px: Float32[np.ndarray, "n 2"],
    *,
    near: bool = False,
) -> tuple[Float32[np.ndarray, "n 2"], Bool[np.ndarray, "n"]]:
    """Where points of `source` lie in `target`, and which of them came back.

    With `near`, most starts are some pixels off at most: the picture's coarse levels, which cost as
    much as the fine ones, are searched only where not nearly all points are found without.
    """
    if len(source_px) == 0:
        return source_px, np.zeros(0, bool)
    target = exposed_like(source, target)
    a = np.ascontiguousarray(source_px, np.float32)
    b = np.ascontiguousarray(start_px, np.float32)
    if near:
        px, held = _there_and_back(source, target, a, b, NEAR)
        if held.mean() >= NEARLY_ALL:
            return px, held
    return _there_and_back(source, target, a, b, FAR)


def _there_and_back(
    source: np.ndarray, target: np.ndarray, a: np.ndarray, b: np.ndarray, levels: tuple[int, int]
) -> tuple[Float32[np.ndarray, "n 2"], Bool[np.ndarray, "n"]]:
    there, found = _flow(source, target, a, b.copy(), levels[0])
    back, returned = _flow(target, source, there, a.copy(), levels[1])
    px = np.asarray(there, np.float32).reshape(-1, 2)
    h, w = target.shape
    error = np.linalg.norm(np.asarray(back).reshape(-1, 2) - a, axis=1)
    held = (found.ravel() == 1) & (returned.ravel() == 1) & (error < RETURN_PX)
    held &= (px >= 2).all(axis=1) & (px[:, 0] < w - 3) & (px[:, 1] < h - 3)
    return px, held


def exposed_like(
    source: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w"]:
    """`target` with the mean and contrast of `source`; as it is when they are nearly alike."""
    (mean,), (spread,) = (x.ravel().tolist() for x in cv2.meanStdDev(source))
    (mean_now,), (spread_now,) = (x.ravel().tolist() for x in cv2.meanStdDev(target))
    if abs(mean_now - mean) < SAME_EXPOSURE * max(mean, 1.0) or spread_now < 1.0:
        return target
    gain = min(max(spread / spread_now, 1.0 / MAX_GAIN), MAX_GAIN)
    levels = np.arange(256, dtype=np.float32)
    table = np.clip((levels - mean_now) * gain + mean, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(target, table))


def _flow(
    source: np.ndarray, target: np.ndarray, px: np.ndarray, start: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        source,
        target,
        px,
        start,
        winSize=WINDOW,
        maxLevel=levels,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02),
        # with the latter no error is computed for each point, which nobody asks for
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW | cv2.OPTFLOW_LK_GET_MIN_EIGENVALS,
        minEigThreshold=1e-3,
    )
    return np.asarray(there), np.asarray(found)


def new_corners(
    grey: UInt8[np.ndarray, "h w"], taken_px: Float32[np.ndarray, "n 2"], capacity: int
) -> Float32[np.ndarray, "m 2"]:
    """Corners that fill each cell of a grid up to its share of `capacity`, away from those taken.

    What plain cells leave over goes to cells with texture, up to `CROWDING` times their share. A
    flat picture gives none: a corner's strength must exceed a floor.
    """
    if len(taken_px) >= capacity:
        return np.zeros((0, 2), np.float32)
    h, w = grey.shape
    strength = cv2.cornerMinEigenVal(grey, 5, ksize=3)
    strength[strength < MIN_STRENGTH] = 0
    strength[:8], strength[-8:], strength[:, :8], strength[:, -8:] = 0, 0, 0, 0
    peaks = (strength > 0) & (strength >= cv2.dilate(strength, np.ones((7, 7), np.uint8)))
    v, u = np.nonzero(peaks)
    order = np.argsort(-strength[v, u], kind="stable")
    grid = _Grid((h, w), capacity, taken_px)
    grid.fill(u[order], v[order], 1.0)
    grid.fill(u[order], v[order], CROWDING)
    corners = np.array(grid.found, np.float32).reshape(-1, 2)
    if len(corners) == 0:
        return corners
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03)
    refined = cv2.cornerSubPix(grey, corners.reshape(-1, 1, 2).copy(), (3, 3), (-1, -1), criteria)
    return np.asarray(refined, np.float32).reshape(-1, 2)


class _Grid:
    """Chooses corners, strongest first, so that they spread over the picture."""

    def __init__(self, size: tuple[int, int], capacity: int, taken_px: np.ndarray) -> None:
        self._size = h, w = size
        self._capacity = capacity
        self._cells = max(1, round(h / CELL_PX)), max(1, round(w / CELL_PX))
        self._occupied = np.zeros(self._cells, int)
        self._taken = [(int(x), int(y)) for x, y in taken_px]
        self.found: list[tuple[int, int]] = []
        for x, y in self._taken:
            self._occupied[self._cell(min(max(x, 0), w - 1), min(max(y, 0), h - 1))] += 1

    def _cell(self, x: int, y: int) -> tuple[int, int]:
        (h, w), (rows, columns) = self._size, self._cells
        return y * rows // h, x * columns // w

    def fill(self, u: np.ndarray, v: np.ndarray, crowding: float) -> None:
        """Add candidates while there is room, `crowding` times as dense as an even spread."""
        h, w = self._size
        share = max(1, round(crowding * self._capacity / self._occupied.size))
        spacing = max(4, int(0.6 * np.sqrt(h * w / (self._capacity * crowding))))
        free = np.ones((h, w), np.uint8)
        for x, y in self._taken + self.found:
            cv2.circle(free, (x, y), spacing, 0.0, -1)
        room = self._capacity - int(self._occupied.sum())
        for x, y in zip(u[free[v, u] > 0].tolist(), v[free[v, u] > 0].tolist(), strict=True):
            if room <= 0:
                return
            cell = self._cell(x, y)
            if self._occupied[cell] >= share or not free[y, x]:
                continue
            self._occupied[cell] += 1
            room -= 1
            self.found.append((x, y))
            top, left = max(0, y - spacing), max(0, x - spacing)
            free[top : y + spacing + 1, left : x + spacing + 1] = 0
