# SPDX-License-Identifier: Apache-2.0
"""From numbered pixels to detections: points, colour and shape of each instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from worldsystem_core.geometry.se3 import transform
from worldsystem_segment.geometric.instance_kernels import at_border, by_label, inner, looked_up
from worldsystem_segment.geometric.instances import seen_extent
from worldsystem_segment.geometric.labels import median_lab, shape_name
from worldsystem_segment.geometric.movers import EgoFlow
from worldsystem_segment.geometric.structure import Structure
from worldsystem_segment.objects.view import View
from worldsystem_segment.objects.world_track import Detection

RIM_PX = 3  # normals this near the outline see past it
MIN_INNER_PX = 12
MIN_TALL_SHARE = 0.2
MAX_SHAPE_POINTS = 250
EXTENT_POINTS = 300
MAX_POINTS = 2500  # of one detection: near things have many times more pixels than voxels


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the picture says beside the geometry: own motion, and printed tags with their places."""

    flow: EgoFlow | None = None
    tags: Sequence[tuple[int, Float[np.ndarray, "2"]]] = ()


@dataclass(frozen=True, eq=False)
class Pixels:
    """The flat pixel numbers of an instance; `truncated`: some are at the picture's border.

    `inner` are those away from the outline, where flow is half of what lies behind: all, if few.
    """

    whole: Int64[np.ndarray, "n"]
    inner: Int64[np.ndarray, "m"]
    truncated: bool

    def __post_init__(self) -> None:
        if len(self.inner) < MIN_INNER_PX:
            object.__setattr__(self, "inner", self.whole)


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
    count = int(labels.max())
    kept = np.zeros(count + 1, np.int32)
    detections: list[Detection] = []
    ordered, starts = by_label(labels, count)
    core, truncated = inner(labels, RIM_PX).reshape(-1), at_border(labels, count)
    tall = structure.tall.reshape(-1)
    for number in range(1, count + 1):
        pixels = ordered[starts[number - 1] : starts[number]]
        some = pixels[:: max(1, len(pixels) // EXTENT_POINTS)]
        stands = np.count_nonzero(tall[pixels]) > MIN_TALL_SHARE * len(pixels)
        if not stands or seen_extent(view.points_at(some)) > max_extent:
            continue
        on_it = (t for t, (u, v) in evidence.tags if labels[int(v), int(u)] == number)
        detections.append(
            _detection(
                view,
                Pixels(pixels, pixels[core[pixels]], bool(truncated[number])),
                structure.up_cam,
                tags=frozenset(on_it),
                flow=evidence.flow,
            )
        )
        kept[number] = len(detections)
    return np.asarray(looked_up(kept, labels)), detections


def _detection(
    view: View,
    pixels: Pixels,
    up_cam: Float32[np.ndarray, "3"] | None,
    *,
    tags: frozenset[int],
    flow: EgoFlow | None,
) -> Detection:
    whole, inside = pixels.whole, pixels.inner
    core = inside if len(whole) > 60 else whole
    core = core[:: max(1, len(core) // MAX_SHAPE_POINTS)]
    points = view.points_at(whole[:: max(1, len(whole) // MAX_POINTS)])
    points_world = transform(view.world_from_cam, points)
    seen, normals = view.points_at(core), view.normals_at(core)
    some = slice(None, None, max(1, len(points) // MAX_SHAPE_POINTS))
    look = whole[:: max(1, len(whole) // MAX_SHAPE_POINTS)]
    return Detection(
        points_cam=points,
        points_world=points_world,
        centre=np.median(points_world[some], axis=0).astype(np.float32),
        lab=median_lab(view.rgb.reshape(-1, 3)[look]),
        shape=lambda: shape_name(seen, normals, up_cam),
        truncated=pixels.truncated,
        tags=tags,
        motion=flow.motion_of(inside) if flow else None,
    )
