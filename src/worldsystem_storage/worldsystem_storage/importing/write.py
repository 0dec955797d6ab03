# SPDX-License-Identifier: Apache-2.0
"""Into a bag of ours: pictures as the files they are, never coded anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from worldsystem_core.frames import EncodedFrame
from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.dataset import Dataset
from worldsystem_storage.mcap_contents import RawMessage
from worldsystem_storage.new_bag import write_new_bag
from worldsystem_storage.picture_format import JPEG_BEGIN, PNG_BEGIN, picture_format

PICTURES = "/camera/image/compressed"
VIDEO = "/camera/video"
VIDEO_TYPE = "foxglove_msgs/msg/CompressedVideo"
CAMERA_INFO = "/camera/camera_info"
DEPTH = "/camera/depth"
TRUTH = "/truth/pose"
IMU = "/imu/data"
_FRAME = "camera_optical_frame"
_VIDEO_DEFINITION = (
    "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
)


def write_dataset(dataset: Dataset, out: Path) -> dict[str, int]:
    """Write a data set to a new bag `out`; messages by topic.

    Depth is written as `16UC1` in millimetres, truth as poses of the camera in `map`. Raises
    `StorageError` when `out` exists or a picture cannot be read.
    """
    if not dataset.pictures:
        raise StorageError(f"{dataset.name} holds no pictures")
    messages = Messages(dataset)
    entries = [*messages.pictures(), *messages.truth(), *messages.imu()]
    ordered = sorted(entries, key=lambda entry: entry[0])
    return write_new_bag(out, (messages.entry(*each) for each in ordered))


class Messages:
    """Makes the messages of a data set with rosbags' types, so that no ROS is needed."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._store.register(get_types_from_msg(_VIDEO_DEFINITION, VIDEO_TYPE))
        self._topics = {
            name: topic_of_type(self._store, name, kind)
            for name, kind in (
                (PICTURES, "sensor_msgs/msg/CompressedImage"),
                (VIDEO, VIDEO_TYPE),
                (CAMERA_INFO, "sensor_msgs/msg/CameraInfo"),
                (DEPTH, "sensor_msgs/msg/Image"),
                (TRUTH, "geometry_msgs/msg/PoseStamped"),
                (IMU, "sensor_msgs/msg/Imu"),
            )
        }

    def pictures(self) -> Iterator[tuple[int, str, Any]]:
        """Each picture, its camera and its depth, not read yet."""
        for picture in self._dataset.pictures:
            yield picture.stamp_ns, PICTURES, picture.path
            if self._dataset.camera is not None:
                yield picture.stamp_ns, CAMERA_INFO, self._dataset.camera
            if picture.depth is not None:
                yield picture.stamp_ns, DEPTH, picture.depth

    def truth(self) -> Iterator[tuple[int, str, Any]]:
        """The true poses."""
        truth = self._dataset.truth
        if truth is not None:
            for stamp_ns, pose in zip(truth.stamps_ns, truth.world_from_cam, strict=True):
                yield int(stamp_ns), TRUTH, pose

    def imu(self) -> Iterator[tuple[int, str, Any]]:
        """The inertial samples."""
        for sample in self._dataset.imu:
            yield sample.stamp_ns, IMU, sample

    def entry(self, stamp_ns: int, topic: str, what: Any) -> RawMessage:
        """The message for what was listed."""
        makers: dict[str, Callable[[Any, Any], Any]] = {
            PICTURES: self._picture,
            VIDEO: self._video,
            CAMERA_INFO: self._camera_info,
            DEPTH: self._depth,
            TRUTH: self._pose,
            IMU: self._imu,
        }
        message = makers[topic](self._header(stamp_ns), what)
        kind = self._topics[topic].type_name
        cdr = bytes(self._store.serialize_cdr(message, kind))
        return RawMessage(self._topics[topic], cdr, stamp_ns, stamp_ns)

    def _make(self, kind: str, **values: Any) -> Any:
        return self._store.types[kind](**values)

    def _header(self, stamp_ns: int, frame: str = _FRAME) -> Any:
        time = self._make(
            "builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
        )
        return self._make("std_msgs/msg/Header", stamp=time, frame_id=frame)

    def _picture(self, header: Any, picture: Path | bytes) -> Any:
        """A picture file as it is; upright as PNG where its Exif turns it, and as PNG where readers
        of ROS would not know its kind."""
        if isinstance(picture, Path):
            picture = _file_content(picture)
        return self._make(
            "sensor_msgs/msg/CompressedImage",
            header=header,
            format=picture_format(picture),
            data=np.frombuffer(picture, np.uint8),
        )

    def _video(self, header: Any, unit: EncodedFrame) -> Any:
        return self._make(
            VIDEO_TYPE,
            timestamp=header.stamp,
            frame_id=header.frame_id,
            data=np.frombuffer(unit.data, np.uint8),
            format=unit.codec,
        )

    def _depth(self, header: Any, path: Path) -> Any:
        counts = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if counts is None or counts.ndim != 2:
            raise StorageError(f"{path} is no depth picture of one channel")
        known = (counts > 0) & (counts < 65535)
        millimetres = np.where(known, np.round(counts * (self._dataset.depth_unit_m * 1000)), 0)
        data = np.frombuffer(millimetres.astype("<u2").tobytes(), np.uint8)
        return self._make(
            "sensor_msgs/msg/Image",
            header=header,
            height=counts.shape[0],
            width=counts.shape[1],
            encoding="16UC1",
            is_bigendian=0,
            step=2 * counts.shape[1],
            data=data,
        )

    def _camera_info(self, header: Any, camera: Any) -> Any:
        none = self._make(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        )
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            header=header,
            height=camera.height,
            width=camera.width,
            distortion_model="plumb_bob",
            d=np.array(camera.distortion or (0.0,) * 5, dtype=np.float64),
            k=camera.K.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([camera.K, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=none,
        )

    def _pose(self, header: Any, world_from_cam: Any) -> Any:
        header.frame_id = "map"
        x, y, z, w = (float(v) for v in quaternion_xyzw_from_matrix(world_from_cam[:3, :3]))
        place = self._vector("geometry_msgs/msg/Point", world_from_cam[:3, 3])
        turn = self._make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
        pose = self._make("geometry_msgs/msg/Pose", position=place, orientation=turn)
        return self._make("geometry_msgs/msg/PoseStamped", header=header, pose=pose)

    def _imu(self, header: Any, sample: Any) -> Any:
        header.frame_id = "base_link"
        unknown = np.array([-1.0] + [0.0] * 8)
        return self._make(
            "sensor_msgs/msg/Imu",
            header=header,
            orientation=self._make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            orientation_covariance=unknown,
            angular_velocity=self._vector("geometry_msgs/msg/Vector3", sample.angular_velocity),
            angular_velocity_covariance=np.zeros(9),
            linear_acceleration=self._vector("geometry_msgs/msg/Vector3", sample.acceleration),
            linear_acceleration_covariance=np.zeros(9),
        )

    def _vector(self, kind: str, values: Any) -> Any:
        x, y, z = (float(v) for v in values)
        return self._make(kind, x=x, y=y, z=z)


def _file_content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if content.startswith((PNG_BEGIN, JPEG_BEGIN)) and not _is_to_be_turned(content):
        return content
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise StorageError(f"{path} is no picture that can be read")
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _is_to_be_turned(content: bytes) -> bool:
    """Whether its Exif asks to show it turned, which who plays a bag leaves alone."""
    if b"Exif" not in content and b"eXIf" not in content:
        return False
    coded, small = np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8
    try:
        shown = cv2.imdecode(coded, small)
        lies = cv2.imdecode(coded, small | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # it claims more than can be decoded
        return False
    return shown is not None and lies is not None and not np.array_equal(shown, lies)


def topic_of_type(store: Typestore, name: str, kind: str) -> Topic:
    """The topic of messages of a type that `store` knows."""
    definition, _ = store.generate_msgdef(kind, ros_version=2)
    return Topic(name, kind, definition, store.hash_rihs01(kind), "")
