# SPDX-License-Identifier: Apache-2.0
"""From numbered pixels to detections: points, colour and shape of each instance."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int32, Int64

from worldsystem_segment.geometric.instances import seen_extent
from worldsystem_segment.geometric.labels import median_lab, shape_name
from worldsystem_segment.geometric.movers import EgoFlow
from worldsystem_segment.geometric.structure import Structure
from worldsystem_segment.geometric.tags import find_tags
from worldsystem_segment.geometric.view import View
from worldsystem_segment.geometric.world_track import Detection

RIM_PX = 3  # normals this near the outline see past it
MIN_TALL_SHARE = 0.2
MAX_SHAPE_POINTS = 250


def detections_of(
    view: View,
    labels: Int32[np.ndarray, "h w"],
    structure: Structure,
    max_extent: float,
    *,
    flow: EgoFlow | None = None,
    look_for_tags: bool = True,
) -> tuple[Int32[np.ndarray, "h w"], list[Detection]]:
    """Describe each instance; what is too long or hardly leaves the ground is erased.

    The returned labels number the detections from 1 in their order.
    """
    tags = find_tags(view.rgb) if look_for_tags else []
    kept = np.zeros(int(labels.max()) + 1, np.int32)
    detections: list[Detection] = []
    for number, pixels in enumerate(_pixels_by_label(labels), start=1):
        points = view.points_cam.reshape(-1, 3)[pixels]
        stands = structure.tall.reshape(-1)[pixels].mean() > MIN_TALL_SHARE
        if not stands or seen_extent(points) > max_extent:
            continue
        on_it = (t for t, (u, v) in tags if labels[int(v), int(u)] == number)
        detections.append(
            _detection(
                view,
                pixels,
                structure.up_cam,
                tags=frozenset(on_it),
                motion=flow.motion_of(pixels) if flow else None,
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
    motion: float | None,
) -> Detection:
    width, height = view.camera.width, view.camera.height
    rows, columns = np.divmod(pixels, width)
    core = pixels[_is_core(rows, columns)] if len(pixels) > 60 else pixels
    core = core[:: max(1, len(core) // MAX_SHAPE_POINTS)]
    truncated = (
        rows.min() == 0 or columns.min() == 0 or rows.max() >= height - 1
        or columns.max() >= width - 1
    )  # fmt: skip
    points_cam, points_world = view.points_cam.reshape(-1, 3), view.points_world.reshape(-1, 3)
    seen, normals = points_cam[core], view.normals.reshape(-1, 3)[core]
    sample = pixels[:: max(1, len(pixels) // MAX_SHAPE_POINTS)]
    return Detection(
        points_cam=points_cam[pixels],
        points_world=points_world[pixels],
        centre=np.median(points_world[sample], axis=0).astype(np.float32),
        lab=median_lab(view.rgb.reshape(-1, 3)[sample]),
        shape=lambda: shape_name(seen, normals, up_cam),
        truncated=bool(truncated),
        tags=tags,
        motion=motion,
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
