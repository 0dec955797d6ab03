# SPDX-License-Identifier: Apache-2.0
"""A frame on its way through the back-end, and what is read off its points on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe
from worldsystem_slam3r.slam3r.intake import Picture
from worldsystem_slam3r.slam3r.pace import Viewpoint
from worldsystem_slam3r.slam3r.pose import (
    INLIER_WIDTHS,
    Placement,
    Sample,
    error_px,
    known_points,
)
from worldsystem_slam3r.slam3r.views import View

SAMPLES_ACROSS = 28
_EDGE_DEPTHS = 0.06


@dataclass(eq=False)
class Shot:
    """A picture, its view, and once found its place and the camera it was found with."""

    picture: Picture
    view: View
    camera: Camera | None = None
    placement: Placement | None = None
    sample: Sample | None = None

    @property
    def viewpoint(self) -> Viewpoint:
        """The placed shot as the pace is judged by."""
        assert self.placement is not None
        assert self.camera is not None
        assert self.sample is not None
        points = self.sample.scene
        return Viewpoint(self.view.index, self.placement.scene_from_cam, points, self.camera)


def read_samples(shots: Sequence[Shot]) -> None:
    """Fetch a grid of each shot's points and confidences from the device, in one transfer.

    The views' local maps are let go: nothing later asks for them.
    """
    if not shots:
        return
    side = shots[0].picture.rgb.shape[0]
    every = max(1, side // SAMPLES_ACROSS)
    grids = torch.stack([_grid(shot.view, every) for shot in shots]).cpu().double().numpy()
    offsets = np.arange(0, side, every)
    uv = np.stack(np.meshgrid(offsets, offsets), axis=-1).reshape(-1, 2).astype(np.float64)
    for shot, grid in zip(shots, grids, strict=True):
        local, scene = grid[:, :3], grid[:, 3:6]
        known = known_points(local, scene)
        confidence = np.maximum(grid[known, 6:], 1.0 + 1e-6)
        weight = np.maximum(np.prod((confidence - 1.0) / confidence, axis=1), 1e-6)
        shot.sample = Sample(uv[known], local[known], scene[known], weight)
        shot.view.local_points = shot.view.local_confidence = None


def _grid(view: View, every: int) -> Float[torch.Tensor, "n 8"]:
    """Local points, scene points and both confidences of every so many pixels."""
    maps = (view.local_points, view.world_points, view.local_confidence, view.world_confidence)
    columns = []
    for item in maps:
        assert item is not None
        columns.append(item[::every, ::every].reshape(-1, item.shape[2] if item.ndim == 3 else 1))
    return torch.cat(columns, dim=1).float()


def keyframe_of(shot: Shot, *, id: int, world: Sim3, least_confidence: float) -> Keyframe:
    """The shot as the mesher takes it: depth along each pixel's ray, unsure pixels left out.

    Left out are pixels of too low confidence, whose point projects elsewhere, or on the edge
    between near and far, where a network smears one into the other.
    """
    assert shot.placement is not None
    assert shot.camera is not None
    points, confidence = _full_maps(shot.view)
    cam_from_scene = inverse(shot.placement.scene_from_cam)
    depth = transform(cam_from_scene, points)[..., 2].astype(np.float64)
    sure = (confidence >= least_confidence) & (points != 0).any(axis=-1)
    sure &= _own_pixel(points, cam_from_scene, shot.camera) & ~_edges(depth)
    depth[~sure] = np.nan
    pointmap = pointmap_from_depth(world.scale * depth, shot.camera)
    known = np.isfinite(pointmap[..., 2])
    share = np.where(known, (confidence - 1.0) / np.maximum(confidence, 1.0), 0.0)
    return Keyframe(
        id=id,
        frame_id=shot.picture.frame_id,
        stamp_ns=shot.picture.stamp_ns,
        world_from_cam=world.apply_pose(shot.placement.scene_from_cam),
        camera=shot.camera,
        pointmap=pointmap,
        confidence=share.clip(0.0, 1.0).astype(np.float32),
        rgb=shot.picture.rgb.copy(),
        submap=shot.view.segment,
    )


def _full_maps(view: View) -> tuple[Float64[np.ndarray, "h w 3"], Float64[np.ndarray, "h w"]]:
    assert view.world_points is not None
    assert view.world_confidence is not None
    both = torch.cat([view.world_points, view.world_confidence[..., None]], dim=-1)
    array = both.cpu().double().numpy()
    return array[..., :3], array[..., 3]


def _own_pixel(points: np.ndarray, cam_from_scene: np.ndarray, camera: Camera) -> np.ndarray:
    """Where a point projects to within the inlier bound of the pixel that it belongs to."""
    v, u = np.mgrid[: camera.height, : camera.width]
    uv = np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float64)
    flat = points.reshape(-1, 3)
    error = error_px(cam_from_scene, Sample(uv, flat, flat, np.ones(len(flat))), camera)
    return np.asarray((error < INLIER_WIDTHS * camera.width).reshape(points.shape[:2]))


def _edges(depth: Float64[np.ndarray, "h w"]) -> np.ndarray:
    """Pixels whose depth differs from a neighbour's by more than a surface's slope would.

    The depth is compared with the mean of the two neighbours on either side, so that a slanted
    surface, however steep, does not count.
    """
    edge = np.zeros(depth.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        bend = np.abs(depth[:, :-2] + depth[:, 2:] - 2.0 * depth[:, 1:-1])
        edge[:, 1:-1] |= bend > _EDGE_DEPTHS * depth[:, 1:-1]
        bend = np.abs(depth[:-2] + depth[2:] - 2.0 * depth[1:-1])
        edge[1:-1] |= bend > _EDGE_DEPTHS * depth[1:-1]
    return edge
