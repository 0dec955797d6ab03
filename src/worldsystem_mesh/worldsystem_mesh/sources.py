# SPDX-License-Identifier: Apache-2.0
"""What can be fused beside a reconstruction's keyframes: depth images, point maps whose camera is
not known, and raw point clouds. Each becomes a keyframe, image-aligned and without distortion.

The mesher itself calls `with_fitting_camera`. Depth images and clouds are for users of the library,
who hand the keyframes to `Mesher.integrate` (docs/meshing.md shows how); no stage makes any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, UInt8

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.reconstruction import Keyframe

FIT_STRIDE_PX = 6
LEAST_POINTS = 16
TOLERATED_RESIDUAL_PX = 0.75
SMALLEST_FACE_PX, LARGEST_FACE_PX = 32, 1024
POINTS_PER_PIXEL = 4.0
FILL_RATIO = 0.03


class NotAPinhole(WorldSystemError):
    """A point map does not project to its own pixels through any pinhole camera."""


class NotAligned(WorldSystemError):
    """The arrays of a keyframe are not of one size."""


@dataclass(frozen=True)
class FittedCamera:
    """A pinhole camera for a point map, and how far points miss their pixels (90th percentile)."""

    camera: Camera
    residual_px: float


def fitted_camera(pointmap: Float32[np.ndarray, "h w 3"]) -> FittedCamera:
    """The pinhole camera through which points land on their own pixels, by robust lines
    u = fx X/Z + cx and v = fy Y/Z + cy.

    Raises `NotAPinhole` when too few points are known, or none of them explains the others.
    """
    height, width = pointmap.shape[:2]
    v, u = np.mgrid[0:height:FIT_STRIDE_PX, 0:width:FIT_STRIDE_PX]
    points = pointmap[::FIT_STRIDE_PX, ::FIT_STRIDE_PX].astype(np.float64)
    known = np.isfinite(points).all(axis=-1) & (points[..., 2] > 0)
    if known.sum() < LEAST_POINTS:
        raise NotAPinhole(f"only {known.sum()} of the point map's points are known")
    x, y, z = points[known].T
    (fx, cx), miss_u = _robust_line(x / z, u[known].astype(np.float64))
    (fy, cy), miss_v = _robust_line(y / z, v[known].astype(np.float64))
    if not (fx > 1.0 and fy > 1.0):
        raise NotAPinhole(f"the points suggest focal lengths of {fx:.1f} and {fy:.1f} px")
    camera = Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy)
    residual = float(np.percentile(np.hypot(miss_u, miss_v), 90.0))
    return FittedCamera(camera, residual)


def with_fitting_camera(keyframe: Keyframe) -> Keyframe:
    """`keyframe` with a camera that its points agree with.

    The one it has is kept when the points land within `TOLERATED_RESIDUAL_PX` of their pixels. Else
    a camera is fitted, and where even that one misses by more, as with a fisheye's points, they are
    drawn anew into its image, nearest first. Raises `NotAPinhole` when no camera can be fitted, and
    `NotAligned` for arrays that are not of one size.
    """
    _check_alignment(keyframe)
    residual = _residual_px(keyframe.pointmap, keyframe.camera)
    if residual <= TOLERATED_RESIDUAL_PX:
        return keyframe
    fitted = fitted_camera(keyframe.pointmap)
    placed = replace(keyframe, camera=fitted.camera)
    return placed if fitted.residual_px <= TOLERATED_RESIDUAL_PX else _drawn_anew(placed)


def keyframe_from_depth(
    id: int,
    depth: Float32[np.ndarray, "h w"],
    rgb: UInt8[np.ndarray, "h w 3"],
    camera: Camera,
    world_from_cam: Float64[np.ndarray, "4 4"],
) -> Keyframe:
    """A depth image [world units] as a keyframe of full confidence; unknown depth is 0, negative
    or not finite."""
    known = np.isfinite(depth) & (depth > 0)
    unknown_free = np.where(known, depth, np.nan).astype(np.float32)
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=0,
        world_from_cam=np.array(world_from_cam, np.float64),
        camera=camera,
        pointmap=pointmap_from_depth(unknown_free, camera),
        confidence=known.astype(np.float32),
        rgb=np.array(rgb),
    )


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points [world units] in the world and the place of the sensor that saw them all."""

    points: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    sensor_in_world: Float64[np.ndarray, "3"]
    confidence: Float32[np.ndarray, "n"] | None = None


