# SPDX-License-Identifier: Apache-2.0
"""Before there is a map: follow points from a reference picture until the start succeeds."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.se3 import rotation_angle_rad
from worldsystem_slam3r.geometric.bundle import FOCAL, Adjusted, Bundle, adjust
from worldsystem_slam3r.geometric.initialise import (
    MIN_ANGLE_RAD,
    MIN_MATCHES,
    TwoViews,
    flow_beyond_rotation_px,
    two_views,
)
from worldsystem_slam3r.geometric.intake import Picture
from worldsystem_slam3r.geometric.lookback import MOST_FRAMES, Passed
from worldsystem_slam3r.geometric.pose import refine_pose
from worldsystem_slam3r.geometric.tracking import FeatureTracker, Tracks

log = logging.getLogger(__name__)

MIN_FLOW_WIDTHS = 0.015
"""Flow beyond rotation, over the picture's width, from which a start is tried."""
MAX_HELD = 150
REBASE_EVERY = 4
"""Frames after which points are followed from the newest picture: looks change more than drift."""
REBASE_KEPT = 0.85
FOCAL_SIGMA = 0.02
"""Relative standard deviation below which an estimated focal length is believed."""
FOCAL_WIDTHS = (0.35, 3.0)
MAX_START_ERROR_PX = 1.2
AMBIGUITY = 1.3
"""Cost ratio below which two different starts count as equally good, and neither is taken."""
SAME_MOTION = 0.05
WORST_PX = 1.0


@dataclass(frozen=True, eq=False)
class Held:
    """A frame that waits for the start, with the tracks seen in it."""

    frame_id: int
    stamp_ns: int
    tracks: Tracks


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """The first map: poses of all held frames, points by track id, and the intrinsics used."""

    reference: Picture
    current: Picture
    held: list[Held]
    cam_from_world: list[Float64[np.ndarray, "4 4"]]
    ids: np.ndarray
    points: Float64[np.ndarray, "n 3"]
    K4: Float64[np.ndarray, "4"]
    focal_sigma: float


@dataclass(frozen=True, eq=False)
class _Fitted:
    """One candidate start after adjustment."""

    ids: np.ndarray
    bundle: Bundle
    result: Adjusted

    @property
    def wide(self) -> bool:
        """Whether the adjusted points are seen under a wide enough angle."""
        centre = -self.result.rotations[-1].T @ self.result.translations[-1]
        a, b = self.result.points, self.result.points - centre
        cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        return bool(np.median(np.arccos(np.clip(cosine, -1.0, 1.0))) >= MIN_ANGLE_RAD)

    @property
    def median_px(self) -> float:
        return float(np.nanmedian(self.result.error_px))

    def badness(self, explicable: int) -> float:
        """Mean squared error of all matches [px²], none counting for more than `WORST_PX`.

        Of the `explicable` matches those that the candidate leaves out count as the worst.
        """
        error2 = np.nan_to_num(self.result.error_px, nan=WORST_PX) ** 2
        explained = float(np.minimum(error2, WORST_PX**2).mean())
        share = len(self.ids) / explicable
        return share * explained + (1.0 - share) * WORST_PX**2 + 0.01

    def motion_difference(self, other: _Fitted) -> float:
        """Angle between the two last cameras' orientations plus that of their directions [rad]."""
        turn = rotation_angle_rad(self.result.rotations[-1].T @ other.result.rotations[-1])
        a, b = self.result.translations[-1], other.result.translations[-1]
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        return turn + float(np.arccos(np.clip(cosine, -1.0, 1.0)))


