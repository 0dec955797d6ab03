# SPDX-License-Identifier: Apache-2.0
"""Tracks, the label image, and the objects of the map."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Vector3
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from worldsystem_msgs.msg import MapObject as MapObjectMessage
from worldsystem_msgs.msg import MapObjectArray, TrackArray
from worldsystem_msgs.msg import Track as TrackMessage

from worldsystem_core.errors import ProtocolError
from worldsystem_core.objects import (
    Candidates,
    MapObject,
    MapObjects,
    Track,
    TrackFrame,
    TrackState,
)
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.ros.adapters.camera import image_cdr
from worldsystem_core.ros.adapters.messages import (
    CAMERA_FRAME,
    MessageAdapter,
    nanoseconds,
    pose_matrix,
    pose_message,
    time_message,
    world_frame,
)

_MOST_PIXELS = 1 << 25  # 8K; whoever writes to DDS could ask for all memory in a few bytes


def _track_array(item: TrackFrame) -> list[TrackArray]:
    message = TrackArray(frame_id=item.frame_id, keyframe_id=item.keyframe_id)
    message.header.stamp = time_message(item.stamp_ns)
    message.header.frame_id = CAMERA_FRAME
    message.height, message.width = item.labels.shape
    message.tracks = [_track_message(track, item.labels) for track in item.tracks]
    return [message]


def _track_message(track: Track, labels: np.ndarray) -> TrackMessage:
    return TrackMessage(
        id=track.id,
        label=track.label,
        score=track.score,
        box=np.array(track.box_px, dtype=np.int32),
        area=track.area_px,
        age=track.age_frames,
        state=track.state.value,
        mask_rle=run_lengths(labels == track.id) if track.area_px else [],
        candidate_labels=[label for label, _ in track.candidates],
        candidate_scores=[share for _, share in track.candidates],
    )


def run_lengths(mask: np.ndarray) -> list[int]:
    """Column-major run lengths of a bool mask, background first (the COCO convention)."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    if not flat.size:
        return []
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def mask_from_run_lengths(runs: list[int], height: int, width: int) -> np.ndarray:
    """The (height, width) bool mask of column-major run lengths; raises `ProtocolError`."""
    if sum(runs) != height * width:
        raise ProtocolError(f"a mask of {sum(runs)} pixels is none of {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _track_frame(message: TrackArray) -> TrackFrame:
    if message.height * message.width > _MOST_PIXELS:
        raise ProtocolError(f"tracks in a picture of {message.height} x {message.width} pixels")
    labels = np.zeros((message.height, message.width), np.uint16)
    for track in (t for t in message.tracks if len(t.mask_rle)):
        labels[mask_from_run_lengths(list(track.mask_rle), *labels.shape)] = track.id
    return TrackFrame(
        frame_id=message.frame_id,
        keyframe_id=message.keyframe_id,
        stamp_ns=nanoseconds(message.header.stamp),
        tracks=tuple(_track(track) for track in message.tracks),
        labels=labels,
    )


def _track(message: TrackMessage) -> Track:
    x0, y0, x1, y1 = (int(number) for number in message.box)
    return Track(
        id=message.id,
        label=message.label,
        score=message.score,
        box_px=(x0, y0, x1, y1),
        area_px=message.area,
        age_frames=message.age,
        state=TrackState(message.state),
        candidates=_candidates(message),
    )


def _candidates(message: TrackMessage | MapObjectMessage) -> Candidates:
    shares = (float(share) for share in message.candidate_scores)
    return tuple(zip(message.candidate_labels, shares, strict=True))


def _object_array(item: MapObjects) -> list[MapObjectArray]:
    message = MapObjectArray(scale_state=item.scale.value)
    message.header.stamp = time_message(item.stamp_ns)
    message.header.frame_id = world_frame(item.scale)
    message.objects = [object_message(thing) for thing in item.objects]
    return [message]


def object_message(thing: MapObject) -> MapObjectMessage:
    """One object of the map as its message."""
    x, y, z = (float(edge) for edge in thing.size)
    return MapObjectMessage(
        id=thing.id,
        label=thing.label,
        score=thing.score,
        pose=pose_message(thing.world_from_box),
        size=Vector3(x=x, y=y, z=z),
        point_count=thing.point_count,
        last_seen=time_message(thing.last_seen_ns),
        first_seen=time_message(thing.first_seen_ns),
        sightings=thing.sightings,
        moving=thing.moving,
        candidate_labels=[label for label, _ in thing.candidates],
        candidate_scores=[share for _, share in thing.candidates],
        identity=thing.identity,
    )


def _map_objects(message: MapObjectArray) -> MapObjects:
    return MapObjects(
        stamp_ns=nanoseconds(message.header.stamp),
        objects=tuple(map_object(thing) for thing in message.objects),
        scale=ScaleState(message.scale_state),
    )


def map_object(message: MapObjectMessage) -> MapObject:
    """The object that a message tells of."""
    return MapObject(
        id=message.id,
        label=message.label,
        score=message.score,
        world_from_box=pose_matrix(message.pose),
        size=np.array([message.size.x, message.size.y, message.size.z]),
        point_count=message.point_count,
        last_seen_ns=nanoseconds(message.last_seen),
        first_seen_ns=nanoseconds(message.first_seen),
        sightings=message.sightings,
        moving=message.moving,
        candidates=_candidates(message),
        identity=message.identity,
    )


class LabelImageAdapter:
    """`TrackFrame` → `sensor_msgs/Image` (mono16): the track id at each pixel, 0 = none."""

    ros_type = Image

    def dump(self, item: TrackFrame) -> list[bytes]:
        return [image_cdr(item.labels, "mono16", item.stamp_ns)]

    def load(self, cdr: bytes) -> TrackFrame:
        message = deserialize_message(cdr, Image)
        shape = (message.height, message.width)
        stamp_ns = nanoseconds(message.header.stamp)
        labels = np.frombuffer(message.data, np.uint16).reshape(shape)
        return TrackFrame(
            frame_id=stamp_ns, keyframe_id=0, stamp_ns=stamp_ns, tracks=(), labels=labels
        )


TRACKS = MessageAdapter(TrackArray, _track_array, _track_frame)
OBJECTS = MessageAdapter(MapObjectArray, _object_array, _map_objects)
