# SPDX-License-Identifier: Apache-2.0
"""A run as its folder holds it: keyframes with all corrections, the path, tracks, mesh, videos."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from rosbags.highlevel import AnyReader

from worldsystem_core.geometry.rotation import matrix_from_quaternion_xyzw
from worldsystem_core.geometry.se3 import pose_from
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.trajectory import StampedPoses, read_tum
from worldsystem_storage.errors import StorageError
from worldsystem_storage.foreign_damage import BAG_DAMAGE

log = logging.getLogger(__name__)

KEYFRAME_TYPE = "worldsystem_msgs/msg/Keyframe"
TRACKS_TYPE = "worldsystem_msgs/msg/TrackArray"
PATH_TYPE = "nav_msgs/msg/Path"
_PATH_TOPIC = "/slam/path"  # in any namespace; a planner's paths have the same type
_NEW, _UPDATE = 0, 1
_FURTHER_BAG = re.compile(r"bag_(\d+)")
_NUMBER = re.compile(r"(\d+)")
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")])


@dataclass(frozen=True, eq=False)
class RecordedKeyframe:
    """A keyframe at its last pose; `pointmap` in its camera's frame, NaN where unknown.

    `point_scale` is the factor on the points as they were first told, which is in them.
    """

    id: int
    stamp_ns: int
    world_from_cam: Float64[np.ndarray, "4 4"]
    K: Float64[np.ndarray, "3 3"]
    pointmap: Float32[np.ndarray, "h w 3"]
    confidence: Float32[np.ndarray, "h w"]
    rgb: UInt8[np.ndarray, "h w 3"]
    point_scale: float = 1.0

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])


@dataclass(frozen=True)
class RecordedTrack:
    """One object in one keyframe: its box [px] and its mask as COCO run lengths."""

    id: int
    label: str
    score: float
    box: tuple[int, int, int, int]
    area: int
    mask_rle: tuple[int, ...]


@dataclass(frozen=True)
class RecordedTracks:
    """The objects of one keyframe; boxes and masks refer to a picture of this size."""

    keyframe_id: int
    width: int
    height: int
    tracks: tuple[RecordedTrack, ...]


@dataclass(eq=False)
class Recording:
    """What a run's bags hold; `metric` says whether one unit is a metre."""

    keyframes: list[RecordedKeyframe] = field(default_factory=list)
    path: StampedPoses | None = None
    tracks: list[RecordedTracks] = field(default_factory=list)
    metric: bool = False


