# SPDX-License-Identifier: Apache-2.0
"""One point cloud of all keyframes, thinned to a grid, and its files: PLY, LAS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from worldsystem_core.geometry.se3 import transform
from worldsystem_storage.errors import StorageError
from worldsystem_storage.export.place import check_ending, output_file
from worldsystem_storage.export.recorded import RecordedKeyframe, RecordedRun

MOST_POINTS = 2_000_000
_LEAST_CONFIDENCE = 0.3
_CELLS_ACROSS = 1024


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points in the world frame [world units] with colours."""

    points: Float32[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]

    def __len__(self) -> int:
        return len(self.points)


def merged_cloud(
    keyframes: list[RecordedKeyframe], *, most: int = MOST_POINTS, cells: int = _CELLS_ACROSS
) -> Cloud:
    """All confident points, one for each occupied cell of a grid of `cells` across the cloud.

    A cell keeps the mean of its points and colours. Where more than `most` are left the grid is
    made coarser.
    """
    parts = [_points_of(keyframe) for keyframe in keyframes]
    points = np.concatenate([p for p, _ in parts]) if parts else np.zeros((0, 3), np.float32)
    if not len(points):
        raise StorageError("the run has no confident points to export")
    colours = np.concatenate([c for _, c in parts])
    low, high = np.quantile(points, (0.01, 0.99), axis=0)
    size = max(float((high - low).max()), 1e-6) / cells
    cloud = _thinned(points, colours, size)
    while len(cloud) > most:
        size *= 1.2
        cloud = _thinned(points, colours, size)
    return cloud


def export_points(run: RecordedRun, out: Path) -> Path:
    """Binary PLY with x y z and red green blue."""
    check_ending(out, "ply")
    cloud, out = merged_cloud(run.keyframes), output_file(out, "points.ply")
    vertex = np.empty(len(cloud), np.dtype([("position", "<f4", 3), ("colour", "u1", 3)]))
    vertex["position"], vertex["colour"] = cloud.points, cloud.colours
    names = ("float x", "float y", "float z", "uchar red", "uchar green", "uchar blue")
    out.write_bytes(_ply_header(len(cloud), names) + vertex.tobytes())
    return out


def export_las(run: RecordedRun, out: Path) -> Path:
    """LAS 1.4, point format 7 (16-bit colours), millimetres of a world unit."""
    check_ending(out, "las")
    import laspy  # only this format needs it

    cloud, out = merged_cloud(run.keyframes), output_file(out, "points.las")
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales = np.full(3, 0.001)
    header.offsets = np.floor(cloud.points.min(axis=0))
    las = laspy.LasData(header)
    las.x, las.y, las.z = cloud.points.T.astype(np.float64)
    las.red, las.green, las.blue = cloud.colours.T.astype(np.uint16) * 257
    las.write(str(out))
    return out


def _points_of(
    keyframe: RecordedKeyframe,
) -> tuple[Float32[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    known = np.isfinite(keyframe.pointmap).all(axis=-1)
    known &= keyframe.confidence >= _LEAST_CONFIDENCE
    world = transform(keyframe.world_from_cam, keyframe.pointmap[known].astype(np.float64))
    return world.astype(np.float32), keyframe.rgb[known]


def _thinned(
    points: Float32[np.ndarray, "n 3"], colours: UInt8[np.ndarray, "n 3"], size: float
) -> Cloud:
    """The mean of each cell of edge `size` [world units]."""
    cells = np.floor((points - points.min(axis=0)) / size).astype(np.int64)
    spans = cells.max(axis=0) + 1
    keys = (cells[:, 0] * spans[1] + cells[:, 1]) * spans[2] + cells[:, 2]
    _, where, counts = np.unique(keys, return_inverse=True, return_counts=True)

    def mean(values: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
        sums = [np.bincount(where, values[:, i], len(counts)) for i in range(3)]
        return np.asarray(np.stack(sums, axis=-1) / counts[:, None])

    origin = points.min(axis=0).astype(np.float64)
    middle = mean(points.astype(np.float64) - origin) + origin
    return Cloud(middle.astype(np.float32), np.round(mean(colours)).astype(np.uint8))


def _ply_header(count: int, properties: tuple[str, ...]) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    lines += [f"property {name}" for name in properties]
    return ("\n".join([*lines, "end_header"]) + "\n").encode()
