# SPDX-License-Identifier: Apache-2.0
"""Whether two keyframes show the same place, and how they lie to each other.

Four questions, each of which a look-alike place tends to fail: do enough points match and agree on
one similarity; are they spread over the picture; do the dense surfaces coincide under it; and do
the pictures look alike where they do.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import project
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe
from worldsystem_slam3r.graph.features import Features, matches, normalised
from worldsystem_slam3r.graph.sim3_ransac import Pairs, Sim3Fit, fit_similarity

LIMIT_WIDTHS = 0.008
"""Reprojection error up to which a match agrees, as a share of the picture's width."""
LEAST_INLIERS = 20
LEAST_SHARE = 0.25
GRID = 4
LEAST_CELLS = 5
COARSE_PX = 80
SAME_DEPTH = 0.08
LEAST_OVERLAP = 0.12
LEAST_SAME = 0.7
LEAST_LIKENESS = 0.3
LEAST_TURN_RAD = 0.003
LEAST_SHIFT = 0.005
LEAST_LOG_SCALE = 0.005


@dataclass(frozen=True, eq=False)
class Station:
    """What is kept of a keyframe to recognise it by; lengths are in its own unit.

    `depth` (NaN: unknown) and `grey` are coarse pictures of the camera `coarse`.
    """

    id: int
    camera: Camera
    features: Features
    coarse: Camera
    depth: Float32[np.ndarray, "h w"]
    grey: UInt8[np.ndarray, "h w"]

    @property
    def median_depth(self) -> float:
        """Of its coarse depth; 1 where there is none."""
        return median_depth(self.depth)

    @property
    def bytes(self) -> int:
        return self.features.bytes + self.depth.nbytes + self.grey.nbytes

    @staticmethod
    def of(keyframe: Keyframe, id: int) -> Station:
        """Look at a keyframe closely once."""
        depth = coarse_depth(keyframe)
        h, w = depth.shape
        grey = cv2.cvtColor(keyframe.rgb, cv2.COLOR_RGB2GRAY)
        return Station(
            id=id,
            camera=keyframe.camera,
            features=Features.of_keyframe(keyframe),
            coarse=keyframe.camera.resized(w, h),
            depth=depth,
            grey=np.asarray(cv2.resize(grey, (w, h), interpolation=cv2.INTER_AREA)),
        )


def coarse_depth(keyframe: Keyframe) -> Float32[np.ndarray, "h w"]:
    """A small picture of its depth in its own unit, NaN where it is unknown."""
    w = min(COARSE_PX, keyframe.camera.width)
    h = max(2, round(keyframe.camera.height * w / keyframe.camera.width))
    rows, columns = keyframe.confidence.shape
    v = ((np.arange(h) + 0.5) * rows / h).astype(int)
    u = ((np.arange(w) + 0.5) * columns / w).astype(int)
    chosen = np.ix_(v, u)
    known = keyframe.confidence[chosen] > 0
    return np.where(known, keyframe.pointmap[..., 2][chosen], np.nan).astype(np.float32)


def median_depth(coarse: Float32[np.ndarray, "h w"]) -> float:
    """The middle of what is known; 1 where nothing is."""
    known = coarse[np.isfinite(coarse)]
    return float(np.median(known)) if len(known) else 1.0


@dataclass(frozen=True, eq=False)
class Link:
    """Two keyframes of one place: `a_from_b` with its standard deviations, and the evidence.

    `overlap` is the share of b's known surface that a sees, `same` that of it which lies where a
    has it, `likeness` the correlation of the pictures there.
    """

    a: int
    b: int
    a_from_b: Sim3
    turn_rad: float
    shift: float
    log_scale: float
    inliers: int
    overlap: float
    same: float
    likeness: float


@dataclass(frozen=True)
class Refusal:
    """Why two keyframes are not taken for the same place."""

    reason: str
    value: float


