# SPDX-License-Identifier: Apache-2.0
"""Poses, keyframes and their points, the cloud of all."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2
from worldsystem_msgs.msg import Keyframe as KeyframeMessage

from worldsystem_core.cloud import PointCloud
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    Successor,
    TrackingState,
)
from worldsystem_core.ros.adapters.messages import (
    CAMERA_FRAME,
    MessageAdapter,
    nanoseconds,
    pose_matrix,
    pose_message,
    scale_of,
    time_message,
    world_frame,
)
from worldsystem_core.ros.cdr import CdrWriter

KeyframeEvent = NewKeyframe | MovedKeyframes | RemovedKeyframes

_FLOAT32 = 7
_CLOUD_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
_POINT = np.dtype([*_CLOUD_POINT.descr, ("confidence", "<f4")])
_SUCCESSOR_BYTES = 8
_NO_CAMERA = np.eye(3)
_NO_POINTS = np.empty((0, 0), _POINT)


def _pose_stamped(item: Pose) -> list[PoseStamped]:
    if item.state is not TrackingState.TRACKED:
        return []
    message = PoseStamped(pose=pose_message(item.world_from_cam))
    message.header.stamp = time_message(item.stamp_ns)
    message.header.frame_id = world_frame(item.scale)
    return [message]


def _pose(message: PoseStamped) -> Pose:
    stamp_ns = nanoseconds(message.header.stamp)
    return Pose(
        frame_id=stamp_ns,
        stamp_ns=stamp_ns,
        world_from_cam=pose_matrix(message.pose),
        confidence=1.0,
        state=TrackingState.TRACKED,
        scale=scale_of(message.header.frame_id),
    )


POSE = MessageAdapter(PoseStamped, _pose_stamped, _pose)


class KeyframeAdapter:
    """Keyframe events ↔ `worldsystem_msgs/Keyframe`, one message a keyframe that changed."""

    ros_type = KeyframeMessage

    def dump(self, item: KeyframeEvent) -> list[bytes]:
        if isinstance(item, NewKeyframe):
            return [_new_keyframe_cdr(item.keyframe)]
        if isinstance(item, MovedKeyframes):
            return _moved_cdrs(item)
        return [_removed_cdr(item, keyframe_id) for keyframe_id in item.ids]

    def load(self, cdr: bytes) -> KeyframeEvent:
        message = _keyframe_message(cdr)
        if message.event == KeyframeMessage.REMOVE:
            return _removed(message)
        if message.event == KeyframeMessage.UPDATE:
            return _moved(message)
        return NewKeyframe(_keyframe(message))


def _keyframe_message(cdr: bytes) -> KeyframeMessage:
    """The message; one recorded before there were successors has none."""
    try:
        return deserialize_message(cdr, KeyframeMessage)
    except RuntimeError:
        return deserialize_message(cdr + bytes(_SUCCESSOR_BYTES), KeyframeMessage)


def _moved_cdrs(moved: MovedKeyframes) -> list[bytes]:
    """A message for each. They differ in number, pose and size alone, which go into copies of one:
    loop closures move hundreds of keyframes several times a second."""
    poses = moved.world_from_cam
    if not poses:
        return []
    world, update = moved.scale or moved.world, KeyframeMessage.UPDATE
    changed = moved.scale is not None
    one = _keyframe_cdr(0, 0, 0, update, np.eye(4), scale=world, root_changed=changed)
    size = len(one)
    copies = np.tile(np.frombuffer(one, np.uint8), (len(poses), 1))
    rows = copies.view(_moved_kind(size, world_frame(world)))[:, 0]
    placed = np.array(list(poses.values()), np.float64)
    rows["id"] = list(poses)
    rows["pose"][:, :3] = placed[:, :3, 3]
    rows["pose"][:, 3:] = quaternion_xyzw_from_matrix(placed[:, :3, :3])
    rows["point_scale"] = [moved.point_scale.get(key, 0.0) for key in poses]
    whole = copies.tobytes()
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def _moved_kind(size: int, frame: str) -> np.dtype:
    """Where those lie in a message of `size` bytes, four of which say how it is encoded."""
    id_at = 12 + len(frame.encode()) + 1
    id_at += -id_at % 4
    pose_at = id_at + 4 + -(id_at + 4) % 8 + 16  # behind `frame_id` and `event`
    return np.dtype(
        {
            "names": ["id", "pose", "point_scale"],
            "formats": ["<u4", ("<f8", (7,)), "<f8"],
            "offsets": [4 + id_at, 4 + pose_at, size - 16],
            "itemsize": size,
        }
    )


def _moved(message: KeyframeMessage) -> MovedKeyframes:
    factors = {message.id: message.point_scale} if message.point_scale else {}
    scale = ScaleState(message.scale_state) if message.root_changed else None
    world = ScaleState(message.scale_state)
    return MovedKeyframes({message.id: pose_matrix(message.pose)}, factors, scale, world)


def _removed_cdr(removed: RemovedKeyframes, id: int) -> bytes:
    kind, world = KeyframeMessage.REMOVE, removed.world
    successor = removed.successors.get(id)
    if successor is None:
        return _keyframe_cdr(0, id, 0, kind, np.eye(4), scale=world)
    pose, size, heir = successor.world_from_cam, successor.point_scale, successor.id
    return _keyframe_cdr(0, id, 0, kind, pose, scale=world, point_scale=size, successor=heir)


def _removed(message: KeyframeMessage) -> RemovedKeyframes:
    world = ScaleState(message.scale_state)
    if not message.has_successor:
        return RemovedKeyframes((message.id,), world=world)
    pose, size = pose_matrix(message.pose), message.point_scale
    successor = Successor(message.successor, pose, size)
    return RemovedKeyframes((message.id,), {message.id: successor}, world)


def _new_keyframe_cdr(keyframe: Keyframe) -> bytes:
    return _keyframe_cdr(
        keyframe.stamp_ns,
        keyframe.id,
        keyframe.frame_id,
        KeyframeMessage.NEW,
        keyframe.world_from_cam,
        K=keyframe.camera.K,
        points=packed_points(keyframe),
        scale=keyframe.scale,
    )


def _keyframe_cdr(  # the message has this many parts
    stamp_ns: int,
    id: int,
    frame_id: int,
    event: int,
    world_from_cam: np.ndarray,
    *,
    K: np.ndarray = _NO_CAMERA,
    points: np.ndarray = _NO_POINTS,
    scale: ScaleState = ScaleState.SCENE,
    point_scale: float = 0.0,
    root_changed: bool = False,
    successor: int | None = None,
) -> bytes:
    writer = CdrWriter()
    writer.header(stamp_ns, world_frame(scale))
    writer.number("I", id)
    writer.number("Q", frame_id)
    writer.number("B", event)
    rotation = quaternion_xyzw_from_matrix(world_from_cam[:3, :3])
    writer.doubles([*world_from_cam[:3, 3], *rotation])
    writer.number("I", points.shape[1])
    writer.number("I", points.shape[0])
    writer.doubles(K.ravel())
    write_cloud(writer, points, stamp_ns)
    writer.doubles(_bounds(points).ravel())
    writer.number("B", scale.value)
    writer.number("d", point_scale)
    writer.number("?", root_changed)
    writer.number("?", successor is not None)
    writer.number("I", successor or 0)
    return writer.finish()


def packed_points(keyframe: Keyframe) -> np.ndarray:
    """Organised (h, w) structured array x y z rgb confidence; rgb as 0x00RRGGBB as PCL has it."""
    points = np.empty(keyframe.confidence.shape, _POINT)
    for axis, name in enumerate("xyz"):
        points[name] = keyframe.pointmap[..., axis]
    points["rgb"] = _packed_rgb(keyframe.rgb)
    points["confidence"] = keyframe.confidence
    return points


def _packed_rgb(rgb: np.ndarray) -> np.ndarray:
    """Colours (…, 3) as 0x00RRGGBB in one number each."""
    wide = rgb.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _unpacked_rgb(packed: np.ndarray) -> np.ndarray:
    colours = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1)
    return colours.astype(np.uint8)


def write_cloud(
    writer: CdrWriter,
    points: np.ndarray,
    stamp_ns: int,
    *,
    frame: str = CAMERA_FRAME,
    dense: bool = False,
) -> None:
    """Append (h, w) structured `points` as a `sensor_msgs/PointCloud2`; every field is 4 bytes.

    `dense` says that every point is finite.
    """
    kind = points.dtype
    writer.header(stamp_ns, frame)
    writer.number("I", points.shape[0])
    writer.number("I", points.shape[1])
    writer.number("I", len(kind.names))
    for name in kind.names:
        writer.string(name)
        writer.number("I", kind.fields[name][1])
        writer.number("B", _FLOAT32)
        writer.number("I", 1)
    writer.number("?", False)
    writer.number("I", kind.itemsize)
    writer.number("I", kind.itemsize * points.shape[1])
    writer.octets(points)
    writer.number("?", dense)


def _bounds(points: np.ndarray) -> np.ndarray:
    known = points[np.isfinite(points["z"])]
    if not known.size:
        return np.zeros((2, 3))
    corners = [[f(known[axis]) for axis in "xyz"] for f in (np.min, np.max)]
    return np.array(corners, dtype=np.float64)


def _keyframe(message: KeyframeMessage) -> Keyframe:
    shape = (message.height, message.width)
    points = np.frombuffer(message.points.data, _POINT).reshape(shape)
    return Keyframe(
        id=message.id,
        frame_id=message.frame_id,
        stamp_ns=nanoseconds(message.header.stamp),
        world_from_cam=pose_matrix(message.pose),
        camera=Camera.from_K(np.array(message.k).reshape(3, 3), message.width, message.height),
        pointmap=np.stack([points[axis] for axis in "xyz"], axis=-1),
        confidence=points["confidence"].copy(),
        rgb=_unpacked_rgb(points["rgb"]),
        scale=ScaleState(message.scale_state),
    )


class PointsAdapter:
    """`Keyframe` → `sensor_msgs/PointCloud2` in the camera frame, for tools that know only that."""

    ros_type = PointCloud2

    def dump(self, item: Keyframe) -> list[bytes]:
        writer = CdrWriter()
        write_cloud(writer, packed_points(item), item.stamp_ns)
        return [writer.finish()]

    def load(self, cdr: bytes) -> Keyframe:
        raise TypeError("slam/points is for viewers; subscribe to slam/keyframe for keyframes")


class CloudAdapter:
    """`PointCloud` ↔ an unorganised `sensor_msgs/PointCloud2` in the world's frame."""

    ros_type = PointCloud2

    def dump(self, item: PointCloud) -> list[bytes]:
        packed = np.empty((1, len(item)), _CLOUD_POINT)
        for axis, name in enumerate("xyz"):
            packed[name] = item.points[:, axis]
        packed["rgb"] = _packed_rgb(item.rgb)
        writer = CdrWriter()
        write_cloud(writer, packed, item.stamp_ns, frame=world_frame(item.scale), dense=True)
        return [writer.finish()]

    def load(self, cdr: bytes) -> PointCloud:
        message = deserialize_message(cdr, PointCloud2)
        packed = np.frombuffer(message.data, _CLOUD_POINT)
        return PointCloud(
            stamp_ns=nanoseconds(message.header.stamp),
            points=np.stack([packed[axis] for axis in "xyz"], axis=-1),
            rgb=_unpacked_rgb(packed["rgb"]),
            scale=scale_of(message.header.frame_id),
        )