class RecordedRun:
    """Everything that the exporters take from a run's folder (`runs/<time>`), or from a bag alone.

    Each part is read when it is first asked for, so that surface, path and videos of a run that was
    not recorded are there, too. Raises `StorageError` when there is nothing at `folder`, and where
    what needs the bags is asked for and there are none.
    """

    def __init__(self, folder: Path, recording: Recording | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.exists():
            raise StorageError(f"{folder} is not there; give a run's folder such as runs/<time>")
        self._recording = recording

    @property
    def keyframes(self) -> list[RecordedKeyframe]:
        """The keyframes that are left at the end, by their stamps."""
        return self._recorded.keyframes

    @property
    def tracks(self) -> list[RecordedTracks]:
        """The objects of each keyframe."""
        return self._recorded.tracks

    @property
    def metric(self) -> bool:
        """Whether one unit is a metre."""
        return self._recorded.metric

    @cached_property
    def path(self) -> StampedPoses | None:
        """The path that the run left as a file, else the newest one in its bags."""
        left = self.folder / "trajectory.tum"
        if not left.is_file() or not left.stat().st_size:
            return self._recorded.path
        try:
            return read_tum(left)
        except ValueError as error:  # of a disk that was full
            log.warning("%s is left out for the path in the bag: %s", left, error)
            return self._recorded.path

    @property
    def _recorded(self) -> Recording:
        if self._recording is None:
            self._recording = _read_bags(self.folder)
        return self._recording

    @property
    def mesh_file(self) -> Path:
        """The mesh that the run left; raises `StorageError` when it left none."""
        return self._file("mesh.ply", "the run ended before a surface was there")

    @property
    def mesh_scale(self) -> ScaleState:
        """The unit of `mesh_file`: as the run's summary says, else its bags; metric where neither
        can be read."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            told = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))["scale"]
            return ScaleState[told.upper()]
        with suppress(StorageError):
            return ScaleState.METRIC if self.metric else ScaleState.SCENE
        return ScaleState.METRIC

    @property
    def video_folder(self) -> Path:
        """Holds a folder for each session, and for each further stream one of its sessions."""
        return self.folder / "video"

    @property
    def videos(self) -> list[Path]:
        """The video files, in order; raises `StorageError` when none was recorded."""
        found = sorted(self.video_folder.glob("**/video*.mp4"), key=_by_numbers)
        if not found:
            raise StorageError(
                f"{self.folder} holds no video; run without --no-record, and with "
                "recorder.video_files on"
            )
        return found

    def _file(self, name: str, why: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise StorageError(f"{path} is missing: {why}")
        return path


def _read_bags(folder: Path) -> Recording:
    """Read the bags of a run, or one alone; raises `StorageError`.

    Where the recorder was begun anew, its further bags (`bag_2`, …) are read too. A bag that a
    crash cut off, or that is damaged, must be repaired first (`worldsystem bag recover`).
    """
    collector = _Collector()
    for bag in _bags_of(folder):
        try:
            with AnyReader([bag]) as reader:
                collector.take_all(reader)
        except (OSError, *BAG_DAMAGE) as error:
            raise StorageError(
                f"{bag} cannot be read as a bag ({error}); give a run's folder such as runs/<time>,"
                " and repair one that is cut off or damaged with `worldsystem bag recover` first"
            ) from error
    return collector.recording()


def _by_numbers(path: Path) -> list[list[str | int]]:
    """Sorts as people count: `video_10` after `video_2`."""
    words = (_NUMBER.split(part) for part in path.parts)
    return [[int(word) if at % 2 else word for at, word in enumerate(each)] for each in words]


def _bags_of(folder: Path) -> list[Path]:
    """The bags of a run in the order of recording, `bag_10` after `bag_9`; else `folder` itself."""
    first = [folder / "bag"] if (folder / "bag").exists() else []
    further = [
        (int(name[1]), path)
        for path in folder.glob("bag_*")
        if (name := _FURTHER_BAG.fullmatch(path.name)) and any(path.glob("*.mcap"))
    ]
    found = [*first, *(path for _, path in sorted(further))]
    if not found and not _is_bag(folder):
        raise StorageError(f"{folder} holds no recording; run without --no-record to have one")
    return found or [folder]


def _is_bag(path: Path) -> bool:
    """Whether it is a file, or the folder of a bag."""
    return not path.is_dir() or any(path.glob("*.mcap")) or (path / "metadata.yaml").is_file()


class _Collector:
    """Takes the messages of bags in their order; later poses replace earlier ones."""

    def __init__(self) -> None:
        self._found = Recording()
        self._keyframes: dict[int, RecordedKeyframe] = {}
        self._frames: dict[int, int] = {}  # of each keyframe, as it was told last
        self._tracks: dict[int, tuple[int, RecordedTracks]] = {}  # of which frame, by keyframe
        self._newest_path: Any = None  # a nav_msgs/Path as rosbags reads it

    def take_all(self, reader: AnyReader) -> None:
        for kind, message in _messages(reader, (KEYFRAME_TYPE, TRACKS_TYPE, PATH_TYPE)):
            if kind == KEYFRAME_TYPE:
                self._keyframe(message)
            elif kind == TRACKS_TYPE:
                self._tracks[int(message.keyframe_id)] = int(message.frame_id), _tracks(message)
            else:
                self._newest_path = message

    def recording(self) -> Recording:
        """What all of them hold together.

        A stage begun anew may tell tracks once more, and give a keyframe's number to another frame.
        """
        self._found.keyframes = sorted(self._keyframes.values(), key=lambda k: k.stamp_ns)
        self._found.tracks = [
            tracks
            for number, (frame, tracks) in self._tracks.items()
            if self._frames.get(number, frame) == frame
        ]
        if self._newest_path is not None:
            self._found.path = _path(self._newest_path)
        return self._found

    def _keyframe(self, message: Any) -> None:  # a worldsystem_msgs/Keyframe as rosbags reads it
        if message.event == _NEW:
            self._keyframes[message.id] = _keyframe(message)
            self._frames[int(message.id)] = int(message.frame_id)
            self._found.metric = bool(message.scale_state)
        elif message.event == _UPDATE and message.id in self._keyframes:
            self._keyframes[message.id] = _moved(self._keyframes[message.id], message)
            self._found.metric |= bool(message.scale_state)
        elif message.event != _UPDATE:
            self._keyframes.pop(message.id, None)


def _messages(reader: AnyReader, kinds: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    wanted = [
        c
        for c in reader.connections
        if c.msgtype in kinds and (c.msgtype != PATH_TYPE or c.topic.endswith(_PATH_TOPIC))
    ]
    if wanted:
        for connection, _, raw in reader.messages(wanted):
            yield connection.msgtype, reader.deserialize(raw, connection.msgtype)


def _keyframe(message: Any) -> RecordedKeyframe:  # a worldsystem_msgs/Keyframe
    height, width = int(message.height), int(message.width)
    points = np.frombuffer(bytes(message.points.data), _POINT).reshape(height, width)
    packed = points["rgb"]
    rgb = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)
    return RecordedKeyframe(
        id=int(message.id),
        stamp_ns=_nanoseconds(message.header.stamp),
        world_from_cam=_pose(message.pose),
        K=np.asarray(message.k, dtype=np.float64).reshape(3, 3),
        pointmap=np.stack([points["x"], points["y"], points["z"]], axis=-1),
        confidence=np.ascontiguousarray(points["confidence"]),
        rgb=rgb,
    )


def _moved(known: RecordedKeyframe, message: Any) -> RecordedKeyframe:
    """The keyframe after an UPDATE: elsewhere, and in another unit when its points grew."""
    # recordings from before the field was there have none; 0 says that it is as before
    scale = float(getattr(message, "point_scale", 0.0)) or known.point_scale
    grown = np.float32(scale / known.point_scale)
    return replace(
        known,
        world_from_cam=_pose(message.pose),
        pointmap=known.pointmap if grown == 1.0 else known.pointmap * grown,
        point_scale=scale,
    )


def _tracks(message: Any) -> RecordedTracks:  # a worldsystem_msgs/TrackArray
    return RecordedTracks(
        int(message.keyframe_id),
        int(message.width),
        int(message.height),
        tuple(
            RecordedTrack(
                int(track.id),
                str(track.label),
                float(track.score),
                (int(track.box[0]), int(track.box[1]), int(track.box[2]), int(track.box[3])),
                int(track.area),
                tuple(int(n) for n in track.mask_rle),
            )
            for track in message.tracks
        ),
    )


def _path(message: Any) -> StampedPoses:  # a nav_msgs/Path
    stamps = [_nanoseconds(pose.header.stamp) for pose in message.poses]
    poses = [_pose(pose.pose) for pose in message.poses]
    return StampedPoses(
        np.array(stamps, dtype=np.int64), np.array(poses, dtype=np.float64).reshape(-1, 4, 4)
    )


def _pose(message: Any) -> Float64[np.ndarray, "4 4"]:  # a geometry_msgs/Pose
    at, turn = message.position, message.orientation
    rotation = matrix_from_quaternion_xyzw(np.array([turn.x, turn.y, turn.z, turn.w]))
    return pose_from(rotation, np.array([at.x, at.y, at.z]))


def _nanoseconds(stamp: Any) -> int:  # a builtin_interfaces/Time
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