def verify(a: Station, b: Station, *, seed: int = 0) -> Link | Refusal:
    """Compare two keyframes; all of the four questions must be answered well."""
    rows_a, rows_b = matches(a.features, b.features)
    known = a.features.known[rows_a] & b.features.known[rows_b]
    rows_a, rows_b = rows_a[known], rows_b[known]
    if len(rows_a) < LEAST_INLIERS:
        return Refusal("matches", len(rows_a))
    pairs = Pairs(
        a.features.points[rows_a].astype(np.float64),
        b.features.points[rows_b].astype(np.float64),
        normalised(a.features.px[rows_a], a.camera.K),
        normalised(b.features.px[rows_b], b.camera.K),
        1.0 / a.camera.fx,
        1.0 / b.camera.fx,
    )
    limit_px = LIMIT_WIDTHS * a.camera.width
    fit = fit_similarity(pairs, limit_px=limit_px, seed=seed)
    if fit is None or fit.inlier_count < LEAST_INLIERS:
        return Refusal("inliers", 0 if fit is None else fit.inlier_count)
    if fit.inlier_count < LEAST_SHARE * len(pairs):
        return Refusal("inlier_share", fit.inlier_count / len(pairs))
    cells = cells_taken(b.features.px[rows_b][fit.inliers], b.camera)
    if cells < LEAST_CELLS:
        return Refusal("spread", cells)
    return _dense_check(a, b, fit)


def cells_taken(px: Float32[np.ndarray, "n 2"], camera: Camera) -> int:
    """How many cells of a coarse grid over the picture hold a pixel."""
    column = (px[:, 0] * GRID / camera.width).astype(int).clip(0, GRID - 1)
    row = (px[:, 1] * GRID / camera.height).astype(int).clip(0, GRID - 1)
    return len(np.unique(row * GRID + column))


def _dense_check(a: Station, b: Station, fit: Sim3Fit) -> Link | Refusal:
    agreement = surfaces(a, b, fit.a_from_b)
    if agreement.overlap < LEAST_OVERLAP:
        return Refusal("overlap", agreement.overlap)
    if agreement.same < LEAST_SAME:
        return Refusal("surface", agreement.same)
    if agreement.likeness < LEAST_LIKENESS:
        return Refusal("likeness", agreement.likeness)
    sigma = np.sqrt(np.diag(fit.covariance))
    return Link(
        a.id,
        b.id,
        fit.a_from_b,
        max(float(sigma[:3].max()), LEAST_TURN_RAD),
        max(float(sigma[3:6].max()), LEAST_SHIFT * b.median_depth),
        max(float(sigma[6]), LEAST_LOG_SCALE),
        fit.inlier_count,
        agreement.overlap,
        agreement.same,
        agreement.likeness,
    )


@dataclass(frozen=True, eq=False)
class Agreement:
    """How two keyframes' surfaces and pictures agree (see `Link`).

    `seen` says where in b's coarse picture its surface is one that a sees.
    """

    overlap: float
    same: float
    likeness: float
    seen: Bool[np.ndarray, "h w"]


def surfaces(a: Station, b: Station, a_from_b: Sim3) -> Agreement:
    """Put b's coarse surface before a's camera and compare depth and picture there.

    A surface of b that a sees through something nearer is hidden, not contradicted.
    """
    known = np.isfinite(b.depth)
    nothing = Agreement(0.0, 0.0, 0.0, np.zeros_like(known))
    if not known.any():
        return nothing
    v, u = np.nonzero(known)
    rays = normalised(np.stack([u, v], axis=-1).astype(np.float32), b.coarse.K)
    z = b.depth[known].astype(np.float64)
    in_a = a_from_b.apply(np.column_stack([rays * z[:, None], z]))
    px, inside = project(in_a, a.coarse)
    at = np.rint(px[inside]).astype(int)
    depth_a = a.depth[at[:, 1], at[:, 0]]
    ratio = in_a[inside, 2] / depth_a
    seen = np.isfinite(depth_a) & (ratio < 1.0 + 3 * SAME_DEPTH)
    same = np.abs(ratio - 1.0) < SAME_DEPTH
    if not seen.any():
        return nothing
    where = np.zeros_like(known)
    where[v[inside][seen], u[inside][seen]] = True
    both = seen & same
    grey_b = b.grey[v, u][inside][both].astype(np.float64)
    grey_a = a.grey[at[both, 1], at[both, 0]].astype(np.float64)
    return Agreement(
        overlap=float(seen.sum() / len(z)),
        same=float(both.sum() / seen.sum()),
        likeness=_correlation(grey_a, grey_b),
        seen=where,
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 10 or a.std() < 1.0 or b.std() < 1.0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
