# SPDX-License-Identifier: Apache-2.0
"""Keyframes as a posed picture set: COLMAP models and nerfstudio's `transforms.json`."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float64

from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.geometry.se3 import inverse
from worldsystem_storage.errors import StorageError
from worldsystem_storage.export.clouds import Cloud, export_points, merged_cloud
from worldsystem_storage.export.recorded import RecordedKeyframe, RecordedRun

_PINHOLE = 1
_COLMAP_POINTS = 100_000
_MODEL_PARTS = ("cameras", "images", "points3D", "rigs", "frames")
_MODEL_FILES = tuple(part + ending for part in _MODEL_PARTS for ending in (".bin", ".txt"))
_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_USUAL_DEPTH_UNIT = 0.001  # nerfstudio's own, unless it is told another one
_MOST_DEPTH_STEPS = 65535
_FEWEST_DEPTH_STEPS = 100


def export_colmap(run: RecordedRun, out: Path, *, binary: bool = True) -> Path:
    """`images/` and `sparse/0/` with cameras, images and points3D, binary or as text.

    One PINHOLE camera for each keyframe, whose centre of the top left pixel is (0.5, 0.5) there;
    points have no tracks. A world unit stays a world unit.
    """
    _write_pictures(run, out)
    cloud = merged_cloud(run.keyframes, most=_COLMAP_POINTS, cells=256)
    model = out / "sparse" / "0"
    model.mkdir(parents=True, exist_ok=True)
    for earlier in _MODEL_FILES:  # readers take the binary ones first, whichever are newer
        (model / earlier).unlink(missing_ok=True)
    if binary:
        _write_colmap_binary(model, run.keyframes, cloud)
    else:
        _write_colmap_text(model, run.keyframes, cloud)
    return model


def export_colmap_text(run: RecordedRun, out: Path) -> Path:
    """The same model as text files."""
    return export_colmap(run, out, binary=False)


def export_nerfstudio(run: RecordedRun, out: Path) -> Path:
    """`transforms.json` (OpenGL cameras), `images/`, 16-bit `depths/` and `points.ply`.

    Depths are steps of `depth_unit_scale_factor` world units, 0 where unknown or beyond 16 bits.
    """
    _write_pictures(run, out)
    (out / "depths").mkdir(exist_ok=True)
    unit = _depth_unit(run.keyframes)
    for keyframe in run.keyframes:
        steps = np.round(keyframe.pointmap[..., 2] / np.float64(unit))
        known = (steps >= 0) & (steps <= _MOST_DEPTH_STEPS)  # and not NaN
        depth = np.where(known, steps, 0).astype(np.uint16)
        _save_picture(out / "depths" / _picture_name(keyframe), depth)
    export_points(run, out / "points.ply")
    document = {
        "camera_model": "OPENCV",
        "ply_file_path": "points.ply",
        "depth_unit_scale_factor": unit,
        "frames": [_nerfstudio_frame(keyframe) for keyframe in run.keyframes],
    }
    path = out / "transforms.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _depth_unit(keyframes: list[RecordedKeyframe]) -> float:
    """World units of a step of depth: the usual ones where they do, else such that all depths fit.

    At most a thousandth of the usual depth, so that a few points at the horizon, or of nothing, do
    not make all others coarse; these are unknown then.
    """
    depths = [keyframe.pointmap[..., 2] for keyframe in keyframes]
    known = [depth[np.isfinite(depth) & (depth > 0)] for depth in depths]
    known = [depth for depth in known if depth.size]
    if not known:
        return _USUAL_DEPTH_UNIT
    largest = max(float(depth.max()) for depth in known)
    typical = float(np.median([np.median(depth) for depth in known]))
    fits = largest <= _MOST_DEPTH_STEPS * _USUAL_DEPTH_UNIT
    if fits and typical >= _FEWEST_DEPTH_STEPS * _USUAL_DEPTH_UNIT:
        return _USUAL_DEPTH_UNIT
    return min(largest / _MOST_DEPTH_STEPS, typical / 1000)


def _nerfstudio_frame(keyframe: RecordedKeyframe) -> dict[str, object]:
    fx, fy, cx, cy = _colmap_intrinsics(keyframe)
    return {
        "file_path": f"images/{_picture_name(keyframe)}",
        "depth_file_path": f"depths/{_picture_name(keyframe)}",
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        "w": keyframe.width,
        "h": keyframe.height,
        "transform_matrix": (keyframe.world_from_cam @ _OPENGL_FROM_OPENCV).tolist(),
    }


def _write_pictures(run: RecordedRun, out: Path) -> None:
    if not run.keyframes:
        raise StorageError(f"{run.folder} holds no keyframes: nothing was reconstructed")
    (out / "images").mkdir(parents=True, exist_ok=True)
    for keyframe in run.keyframes:
        bgr = cv2.cvtColor(keyframe.rgb, cv2.COLOR_RGB2BGR)
        _save_picture(out / "images" / _picture_name(keyframe), bgr)


def _save_picture(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels):
        raise StorageError(f"{path} cannot be written; is the disk full?")


def _picture_name(keyframe: RecordedKeyframe) -> str:
    return f"keyframe_{keyframe.id:06d}.png"


def _colmap_intrinsics(keyframe: RecordedKeyframe) -> tuple[float, float, float, float]:
    """fx fy cx cy where pixel centres lie at halves, as COLMAP and nerfstudio have them."""
    K = keyframe.K
    return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]) + 0.5, float(K[1, 2]) + 0.5


def _cam_from_world(
    keyframe: RecordedKeyframe,
) -> tuple[Float64[np.ndarray, "4"], Float[np.ndarray, "3"]]:
    """Quaternion w x y z and translation, as COLMAP stores an image's pose."""
    cam_from_world = inverse(keyframe.world_from_cam)
    x, y, z, w = quaternion_xyzw_from_matrix(cam_from_world[:3, :3])
    return np.array([w, x, y, z]), cam_from_world[:3, 3]