def keyframes_from_cloud(first_id: int, cloud: PointCloud) -> list[Keyframe]:
    """Up to six keyframes, ids from `first_id` on, that look from the sensor along ±x, ±y and ±z.

    Fused, they do what casting a ray from the sensor to every point does: what lies between is
    seen through, what lies at the point is surface. Pixels are as large as the points are dense;
    of several points in a pixel the nearest counts, and single empty pixels within a surface are
    filled. Points that are not finite or at the sensor are left out.
    """
    away = cloud.points.astype(np.float64) - cloud.sensor_in_world
    usable = np.isfinite(away).all(axis=1) & (np.abs(away).max(axis=1, initial=0.0) > 0)
    rows = np.nonzero(usable)[0]
    if not len(rows):
        return []
    side = _face_side(away[rows])
    faces = _cube_face(away[rows])
    made = []
    for face, rotation in enumerate(_cube_rotations()):
        chosen = rows[faces == face]
        if len(chosen):
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation, cloud.sensor_in_world
            made.append(_cube_keyframe(first_id + face, cloud, chosen, pose, side))
    return made


def _robust_line(
    x: Float64[np.ndarray, "n"], y: Float64[np.ndarray, "n"]
) -> tuple[tuple[float, float], Float64[np.ndarray, "n"]]:
    """Slope and offset of y over x, refitted without the worst tenth; and by how much y misses."""
    kept = np.ones(len(x), bool)
    for _ in range(3):
        slope, offset = np.polyfit(x[kept], y[kept], 1)
        miss = np.abs(slope * x + offset - y)
        kept = miss <= max(float(np.percentile(miss, 90.0)), 1e-9)
    return (float(slope), float(offset)), miss


def _check_alignment(keyframe: Keyframe) -> None:
    """Raise `NotAligned` where a pixel has not one point, one confidence and one colour."""
    size = keyframe.pointmap.shape[:2]
    wanted = {"pointmap": (*size, 3), "confidence": size, "rgb": (*size, 3)}
    for name, shape in wanted.items():
        given = getattr(keyframe, name).shape
        if given != shape:
            raise NotAligned(
                f"keyframe {keyframe.id}: {name} is {given}, where its points ask for {shape}; "
                "resize the picture to the depth's size, with three channels"
            )


def _residual_px(pointmap: Float32[np.ndarray, "h w 3"], camera: Camera) -> float:
    """90th percentile of how far points miss their pixels; 0 when none is known."""
    x, y, z = np.moveaxis(pointmap[::FIT_STRIDE_PX, ::FIT_STRIDE_PX].astype(np.float64), -1, 0)
    u = np.arange(0, pointmap.shape[1], FIT_STRIDE_PX)
    v = np.arange(0, pointmap.shape[0], FIT_STRIDE_PX)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        miss = (camera.fx * x / z + camera.cx - u) ** 2 + (camera.fy * y / z + camera.cy - v) ** 2
    known = miss[np.isfinite(miss)]
    if not len(known):
        return 0.0
    rank = round(0.9 * (len(known) - 1))
    return math.sqrt(np.partition(known, rank)[rank])


def _drawn_anew(keyframe: Keyframe) -> Keyframe:
    """The keyframe's points in the pixels where its camera sees them."""
    camera, flat = keyframe.camera, keyframe.pointmap.reshape(-1, 3)
    u, v, rows = _pixels(flat.astype(np.float64), camera)
    pixel = _nearest_per_pixel(v * camera.width + u, flat[rows, 2])
    depth = np.full(camera.height * camera.width, np.nan, np.float32)
    confidence = np.zeros(camera.height * camera.width, np.float32)
    rgb = np.zeros((camera.height * camera.width, 3), np.uint8)
    at, chosen = (v * camera.width + u)[pixel], rows[pixel]
    depth[at] = flat[chosen, 2]
    confidence[at] = keyframe.confidence.reshape(-1)[chosen]
    rgb[at] = keyframe.rgb.reshape(-1, 3)[chosen]
    shape = (camera.height, camera.width)
    return replace(
        keyframe,
        pointmap=pointmap_from_depth(depth.reshape(shape), camera),
        confidence=confidence.reshape(shape),
        rgb=rgb.reshape(*shape, 3),
    )