class Bootstrap:
    """Waits for enough parallax, then finds the first two cameras and the points between them.

    Frames that a start can no longer begin with are `passed`; the older of them are `given_up`.
    `moved_px` is the median flow since the reference picture; no turn explains `beyond_turn_px`.
    Both are NaN where not even the next picture shows what the reference does.
    """

    def __init__(self, tracker: FeatureTracker, *, estimate_focal: bool) -> None:
        self._tracker = tracker
        self._estimate_focal = estimate_focal
        self._reference: Picture | None = None
        self._reference_count = 0
        self._held: deque[Held] = deque()
        self._pictures: deque[Passed] = deque(maxlen=MOST_FRAMES)
        self.given_up: list[Held] = []
        self.passed: list[Passed] = []
        self.moved_px = self.beyond_turn_px = np.nan

    @property
    def waiting(self) -> list[Held]:
        """Frames without a pose so far."""
        return list(self._held)

    def advance(self, picture: Picture) -> Start | None:
        """Take the next picture; the first map when it can be made.

        The owner takes `given_up` and empties it.
        """
        self._pictures.append(Passed(picture.frame_id, picture.stamp_ns, picture.grey))
        if self._reference is None:
            self._restart(picture)
            return None
        kept = self._tracker.advance(picture.grey, [])
        self._held.append(Held(picture.frame_id, picture.stamp_ns, self._tracker.current))
        if len(self._held) % REBASE_EVERY == 0 or kept < REBASE_KEPT:
            self._tracker.rebase()
        if len(self._tracker.current) < max(MIN_MATCHES, 0.35 * self._reference_count):
            if len(self._held) == 2:  # the reference and this one: nothing was followed at all
                self.moved_px = self.beyond_turn_px = np.nan
            self._restart(picture)
            return None
        start = self._attempt(picture)
        if start is None and len(self._held) >= MAX_HELD:
            self._restart(picture)
        return start

    def _restart(self, picture: Picture) -> None:
        held = list(self._held)
        self._held.clear()
        self._pass_over([item for item in held if item.frame_id != picture.frame_id])
        self._tracker.restart(picture.grey)
        self._reference = picture
        self._reference_count = len(self._tracker.current)
        self._held.append(Held(picture.frame_id, picture.stamp_ns, self._tracker.current))

    def _pass_over(self, held: list[Held]) -> None:
        """Keep the newest of the frames, with their pictures, to be looked for after the start."""
        pictures = {picture.frame_id: picture for picture in self._pictures}
        none = Tracks.none()
        old = [Held(passed.frame_id, passed.stamp_ns, none) for passed in self.passed]
        everything = [*old, *held]
        recent = everything[-MOST_FRAMES:]
        kept = pictures | {passed.frame_id: passed for passed in self.passed}
        self.passed = [kept[item.frame_id] for item in recent if item.frame_id in kept]
        known = {passed.frame_id for passed in self.passed}
        self.given_up += [item for item in everything if item.frame_id not in known]

    def _attempt(self, picture: Picture) -> Start | None:
        now, then = self._tracker.current, self._held[0].tracks
        _, mine, theirs = np.intersect1d(now.ids, then.ids, return_indices=True)
        if len(mine) < MIN_MATCHES:
            return None
        a, b = then.px[theirs].astype(np.float64), now.px[mine].astype(np.float64)
        flow = self.beyond_turn_px = flow_beyond_rotation_px(a, b, picture.K4)
        self.moved_px = float(np.median(np.linalg.norm(b - a, axis=1)))
        if flow < MIN_FLOW_WIDTHS * picture.camera.width:
            return None
        matched = now.ids[mine]
        views = two_views(a, b, picture.K4)
        if not any(view.wide for view in views):
            return None
        fitted = [self._refined(view, matched, picture.K4) for view in views]
        best = _clear_winner(fitted, int(np.any([view.good for view in views], axis=0).sum()))
        return None if best is None else self._start(picture, best)

    def _refined(self, view: TwoViews, matched: np.ndarray, K4: np.ndarray) -> _Fitted:
        """Adjust two views with a few of the frames between them."""
        held = list(self._held)
        ids = matched[view.good]
        points = view.points[view.good]
        poses = _poses_between(held, ids, points, view.second_from_first, K4)
        chosen = sorted({round(i) for i in np.linspace(0, len(held) - 1, min(8, len(held)))})
        bundle = _bundle([held[i] for i in chosen], [poses[i] for i in chosen], ids, points, K4)
        result = adjust(bundle, iterations=15)
        return _Fitted(ids, bundle, result)

    def _with_focal(self, bundle: Bundle, known: Adjusted) -> Adjusted:
        """Let the focal length go too when it is only a guess; keep it free only if well known."""
        if not self._estimate_focal:
            return known
        freed = adjust(bundle, free_lens=FOCAL, iterations=40)
        width = 2.0 * bundle.K4[2] + 1.0
        plausible = FOCAL_WIDTHS[0] < freed.K4[0] / width < FOCAL_WIDTHS[1]
        log.info(
            "focal length: %.0f px assumed, %.0f px estimated (±%.1f %%)",
            bundle.K4[0],
            freed.K4[0],
            100 * freed.focal_sigma,
        )
        return freed if plausible and freed.focal_sigma < FOCAL_SIGMA else known

    def _start(self, picture: Picture, fitted: _Fitted) -> Start | None:
        assert self._reference is not None
        held, ids = list(self._held), fitted.ids
        result = self._with_focal(fitted.bundle, fitted.result)
        good = result.points[:, 2] > 0
        unit = float(np.median(result.points[good, 2])) if good.any() else 0.0
        if good.sum() < MIN_MATCHES or unit <= 0:
            return None
        points = result.points[good] / unit
        last = np.eye(4)
        last[:3, :3], last[:3, 3] = result.rotations[-1], result.translations[-1] / unit
        return Start(
            reference=self._reference,
            current=picture,
            held=held,
            cam_from_world=_poses_between(held, ids[good], points, last, result.K4),
            ids=ids[good],
            points=points,
            K4=result.K4,
            focal_sigma=result.focal_sigma,
        )