def _write_colmap_text(model: Path, keyframes: list[RecordedKeyframe], cloud: Cloud) -> None:
    cameras, images = [], []
    for number, keyframe in enumerate(keyframes, 1):
        values = " ".join(f"{v:.9g}" for v in _colmap_intrinsics(keyframe))
        cameras.append(f"{number} PINHOLE {keyframe.width} {keyframe.height} {values}")
        turn, shift = _cam_from_world(keyframe)
        pose = " ".join(f"{v:.12g}" for v in (*turn, *shift))
        images += [f"{number} {pose} {number} {_picture_name(keyframe)}", ""]
    (model / "cameras.txt").write_text("\n".join(cameras) + "\n")
    (model / "images.txt").write_text("\n".join(images) + "\n")
    with (model / "points3D.txt").open("w") as file:
        for number, (point, colour) in enumerate(zip(cloud.points, cloud.colours, strict=True), 1):
            xyz, rgb = " ".join(f"{v:.7g}" for v in point), " ".join(str(v) for v in colour)
            file.write(f"{number} {xyz} {rgb} 0\n")


def _write_colmap_binary(model: Path, keyframes: list[RecordedKeyframe], cloud: Cloud) -> None:
    (model / "cameras.bin").write_bytes(b"".join(_camera_records(keyframes)))
    (model / "images.bin").write_bytes(b"".join(_image_records(keyframes)))
    rows = np.zeros(
        len(cloud),
        np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("e", "<f8"), ("n", "<u8")]),
    )
    rows["id"], rows["xyz"], rows["rgb"] = np.arange(1, len(cloud) + 1), cloud.points, cloud.colours
    (model / "points3D.bin").write_bytes(struct.pack("<Q", len(cloud)) + rows.tobytes())


def _camera_records(keyframes: list[RecordedKeyframe]) -> Iterator[bytes]:
    yield struct.pack("<Q", len(keyframes))
    for number, keyframe in enumerate(keyframes, 1):
        yield struct.pack("<iiQQ", number, _PINHOLE, keyframe.width, keyframe.height)
        yield struct.pack("<4d", *_colmap_intrinsics(keyframe))


def _image_records(keyframes: list[RecordedKeyframe]) -> Iterator[bytes]:
    yield struct.pack("<Q", len(keyframes))
    for number, keyframe in enumerate(keyframes, 1):
        turn, shift = _cam_from_world(keyframe)
        yield struct.pack("<i7di", number, *turn, *shift, number)
        yield _picture_name(keyframe).encode() + b"\0" + struct.pack("<Q", 0)
