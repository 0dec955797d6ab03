# SPDX-License-Identifier: Apache-2.0
"""A view as the kernels see it: one record of the Warp struct `View`, filled in place.

Setting the attributes of a Warp struct one by one took half a millisecond a view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Int32

from worldsystem_mesh import kernels_volume as kernels
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.launcher import over
from worldsystem_mesh.view import StoredView

FARTHEST_HOME = kernels.KEY_BIAS - 4096
VIEW_STRUCT: Any = kernels.View  # a Warp struct, which mypy takes for a class
VIEW_DTYPE = np.dtype(VIEW_STRUCT.numpy_dtype())


@dataclass(frozen=True, eq=False)
class DeviceView:
    """A view alone (an array of one) and as an element of an array of views; `pictures` are the
    arrays that its record points to."""

    alone: wp.array
    record: np.ndarray
    order: int
    pictures: tuple[Any, Any]


def device_view(
    view: StoredView, voxel: float, config: MeshConfig, device: str
) -> DeviceView | None:
    """The view as the kernels see it; None when its camera is beyond the lattice."""
    position = view.world_from_cam[:3, 3] / voxel
    home = np.floor(position / 8.0)
    if not (np.abs(home) < FARTHEST_HOME).all():
        return None
    camera, rotation = view.camera, view.world_from_cam[:3, :3]
    record = np.zeros(1, VIEW_DTYPE)
    depth = _point_to(record["depth"], view.depth, wp.uint16, device)
    paint = _point_to(record["paint"], view.paint, wp.uint32, device)
    record["intrinsics"] = camera.fx, camera.fy, camera.cx, camera.cy
    record["world_from_cam"] = rotation
    record["cam_from_world"] = rotation.T
    record["eye"] = position - 8.0 * home
    record["home"] = home
    record["depth_step"] = view.depth_step / voxel
    record["truncation"] = config.truncation_voxels
    record["depth_noise"] = config.depth_noise
    record["seed"] = (view.id * 2654435761 + 97) & 0xFFFFFFFF
    record["order"] = view.order
    return DeviceView(_on_device(record, device), record, view.order, (depth, paint))


def together(views: list[DeviceView], device: str) -> wp.array:
    """Many views as one array."""
    records = np.empty(len(views), VIEW_DTYPE)
    for i, view in enumerate(views):
        records[i] = view.record[0]
    return _on_device(records, device)


def last_orders(
    views: list[DeviceView], start: Int32[np.ndarray, "b+1"], view_of_pair: Int32[np.ndarray, "p"]
) -> Int32[np.ndarray, "b"]:
    """Order of the last view of each block; 0 where none belongs into it."""
    last, ends = np.zeros(len(start) - 1, np.int32), start[1:]
    some = ends > start[:-1]
    orders = np.array([view.order for view in views], np.int32)
    last[some] = orders[view_of_pair[ends[some] - 1]]
    return last


def _on_device(records: np.ndarray, device: str) -> wp.array:
    if device == "cpu":
        return over(records, kernels.View)
    return wp.array(records, dtype=kernels.View, device=device, copy=False)


def _point_to(field: np.ndarray, values: np.ndarray, dtype: type, device: str) -> Any:
    """Make an array field of a record point to `values` on the device; return what must live."""
    if device == "cpu":
        held: Any = np.ascontiguousarray(values)
        field["data"] = held.ctypes.data
    else:
        held = wp.array(values, dtype=dtype, device=device)
        field["data"] = held.ptr
    field["shape"][0, :2] = values.shape
    field["strides"][0, :2] = values.shape[1] * values.itemsize, values.itemsize
    field["ndim"] = 2
    return held
