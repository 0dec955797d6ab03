# SPDX-License-Identifier: Apache-2.0
"""The layouts of TUM RGB-D, 7-Scenes, EuRoC and KITTI odometry, by what their authors publish."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float

from worldsystem_core.distortion import plumb_bob
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.rotation import matrix_from_quaternion_xyzw
from worldsystem_core.geometry.se3 import pose_from
from worldsystem_core.telemetry import ImuSample
from worldsystem_core.trajectory import StampedPoses, read_tum
from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.dataset import (
    Dataset,
    DatasetPicture,
    Layout,
    nanoseconds,
    numbers,
    stamps_and_words,
)

_SECOND_NS = 10**9
_TUM_CAMERAS = {  # the sequences' own calibrations, 640 x 480
    "freiburg1": (517.3, 516.5, 318.6, 255.3, (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": (535.4, 539.2, 320.1, 247.6, ()),
}
_TUM_DEPTH_UNIT_M = 1 / 5000
_TUM_LONGEST_GAP_NS = 20_000_000
_SEVEN_SCENES_CAMERA = Camera(width=640, height=480, fx=585.0, fy=585.0, cx=320.0, cy=240.0)
_SEVEN_SCENES_FPS = 30
_EUROC_DISTORTION = "radial-tangential"  # ROS calls it plumb_bob
_KITTI_IMAGES = ("image_2", "image_0")


def read_tum_rgbd(folder: Path) -> Dataset:
    """`rgb.txt`, and where they are `depth.txt` and `groundtruth.txt`; the camera by the name."""
    depths = stamps_and_words(folder / "depth.txt") if (folder / "depth.txt").is_file() else []
    depth_stamps = [stamp for stamp, _ in depths]
    pictures = []
    for stamp_ns, words in stamps_and_words(folder / "rgb.txt"):
        at = _nearest(depth_stamps, stamp_ns, _TUM_LONGEST_GAP_NS)
        depth = None if at is None else folder / depths[at][1][0]
        pictures.append(DatasetPicture(stamp_ns, folder / words[0], depth))
    truth = folder / "groundtruth.txt"
    return Dataset(
        folder.name,
        pictures,
        camera=_tum_camera(folder.name),
        truth=read_tum(truth) if truth.is_file() else None,
        depth_unit_m=_TUM_DEPTH_UNIT_M,
    )


def read_seven_scenes(folder: Path) -> Dataset:
    """`frame-000000.color.png` with `.depth.png` and `.pose.txt`, 30 a second."""
    pictures, poses, stamps = [], [], []
    for color in sorted(folder.glob("frame-*.color.png")):
        base = color.name.removesuffix(".color.png")
        stamp_ns = round(int(base.removeprefix("frame-")) * _SECOND_NS / _SEVEN_SCENES_FPS)
        depth = folder / f"{base}.depth.png"
        pictures.append(DatasetPicture(stamp_ns, color, depth if depth.is_file() else None))
        pose = folder / f"{base}.pose.txt"
        if pose.is_file():
            stamps.append(stamp_ns)
            poses.append(numbers(pose, 4)[:4, :4])
    truth = StampedPoses(np.array(stamps, dtype=np.int64), np.array(poses)) if poses else None
    return Dataset(folder.name, pictures, camera=_SEVEN_SCENES_CAMERA, truth=truth)


def read_euroc(folder: Path) -> Dataset:
    """`mav0/cam0`, `imu0` and `state_groundtruth_estimate0`; IMU axes are made x forward, z up."""
    root = folder / "mav0" if (folder / "mav0").is_dir() else folder
    pictures = [
        DatasetPicture(stamp_ns, root / "cam0" / "data" / words[0])
        for stamp_ns, words in _euroc_rows(root / "cam0" / "data.csv")
    ]
    sensor = _yaml(root / "cam0" / "sensor.yaml")
    fx, fy, cx, cy = (float(v) for v in sensor["intrinsics"])
    width, height = (int(v) for v in sensor["resolution"])
    model = str(sensor.get("distortion_model", _EUROC_DISTORTION))
    told = "" if model == _EUROC_DISTORTION else model
    distortion = plumb_bob(told, sensor["distortion_coefficients"])
    body_from_cam = np.array(sensor["T_BS"]["data"], dtype=np.float64).reshape(4, 4)
    return Dataset(
        folder.name,
        pictures,
        Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, distortion=distortion),
        _euroc_truth(root / "state_groundtruth_estimate0" / "data.csv", body_from_cam),
        _euroc_imu(root / "imu0" / "data.csv"),
    )


def read_kitti(folder: Path) -> Dataset:
    """A sequence of the odometry set: `image_2` (or `image_0`), `times.txt`, `calib.txt`, poses.

    The published poses are those of camera 0; the truth here is that of the pictures' camera.
    """
    number = 2 if (folder / "image_2").is_dir() else 0
    files = sorted((folder / f"image_{number}").glob("*.png"))
    times = [nanoseconds(word, folder) for word in (folder / "times.txt").read_text().split()]
    if len(times) != len(files):
        raise StorageError(f"{folder}: {len(files)} pictures but {len(times)} times")
    if not files:
        return Dataset(folder.name, [])
    P = _kitti_projection(folder / "calib.txt", number)
    truth = folder.parent.parent / "poses" / f"{folder.name}.txt"
    return Dataset(
        folder.name,
        [DatasetPicture(t, path) for t, path in zip(times, files, strict=True)],
        camera=_kitti_camera(P, files[0]),
        truth=_kitti_truth(truth, times, P) if truth.is_file() else None,
    )


LAYOUTS = (
    Layout("tum", lambda f: (f / "rgb.txt").is_file(), read_tum_rgbd, "TUM RGB-D"),
    Layout("7scenes", lambda f: any(f.glob("frame-*.color.png")), read_seven_scenes, "7-Scenes"),
    Layout(
        "euroc",
        lambda f: any((r / "cam0" / "data.csv").is_file() for r in (f, f / "mav0")),
        read_euroc,
        "EuRoC MAV",
    ),
    Layout(
        "kitti",  # a `times.txt` alone may stamp any folder of pictures
        lambda f: (f / "times.txt").is_file() and any((f / i).is_dir() for i in _KITTI_IMAGES),
        read_kitti,
        "KITTI odometry",
    ),
)


def _nearest(stamps: Sequence[int], stamp_ns: int, reach_ns: int) -> int | None:
    at = bisect_left(stamps, stamp_ns)
    near = [i for i in (at - 1, at) if 0 <= i < len(stamps)]
    best = min(near, key=lambda i: abs(stamps[i] - stamp_ns), default=None)
    return best if best is not None and abs(stamps[best] - stamp_ns) <= reach_ns else None


def _tum_camera(name: str) -> Camera | None:
    found = re.search("freiburg[123]", name)
    if not found:
        return None
    fx, fy, cx, cy, distortion = _TUM_CAMERAS[found.group()]
    return Camera(width=640, height=480, fx=fx, fy=fy, cx=cx, cy=cy, distortion=distortion)


def _euroc_rows(path: Path) -> list[tuple[int, list[str]]]:
    """EuRoC counts nanoseconds, also from zero."""
    return stamps_and_words(path, delimiter=",", whole_ns=True)


def _euroc_truth(path: Path, body_from_cam: Float[np.ndarray, "4 4"]) -> StampedPoses | None:
    """Rows of time, position and quaternion w x y z of the body."""
    if not path.is_file():
        return None
    rows = _euroc_rows(path)
    poses = []
    for _, words in rows:
        x, y, z, qw, qx, qy, qz = (float(word) for word in words[:7])
        body = pose_from(
            matrix_from_quaternion_xyzw(np.array([qx, qy, qz, qw])), np.array([x, y, z])
        )
        poses.append(body @ body_from_cam)
    return StampedPoses(np.array([stamp for stamp, _ in rows], dtype=np.int64), np.array(poses))


def _euroc_imu(path: Path) -> list[ImuSample]:
    """Rows of time, angular velocity, acceleration; the sensor has x up, y right, z forward."""
    if not path.is_file():
        return []
    samples = []
    for stamp_ns, words in _euroc_rows(path):
        wx, wy, wz, ax, ay, az = (float(word) for word in words[:6])
        samples.append(
            ImuSample(stamp_ns=stamp_ns, acceleration=(az, -ay, ax), angular_velocity=(wz, -wy, wx))
        )
    return samples


def _kitti_projection(path: Path, number: int) -> Float[np.ndarray, "3 4"]:
    """From camera 0 to the pixels of camera `number`, both rectified: turned in the same way."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    rows = {name.strip(): words.split() for name, _, words in lines}
    try:
        return np.array(rows[f"P{number}"], dtype=np.float64).reshape(3, 4)
    except (KeyError, ValueError) as error:
        raise StorageError(f"{path} holds no projection P{number}: {error}") from error


def _kitti_camera(P: Float[np.ndarray, "3 4"], picture: Path) -> Camera:
    import cv2

    image = cv2.imread(str(picture))
    if image is None:
        raise StorageError(f"{picture} is no picture")
    return Camera.from_K(P[:, :3], image.shape[1], image.shape[0])


def _kitti_truth(path: Path, times_ns: list[int], P: Float[np.ndarray, "3 4"]) -> StampedPoses:
    """Poses of the camera that `P` projects into; P = K [1 t], and t leads there from camera 0.

    Of a sequence that was cut to its first pictures the file of poses may be whole.
    """
    cam0_from_cam = pose_from(np.eye(3), -np.linalg.solve(P[:, :3], P[:, 3]))
    rows = numbers(path, 12)[: len(times_ns), :12].reshape(-1, 3, 4)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows
    return StampedPoses(np.array(times_ns[: len(rows)], dtype=np.int64), poses @ cam0_from_cam)


def _yaml(path: Path) -> dict:  # type: ignore[type-arg]  # a YAML tree of mixed types
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path} holds no settings")
    return content
