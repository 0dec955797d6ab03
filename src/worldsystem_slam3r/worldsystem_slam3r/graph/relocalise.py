# SPDX-License-Identifier: Apache-2.0
"""Where a single picture was taken, from the keyframes that are kept: places first, then P3P."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.se3 import inverse, pose_from, transform
from worldsystem_slam3r.geometric.lens import undistort
from worldsystem_slam3r.graph.features import Features, matches, normalised
from worldsystem_slam3r.graph.places import PlaceIndex
from worldsystem_slam3r.graph.verify import LEAST_CELLS, Station, cells_taken
from worldsystem_slam3r.told_camera import with_known_distortion

CANDIDATES = 4
LIMIT_WIDTHS = 0.008
LEAST_INLIERS = 25
LEAST_SHARE = 0.35
FEATURES = 500
PREFERRED_WIDTH = 480


@dataclass(frozen=True, eq=False)
class Located:
    """A picture's place beside keyframe `id`: `keyframe_from_cam` in that keyframe's unit."""

    id: int
    keyframe_from_cam: Float64[np.ndarray, "4 4"]
    inliers: int
    share: float


class Relocaliser:
    """Looks a picture up among the stations of the keyframes that `index` finds."""

    def __init__(self, index: PlaceIndex) -> None:
        self._index = index

    def locate(
        self, frame: Frame, stations: Mapping[int, Station], camera: Camera | None
    ) -> Located | None:
        """Find the frame among keyframes with their own `stations`; None when it is not clear.

        Others that the index knows, of a sub-map that is held back, take no candidate's place.
        `camera` is that of the newest keyframe: it serves where the frame does not know its own.
        """
        if not len(self._index) or not stations:
            return None
        features, rays = _looked_at(frame, camera or next(iter(stations.values())).camera)
        others = self._index.ids - stations.keys()
        best: Located | None = None
        for candidate in self._index.candidates(features, CANDIDATES, others):
            found = _against(stations[candidate.id], features, rays)
            if found is not None and (best is None or found.inliers > best.inliers):
                best = found
        return best


def _looked_at(frame: Frame, like: Camera) -> tuple[Features, Float64[np.ndarray, "n 2"]]:
    """Corners, and their rays at depth 1 (free of distortion)."""
    width = min(PREFERRED_WIDTH, frame.width)
    height = round(frame.height * width / frame.width)
    small = cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA)
    features = Features.of_picture(np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)), FEATURES)
    told = with_known_distortion(frame.camera) if frame.camera else _guess(frame, like)
    camera = told.resized(width, height)
    if any(camera.distortion):
        rays = undistort(features.px.astype(np.float64), camera)
    else:
        rays = normalised(features.px, camera.K)
    return features, rays


def _guess(frame: Frame, like: Camera) -> Camera:
    """The camera of a keyframe, for the whole picture: keyframes may be its middle square, or of
    before the phone was turned."""
    if (frame.width < frame.height) != (like.width < like.height):
        like = like.turned()
    zoom = min(frame.width / like.width, frame.height / like.height)
    return Camera(
        width=frame.width,
        height=frame.height,
        fx=like.fx * zoom,
        fy=like.fy * zoom,
        cx=0.5 * (frame.width - 1),
        cy=0.5 * (frame.height - 1),
    )


def _against(
    station: Station, features: Features, rays: Float64[np.ndarray, "n 2"]
) -> Located | None:
    rows_a, rows_b = matches(station.features, features)
    known = station.features.known[rows_a]
    rows_a, rows_b = rows_a[known], rows_b[known]
    if len(rows_a) < LEAST_INLIERS:
        return None
    points = station.features.points[rows_a].astype(np.float64)
    limit = LIMIT_WIDTHS * station.camera.width / station.camera.fx
    cam_from_keyframe = _pose(points, rays[rows_b], limit)
    if cam_from_keyframe is None:
        return None
    good = _errors(cam_from_keyframe, points, rays[rows_b]) < limit
    cells = cells_taken(station.features.px[rows_a][good], station.camera)
    if good.sum() < LEAST_INLIERS or good.mean() < LEAST_SHARE or cells < LEAST_CELLS:
        return None
    return Located(station.id, inverse(cam_from_keyframe), int(good.sum()), float(good.mean()))


def _pose(
    points: Float64[np.ndarray, "n 3"], rays: Float64[np.ndarray, "n 2"], limit: float
) -> Float64[np.ndarray, "4 4"] | None:
    """P3P in RANSAC on rays at depth 1, then Levenberg–Marquardt on what agrees."""
    cv2.setRNGSeed(0)
    try:
        found, turn, shift, chosen = cv2.solvePnPRansac(
            points,
            rays,
            np.eye(3),
            None,
            iterationsCount=200,
            reprojectionError=limit,
            flags=cv2.SOLVEPNP_AP3P,
        )
        if not found or chosen is None or len(chosen) < LEAST_INLIERS:
            return None
        rows = chosen.ravel()
        turn, shift = cv2.solvePnPRefineLM(points[rows], rays[rows], np.eye(3), None, turn, shift)
    except cv2.error:  # its final fit throws when the agreeing points coincide
        return None
    return pose_from(cv2.Rodrigues(turn)[0], shift.ravel())


def _errors(
    cam_from_keyframe: np.ndarray, points: np.ndarray, rays: np.ndarray
) -> Float64[np.ndarray, "n"]:
    cam = transform(cam_from_keyframe, points)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(cam[:, :2] / cam[:, 2:] - rays, axis=1)
    return np.where(cam[:, 2] > 0, error, np.inf)
