# SPDX-License-Identifier: Apache-2.0
"""Ground truth from files: a simulated flight, or a trajectory as other people write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from worldsystem.evaluation.truth import GroundTruth
from worldsystem_core.errors import SourceError
from worldsystem_core.trajectory import StampedPoses, read_tum
from worldsystem_sim.truth import load_truth

WGS84_RADIUS_M = 6_378_137.0
WGS84_ECCENTRICITY_SQUARED = 6.694_379_990_14e-3
SEEN_CELLS_PER_DIAMETER = 500
SECONDS_COLUMNS = ("t_video_approx_s", "t_s", "timestamp", "time_s")


def from_simulator(folder: Path, *, every_n_frames: int = 20, stride: int = 4) -> GroundTruth:
    """The truth that a simulated flight left in `folder` (metres, z up); `SourceError` if none.

    What the camera saw comes from the exact depth of every `every_n_frames`-th frame, every
    `stride`-th pixel both ways, thinned so that near surface does not count more than far.
    """
    truth = load_truth(folder)
    diameter = truth.scene.diameter_m
    seen = truth.visible_points(every_n_frames, stride)
    return GroundTruth(
        poses=truth.poses,
        mesh=truth.mesh(),
        seen_points=thinned(seen, diameter / SEEN_CELLS_PER_DIAMETER),
        up=(0.0, 0.0, 1.0),
        diameter=diameter,
    )


def thinned(points: Float[np.ndarray, "n 3"], cell: float) -> Float[np.ndarray, "m 3"]:
    """At most one point, the first, in every cube of edge `cell`."""
    if not len(points):
        return points
    cells = np.floor(points / cell).astype(np.int64)
    cells -= cells.min(axis=0)
    span = cells.max(axis=0) + 1
    keys = (cells[:, 0] * span[1] + cells[:, 1]) * span[2] + cells[:, 2]
    return points[np.sort(np.unique(keys, return_index=True)[1])]


def load_truth_trajectory(path: Path, *, rate_hz: float = 30.0) -> StampedPoses:
    """Read a true trajectory; what the file holds decides the format.

    - TUM: `timestamp tx ty tz qx qy qz qw` a line.
    - Redwood `.log`: a line of three ids, then the 4×4 matrix in four lines; frame 0, 1, 2, …
    - 16 numbers a line: row-major 4×4, in the order of the pictures.
    - CSV with `lat_deg, lon_deg, alt_m` (about the first fix) or `n_m, e_m, d_m` (about their own
      origin): positions only, east-north-up [m]; rotations are NaN.

    Matrices are `world_from_cam`. Formats without stamps get `index / rate_hz`. What has no finite
    position, as satellites out of sight, is left out. Raises SourceError when the file is missing,
    empty, or none of these.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the true trajectory {path}: {error}") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        poses = _parsed(path, text, lines, rate_hz)
    except (ValueError, KeyError) as error:
        raise SourceError(f"{path} is not a trajectory that can be read: {error}") from error
    if not len(poses):
        raise SourceError(f"{path} holds no pose")
    order = np.argsort(poses.stamps_ns, kind="stable")
    return located(StampedPoses(poses.stamps_ns[order], poses.world_from_cam[order]), path)


def located(poses: StampedPoses, path: Path) -> StampedPoses:
    """The poses that say where the camera was; `SourceError` naming `path` where none does."""
    known = np.isfinite(poses.positions).all(axis=1)
    if not known.any():
        raise SourceError(f"no pose of {path} has a position")
    return StampedPoses(poses.stamps_ns[known], poses.world_from_cam[known])


def _parsed(path: Path, text: str, lines: list[str], rate_hz: float) -> StampedPoses:
    words = len(lines[0].split()) if lines else 0
    if lines and "," in lines[0]:
        return _from_csv(text)
    if words == 3:
        return _from_log(lines, rate_hz)
    if words == 16:
        return _from_matrices(np.array([line.split() for line in lines], np.float64), rate_hz)
    if words == 8:
        return read_tum(path)
    raise ValueError(f"its first line has {words} words; known are 3, 8, 16, or a CSV header")


