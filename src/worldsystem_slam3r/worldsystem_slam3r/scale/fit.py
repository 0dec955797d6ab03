# SPDX-License-Identifier: Apache-2.0
"""The similarity from the scene to metres that measurements of every kind agree on best.

Gauss–Newton over turn, shift, scale, the clock's offset and the barometer's zero, each measurement
weighed by its standard deviation and robustly (Huber); the inverse of its normal matrix is the
uncertainty that is reported, larger where the measurements lie farther from the fit than they say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.sim3 import Sim3, fit_sim3

ITERATIONS = 25
UNSETTLED = 0.01
"""Last step [rad, log scale] from which a fit is not believed."""
HUBER = 2.0
CLOCK_SIGMA_S = 0.3
ZERO_SIGMA_M = 1e4
WEAK_SHIFT_M = 1e4
WEAK_TURN_RAD = 10.0
LEAST_LEVEL = 0.5
"""Share of the cameras' right that has to be level for it to tell about which axis they nod."""
OUTLIER_SPREADS, OUTLIERS_MOST = 5.0, 0.15
"""Where a larger share of the positions lies so many spreads off, they are not of one path."""
FAR = 10.0
"""Distance from the middle, in median distances, from which a position may spoil the start."""
MEDIAN_POSITION, MEDIAN_HEIGHT = 0.888, 0.6745
"""Median size of an error of one standard deviation: root mean square over three axes, one."""
_SIZE = 9  # turn 3, shift 3, log scale 1, clock 1, barometer's zero 1


@dataclass(frozen=True, eq=False)
class Positions:
    """n positions measured in `map` and where the camera was in the scene at their stamps.

    `velocity` [scene units per s] says where it would be a little later; `covariance` [m²] is made
    `shared` times as large as that of one, because so many neighbours share their error.
    """

    scene: Float64[np.ndarray, "n 3"]
    velocity: Float64[np.ndarray, "n 3"]
    map_m: Float64[np.ndarray, "n 3"]
    covariance: Float64[np.ndarray, "n 3 3"]
    shared: float = 1.0

    def __len__(self) -> int:
        return len(self.scene)

    @staticmethod
    def none() -> Positions:
        """Nothing measured."""
        empty = np.zeros((0, 3))
        return Positions(empty, empty, empty, np.zeros((0, 3, 3)))

    def chosen(self, rows: Bool[np.ndarray, "n"]) -> Positions:
        """Some of them."""
        scene, velocity, map_m = (part[rows] for part in (self.scene, self.velocity, self.map_m))
        return Positions(scene, velocity, map_m, self.covariance[rows], self.shared)