def _clear_winner(candidates: list[_Fitted], explicable: int) -> _Fitted | None:
    """The candidate that fits best; None when it fits badly, shows too little, or is ambiguous.

    `explicable` is the number of matches that any of them explains.
    """
    scored = [(fitted.badness(explicable), fitted) for fitted in candidates]
    scored.sort(key=lambda pair: pair[0])
    if not scored or scored[0][1].median_px > MAX_START_ERROR_PX or not scored[0][1].wide:
        return None
    (least, best), *others = scored
    for badness, other in others:
        if badness < AMBIGUITY * least and best.motion_difference(other) > SAME_MOTION:
            return None
    return best


def _poses_between(
    held: list[Held],
    ids: np.ndarray,
    points: np.ndarray,
    last_from_first: np.ndarray,
    K4: np.ndarray,
) -> list[np.ndarray]:
    """Poses of all held frames from the points, the first being the world, the last given."""
    poses = [np.eye(4)]
    for item in held[1:-1]:
        _, mine, theirs = np.intersect1d(item.tracks.ids, ids, return_indices=True)
        uv = item.tracks.px[mine].astype(np.float64)
        poses.append(refine_pose(poses[-1], points[theirs], uv, K4).cam_from_world)
    return [*poses, last_from_first]


def _bundle(
    held: list[Held], poses: list[np.ndarray], ids: np.ndarray, points: np.ndarray, K4: np.ndarray
) -> Bundle:
    cam, point, uv = [], [], []
    for i, item in enumerate(held):
        _, mine, theirs = np.intersect1d(item.tracks.ids, ids, return_indices=True)
        cam.append(np.full(len(mine), i))
        point.append(theirs)
        uv.append(item.tracks.px[mine].astype(np.float64))
    point_index = np.concatenate(point)
    order = np.argsort(point_index, kind="stable")
    return Bundle(
        rotations=np.stack([pose[:3, :3] for pose in poses]),
        translations=np.stack([pose[:3, 3] for pose in poses]),
        points=points,
        cam_index=np.concatenate(cam)[order].astype(np.int64),
        point_index=point_index[order].astype(np.int64),
        uv=np.concatenate(uv)[order],
        K4=K4,
        fixed=np.arange(len(poses)) == 0,
    )
