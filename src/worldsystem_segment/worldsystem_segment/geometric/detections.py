# SPDX-License-Identifier: Apache-2.0
"""From numbered pixels to detections: points, colour and shape of each instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from worldsystem_core.geometry.se3 import transform
from worldsystem_segment.geometric.instances import seen_extent
from worldsystem_segment.geometric.labels import median_lab, shape_name
from worldsystem_segment.geometric.movers import EgoFlow
from worldsystem_segment.geometric.structure import Structure
from worldsystem_segment.objects.view import View
from worldsystem_segment.objects.world_track import Detection

RIM_PX = 3  # normals this near the outline see past it
MIN_TALL_SHARE = 0.2
MAX_SHAPE_POINTS = 250
EXTENT_POINTS = 300
MAX_POINTS = 2500  # of one detection: near things have many times more pixels than voxels


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the picture says beside the geometry: own motion, and printed tags with their places."""

    flow: EgoFlow | None = None
    tags: Sequence[tuple[int, Float[np.ndarray, "2"]]] = ()


def detections_of(
    view: View,
    labels: Int32[np.ndarray, "h w"],
    structure: Structure,
    max_extent: float,
    *,
    evidence: Evidence,
) -> tuple[Int32[np.ndarray, "h w"], list[Detection]]:
    """Describe each instance; what is too long or hardly leaves the ground is erased.

    The returned labels number the detections from 1 in their order.
    """
    kept = np.zeros(int(labels.max()) + 1, np.int32)
    detections: list[Detection] = []
    for number, pixels in enumerate(_pixels_by_label(labels), start=1):
        some = pixels[:: max(1, len(pixels) // EXTENT_POINTS)]
        stands = structure.tall.reshape(-1)[pixels].mean() > MIN_TALL_SHARE
        if not stands or seen_extent(view.points_at(some)) > max_extent:
            continue
        on_it = (t for t, (u, v) in evidence.tags if labels[int(v), int(u)] == number)
        detections.append(
            _detection(
                view,
                pixels,
                structure.up_cam,
                tags=frozenset(on_it),
                flow=evidence.flow,
            )
        )
        kept[number] = len(detections)
    return kept[labels], detections


def _detection(
    view: View,
    pixels: Int64[np.ndarray, "n"],
    up_cam: Float32[np.ndarray, "3"] | None,
    *,
    tags: frozenset[int],
    flow: EgoFlow | None,
) -> Detection:
    width, height = view.camera.width, view.camera.height
    rows, columns = np.divmod(pixels, width)
    inner = pixels[_is_core(rows, columns)]  # flow at an outline is half of what lies behind it
    core = inner if len(pixels) > 60 else pixels
    core = core[:: max(1, len(core) // MAX_SHAPE_POINTS)]
    truncated = (
        rows.min() == 0 or columns.min() == 0 or rows.max() >= height - 1
        or columns.max() >= width - 1
    )  # fmt: skip
    points = view.points_at(pixels[:: max(1, len(pixels) // MAX_POINTS)])
    points_world = transform(view.world_from_cam, points)
    seen, normals = view.points_at(core), view.normals_at(core)
    some = slice(None, None, max(1, len(points) // MAX_SHAPE_POINTS))
    look = pixels[:: max(1, len(pixels) // MAX_SHAPE_POINTS)]
    return Detection(
        points_cam=points,
        points_world=points_world,
        centre=np.median(points_world[some], axis=0).astype(np.float32),
        lab=median_lab(view.rgb.reshape(-1, 3)[look]),
        shape=lambda: shape_name(seen, normals, up_cam),
        truncated=bool(truncated),
        tags=tags,
        motion=flow.motion_of(inner) if flow else None,
    )


def _is_core(rows: Int64[np.ndarray, "n"], columns: Int64[np.ndarray, "n"]) -> np.ndarray:
    # pixels whose neighbours RIM_PX away are of the same instance
    top, left = rows.min() - RIM_PX, columns.min() - RIM_PX
    size = (rows.max() - top + RIM_PX + 1, columns.max() - left + RIM_PX + 1)
    mask = np.zeros(size, bool)
    r, c = rows - top, columns - left
    mask[r, c] = True
    core = mask[r - RIM_PX, c] & mask[r + RIM_PX, c] & mask[r, c - RIM_PX] & mask[r, c + RIM_PX]
    return core if core.sum() >= 12 else np.ones(len(rows), bool)


def _pixels_by_label(labels: Int32[np.ndarray, "h w"]) -> list[Int64[np.ndarray, "n"]]:
    flat = labels.ravel()
    foreground = np.flatnonzero(flat)
    if not len(foreground):
        return []
    ordered = foreground[np.argsort(flat[foreground], kind="stable")]
    ends = np.cumsum(np.bincount(flat[ordered])[1:])[:-1]
    return np.split(ordered, ends)
