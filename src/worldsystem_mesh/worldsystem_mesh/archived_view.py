# SPDX-License-Identifier: Apache-2.0
"""What the archive writes of a keyframe beside its pictures: one record of fixed size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import ScaleState
from worldsystem_mesh.view import StoredView
from worldsystem_mesh.view_store import NO_DEPTH, NO_PAINT

NO_HEIR = -1
NO_BLOCKS = np.zeros(0, np.int32)
RECORD = np.dtype(
    [
        ("order", "<i8"),
        ("id", "<i8"),
        ("frame_id", "<i8"),
        ("stamp_ns", "<i8"),
        ("heir", "<i8"),
        ("world_from_cam", "<f8", (4, 4)),
        ("intrinsics", "<f8", 4),
        ("size", "<i4", 2),
        ("shape", "<i4", 2),
        ("depth_step", "<f8"),
        ("median", "<f8"),
        ("scale", "<f8"),
        ("scale_when_told", "<f8"),
        ("voxel", "<f8"),
        ("unit", "<i8"),
    ]
)


@dataclass(frozen=True, eq=False)
class ArchivedView:
    """A keyframe as it lies now, without its pictures; `view.order` is its key.

    `heir` is the keyframe that stands in for it, if any. `scale_when_told` is `view.scale` as it
    was when the keyframe was last told; `voxel` [world units] is the volume's, in the same unit.
    """

    view: StoredView
    frame_id: int
    stamp_ns: int
    shape: tuple[int, int]
    voxel: float
    unit: ScaleState
    scale_when_told: float = 1.0
    heir: int | None = None


def bare(view: StoredView) -> StoredView:
    """The view without pictures and blocks, whose numbers mean nothing to another process."""
    return replace(view, depth=NO_DEPTH, paint=NO_PAINT, band=NO_BLOCKS, free=NO_BLOCKS)


def grown(view: StoredView, ratio: float) -> StoredView:
    """The view in units of which `ratio` make one of before."""
    pose: Float64[np.ndarray, "4 4"] = view.world_from_cam.copy()
    pose[:3, 3] *= ratio
    step, median, scale = view.depth_step * ratio, view.median * ratio, view.scale * ratio
    return replace(view, world_from_cam=pose, depth_step=step, median=median, scale=scale)


def in_unit_of(kept: ArchivedView, other: ArchivedView) -> ArchivedView:
    """Not all are rewritten at once when the unit changes, and a process may die between."""
    if kept.voxel == other.voxel:
        return kept
    view = grown(kept.view, other.voxel / kept.voxel)
    return replace(kept, view=view, voxel=other.voxel, unit=other.unit)


def packed(kept: ArchivedView) -> UInt8[np.ndarray, "n"]:
    """The record."""
    view, camera = kept.view, kept.view.camera
    row = (
        view.order,
        view.id,
        kept.frame_id,
        kept.stamp_ns,
        NO_HEIR if kept.heir is None else kept.heir,
        view.world_from_cam,
        (camera.fx, camera.fy, camera.cx, camera.cy),
        (camera.width, camera.height),
        kept.shape,
        view.depth_step,
        view.median,
        view.scale,
        kept.scale_when_told,
        kept.voxel,
        kept.unit.value,
    )
    return np.array([row], RECORD).view(np.uint8)


def unpacked(payload: UInt8[np.ndarray, "n"]) -> ArchivedView:
    """The keyframe that a record says."""
    (record,) = payload.view(RECORD)
    fx, fy, cx, cy = record["intrinsics"].tolist()
    width, height = record["size"].tolist()
    rows, columns = record["shape"].tolist()
    heir = int(record["heir"])
    view = StoredView(
        id=int(record["id"]),
        order=int(record["order"]),
        camera=Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy),
        depth=NO_DEPTH,
        depth_step=float(record["depth_step"]),
        paint=NO_PAINT,
        world_from_cam=record["world_from_cam"].copy(),
        median=float(record["median"]),
        scale=float(record["scale"]),
    )
    return ArchivedView(
        view=view,
        frame_id=int(record["frame_id"]),
        stamp_ns=int(record["stamp_ns"]),
        shape=(rows, columns),
        voxel=float(record["voxel"]),
        unit=ScaleState(int(record["unit"])),
        scale_when_told=float(record["scale_when_told"]),
        heir=None if heir == NO_HEIR else heir,
    )