@dataclass(frozen=True, eq=False)
class Heights:
    """m heights over an unknown zero [m], and where the camera was in the scene.

    `shared` is as for `Positions`.
    """

    scene: Float64[np.ndarray, "m 3"]
    height_m: Float64[np.ndarray, "m"]
    sigma_m: Float64[np.ndarray, "m"]
    shared: float = 1.0

    def __len__(self) -> int:
        return len(self.scene)

    @staticmethod
    def none() -> Heights:
        """Nothing measured."""
        return Heights(np.zeros((0, 3)), np.zeros(0), np.zeros(0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """All that is known of the scene's size, its turn and its place.

    `log_scales` are direct measurements of the scale (metres per scene unit, natural logarithm) and
    their standard deviations. `up` is a unit vector of the scene that should point up, believed to
    within `up_rad`; of cameras that all look one way, their common right in the scene and how far
    `up` may be off about it (`nod`), since a level camera may look up or down.
    """

    positions: Positions = field(default_factory=Positions.none)
    heights: Heights = field(default_factory=Heights.none)
    log_scales: tuple[tuple[float, float], ...] = ()
    up: Float64[np.ndarray, "3"]
    up_rad: float
    nod: tuple[Float64[np.ndarray, "3"], float] | None = None


@dataclass(frozen=True, eq=False)
class MetricFit:
    """`map_from_scene` and how well it is known.

    `covariance` is that of turn [rad, about map axes], shift [m] and log scale.
    """

    map_from_scene: Sim3
    covariance: Float64[np.ndarray, "7 7"]
    clock_s: float
    residual_m: float

    @property
    def scale_sigma(self) -> float:
        """Relative standard deviation of the scale."""
        return float(np.sqrt(self.covariance[6, 6]))

    @property
    def heading_sigma_rad(self) -> float:
        """Standard deviation of the turn about the vertical."""
        return float(np.sqrt(self.covariance[2, 2]))

    @property
    def tilt_sigma_rad(self) -> float:
        """Standard deviation of the vertical, in the direction in which it is known least."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance[:2, :2])[1]))

    @property
    def turn_sigmas(self) -> float:
        """How far it turns what it was fitted to, in its own standard deviations."""
        turn = Rotation.from_matrix(self.map_from_scene.rotation).as_rotvec()
        return float(np.sqrt(turn @ np.linalg.solve(self.covariance[:3, :3], turn)))


def fit_metric(measured: Measured) -> MetricFit | None:
    """Fit all of it; None where nothing tells the scale, the fit does not settle, or too many
    positions contradict the others."""
    if not len(measured.positions) and not len(measured.heights) and not measured.log_scales:
        return None
    found = [_from_start(measured, start) for start in _starts(measured)]
    settled = [each for each in found if each is not None]
    return min(settled, key=lambda each: each[0])[1] if settled else None


def _from_start(measured: Measured, similarity: Sim3) -> tuple[float, MetricFit] | None:
    """The fit that one start leads to, after its cost."""
    clock_s, zero_m = 0.0, 0.0
    if len(measured.heights):
        up_m = similarity.apply(measured.heights.scene)[:, 2]
        zero_m = float(np.median(measured.heights.height_m - up_m))
    information = np.eye(_SIZE)
    for _ in range(ITERATIONS):
        try:
            residual, jacobian = _rows(measured, similarity, clock_s, zero_m)
            information = jacobian.T @ jacobian
            step = -np.linalg.solve(information, jacobian.T @ residual)
        except np.linalg.LinAlgError:
            return None
        similarity = _stepped(similarity, step)
        clock_s, zero_m = clock_s + float(step[7]), zero_m + float(step[8])
        if np.abs(step[[0, 1, 2, 6]]).max() < 1e-9:
            break
    settled = float(np.abs(step[[0, 1, 2, 6]]).max()) < UNSETTLED
    covariance, spread = _covariance(information), _spread(measured, similarity, clock_s, zero_m)
    if covariance is None or spread is None or not settled or not 0.0 < similarity.scale < np.inf:
        return None
    residual_m = _residual_m(measured, similarity, clock_s)
    fit = MetricFit(similarity, spread**2 * covariance, clock_s, residual_m)
    return float(residual @ residual), fit


def _spread(measured: Measured, similarity: Sim3, clock_s: float, zero_m: float) -> float | None:
    """How many times as large as they say the errors are, 1 at least; None where too many
    positions are not of the path that the others are of."""
    spread = 1.0
    if len(measured.positions):
        rows, derivatives = _white_positions(measured.positions, similarity, clock_s)
        if measured.log_scales:  # a size that is known better otherwise is no misfit of the path
            size = derivatives[:, :, 6]
            rows = rows - size * float((size * rows).sum() / (size**2).sum())
        sizes = np.sqrt(measured.positions.shared / 3.0) * np.linalg.norm(rows, axis=1)
        spread = max(spread, float(np.median(sizes)) / MEDIAN_POSITION)
        if np.mean(sizes > OUTLIER_SPREADS * spread) > OUTLIERS_MOST:
            return None
    if len(measured.heights):
        rows, _ = _white_heights(measured.heights, similarity, zero_m)
        off = float(np.median(np.sqrt(measured.heights.shared) * np.abs(rows)))
        spread = max(spread, off / MEDIAN_HEIGHT)
    return spread


def _covariance(information: Float64[np.ndarray, "9 9"]) -> Float64[np.ndarray, "7 7"] | None:
    """None where rounding leaves no variance of the scale: it ran away from what was measured."""
    try:
        covariance = np.linalg.inv(information)[:7, :7]
    except np.linalg.LinAlgError:
        return None
    return covariance if 0.0 < covariance[6, 6] < np.inf else None


def level(up: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """A rotation that takes the unit vector `up` to z, turning no more than needed."""
    rotation, _ = Rotation.align_vectors([[0.0, 0.0, 1.0]], [up])
    return np.asarray(rotation.as_matrix())


def _starts(measured: Measured) -> list[Sim3]:
    """Closed form: Umeyama on the positions, or the scale alone with `up` as z.

    Where some positions lie far from the others it starts with those left out, too.
    """
    positions = measured.positions
    if len(positions) >= 3 and _moves(positions):
        away = np.linalg.norm(positions.map_m - np.median(positions.map_m, axis=0), axis=1)
        near = positions.chosen(away <= FAR * np.median(away))
        chosen = [near] if len(near) < len(positions) and _moves(near) else []
        return [_along(path, measured.up) for path in [*chosen, positions]]
    rotation = level(measured.up)
    if measured.log_scales:
        return [Sim3(float(np.exp(measured.log_scales[0][0])), rotation, np.zeros(3))]
    heights = measured.heights
    if len(heights) < 3:
        return []
    along = heights.scene @ rotation[2]
    spread = float(np.var(along))
    if spread <= 0.0:
        return []
    slope = float(np.cov(along, heights.height_m, bias=True)[0, 1]) / spread
    return [Sim3(slope, rotation, np.zeros(3))] if slope > 0 else []


def _moves(positions: Positions) -> bool:
    return float(np.ptp(positions.scene, axis=0).max()) > 0


def _along(positions: Positions, up: Float64[np.ndarray, "3"]) -> Sim3:
    # a point above the path's middle keeps a straight path from rolling about itself
    reach = float(np.linalg.norm(np.std(positions.scene, axis=0)))
    size = float(np.linalg.norm(np.std(positions.map_m, axis=0)))
    middle_scene, middle_map = positions.scene.mean(axis=0), positions.map_m.mean(axis=0)
    scene = np.vstack([positions.scene, middle_scene + reach * up])
    target = np.vstack([positions.map_m, middle_map + size * np.array([0.0, 0.0, 1.0])])
    return fit_sim3(target, scene)


def _rows(
    measured: Measured, similarity: Sim3, clock_s: float, zero_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted residuals and their derivatives by the nine unknowns."""
    parts = [_priors(measured, similarity, clock_s)]
    if len(measured.positions):
        parts.append(_position_rows(measured.positions, similarity, clock_s))
    if len(measured.heights):
        parts.append(_height_rows(measured.heights, similarity, zero_m))
    return np.concatenate([r for r, _ in parts]), np.vstack([j for _, j in parts])


def _position_rows(
    positions: Positions, similarity: Sim3, clock_s: float
) -> tuple[np.ndarray, np.ndarray]:
    residual, jacobian = _white_positions(positions, similarity, clock_s)
    weight = _huber(np.linalg.norm(residual, axis=1) / np.sqrt(3.0))
    weighed = jacobian * weight[:, None, None]
    return (residual * weight[:, None]).ravel(), weighed.reshape(-1, _SIZE)


def _white_positions(
    positions: Positions, similarity: Sim3, clock_s: float
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3 9"]]:
    """What each is off by in its standard deviations, and the derivatives."""
    scene = positions.scene + clock_s * positions.velocity
    turned = similarity.scale * scene @ similarity.rotation.T
    residual = turned + similarity.translation - positions.map_m
    jacobian = np.zeros((len(scene), 3, _SIZE))
    jacobian[:, :, :3] = -_cross(turned)
    jacobian[:, :, 3:6] = np.eye(3)
    jacobian[:, :, 6] = turned
    jacobian[:, :, 7] = similarity.scale * positions.velocity @ similarity.rotation.T
    root = np.linalg.inv(np.linalg.cholesky(positions.covariance))
    return np.einsum("nij,nj->ni", root, residual), root @ jacobian


def _height_rows(
    heights: Heights, similarity: Sim3, zero_m: float
) -> tuple[np.ndarray, np.ndarray]:
    residual, jacobian = _white_heights(heights, similarity, zero_m)
    weight = _huber(np.abs(residual))
    return residual * weight, jacobian * weight[:, None]


def _white_heights(
    heights: Heights, similarity: Sim3, zero_m: float
) -> tuple[Float64[np.ndarray, "m"], Float64[np.ndarray, "m 9"]]:
    """What each is off by in its standard deviations, and the derivatives."""
    turned = similarity.scale * heights.scene @ similarity.rotation.T
    residual = turned[:, 2] + similarity.translation[2] + zero_m - heights.height_m
    jacobian = np.zeros((len(residual), _SIZE))
    jacobian[:, :3] = -_cross(turned)[:, 2]
    jacobian[:, 5] = 1.0
    jacobian[:, 6] = turned[:, 2]
    jacobian[:, 8] = 1.0
    return residual / heights.sigma_m, jacobian / heights.sigma_m[:, None]


def _priors(measured: Measured, similarity: Sim3, clock_s: float) -> tuple[np.ndarray, np.ndarray]:
    """What is expected before anything is measured; also what keeps unseen unknowns at rest."""
    up = similarity.rotation @ measured.up
    white = _white_tilt(measured, similarity)
    residual = [*(white @ up[:2]), clock_s / CLOCK_SIGMA_S]
    rows = [*(white @ -_cross(up[None])[0][:2]), np.zeros(3)]
    jacobian = np.zeros((3, _SIZE))
    jacobian[:, :3] = rows
    jacobian[2, 7] = 1.0 / CLOCK_SIGMA_S
    weak = np.diag(
        [1 / WEAK_TURN_RAD] * 3 + [1 / WEAK_SHIFT_M] * 3 + [1e-6, 0.0, 1 / ZERO_SIGMA_M]
    )[[0, 1, 2, 3, 4, 5, 6, 8]]
    scales = np.zeros((len(measured.log_scales), _SIZE))
    now = np.log(similarity.scale)
    off = [(now - value) / sigma for value, sigma in measured.log_scales]
    for row, (_, sigma) in zip(scales, measured.log_scales, strict=True):
        row[6] = 1.0 / sigma
    return np.concatenate([residual, np.zeros(len(weak)), off]), np.vstack([jacobian, weak, scales])


def _white_tilt(measured: Measured, similarity: Sim3) -> Float64[np.ndarray, "2 2"]:
    """From where `up` points in the map's plane to standard deviations of what it should be."""
    if measured.nod is None:
        return np.eye(2) / measured.up_rad
    right, nod_rad = measured.nod
    x, y = (similarity.rotation @ right)[:2]
    size = float(np.hypot(x, y))
    if size < LEAST_LEVEL * float(np.linalg.norm(right)) or size == 0.0:
        return np.eye(2) / nod_rad
    along, across = np.array([x, y]) / size, np.array([-y, x]) / size
    return np.array([along / measured.up_rad, across / nod_rad])


def _stepped(similarity: Sim3, step: Float64[np.ndarray, "9"]) -> Sim3:
    """Turn and scale about the map's origin as the derivatives have it, then shift."""
    turn = np.asarray(Rotation.from_rotvec(step[:3]).as_matrix())
    scale = similarity.scale * float(np.exp(np.clip(step[6], -1.0, 1.0)))
    return Sim3(scale, turn @ similarity.rotation, similarity.translation + step[3:6])


def _residual_m(measured: Measured, similarity: Sim3, clock_s: float) -> float:
    positions = measured.positions
    if not len(positions):
        return 0.0
    there = similarity.apply(positions.scene + clock_s * positions.velocity)
    return float(np.median(np.linalg.norm(there - positions.map_m, axis=1)))


def _huber(size: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    return np.asarray(np.sqrt(np.minimum(1.0, HUBER / np.maximum(size, 1e-12))))


def _cross(vectors: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3 3"]:
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.array(rows).transpose(2, 0, 1)