def _from_log(lines: list[str], rate_hz: float) -> StampedPoses:
    if len(lines) % 5:
        raise ValueError(f"{len(lines)} lines are not a multiple of five")
    rows = [line for at, line in enumerate(lines) if at % 5]
    return _from_matrices(np.array([row.split() for row in rows], np.float64), rate_hz)


def _from_matrices(numbers: Float[np.ndarray, "..."], rate_hz: float) -> StampedPoses:
    matrices = numbers.reshape(-1, 4, 4)
    stamps_ns = np.round(np.arange(len(matrices)) * 1e9 / rate_hz).astype(np.int64)
    return StampedPoses(stamps_ns, matrices)


def _from_csv(text: str) -> StampedPoses:
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        raise ValueError("it has a header but no row")
    known = {*SECONDS_COLUMNS, "lat_deg", "lon_deg", "alt_m", "n_m", "e_m", "d_m"}
    columns = {name: _column(name, rows) for name in rows[0] if name in known}
    seconds = next((columns[name] for name in SECONDS_COLUMNS if name in columns), None)
    if seconds is None:
        raise ValueError(f"it has none of the time columns {', '.join(SECONDS_COLUMNS)}")
    if "n_m" in columns:
        positions = np.stack([columns["e_m"], columns["n_m"], -columns["d_m"]], axis=1)
    else:
        positions = _from_satellites(columns)
    matrices = np.full((len(rows), 4, 4), np.nan)
    matrices[:, 3] = (0.0, 0.0, 0.0, 1.0)
    matrices[:, :3, 3] = positions
    return StampedPoses(np.round(seconds * 1e9).astype(np.int64), matrices)


def _column(name: str, rows: list[dict[str, str]]) -> Float64[np.ndarray, "n"]:
    short = next((at for at, row in enumerate(rows, 1) if row[name] is None), None)
    if short is not None:
        raise ValueError(f"row {short} after the header is cut off before {name}")
    return np.array([float(row[name]) for row in rows])


def _from_satellites(columns: dict[str, np.ndarray]) -> Float64[np.ndarray, "n 3"]:
    """About the first fix; NaN where there was none."""
    fixes = np.stack([columns[name] for name in ("lat_deg", "lon_deg", "alt_m")])
    known = np.isfinite(fixes).all(axis=0)
    positions = np.full((len(known), 3), np.nan)
    if known.any():
        positions[known] = enu_from_wgs84(*fixes[:, known])
    return positions


def enu_from_wgs84(
    latitude_deg: Float[np.ndarray, "n"],
    longitude_deg: Float[np.ndarray, "n"],
    altitude_m: Float[np.ndarray, "n"],
) -> Float64[np.ndarray, "n 3"]:
    """East, north, up [m] in the tangent plane of the first fix."""
    lat, lon = np.radians(latitude_deg), np.radians(longitude_deg)
    ecef_m = _ecef_m(lat, lon, altitude_m)
    sin_lat, cos_lat, sin_lon, cos_lon = (
        np.sin(lat[0]),
        np.cos(lat[0]),
        np.sin(lon[0]),
        np.cos(lon[0]),
    )
    enu_from_ecef = np.array(
        [
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ]
    )
    return np.asarray((ecef_m - ecef_m[0]) @ enu_from_ecef.T, dtype=np.float64)


def _ecef_m(lat: np.ndarray, lon: np.ndarray, altitude_m: np.ndarray) -> np.ndarray:
    prime_vertical_m = WGS84_RADIUS_M / np.sqrt(1 - WGS84_ECCENTRICITY_SQUARED * np.sin(lat) ** 2)
    around_m = (prime_vertical_m + altitude_m) * np.cos(lat)
    polar_m = (prime_vertical_m * (1 - WGS84_ECCENTRICITY_SQUARED) + altitude_m) * np.sin(lat)
    return np.stack([around_m * np.cos(lon), around_m * np.sin(lon), polar_m], axis=1)
