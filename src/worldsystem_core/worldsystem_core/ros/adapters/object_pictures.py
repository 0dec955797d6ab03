# SPDX-License-Identifier: Apache-2.0
"""What people look at: the overlay, markers, crops of objects and what was said of them."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Vector3
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray
from worldsystem_msgs.msg import ObjectCrop as ObjectCropMessage
from worldsystem_msgs.msg import ObjectIdentity as ObjectIdentityMessage

from worldsystem_core.objects import (
    IdentifyOutcome,
    MapObject,
    MapObjects,
    ObjectCrop,
    ObjectIdentity,
    ShownTracks,
)
from worldsystem_core.overlay import draw_tracks, id_colour
from worldsystem_core.ros.adapters.camera import image_cdr
from worldsystem_core.ros.adapters.messages import (
    CAMERA_FRAME,
    MessageAdapter,
    nanoseconds,
    pose_message,
    scale_of,
    time_message,
    world_frame,
)

_OPACITY = 0.35


class OverlayAdapter:
    """`ShownTracks` → `sensor_msgs/Image` (rgb8), drawn only when somebody reads it."""

    ros_type = Image

    def dump(self, item: ShownTracks) -> list[bytes]:
        return [image_cdr(draw_tracks(item), "rgb8", item.tracks.stamp_ns)]

    def load(self, cdr: bytes) -> ShownTracks:
        raise TypeError("segment/overlay is for viewers; subscribe to segment/tracks for tracks")


def _markers(item: MapObjects) -> list[MarkerArray]:
    clear = Marker(action=Marker.DELETEALL)
    clear.header.frame_id = world_frame(item.scale)
    shown = [marker for thing in item.objects for marker in _marker_pair(thing, item)]
    return [MarkerArray(markers=[clear, *shown])]


def _marker_pair(thing: MapObject, item: MapObjects) -> list[Marker]:
    red, green, blue = (channel / 255.0 for channel in id_colour(thing.id))
    x, y, z = (max(float(edge), 1e-6) for edge in thing.size)
    box = Marker(ns="objects", id=thing.id, type=Marker.CUBE, lifetime=Duration())
    box.pose, box.scale = pose_message(thing.world_from_box), Vector3(x=x, y=y, z=z)
    box.color = ColorRGBA(r=red, g=green, b=blue, a=_OPACITY)
    name = Marker(ns="labels", id=thing.id, type=Marker.TEXT_VIEW_FACING)
    name.pose = box.pose
    name.scale.z = 0.15 * max(x, y, z)
    name.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    name.text = f"{thing.id} {thing.identity or thing.label}"
    for marker in (box, name):
        marker.header.stamp = time_message(item.stamp_ns)
        marker.header.frame_id = world_frame(item.scale)
    return [box, name]


def _no_objects(message: object) -> MapObjects:
    raise TypeError("segment/markers is for rviz2; subscribe to segment/objects for objects")


def _crop_message(crop: ObjectCrop) -> list[ObjectCropMessage]:
    message = ObjectCropMessage(
        id=crop.id,
        label=crop.label,
        box=np.array(crop.box_px, np.int32),
        sharpness=crop.sharpness,
        crop_count=crop.crop_count,
        source_count=crop.source_count,
    )
    message.header.stamp = message.image.header.stamp = time_message(crop.stamp_ns)
    message.header.frame_id = message.image.header.frame_id = CAMERA_FRAME
    message.image.format, message.image.data = crop.format, crop.data
    return [message]


def _crop(message: ObjectCropMessage) -> ObjectCrop:
    x0, y0, x1, y1 = (int(number) for number in message.box)
    return ObjectCrop(
        id=message.id,
        label=message.label,
        stamp_ns=nanoseconds(message.header.stamp),
        box_px=(x0, y0, x1, y1),
        sharpness=message.sharpness,
        crop_count=message.crop_count,
        source_count=message.source_count,
        data=bytes(message.image.data),
        format=message.image.format,
    )


def _identity_message(said: ObjectIdentity) -> list[ObjectIdentityMessage]:
    message = ObjectIdentityMessage(
        id=said.id,
        label=said.label,
        outcome=said.outcome.value,
        answer=said.answer,
        problem=said.problem,
        latency_s=said.latency_s,
        attempts=said.attempts,
    )
    message.header.stamp = time_message(said.stamp_ns)
    message.header.frame_id = world_frame(said.scale)
    return [message]


def _identity(message: ObjectIdentityMessage) -> ObjectIdentity:
    return ObjectIdentity(
        id=message.id,
        label=message.label,
        stamp_ns=nanoseconds(message.header.stamp),
        outcome=IdentifyOutcome(message.outcome),
        answer=message.answer,
        problem=message.problem,
        latency_s=message.latency_s,
        attempts=message.attempts,
        scale=scale_of(message.header.frame_id),
    )


MARKERS = MessageAdapter(MarkerArray, _markers, _no_objects)
CROPS = MessageAdapter(ObjectCropMessage, _crop_message, _crop)
IDENTITIES = MessageAdapter(ObjectIdentityMessage, _identity_message, _identity)