def _pixels(
    points: Float64[np.ndarray, "n 3"], camera: Camera
) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
    """Column, row and number of the points that a camera sees."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        u = np.rint(camera.fx * points[:, 0] / points[:, 2] + camera.cx)
        v = np.rint(camera.fy * points[:, 1] / points[:, 2] + camera.cy)
        inside = (points[:, 2] > 0) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    rows = np.nonzero(inside)[0]
    return u[rows].astype(np.int64), v[rows].astype(np.int64), rows


def _nearest_per_pixel(
    pixel: Int[np.ndarray, "n"], depth: Float32[np.ndarray, "n"]
) -> Int[np.ndarray, "k"]:
    order = np.lexsort((depth, pixel))
    _, first = np.unique(pixel[order], return_index=True)
    return np.asarray(order[first])


def _cube_rotations() -> Iterator[Float64[np.ndarray, "3 3"]]:
    """World-from-camera rotations that look along +x, -x, +y, -y, +z, -z."""
    for axis in range(3):
        for sign in (1.0, -1.0):
            forward = np.zeros(3)
            forward[axis] = sign
            right = np.zeros(3)
            right[(axis + 1) % 3] = 1.0
            yield np.stack([right, np.cross(forward, right), forward], axis=1)


def _cube_face(away: Float64[np.ndarray, "n 3"]) -> Int[np.ndarray, "n"]:
    axis = np.abs(away).argmax(axis=1)
    return np.asarray(2 * axis + (away[np.arange(len(away)), axis] < 0))


def _face_side(away: Float64[np.ndarray, "n 3"]) -> int:
    """Pixels along a face's side: about `POINTS_PER_PIXEL` points fall into a pixel that any
    falls into."""
    direction = away / np.abs(away).max(axis=1, keepdims=True)
    side = SMALLEST_FACE_PX
    while side < LARGEST_FACE_PX:
        cells = np.floor((direction + 1.0) * side).astype(np.int64)
        keys = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
        if len(away) < POINTS_PER_PIXEL * len(np.unique(keys)):
            break
        side *= 2
    return side


def _cube_keyframe(
    id: int,
    cloud: PointCloud,
    chosen: Int[np.ndarray, "k"],
    world_from_cam: Float64[np.ndarray, "4 4"],
    side: int,
) -> Keyframe:
    camera = Camera.from_horizontal_fov(side, side, np.pi / 2)
    in_cam = (cloud.points[chosen] - world_from_cam[:3, 3]) @ world_from_cam[:3, :3]
    u, v, rows = _pixels(in_cam, camera)
    pixel = v * side + u
    nearest = _nearest_per_pixel(pixel, in_cam[rows, 2].astype(np.float32))
    at, points = pixel[nearest], chosen[rows[nearest]]
    depth = np.full(side * side, np.nan, np.float32)
    confidence = np.zeros(side * side, np.float32)
    rgb = np.zeros((side * side, 3), np.uint8)
    depth[at] = in_cam[rows[nearest], 2]
    confidence[at] = 1.0 if cloud.confidence is None else cloud.confidence[points]
    rgb[at] = cloud.rgb[points]
    planes = (depth.reshape(side, side), confidence.reshape(side, side), rgb.reshape(side, side, 3))
    depth, confidence, rgb = _filled(*planes)
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=0,
        world_from_cam=world_from_cam,
        camera=camera,
        pointmap=pointmap_from_depth(depth, camera),
        confidence=confidence,
        rgb=rgb,
    )


def _filled(
    depth: Float32[np.ndarray, "h w"],
    confidence: Float32[np.ndarray, "h w"],
    rgb: UInt8[np.ndarray, "h w 3"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], UInt8[np.ndarray, "h w 3"]]:
    """Give an empty pixel between two opposite neighbours of nearly the same depth their mean."""
    depth, confidence, rgb = depth.copy(), confidence.copy(), rgb.copy()
    empty = np.isnan(depth)
    for a, b in (((0, 2), (1, 1)), ((1, 1), (0, 2))):
        inner = (slice(1, -1), slice(1, -1))
        low = (slice(a[0], depth.shape[0] - 2 + a[0]), slice(b[0], depth.shape[1] - 2 + b[0]))
        high = (slice(a[1], depth.shape[0] - 2 + a[1]), slice(b[1], depth.shape[1] - 2 + b[1]))
        near: Bool[np.ndarray, "h w"] = np.abs(depth[low] - depth[high]) < FILL_RATIO * depth[low]
        fill = empty[inner] & np.isnan(depth[inner]) & near
        mean = 0.5 * (depth[low] + depth[high])
        depth[inner] = np.where(fill, mean, depth[inner])
        weakest = np.minimum(confidence[low], confidence[high])
        confidence[inner] = np.where(fill, weakest, confidence[inner])
        rgb[inner] = np.where(fill[..., None], rgb[low], rgb[inner])
    return depth, confidence, rgb
